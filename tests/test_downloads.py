"""Downloads from servers that are slow, lie, send elsewhere, or talk to the terminal."""

import re
import socket
import threading
import time
import tracemalloc

import pytest
import servers
from servers import serving

import input_data
from support import downloads
from support.downloads import DownloadError, fetch, is_protected

NAME = "train-images-idx3-ubyte.gz"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1,127.0.0.2")


def refused(url, path, **options):
    """-> the one line with which a download is refused."""
    with pytest.raises(DownloadError) as error:
        fetch(url, path, **options)
    line = str(error.value)
    assert line.isprintable() and len(line) < 1000
    return line


@pytest.mark.parametrize("handler", [servers.Drip, servers.DripHeader])
def test_a_byte_now_and_then_has_an_end(tmp_path, handler):
    with serving(handler) as url:
        began = time.monotonic()
        line = refused(url, tmp_path / "file", grace=0.5)
        assert time.monotonic() - began < 5
    assert line.startswith(f"{url}: ") and line.endswith(f"wanted {downloads.SLOWEST} a second")


def test_a_server_that_says_nothing_has_an_end(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert "0 bytes in" in refused(url, tmp_path / "file", grace=0.3)


def test_fast_enough_for_longer_than_the_grace_is_good(tmp_path):
    class Steady(servers.Short):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            for _ in range(10):
                self.wfile.write(bytes(downloads.SLOWEST))
                time.sleep(0.1)

    with serving(Steady) as url:
        fetch(url, tmp_path / "file", grace=0.2)
    assert (tmp_path / "file").stat().st_size == 10 * downloads.SLOWEST


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("http://[::1", "ValueError Invalid IPv6 URL"),
        (f"https://{'a' * 80}.invalid/", "label"),
        ("https://b\u00fccher.invalid/", "."),
        ("https://a b/", "."),
        ("https://host.invalid:99999/", "."),
        ("https://host.invalid:port/", "port"),
        ("http://192.0.2.1/x", "address: http://192.0.2.1/x, wanted https"),
        ("http://192.0.2.1/" + "x" * 20_000, "wanted https"),
        ("ftp://192.0.2.1/x", "wanted https|not allowed"),
        ("file:///etc/passwd", "wanted https|not allowed"),
        ("\x1b[2J", "HTTP Error 404|redirects"),
        ("/again", "more than 5 redirects"),
        ("https://" + "x/" * 20_000, "."),
    ],
)
def test_where_a_redirect_may_lead(tmp_path, monkeypatch, target, why):
    monkeypatch.setattr(servers.Redirect, "target", target)
    with serving(servers.Redirect) as url:
        assert re.search(why, refused(url, tmp_path / "file", grace=10))


def test_the_body_of_a_redirect_takes_no_memory(tmp_path):
    with serving(servers.PouringRedirect) as url:
        tracemalloc.start()
        try:
            assert "more than 5 redirects" in refused(url, tmp_path / "file", grace=10)
            assert tracemalloc.get_traced_memory()[1] < 2**22
        finally:
            tracemalloc.stop()


def test_a_servers_words_command_no_terminal(tmp_path, capfd):
    with serving(servers.Commanding) as url:
        line = refused(url, tmp_path / "file")
        with pytest.raises(input_data.DataError) as error:
            input_data.download(NAME, tmp_path / "to", [url])
    assert r"\x1b[2J" in line and "..." in line
    assert str(error.value).isprintable()
    assert "\x1b]0;" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("url", "protected"),
    [
        ("https://example.org/", True),
        ("http://localhost:80/", True),
        ("http://[::1]/", True),
        ("http://example.org/", False),
        ("http://localhost.example.org/", False),
        ("http://127.0.0.1@example.org/", False),
        ("ftp://127.0.0.1/", False),
        ("http://[::1", False),
        ("", False),
    ],
)
def test_protected_addresses(url, protected):
    assert is_protected(url) == protected


def test_http_is_taken_where_the_caller_has_a_checksum(tmp_path):
    with serving(servers.Short, host="127.0.0.2") as url:
        assert "wanted https" in refused(url, tmp_path / "file")
        assert "bytes: 400, wanted 5000" in refused(url, tmp_path / "file", verified=True)


def test_what_is_wrong_with_the_disk_is_not_the_servers_fault(tmp_path):
    with serving(servers.Endless) as url, pytest.raises(OSError, match="No space left"):
        fetch(url, "/dev/full")
    with serving(servers.Endless) as url, pytest.raises(FileNotFoundError):
        fetch(url, tmp_path / "no" / "file")


def test_a_transfer_that_was_given_up_makes_no_file(tmp_path):
    class Late(servers.Short):
        def do_GET(self):
            time.sleep(0.6)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bytes(100))

    path = tmp_path / "file"
    with serving(Late) as url:
        refused(url, path, grace=0.2)
        path.unlink()
        time.sleep(0.8)
    assert not path.exists()


def test_a_refused_transfer_stops(tmp_path):
    with serving(servers.Drip) as url:
        refused(url, tmp_path / "file", grace=0.2)
        time.sleep(0.5)
        assert not any(isinstance(t, downloads._Transfer) for t in threading.enumerate())
