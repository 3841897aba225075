"""What is to be marked: one file, or everything in a folder, one entry for each student."""

import ast
import contextlib
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grading.process import printable
from grading.structure import UNREADABLE, surely_lacks
from grading.worker import ROOT
from support.errors import UserError

# Bytes of the largest file of each type that is read.
LARGEST = {".py": 2**20, ".ipynb": 2**24, ".zip": 2**26}
MOST_FILES = 1000
# Lines of a notebook that are not Python: `%matplotlib inline`, `files = !ls`, `Gan?`.
MAGIC = re.compile(r"^(\s*(?:[\w, ]+=)?\s*)(?:[%!?].*|[\w.]+\?{1,2}\s*)$")
CELL_MAGICS_OF_PYTHON = ("%%time", "%%timeit", "%%capture")


class Unmarkable(Exception):
    """A hand-in without a file that can be run; the text is the reason."""


@dataclass(frozen=True)
class Submission:
    """What one student has handed in.

    Attributes:
      name: the student's name, that of the file or folder.
      source: the file or folder.
      class_name: the class to mark.
      in_place: whether the file is run where it is, and may import its neighbours.
    """

    name: str
    source: Path
    class_name: str
    in_place: bool = False

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[Path, Path]]:
        """Context manager that provides the file to run and the folder of all the student's files.

        The folder is a temporary copy, unless the file is run in place. Raises Unmarkable.
        """
        if self.in_place:
            yield self.source, self.source.parent
            return
        with tempfile.TemporaryDirectory(prefix="submission-") as top:
            folder = Path(top).resolve() / "submission"
            folder.mkdir()
            try:
                copy_files(self.source, folder)
                path = choose_file(folder, self.class_name)
            except OSError as error:
                raise Unmarkable(f"it cannot be read: {error.strerror or error}") from error
            yield path, folder


def find(text: str, exclude: Path | None = None) -> list[Submission]:
    """Finds what is to be marked.

    Args:
      text: `FILE[:CLASS]` or `FOLDER[:CLASS]`; in a folder, every file and folder is a student's.
      exclude: a folder in it that is not a student's.

    Returns:
      A list, by name.

    Raises:
      UserError: there is nothing to mark, or two students have one name.
    """
    place, class_name = text, "Gan"
    if ":" in text and not Path(text).exists():
        place, _, class_name = text.rpartition(":")
    path = Path(place).absolute()
    if not (place and class_name.isidentifier()):
        raise UserError(f"expected FILE.py:CLASS or FOLDER:CLASS, such as gan.py:Gan, got {text!r}")
    if path.is_dir():
        excluded = exclude and Path(exclude).resolve()
        entries = [e for e in sorted(path.iterdir()) if not hidden(e) and e.resolve() != excluded]
        if not entries:
            raise UserError(f"{place} contains nothing to mark")
        found = [submission_of(entry, class_name) for entry in entries]
        names = [each.name.lower() for each in found]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"two submissions have the same name: {', '.join(twice)}; rename one")
        return found
    if not path.is_file():
        raise UserError(f"{text}: no such file: {path}")
    if path.suffix == ".py" and surely_lacks(path, class_name):
        raise UserError(f"{text}: no class {class_name} in {path}")
    # A file in the project's folder is copied: its neighbours contain the solution.
    in_place = path.suffix == ".py" and path.parent != ROOT
    return [submission_of(path, class_name, in_place)]


def submission_of(entry, class_name, in_place=False):
    name = entry.name if entry.is_dir() else entry.stem
    return Submission(printable(name), entry, class_name, in_place)


def hidden(path):
    """Returns whether a file is not the student's, such as what systems and editors create."""
    return path.name.startswith((".", "__pycache__", "__MACOSX"))


