"""A file is the old one or the whole new one."""

import os
import stat

import pytest

from atomic import replacing


def test_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_temporary_is_a_neighbour_with_the_same_suffix(tmp_path):
    with replacing(str(tmp_path / "a.b.npz")) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".npz"
        temporary.touch()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_exception_keeps_the_old_file_and_removes_the_new_one(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_exception_before_anything_was_written(tmp_path):
    with pytest.raises(RuntimeError), replacing(tmp_path / "a.txt"):
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as one, replacing(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"  # the outer one ends last
    assert os.listdir(tmp_path) == ["a.txt"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "a") as temporary:
        temporary.touch()
    modes = {stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("plain", "a")}
    assert len(modes) == 1


def test_places_that_cannot_hold_a_file(tmp_path):
    with pytest.raises(ValueError, match=r"no folder .*missing"):
        replacing(tmp_path / "missing" / "a.txt").__enter__()
    with pytest.raises(ValueError, match="it is a folder"):
        replacing(tmp_path).__enter__()
