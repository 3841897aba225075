"""A class of one's own, `FILE.py:CLASS`, in the place of a recipe's.

Its code comes from the path on the command line alone, never from a run folder; what goes wrong in
it is told in one line with the line in its file. What it has to be is in `models/contract.py`.
"""

import contextlib
import hashlib
import importlib.util
import inspect
import re
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

from support.errors import UserError

# What TensorFlow 1 code meets today: pattern of the error -> what to write instead.
_GONE = {
    r"with Keras 3|tensorflow.*\blayers'|'layers' from 'tensorflow'": (
        "tf.layers is gone: write dense layers with tf.get_variable and tf.matmul"
    ),
    r"tensorflow.*\b(contrib|examples)\b|'(contrib|examples)' from 'tensorflow'": (
        "tf.contrib and tensorflow.examples are gone; for the data `import input_data`"
    ),
    r"module '(tensorflow(\._api\.v2\.(?!compat)\S+)?|keras\S*losses)' has|from 'tensorflow'": (
        "TensorFlow 2 has it in its first version's module: `import tensorflow.compat.v1 as tf`"
    ),
    "eager execution": "turn eager execution off: `tf.disable_eager_execution()`",
}
_PORTING = "see docs/porting.md"
# What belongs to a program of its own: pattern of the error -> what to do about it.
_ELSEWHERE = {
    "^SystemExit": 'what the file does as a program belongs under `if __name__ == "__main__":`',
    "^DuplicateFlagError": "main.py has its own flags: define none where the file is imported",
    "No variables to optimize|No gradients provided": (
        "the variables that D and G are made of are to be under their scopes; Keras puts its own "
        "elsewhere"
    ),
    "clear nested graphs": "leave reset_default_graph out: each run has a graph of its own",
}

_ROOT = Path(__file__).resolve().parent.parent
_PROGRAMS = [_ROOT / name for name in ("main.py", "command_line.py", "input_data.py")]
_PACKAGES = [_ROOT / name for name in ("models", "training", "generation", "evaluation", "support")]
# Folders of the classes loaded so far, the latest first: their files may import each other.
_folders = []


class CustomClass(NamedTuple):
    """A class and where it is from. path: as given; sha256: of the file's bytes."""

    path: str
    name: str
    sha256: str
    gan_class: type

    def __str__(self):
        return f"{self.path}:{self.name}"


def parse(spec):
    """`FILE.py:CLASS` -> (path, class name, SHA-256 of the file); UserError for anything else."""
    path, _, name = spec.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise UserError(f"--gan={spec}: wanted FILE.py:CLASS, as in --gan=my_gan.py:Gan")
    try:
        with open(path, "rb") as file:
            return path, name, hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise UserError(f"--gan={spec}: cannot read {path} ({error.strerror})") from error


def load(spec):
    """`FILE.py:CLASS` -> its CustomClass. Runs the file, whose neighbours it may import."""
    path, name, sha256 = parse(spec)
    _let_import_from(str(Path(path).resolve().parent))
    module = _module(path, sha256)
    with user_errors(path):
        module.__spec__.loader.exec_module(module)
    _want_resource_variables()
    gan_class = getattr(module, name, None)
    if not isinstance(gan_class, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        there = ", ".join(classes) or "no class"
        raise UserError(f"--gan={spec}: {path} has no class {name}, but {there}")
    return CustomClass(path, name, sha256, gan_class)


def build(gan_class, **arguments):
    """An instance of a class of one's own; UserError for all that its constructor raises."""
    place = f"{_place_of(gan_class)}, class {gan_class.__name__}"
    try:
        inspect.signature(gan_class).bind(**arguments)
    except TypeError as error:
        raise UserError(
            f"{place}: __init__ is called with ndims and nlatent, {error}; write it as "
            "`def __init__(self, ndims=784, nlatent=2)`"
        ) from error
    with user_errors(place, otherwise=place):
        return gan_class(**arguments)


def _place_of(gan_class):
    """-> `file.py, line 7`; the file alone for a class that no class statement made."""
    file = _shown(inspect.getsourcefile(gan_class))
    try:
        return f"{file}, line {inspect.getsourcelines(gan_class)[1]}"
    except OSError:
        return file


def _let_import_from(folder):
    """Puts a folder on the path, before those of other classes, whose modules are forgotten."""
    others = [each for each in _folders if each != folder]
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        path = file and Path(file).resolve()
        if path and str(path.parent) in others and not _is_programs(path):
            del sys.modules[name]
    sys.path[:] = [*(each for each in sys.path if each not in _folders), folder, *others]
    _folders[:] = [folder, *others]


def _module(path, sha256):
    """-> the file's module, not yet run; its neighbours import it by its own name if it is free."""
    name = Path(path).stem if _finds(path) else f"own_class_{sha256[:8]}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(module_spec)
    return module


def _finds(path):
    """Whether `import stem` would find that file, and none of a library."""
    try:
        there = importlib.util.find_spec(Path(path).stem)
    except (ImportError, ValueError):
        return False
    return there is not None and there.origin == str(Path(path).resolve())


def _want_resource_variables():
    """`disable_v2_behavior`, which a file may call, turns off what a loop in the graph needs."""
    import tensorflow.compat.v1 as tf

    tf.enable_resource_variables()


@contextlib.contextmanager
def user_errors(path, otherwise=None):
    """What a class of one's own raises becomes a UserError: one line with the file's line number.

    path: None where there is no class of one's own. otherwise: the place to name for an error that
    passed none of its lines, which else is this program's and keeps its traceback.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        place = path and (_place(error) or otherwise)
        if place is None:
            raise
        raise UserError(f"{place}: {_in_words(error)}") from error


def _place(error):
    """-> `file.py, line 7, in _generator`: the last place outside this program and its libraries.

    None if there is none.
    """
    if isinstance(error, SyntaxError):
        return f"{_shown(error.filename)}, line {error.lineno}"
    # What fails while the graph runs names the line that made the node in its text alone.
    places = re.findall(r'File "([^"]+)", line (\d+), in (\S+)', str(error))
    places += [(f.filename, f.lineno, f.name) for f in traceback.extract_tb(error.__traceback__)]
    theirs = [place for place in places if _is_theirs(place[0])]
    if not theirs:
        return None
    file, line, function = theirs[-1]
    where = "" if function == "<module>" else f", in {function}"
    return f"{_shown(file)}, line {line}{where}"


def _is_theirs(filename):
    """Whether a file lies in the folder of a class that was loaded, and is none of this program."""
    path = Path(filename).resolve()
    if {"site-packages", "dist-packages"} & set(path.parts):
        return False
    return not _is_programs(path) and any(path.is_relative_to(folder) for folder in _folders)


def _is_programs(path):
    """Whether a file is one of this program."""
    return path in _PROGRAMS or path.parent in _PACKAGES


def _shown(filename):
    """-> the path as seen from the current folder, where it lies below it."""
    path = Path(filename).resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _in_words(error):
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    text = f"{type(error).__name__}: {' '.join(message.split())[:300]}"
    gone = [f"{hint}; {_PORTING}" for pattern, hint in _GONE.items() if re.search(pattern, text)]
    other = [hint for pattern, hint in _ELSEWHERE.items() if re.search(pattern, text)]
    hints = gone + other
    return f"{text} ({hints[0]})" if hints else text
