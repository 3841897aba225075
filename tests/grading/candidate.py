"""From `--gan=path/to/file.py:Class` to the class, and from an error to one line about it."""

import functools
import importlib.util
import re
import symtable
import sys
import sysconfig
import traceback
from pathlib import Path

KIT = Path(__file__).resolve().parent
DEFAULT = f"{KIT.parents[1] / 'models' / 'gan.py'}:Gan"
STDLIB = sysconfig.get_paths()["stdlib"]
TENSORFLOW_PREAMBLE = ("Graph execution error", "Detected at node", "Node:", "File ")


def parse(spec, folder="."):
    """`"file.py:Class"` -> (path, class name), the path seen from `folder`.

    Raises ValueError, in one line, if the text has no such form, or the file or the class is not
    there. The file is read and not run: what it does when run is for the checks to judge.
    """
    file, _, class_name = spec.rpartition(":")
    if not (file and class_name.isidentifier()):
        raise ValueError(f"--gan={spec}: wanted path/to/file.py:Class, such as models/gan.py:Gan")
    path = (Path(folder) / file).resolve()
    if not path.is_file():
        raise ValueError(f"--gan={spec}: no such file: {path}")
    if surely_lacks(path, class_name):
        raise ValueError(f"--gan={spec}: no class {class_name} in {path}")
    return path, class_name


def surely_lacks(path, class_name):
    """True if nothing at the top level of the file gives its module that name."""
    source = path.read_text(encoding="utf-8", errors="replace")
    try:
        symbols = symtable.symtable(source, str(path), "exec").get_symbols()
    except (SyntaxError, ValueError):
        return False
    given = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
    return class_name not in given and "import *" not in source


@functools.cache
def load(path, class_name):
    """The class, from a file that may import its neighbours by any of their usual names.

    Eager execution is off before the file runs, because a graph-style file need not say so.
    Raises what the file raises, and ImportError for SystemExit (from an unguarded `app.run`).
    """
    import tensorflow as tf

    tf.compat.v1.disable_eager_execution()
    # A dotted name lets `from . import layers` work; the prefix keeps a graded models/gan.py
    # from taking the place of a models.gan that other tests have imported.
    name = f"{path.parent.name}.graded_{path.stem}"
    folders = [str(path.parent), str(path.parent.parent)]
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SystemExit as error:
        raise ImportError("the file ends the program when it is imported") from error
    return getattr(module, class_name)


def short(error):
    """An exception in one line: its type, its message, and the student's line it came from."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(TENSORFLOW_PREAMBLE)]
    message = told[0][:200] if told else ""
    return ": ".join(filter(None, [type(error).__name__, message])) + place(error)


def place(error):
    """`", line 12 of gan.py"`, the innermost line that is the student's own, or nothing."""
    # What fails while the graph runs names the line that made the node in its text alone.
    places = re.findall(r'File "([^"]+)", line (\d+)', str(error))
    places += [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    own = [(Path(file).name, line) for file, line in places if is_students(file)]
    return f", line {own[-1][1]} of {own[-1][0]}" if own else ""


def is_students(file):
    """Whether a traceback's file is neither this kit's, nor Python's, nor a library's."""
    libraries = {"site-packages", "dist-packages"} & set(Path(file).parts)
    return not (libraries or file.startswith((str(KIT), STDLIB, "<")))
