"""Downloads from real servers: mirrors, checksums and failures."""

import dataclasses
import gzip
import hashlib
import re

import pytest
from servers import Commanding, Endless, Short, redirect_to, serving
from small_sets import NAMES, payloads, write_set

import input_data
from input_data import DataError, maybe_download, read_data_sets, read_idx
from support import data_sets, downloads

TRAIN_IMAGES, TRAIN_LABELS, _, TEST_LABELS = NAMES
NAME = f"{TRAIN_IMAGES}.gz"
CONTENT = payloads()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1,127.0.0.2")


@pytest.fixture
def small(tmp_path):
    return write_set(tmp_path / "small")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def failure(folder, url):
    """Returns the line with which a download fails, after checks that nothing is left."""
    with pytest.raises(DataError) as error:
        read_data_sets(folder / "new" / "to", source_url=url)
    line = str(error.value)
    assert line.isprintable() and len(line) < 1000
    assert not (folder / "new").exists()
    return line


def publish(monkeypatch, mirrors, sha256):
    """Makes a set of these checksums MNIST, with these mirrors."""
    info = dataclasses.replace(input_data.known("mnist"), mirrors=mirrors, sha256=sha256)
    monkeypatch.setitem(data_sets._KNOWN, "mnist", info)


@pytest.mark.parametrize("slash", ["/", ""])
def test_only_missing_files_are_downloaded(tmp_path, small, slash):
    folder = write_set(tmp_path / "partly", suffix="")
    (folder / TEST_LABELS).unlink()
    with serving(write_set(tmp_path / "other", train=11)) as url:
        sets = read_data_sets(folder, validation_size=0, source_url=url.rstrip("/") + slash)
    assert sets.train.num_examples == 30
    assert (folder / f"{TEST_LABELS}.gz").read_bytes() == (small / f"{TEST_LABELS}.gz").read_bytes()
    no_server = "http://127.0.0.1:9/"
    assert read_data_sets(folder, validation_size=0, source_url=no_server).test.num_examples == 7


@pytest.mark.parametrize(
    ("part", "packed"),
    [
        ("file", gzip.compress),
        ("payload", gzip.compress),
        ("payload", lambda content: gzip.compress(content, 1)),
        ("payload", bytes),  # from servers that decompress
    ],
)
def test_mirrors_are_tried_in_turn_by_checksum(tmp_path, small, monkeypatch, part, packed):
    """The checksum may be of the payload or of the file; other files are rejected."""
    for name in NAMES:
        (small / f"{name}.gz").write_bytes(packed(CONTENT[name]))
    files = [(small / f"{name}.gz").read_bytes() for name in NAMES]
    digests = tuple(map(sha256, files if part == "file" else CONTENT.values()))
    with serving(write_set(tmp_path / "other", train=11)) as other, serving(small) as good:
        publish(monkeypatch, (f"{other}none/", other, good), digests)
        sets = read_data_sets(tmp_path / "to", validation_size=0)
    assert sets.train.num_examples == 30
    assert {path.name for path in (tmp_path / "to").iterdir()} == {f"{name}.gz" for name in NAMES}


def test_only_an_explicit_set_is_downloaded_into_a_folder_of_nothing_else(
    tmp_path, small, monkeypatch
):
    folder = tmp_path / "to"
    with serving(small) as url:
        publish(monkeypatch, (url,), tuple(map(sha256, CONTENT.values())))
        with pytest.raises(DataError, match="is missing or empty; correct it, or add"):
            input_data.load(data_dir=folder)
        assert not folder.exists()
        assert input_data.load("mnist", folder)[1].name == "mnist"
        (folder / NAME).unlink()
        with pytest.raises(DataError, match=f"lacks {TRAIN_IMAGES}; correct it"):
            input_data.load(data_dir=folder)
        assert input_data.load("mnist", folder)[1].name == "mnist"
        for path in folder.iterdir():
            path.rename(path.with_suffix(".txt"))
        with pytest.raises(DataError, match="nothing was downloaded"):
            input_data.load("mnist", folder)


def test_failure_names_the_file_and_each_mirrors_reason(tmp_path, small, monkeypatch):
    with serving(small) as good, serving(small / "none") as empty:
        publish(monkeypatch, (good, empty), 4 * ("0" * 64,))
        with pytest.raises(DataError) as error:
            read_data_sets(tmp_path / "to")
    line = str(error.value)
    assert line.startswith(f"{tmp_path / 'to'} lacks {NAME} and downloading it failed (expected ")
    found = sha256(CONTENT[TRAIN_IMAGES])
    for reason in (f"SHA-256 {'0' * 64}, found ", found, "404 Client Error"):
        assert reason in line
    assert line.endswith("); copy the four files there") and "http" not in line
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Short, "400 bytes read, 4600 more expected"),
        (Commanding, r"\x1b[2J"),
        (Endless, "at most 100000 bytes, found more"),
        (redirect_to("/again"), "Exceeded 30 redirects"),
        (b"<html>Log in to this network</html>", "found an HTML page"),
    ],
)
def test_bad_server_or_file_is_one_line_and_leaves_nothing(
    tmp_path, small, bad, message, monkeypatch, capfd
):
    monkeypatch.setattr(downloads, "MAX_BYTES", 100_000)
    if isinstance(bad, bytes):
        (small / NAME).write_bytes(bad)
    with serving(small if isinstance(bad, bytes) else bad) as url:
        line = failure(tmp_path, url)
    assert message in line and url not in line
    assert "\x1b" not in "".join(capfd.readouterr())


def test_redirects_to_plain_http_are_rejected(tmp_path, small):
    with serving(small, host="127.0.0.2") as other, serving(redirect_to(f"{other}{NAME}")) as url:
        assert "(expected an https address)" in failure(tmp_path, url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:9", "Connection refused"),
        *(
            (url, "an https address")
            for url in ("ftp://127.0.0.1/", "file:///tmp/", "https://[::1")
        ),
        ("https://" + "x" * 100, "label empty or too long"),
        ("https://\u00fc\x1b[2J.test", ""),
    ],
)
def test_unsafe_and_invalid_addresses(tmp_path, url, message):
    assert re.search(message, failure(tmp_path, url))


def test_plain_http_is_only_for_known_files(tmp_path, small, monkeypatch):
    """Like Fashion-MNIST's own page tells readers of the removed module to fetch it."""
    with serving(small, host="127.0.0.2") as url:
        assert "expected SHA-256 " in failure(tmp_path, url)
        publish(monkeypatch, (), tuple(map(sha256, CONTENT.values())))
        sets = read_data_sets(tmp_path / "to", source_url=url, validation_size=0)
        assert sets.train.num_examples == 30
        path = maybe_download(f"{TRAIN_LABELS}.gz", tmp_path / "more", f"{url}{TRAIN_LABELS}.gz")
        assert len(read_idx(path)) == 30
    for host in ("example.org", "localhost.example.org", "127.0.0.1@example.org"):
        with pytest.raises(DataError, match=f"http://{host}/file: expected an https"):
            maybe_download("mine-idx3-ubyte", tmp_path, f"http://{host}/file")


def test_maybe_download_takes_any_valid_file_from_this_machine(tmp_path, small):
    (small / "other").write_bytes((small / NAME).read_bytes())
    with serving(small) as url:
        path = maybe_download(NAME, tmp_path / "to", f"{url}other")
    assert len(read_idx(path)) == 30
    assert maybe_download(NAME, tmp_path / "to", "https://localhost/none") == path
