"""From `path/to/file.py:Class` to the class, and from an error to one line about it."""

import ast
import functools
import importlib.util
import re
import symtable
import sys
import sysconfig
import traceback
from pathlib import Path

from support.errors import UserError

KIT = Path(__file__).resolve().parent
DEFAULT = f"{KIT.parent / 'models' / 'gan.py'}:Gan"
NETWORKS = ("generator", "discriminator")
STDLIB = sysconfig.get_paths()["stdlib"]
TENSORFLOW_PREAMBLE = ("Graph execution error", "Detected at node", "Node:", "File ")

GRAPH_IMPORT = "this is TensorFlow 2, where graphs want `import tensorflow.compat.v1 as tf`"
HINTS = {
    "is not available with Keras 3": "the layers of tf.layers are gone; in their place make "
    "weights with tf.get_variable and multiply with tf.matmul, as docs/starter/gan.py shows",
    "no attribute '(placeholder|Session|InteractiveSession|variable_scope|get_variable|layers|"
    "global_variables_initializer|trainable_variables|set_random_seed)'": GRAPH_IMPORT,
    "no attribute 'contrib'": "tf.contrib is gone; write the layer with tf.get_variable",
    "MemoryError|bad_alloc|OOM when allocating": "more memory than a class may take here",
    "RecursionError": "which call has no end?",
}


def parse(spec, folder="."):
    """`"file.py:Class"`, or `"file.py"` for its class Gan -> (path, class name).

    folder: from where a relative path is seen. UserError if the text has no such form, or the
    file or the class is not there. The file is read and not run: what it does when run is for the
    checks to judge.
    """
    file, _, class_name = spec.rpartition(":") if ":" in spec else (spec, "", "Gan")
    if not (file and class_name.isidentifier()):
        raise UserError(f"{spec!r}: wanted path/to/file.py:Class, such as models/gan.py:Gan")
    path = (Path(folder) / file).resolve()
    if not path.is_file():
        raise UserError(f"{spec}: no such file: {path}")
    if surely_lacks(path, class_name):
        raise UserError(f"{spec}: no class {class_name} in {path}")
    return path, class_name


def surely_lacks(path, class_name):
    """True if nothing at the top level of the file gives its module that name."""
    try:
        source = path.read_text(encoding="utf-8", errors="replace")
        symbols = symtable.symtable(source, str(path), "exec").get_symbols()
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return False
    given = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
    return class_name not in given and "import *" not in source


@functools.cache
def load(path, class_name):
    """The class, from a file that may import its neighbours by any of their usual names.

    Raises what the file raises, and ImportError for SystemExit (from an unguarded `app.run`).
    """
    # A dotted name lets `from . import layers` work; the prefix keeps a graded models/gan.py
    # from taking the place of a models.gan that other tests have imported.
    name = f"{path.parent.name}.graded_{path.stem}"
    sys.path[:0] = [folder for folder in neighbourhood(path) if folder not in sys.path]
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SystemExit as error:
        raise ImportError("the file ends the program when it is imported") from error
    if not hasattr(module, class_name):
        raise ImportError(f"{path.name} has no class {class_name}")
    return getattr(module, class_name)


def neighbourhood(path):
    """Folders from which a file may import; the project's root is for the project's own files."""
    in_package = (path.parent / "__init__.py").is_file()
    folders = [path.parent, path.parent.parent]
    return [str(folder) for folder in folders if in_package or folder != KIT.parent]


def unimplemented(path, class_name):
    """Methods of the class that only raise NotImplementedError, or nothing at all.

    -> texts such as `"_generator, line 40 of gan.py"`; none where the file is no Python.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return []
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name]
    methods = [n for c in classes for n in c.body if isinstance(n, ast.FunctionDef)]
    empty = [method for method in methods if all(map(_does_nothing, method.body))]
    return [f"{method.name}, line {method.lineno} of {path.name}" for method in empty]


def _does_nothing(statement):
    match statement:
        case ast.Pass() | ast.Expr(ast.Constant()) | ast.Return(None | ast.Constant(None)):
            return True
        case ast.Raise(ast.Name(name) | ast.Call(ast.Name(name))):
            return name == "NotImplementedError"
    return False


def owners(variable_name):
    """The networks whose scope a variable stands under, also a numbered one: `generator_1/w:0`."""
    scopes = {part.rstrip("0123456789").rstrip("_") for part in variable_name.split("/")[:-1]}
    return scopes.intersection(NETWORKS)


def short(error):
    """An exception in one line: its type, its message, the student's line, and a hint if any."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(TENSORFLOW_PREAMBLE)]
    message = told[0][:200] if told else ""
    text = ": ".join(filter(None, [type(error).__name__, message])) + place(error)
    return "; ".join([text, *hints(text)])


def hints(text):
    """What an error's text means, where that is known and not the student's own to find out."""
    return [hint for pattern, hint in HINTS.items() if re.search(pattern, text)]


def place(error):
    """`", line 12 of gan.py"`, the innermost line that is the student's own, or nothing."""
    # What fails while the graph runs names the line that made the node in its text alone.
    places = re.findall(r'File "([^"]+)", line (\d+)', str(error))
    places += [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    own = [(Path(file).name, line) for file, line in places if is_students(file)]
    return f", line {own[-1][1]} of {own[-1][0]}" if own else ""


def place_in(stack):
    """The same from a text of faulthandler's, innermost line first."""
    places = re.findall(r'File "([^"]+)", line (\d+)', stack)
    own = [(Path(file).name, line) for file, line in places if is_students(file)]
    return f", line {own[0][1]} of {own[0][0]}" if own else ""


def is_students(file):
    """Whether a traceback's file is neither this kit's, nor Python's, nor a library's."""
    libraries = {"site-packages", "dist-packages"} & set(Path(file).parts)
    return not (libraries or file.startswith((f"{KIT}/", STDLIB, "<")))
