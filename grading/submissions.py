"""The submissions to mark: one file, or one entry for each student in a folder."""

import ast
import contextlib
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grading.model_proxy import Source
from grading.structure import UNREADABLE
from grading.worker import ROOT
from support.errors import UserError, one_line

MOST_BYTES = 2**24  # of a student's files, unpacked
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
            # There are many ways for an archive to be damaged.
            except Exception as error:
                raise Unmarkable(str(error)) from error
            yield Source(path, self.class_name, folder)


def find(text: str, exclude: Path | None = None) -> list[Submission]:
    """Finds what is to be marked.

    Args:
      text: `FILE[:CLASS]` or `FOLDER[:CLASS]`; in a folder, every file and folder is a student's.
      exclude: A folder in it that is not a student's.

    Returns:
      A list, by name.

    Raises:
      UserError: If there is nothing to mark.
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
        stems = [each.name if each.is_dir() else each.stem for each in entries]
        are_unique = len({stem.lower() for stem in stems}) == len(stems)
        names = stems if are_unique else [each.name for each in entries]
        pairs = zip(names, entries, strict=True)
        return [Submission(one_line(name), entry, class_name) for name, entry in pairs]
    if not path.is_file():
        raise UserError(f"{place} does not exist")
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
    if source.is_file() and source.suffix == ".zip":
        with zipfile.ZipFile(source) as archive:
            members = {Path(member.filename): member for member in archive.infolist()}
            members = {inside: m for inside, m in members.items() if usable(inside)}
            check_size(member.file_size for member in members.values())
            return {inside: archive.read(member) for inside, member in members.items()}
    if source.is_file() and not usable(Path(source.name)):
        raise Unmarkable("it is not a .py file, notebook, .zip or folder")
    files = {Path(source.name): source}
    if source.is_dir():
        inside = {path.relative_to(source): path for path in sorted(source.rglob("*"))}
        inside = {place: path for place, path in inside.items() if not path.is_symlink()}
        files = {p: path for p, path in inside.items() if usable(p) and path.is_file()}
    check_size(path.stat().st_size for path in files.values())
    return {inside: path.read_bytes() for inside, path in files.items()}


def check_size(sizes):
    """Raises Unmarkable if files of these sizes are too large to be read."""
    if sum(sizes) > MOST_BYTES:
        raise Unmarkable(f"its files are larger than {MOST_BYTES // 2**20} MB")


def usable(path):
    """Returns whether a file of a submission is read; no path leads out of its folder."""
    hidden_parts = any(hidden(part) for part in path.parts)
    return path.suffix in (".py", ".ipynb") and not path.anchor and not hidden_parts


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
        if not chosen and has_class(data.decode(errors="replace"), class_name):
            chosen = copy
    if not first:
        raise Unmarkable("there is no .py file or notebook in it")
    return chosen or first


def has_class(source, class_name):
    """Returns whether the source text defines a class of that name at its top level."""
    return bool(re.search(rf"^class {class_name}\b", source, re.MULTILINE))


def notebook_source(data, class_name):
    """Returns a notebook's code cells as one file, without IPython's magics.

    Cells after the last one with the class are omitted: they mostly train it.
    """
    try:
        cells = json.loads(data)["cells"]
        sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise Unmarkable("it is not a notebook of format 4") from error
    while any(has_class(s, class_name) for s in sources) and not has_class(sources[-1], class_name):
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
