"""A file is the old one or the whole new one."""

import fcntl
import os
import stat
import subprocess
from pathlib import Path

import pytest

from support.errors import UserError, user_message
from support.files import atomic_write, open_regular, remove_stale_files


def test_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_temporary_is_a_neighbour_with_the_same_suffix(tmp_path):
    with atomic_write(str(tmp_path / "a.b.npz")) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".npz"
        temporary.touch()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_exception_keeps_the_old_file_and_removes_the_new_one(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_exception_before_anything_was_written(tmp_path):
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "a.txt"):
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_write(path) as one, atomic_write(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"  # the outer one ends last
    assert os.listdir(tmp_path) == ["a.txt"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "a") as temporary:
        temporary.touch()
    modes = {stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("plain", "a")}
    assert len(modes) == 1


def test_places_that_cannot_hold_a_file(tmp_path):
    with pytest.raises(ValueError, match=r"no folder .*missing"):
        atomic_write(tmp_path / "missing" / "a.txt").__enter__()
    with pytest.raises(ValueError, match="it is a folder"):
        atomic_write(tmp_path).__enter__()


def test_devices_and_fifos_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/full"):
        with pytest.raises(UserError, match=r"cannot write \S+: it is no ordinary file"):
            atomic_write(path).__enter__()


def test_a_link_stays_one(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "b.txt").write_text("old")
    os.symlink("there/b.txt", tmp_path / "a.txt")
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "there" / "b.txt").read_text() == "new"
    assert os.listdir(tmp_path / "there") == ["b.txt"]


@pytest.mark.parametrize("stem", ["n" * 246, "é" * 123, "n" + "漢" * 81])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path, stem):
    path = tmp_path / f"{stem}.png"
    with atomic_write(path) as temporary:
        assert temporary.match(".*.unfinished-*.png")
        temporary.write_text("new")
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_text() == "new"


def test_a_name_too_long_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="too long"):
        atomic_write(tmp_path / f"{'n' * 260}.png").__enter__()
    assert os.listdir(tmp_path) == []


def test_leftovers_of_the_dead_are_cleared_and_nothing_else(tmp_path):
    dead = tmp_path / "deep" / ".a.unfinished-0123abcd.txt"
    kept = [
        tmp_path / ".thesis.unfinished-chapter.txt",
        tmp_path / "a.unfinished-0123abcd.txt",
        tmp_path / ".a.unfinished-0123abcd.folder",
    ]
    dead.parent.mkdir()
    for path in (dead, *kept[:2]):
        path.write_text("x")
    kept[2].mkdir()
    os.mkfifo(tmp_path / ".b.unfinished-0123abcd")
    with atomic_write(tmp_path / "b.txt") as living:
        remove_stale_files(tmp_path)
        assert living.exists()
        living.write_text("x")
    assert not dead.exists()
    assert all(path.exists() for path in kept)
    assert (tmp_path / ".b.unfinished-0123abcd").exists()


def test_a_temporary_file_cleared_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    """At the worst moment another process takes it for a leftover: just before the lock."""
    flock = fcntl.flock

    def late(handle, kind):
        monkeypatch.undo()
        Path(os.readlink(f"/proc/self/fd/{handle}")).unlink()
        flock(handle, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    with atomic_write(tmp_path / "a.txt") as temporary:
        assert temporary.exists()
        temporary.write_text("new")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_keeps_the_old_file_and_removes_the_new_one(tmp_path):
    words = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    mounted = subprocess.run(words, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        (tmp_path / "a.txt").write_text("old")
        with pytest.raises(OSError) as error, atomic_write(tmp_path / "a.txt") as new:
            new.write_bytes(bytes(200_000))
        assert user_message(error.value) == f"{tmp_path / 'a.txt'}: No space left on device"
        assert (tmp_path / "a.txt").read_text() == "old"
        assert os.listdir(tmp_path) == ["a.txt"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.timeout(20)
def test_only_ordinary_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("x")
    os.symlink("file", tmp_path / "link")
    for path in (tmp_path / "fifo", tmp_path, "/dev/zero"):
        with pytest.raises(UserError, match=r"\S+ is no ordinary file"):
            open_regular(path)
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"x"
