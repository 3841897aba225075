"""Downloads from real servers: mirrors, checksums and failures."""

import contextlib
import dataclasses
import gzip
import hashlib

import pytest
from servers import Endless, Short, serving
from small_sets import NAMES, idx, payloads, write_set

import input_data
from input_data import DataError, read_data_sets
from support import data_sets, downloads

TRAIN_IMAGES, _, _, TEST_LABELS = NAMES
NAME = f"{TRAIN_IMAGES}.gz"
CONTENT = payloads()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def small(tmp_path):
    return write_set(tmp_path / "small")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def publish(monkeypatch, mirrors, sha256):
    """Makes a set of these checksums MNIST, with these mirrors."""
    info = dataclasses.replace(input_data.known("mnist"), mirrors=mirrors, sha256=sha256)
    monkeypatch.setitem(data_sets._KNOWN, "mnist", info)


@pytest.mark.parametrize("slash", ["/", ""])
def test_only_missing_files_are_downloaded(tmp_path, small, monkeypatch, slash):
    folder = write_set(tmp_path / "partly", suffix="")
    (folder / TEST_LABELS).unlink()
    publish(monkeypatch, (), tuple(map(sha256, CONTENT.values())))
    with serving(write_set(tmp_path / "other")) as url:
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


def test_files_of_two_sets_are_not_mixed(tmp_path, small, monkeypatch):
    """The server's labels are those of another known set."""
    publish(monkeypatch, (), tuple(map(sha256, CONTENT.values())))
    digests = [sha256(idx([k] * 30)) for k in range(4)]
    other = dataclasses.replace(input_data.known("kmnist"), sha256=tuple(digests))
    monkeypatch.setitem(data_sets._KNOWN, "kmnist", other)
    (small / f"{NAMES[1]}.gz").write_bytes(gzip.compress(idx([1] * 30)))
    with (
        serving(small) as url,
        pytest.raises(DataError, match="the file of MNIST, found another one"),
    ):
        read_data_sets(tmp_path / "to", source_url=url)


def test_failure_names_the_file_and_each_mirrors_reason(tmp_path, small, monkeypatch):
    with serving(small) as good, serving(small / "none") as empty:
        publish(monkeypatch, (good, empty), 4 * ("0" * 64,))
        with pytest.raises(DataError) as error:
            read_data_sets(tmp_path / "to")
    line = str(error.value)
    assert line.startswith(f"{tmp_path / 'to'} lacks {NAME} and downloading it failed (127.0.0.1:")
    for reason in ("the file of MNIST, found another one (SHA-256 ", ": 404 File not found"):
        assert reason in line
    assert line.endswith("); copy the four files there") and "http" not in line
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Short, "ChunkedEncodingError"),
        (Endless, "at most 100000 bytes, found more"),
        (b"<html>Log in to this network</html>", "found a file that starts with b'<html>"),
        ("http://127.0.0.1:9", "127.0.0.1:9: ConnectionError"),
    ],
)
def test_bad_server_or_file_is_one_line_and_leaves_nothing(
    tmp_path, small, bad, message, monkeypatch
):
    monkeypatch.setattr(downloads, "MAX_BYTES", 100_000)
    if isinstance(bad, bytes):
        (small / NAME).write_bytes(bad)
    where = serving(small if isinstance(bad, bytes) else bad)
    with contextlib.nullcontext(bad) if isinstance(bad, str) else where as url:
        with pytest.raises(DataError) as error:
            read_data_sets(tmp_path / "new" / "to", source_url=url)
        line = str(error.value)
        assert message in line and url not in line
    assert line.isprintable() and len(line) < 1000
    assert not (tmp_path / "new").exists()
