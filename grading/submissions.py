"""What is to be marked: one file as it lies, or everything in a folder, each copied alone."""

import contextlib
import errno
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from grading import candidate
from grading.messages import printable
from support.errors import UserError

LARGEST = 2**20  # bytes of a file that somebody wrote


@dataclass(frozen=True)
class Submission:
    """A student's name, and the file and the class to mark.

    folder: what else came with the file and may be imported; None if nothing did.
    in_place: whether the file is run where it lies.
    """

    name: str
    path: Path
    class_name: str
    folder: Path | None = None
    in_place: bool = False

    @contextlib.contextmanager
    def opened(self):
        """-> the path to run: a copy in a folder of its own, which goes away afterwards.

        OSError if it cannot be read or is too large.
        """
        if self.in_place:
            yield self.path
            return
        if self.path.stat().st_size > LARGEST:
            raise OSError(errno.EFBIG, f"larger than {LARGEST // 2**20} MB")
        with tempfile.TemporaryDirectory(prefix="submission-") as top:
            own = Path(top) / "submission"
            own.mkdir()
            for file in _python_files(self.folder) if self.folder else [self.path]:
                copy = own / file.relative_to(self.folder or self.path.parent)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
            yield own / self.path.name


def find(text, leave_out=None):
    """`FILE.py[:CLASS]` or `FOLDER[:CLASS]` -> list of `Submission`, by name.

    In a folder every `.py` is a student's, and so is every folder: its `gan.py`, else the first
    file that has the class. leave_out: a folder that is none. UserError if there is nothing.
    """
    place, _, class_name = text.rpartition(":") if ":" in text else (text, "", "Gan")
    folder = Path(place)
    if not place or not folder.is_dir():
        path, class_name = candidate.parse(text)
        return [Submission(printable(path.stem), path, class_name, in_place=True)]
    if not class_name.isidentifier():
        raise UserError(f"{text}: wanted path/to/folder:Class")
    left_out = leave_out and Path(leave_out).resolve()
    entries = [e for e in folder.iterdir() if e.name[0] not in "._" and e.resolve() != left_out]
    found = list(filter(None, (_of_entry(entry, class_name) for entry in sorted(entries))))
    if not found:
        raise UserError(f"{folder}: no .py file in it, and no folder with one")
    return _distinct(found)


def _of_entry(entry, class_name):
    """A file or a folder -> its `Submission`, or None if it is none."""
    if entry.is_dir():
        return _of_folder(entry, class_name)
    whole = entry.suffix == ".py" and entry.is_file()
    return Submission(printable(entry.stem), entry.absolute(), class_name) if whole else None


def _of_folder(folder, class_name):
    files = [file for file in _python_files(folder) if file.parent == folder]
    # sorted keeps the order among equals: gan.py first, then those that may have the class.
    chosen = sorted(
        files, key=lambda f: (f.name != "gan.py", candidate.surely_lacks(f, class_name))
    )
    return Submission(printable(folder.name), chosen[0], class_name, folder) if chosen else None


def _python_files(folder):
    files = sorted(folder.rglob("*.py"))
    return [f for f in files if f.is_file() and not f.is_symlink() and f.stat().st_size <= LARGEST]


def _distinct(submissions):
    """The same; UserError if two students have one name."""
    names = [submission.name.lower() for submission in submissions]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two submissions of one name: {', '.join(twice)}")
    return submissions
