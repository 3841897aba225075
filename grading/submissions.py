"""The submissions to mark: one file, or one entry for each student in a folder."""

import ast
import contextlib
import json
import re
import symtable
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grading.model_proxy import Source
from grading.structure import UNREADABLE
from grading.worker import ROOT
from support.errors import UserError, one_line

# Bytes of the largest file of each type that is read.
LARGEST = {".py": 2**20, ".ipynb": 2**24, ".zip": 2**26}
# Lines of a notebook that are not Python: `%matplotlib inline`, `files = !ls`, `Gan?`.
MAGIC = re.compile(r"^(\s*(?:[\w, ]+=)?\s*)(?:[%!?].*|[\w.]+\?{1,2}\s*)$")
CELL_MAGICS_OF_PYTHON = ("%%time", "%%timeit", "%%capture")


class Unmarkable(Exception):
    """A submission without a file that can be run; the text is the reason."""


@dataclass(frozen=True)
class Submission:
    """A student's file, folder, archive or notebook.

    Attributes:
      name: The student's name, that of the file or folder.
      path: The file or folder.
      class_name: The class to mark.
      single: Whether the command named this file. A .py file is run where it is then, and may
        import its neighbours.
    """

    name: str
    path: Path
    class_name: str
    single: bool = False

    @contextlib.contextmanager
    def opened(self) -> Iterator[Source]:
        """Context manager that provides the class to run.

        It is in a temporary folder, unless the file is run where it is.

        Raises:
          Unmarkable: If there is none.
        """
        # The neighbours of a file in the project's folder contain the solution.
        if self.single and self.path.suffix == ".py" and self.path.parent != ROOT:
            yield Source(self.path, self.class_name, self.path.parent)
            return
        with tempfile.TemporaryDirectory(prefix="submission-") as top:
            folder = Path(top).resolve() / "submission"
            folder.mkdir()
            try:
                path = write_files(read_files(self.path), folder, self.class_name)
            except Unmarkable:
                raise
            # There are many ways for an archive to be damaged.
            except Exception as error:
                raise Unmarkable(f"it cannot be read: {error}") from error
            yield Source(path, self.class_name, folder)


def find(text: str, exclude: Path | None = None) -> list[Submission]:
    """Finds what is to be marked.

    Args:
      text: `FILE[:CLASS]` or `FOLDER[:CLASS]`; in a folder, every file and folder is a student's.
      exclude: A folder in it that is not a student's.

    Returns:
      A list, by name.

    Raises:
      UserError: If there is nothing to mark, or two students have one name.
    """
    place, class_name = text, "Gan"
    if ":" in text and not Path(text).exists():
        place, _, class_name = text.rpartition(":")
    path = Path(place).absolute()
    if not (place and class_name.isidentifier()):
        raise UserError(f"expected FILE.py:CLASS or FOLDER:CLASS, such as gan.py:Gan, got {text!r}")
    if path.is_dir():
        excluded = exclude and Path(exclude).resolve()
        entries = [each for each in sorted(path.iterdir()) if not hidden(each.name)]
        entries = [each for each in entries if each.resolve() != excluded]
        if not entries:
            raise UserError(f"{place} contains nothing to mark")
        # A report with the name of a file has a name of its own.
        names = [e.stem if e.is_file() and e.suffix in LARGEST else e.name for e in entries]
        lower = [name.lower() for name in names]
        twice = sorted({name for name in lower if lower.count(name) > 1})
        if twice:
            raise UserError(f"two submissions have the same name: {', '.join(twice)}; rename one")
        pairs = zip(names, entries, strict=True)
        return [Submission(one_line(name), entry, class_name) for name, entry in pairs]
    if not path.is_file():
        raise UserError(f"{place} does not exist")
    if path.suffix == ".py" and surely_lacks(path, class_name):
        raise UserError(f"{text}: no class {class_name} in {path}")
    return [Submission(one_line(path.stem), path, class_name, single=True)]


def find_one(text: str) -> Submission:
    """Finds the one submission to mark.

    Raises:
      UserError: If there is none, or several.
    """
    found = find(text)
    if len(found) > 1:
        raise UserError(f"expected one submission, found {len(found)} in {text}")
    return found[0]


def hidden(name):
    """Returns whether a file is not the student's, but a system's or an editor's."""
    return name.startswith((".", "__pycache__", "__MACOSX"))


def read_files(source):
    """Reads the Python files and notebooks of a file, a folder or an archive.

    Returns:
      `{path inside the submission: bytes}`.
    """
    if source.is_dir():
        files = {}
        for path in sorted(source.rglob("*")):
            inside = path.relative_to(source)
            if path.is_symlink() or not path.is_file() or not usable(inside, path.stat().st_size):
                continue
            parent = inside.with_suffix("") if path.suffix == ".zip" else inside.parent
            files.update({parent / name: data for name, data in read_files(path).items()})
        return files
    if source.suffix not in LARGEST:
        raise Unmarkable("it is not a .py file, notebook, .zip or folder")
    if source.stat().st_size > LARGEST[source.suffix]:
        raise Unmarkable(f"it is larger than {LARGEST[source.suffix] // 2**20} MB")
    if source.suffix != ".zip":
        return {Path(source.name): source.read_bytes()}
    with zipfile.ZipFile(source) as archive:
        members = {Path(m.filename): m for m in archive.infolist()}
        members = {path: m for path, m in members.items() if usable(path, m.file_size)}
        if sum(member.file_size for member in members.values()) > LARGEST[".zip"]:
            raise Unmarkable("its unpacked files are too large")
        return {path: archive.read(m) for path, m in members.items() if path.suffix != ".zip"}


def usable(path, size):
    """Returns whether a file of a submission is read.

    No path leads out of the submission's folder.
    """
    hidden_parts = any(hidden(part) for part in path.parts)
    return size <= LARGEST.get(path.suffix, -1) and not path.anchor and not hidden_parts


def write_files(files, folder, class_name):
    """Writes files into a folder and returns the one with the class.

    That is a gan.py, or the uppermost.
    """

    def preference(path):
        return path.suffix == ".ipynb", path.name != "gan.py", len(path.parts), str(path)

    first = chosen = None
    for path in sorted(files, key=preference):
        data, copy = files[path], folder / path.with_suffix(".py")
        if path.suffix == ".ipynb":
            if chosen:
                break
            data = notebook_source(data, class_name).encode()
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(data)
        first = first or copy
        if not chosen and not surely_lacks(copy, class_name):
            chosen = copy
    if not first:
        raise Unmarkable("there is no .py file or notebook in it")
    return chosen or first


def surely_lacks(path, class_name):
    """Returns whether nothing at the top level of a file defines that name.

    The file is not run.
    """
    try:
        source = path.read_text(encoding="utf-8", errors="replace")
        symbols = symtable.symtable(source, str(path), "exec").get_symbols()
    except UNREADABLE:
        return False
    defined = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
    return class_name not in defined and "import *" not in source


def notebook_source(data, class_name):
    """Returns a notebook's code cells as one file, without IPython's magics.

    Cells after the last one with the class are omitted: they mostly train it.
    """
    try:
        cells = json.loads(data)["cells"]
        sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise Unmarkable("it is not a notebook of format 4") from error
    has_class = re.compile(rf"^class {class_name}\b", re.MULTILINE)
    while any(map(has_class.search, sources)) and not has_class.search(sources[-1]):
        sources.pop()
    return "\n".join(map(without_magics, sources)) + "\n"


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