def copy_files(source, folder):
    """Copies what may be run from a file, folder or archive; raises Unmarkable or OSError."""
    if source.is_dir():
        shutil.copytree(source, folder, ignore=ignored, dirs_exist_ok=True)
    elif source.suffix not in LARGEST:
        raise Unmarkable("it is not a .py file, notebook, .zip or folder")
    elif source.stat().st_size > LARGEST[source.suffix]:
        raise Unmarkable(f"it is larger than {LARGEST[source.suffix] // 2**20} MB")
    elif source.suffix == ".zip":
        unpack(source, folder)
    else:
        shutil.copyfile(source, folder / source.name)
    for archive in list(folder.rglob("*.zip")):
        unpack(archive, archive.with_suffix(""))


def ignored(folder, names):
    """Returns the names in a folder that are not copied."""
    paths = [Path(folder, name) for name in names]
    own = [path for path in paths if not (path.is_symlink() or hidden(path))]
    kept = [p for p in own if p.is_dir() or p.stat().st_size <= LARGEST.get(p.suffix, -1)]
    return {path.name for path in paths if path not in kept}


def unpack(archive, folder):
    """Unpacks an archive's Python files and notebooks; all of them stay inside the folder."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [m for m in opened.infolist() if Path(m.filename).suffix in (".py", ".ipynb")]
            size = sum(member.file_size for member in members)
            if size > LARGEST[".zip"] or len(members) > MOST_FILES:
                raise Unmarkable("its files are too many or too large")
            for member in members:
                if not any(hidden(Path(part)) for part in Path(member.filename).parts):
                    opened.extract(member, folder)
    except (Unmarkable, OSError):
        raise
    except Exception as error:  # there are many ways for an archive to be damaged
        raise Unmarkable(f"{printable(archive.name)} cannot be unpacked: {error}") from error


def choose_file(folder, class_name):
    """Returns the file with the class: a gan.py, or the uppermost; raises Unmarkable."""

    def preference(path):
        return path.name != "gan.py", len(path.parts), str(path)

    files = sorted(small_files(folder, ".py"), key=preference)
    chosen = [path for path in files if not surely_lacks(path, class_name)]
    if chosen:
        return chosen[0]
    for notebook in sorted(small_files(folder, ".ipynb"), key=preference):
        path = notebook.with_suffix(".py")
        path.write_text(notebook_source(notebook, class_name), encoding="utf-8")
        files.append(path)
        if not surely_lacks(path, class_name):
            return path
    if not files:
        raise Unmarkable("there is no .py file or notebook in it")
    return files[0]


def small_files(folder, suffix):
    files = (path for path in folder.rglob(f"*{suffix}") if path.is_file())
    return [path for path in files if path.stat().st_size <= LARGEST[suffix]]


def notebook_source(path, class_name):
    """Returns a notebook's code cells as one file, without IPython's magics.

    Of the cells after the last one with the class, which mostly train it, only imports and
    definitions are kept.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise Unmarkable(f"{printable(path.name)} is not a notebook of format 4") from error
    sources = [without_magics(source) for source in sources]
    has_class = re.compile(rf"^class {class_name}\b", re.MULTILINE)
    last = max((i for i, source in enumerate(sources) if has_class.search(source)), default=-1)
    if last >= 0:
        sources[last + 1 :] = [definitions(source) for source in sources[last + 1 :]]
    return "\n".join(sources) + "\n"


def without_magics(source):
    """Returns a cell with `None` instead of what is not Python."""
    try:
        ast.parse(source)
        return source
    except UNREADABLE:
        lines = source.splitlines()
    if lines[0].startswith("%%") and not lines[0].startswith(CELL_MAGICS_OF_PYTHON):
        return "\n" * (len(lines) - 1)
    return "\n".join(MAGIC.sub(r"\1None", line) for line in lines)


def definitions(source):
    """Returns only the imports, functions and classes of a cell."""
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    try:
        statements = ast.parse(source).body
    except UNREADABLE:
        return ""
    return "\n".join(ast.unparse(each) for each in statements if isinstance(each, kept))
