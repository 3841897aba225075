"""Downloads from real servers: mirrors, checksums, addresses, and what failures leave."""

import dataclasses
import gzip
import hashlib
import re

import pytest
from servers import Babble, Commanding, Endless, Short, redirect_to, serving
from small_sets import NAMES, numbers_of, payloads, write_set

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
def test_source_url_fills_a_new_folder(tmp_path, small, slash):
    folder = tmp_path / "new" / "folder"
    with serving(small) as url:
        sets = read_data_sets(folder, validation_size=3, source_url=url.rstrip("/") + slash)
    assert numbers_of(sets.train.images) == list(range(3, 30))
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{n}.gz" for n in NAMES)
    for name in NAMES:
        assert (folder / f"{name}.gz").read_bytes() == (small / f"{name}.gz").read_bytes()


def test_only_missing_files_are_downloaded(tmp_path, small):
    folder = write_set(tmp_path / "partly", suffix="")
    (folder / TEST_LABELS).unlink()
    with serving(write_set(tmp_path / "other", train=11)) as url:
        sets = read_data_sets(folder, validation_size=0, source_url=url)
    assert sets.train.num_examples == 30
    assert (folder / f"{TEST_LABELS}.gz").is_file()
    no_server = "http://127.0.0.1:9/"
    assert read_data_sets(folder, validation_size=0, source_url=no_server).test.num_examples == 7


@pytest.mark.parametrize("part", ["payload", "file", "repacked"])
def test_mirrors_are_tried_in_turn_by_checksum(tmp_path, small, monkeypatch, part):
    """The checksum may be of the payload or of the file; other files are rejected."""
    files = [(small / f"{name}.gz").read_bytes() for name in NAMES]
    digests = tuple(map(sha256, files if part == "file" else CONTENT.values()))
    if part == "repacked":
        for name in NAMES:
            (small / f"{name}.gz").write_bytes(gzip.compress(CONTENT[name], 1))
    with serving(write_set(tmp_path / "other", train=11)) as other, serving(small) as good:
        publish(monkeypatch, (f"{other}none/", other, good), digests)
        sets = read_data_sets(tmp_path / "to", validation_size=0)
    assert sets.train.num_examples == 30
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == sorted(
        f"{name}.gz" for name in NAMES
    )


def test_failure_names_each_mirrors_reason_and_the_files_to_get(tmp_path, small, monkeypatch):
    with serving(small) as good, serving(Short) as short, serving(small / "none") as empty:
        publish(monkeypatch, (good, short, empty), 4 * ("0" * 64,))
        with pytest.raises(DataError) as error:
            read_data_sets(tmp_path / "to")
    line = str(error.value)
    assert line.startswith(f"{NAME} is not in {tmp_path / 'to'} and could not be downloaded (")
    assert f"{good}{NAME}: expected SHA-256 {'0' * 64}, found " in line
    assert sha256(CONTENT[TRAIN_IMAGES]) in line
    assert "400 bytes read" in line
    assert "404 Client Error" in line
    assert line.endswith(f": put {', '.join(f'{name}.gz' for name in NAMES)} there by hand")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (Short, "400 bytes read, 4600 more expected"),
        (Babble, "SSH-2.0"),
        (Commanding, r"\x1b[2J"),
        (redirect_to(f"https://{'a' * 80}.invalid/"), "label empty or too long"),
        (redirect_to("/again"), "Exceeded 30 redirects"),
    ],
)
def test_bad_server_is_one_line_and_leaves_nothing(tmp_path, handler, message, capfd):
    with serving(handler) as url:
        line = failure(tmp_path, url)
    assert f"({url}{NAME}: " in line and message in line
    assert "\x1b" not in "".join(capfd.readouterr())


def test_redirects_to_plain_http_are_rejected(tmp_path, small):
    with serving(small, host="127.0.0.2") as other, serving(redirect_to(f"{other}{NAME}")) as url:
        assert f"({other}{NAME}: expected an https address" in failure(tmp_path, url)


def test_size_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "MAX_BYTES", 100_000)
    with (
        serving(Endless) as url,
        pytest.raises(DataError, match="at most 100000 bytes, found more"),
    ):
        maybe_download(NAME, tmp_path / "to", url)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(CONTENT[TRAIN_IMAGES])[:-200], "expected a complete gzip file"),
        (gzip.compress(CONTENT[TRAIN_IMAGES] + b"\0"), "expected 23536 bytes, found more"),
        (gzip.compress(CONTENT[TRAIN_LABELS]), "expected magic number 2051, found 2049"),
        (b"<html>Log in to this network</html>", "expected an IDX file, found an HTML page"),
        (b"", "expected an IDX file, found an empty file"),
    ],
    ids=["cut short", "too long", "labels", "a page", "empty"],
)
def test_bad_file_on_a_server_is_not_kept(tmp_path, small, content, message):
    (small / NAME).write_bytes(content)
    with serving(small) as url:
        assert f"{url}{NAME}: {message}" in failure(tmp_path, url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:9", "Connection refused"),
        *((url, "an https address") for url in ("ftp://127.0.0.1/", "file:///tmp/", "example.org")),
        ("https://[::1", "expected an https address"),
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


@pytest.mark.parametrize("host", ["example.org", "localhost.example.org", "127.0.0.1@example.org"])
def test_plain_http_is_rejected_without_a_checksum(tmp_path, host):
    with pytest.raises(DataError, match=f"http://{host}/file: expected an https"):
        maybe_download("mine-idx3-ubyte", tmp_path, f"http://{host}/file")


def test_maybe_download_takes_any_valid_file_from_this_machine(tmp_path, small):
    (small / "other").write_bytes((small / NAME).read_bytes())
    with serving(small) as url:
        path = maybe_download(NAME, tmp_path / "to", f"{url}other")
    assert len(read_idx(path)) == 30
    assert maybe_download(NAME, tmp_path / "to", "https://localhost/none") == path


def test_servers_that_decompress_are_accepted(tmp_path, small, monkeypatch):
    for name in NAMES:
        (small / f"{name}.gz").write_bytes(CONTENT[name])
    with serving(small) as url:
        publish(monkeypatch, (url,), tuple(map(sha256, CONTENT.values())))
        assert read_data_sets(tmp_path / "to", validation_size=0).train.num_examples == 30


def test_folder_that_cannot_be_created(tmp_path, small):
    (tmp_path / "to").write_bytes(b"a file")
    with serving(small) as url, pytest.raises(FileExistsError):
        read_data_sets(tmp_path / "to", source_url=url)
