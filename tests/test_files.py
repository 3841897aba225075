"""Atomic writing, and what remains of processes that were killed."""

import os

import pytest

from support.errors import UserError
from support.files import atomic_write, remove_stale_files, write_json, write_text

unix = pytest.mark.skipif(os.name == "nt", reason="Windows has other links and devices")


def test_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.b.npz"
    path.write_text("old")
    with atomic_write(str(path)) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".npz"
        temporary.write_text("new")
        assert path.read_text() == "old"
        inode = temporary.stat().st_ino
    assert path.read_text() == "new"
    assert path.stat().st_ino == inode  # not a copy, which a reader could find half done
    assert os.listdir(tmp_path) == [path.name]


def test_text_and_json_have_the_same_bytes_on_every_system(tmp_path):
    write_text(tmp_path / "a.txt", "é\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9\n"
    write_json(tmp_path / "a.json", {"a": [1]})
    assert (tmp_path / "a.json").read_bytes() == b'{\n  "a": [\n    1\n  ]\n}\n'


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_exception_keeps_the_old_file_and_removes_the_new_one(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    for name in ("a.txt", "b.txt"):
        with pytest.raises(error), atomic_write(tmp_path / name) as temporary:
            temporary.write_text("half of the n")
            raise error
    assert os.listdir(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_two_writers_of_one_file_use_two_temporary_files_that_are_known_as_such(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_write(path) as outer, atomic_write(path) as inner, atomic_write(path) as killed:
        for temporary in (outer, inner, killed):
            temporary.write_text(temporary.name)
        os.utime(killed, (0, 0))
        remove_stale_files(tmp_path)
        assert not killed.exists()
        killed.write_text("x")
    assert path.read_text() == outer.name
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing/a.txt", "there is no folder .*missing"),
        (".", "it is not a regular file"),
        pytest.param("/dev/null", "it is not a regular file", marks=unix),
    ],
)
def test_places_that_cannot_hold_a_file(tmp_path, path, message):
    with pytest.raises(UserError, match=rf"cannot write \S+: {message}"):
        write_text(tmp_path / path, "x")


@unix
def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.txt").write_text("old")
    os.symlink("folder/b.txt", tmp_path / "a.txt")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "folder" / "b.txt").read_text() == "new"
    assert os.listdir(tmp_path / "folder") == ["b.txt"]


def test_old_temporary_files_are_removed_and_nothing_else(tmp_path):
    others = [".unfinished-chapter.txt", "a.unfinished-0123abcd.txt"]
    for name in [*others, "deep/er/.unfinished-0123abcd.npz"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        os.utime(path, (0, 0))
    remove_stale_files(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == others
