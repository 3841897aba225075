"""Code of users: importing a file, and the line of it that caused an error.

Training and grading share it. It imports no models: a graded class must not find the solution.
"""

import importlib.util
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from support.errors import INSTALL

# Errors of TensorFlow 1 code: pattern of the message -> what to write instead.
PORTING_HINTS = {
    r"'tensorflow[\w.]*('.* '|\.)(contrib|examples)\b|'(contrib|examples)' from 'tensorflow": (
        "only a file of TensorFlow 1, with `import tensorflow as tf` and without compat, has it"
    ),
    r"module '(tensorflow(\._api\.v2\.(?!compat)\S+)?|\w*keras\S*losses)' has|from 'tensorflow'": (
        "it is part of TensorFlow 1: use `import tensorflow.compat.v1 as tf`"
    ),
    r"No module named 'tf_(keras|slim)|compat\.v2\.__internal__' has": (
        f"tf_keras is missing or too old: {INSTALL}"
    ),
    "eager execution": "turn eager execution off: `tf.disable_eager_execution()`",
}

_LINE = re.compile(r'File "(.+?)", line (\d+),? in (\S+)')
_STANDARD_LIBRARY = Path(sysconfig.get_paths()["stdlib"]).resolve()
# Lines that TensorFlow puts before the message of an error of a running graph.
_PREAMBLE = ("Graph execution error", "Detected at node", "Node:", "File ")


class Line(NamedTuple):
    """A line of a user's file; `function` is empty at the top level of the file."""

    path: Path
    number: int
    function: str


def import_file(path: str | Path, module_name: str, **names) -> ModuleType:
    """Runs a file, in which `names` are defined, as a module."""
    spec = importlib.util.spec_from_file_location(module_name, Path(path).resolve())
    assert spec is not None and spec.loader is not None  # for the type checker
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    vars(module).update(names)
    spec.loader.exec_module(module)
    return module


def find_line(
    error: BaseException | str | list,
    folders: Iterable[str | Path],
    excluded: Iterable[Path] = (),
) -> Line | None:
    """Finds the innermost line of a user's file that an error passed.

    Args:
      error: An exception, a stack as `faulthandler` writes it, or frames, the innermost last.
      folders: The folders of the user's files, with all that is below them.
      excluded: Files, or folders of files, that are not the user's.

    Returns:
      The line, or None if the error passed none.
    """
    if isinstance(error, str):
        lines = _LINE.findall(error)
    elif isinstance(error, list):
        lines = [(frame.filename, frame.lineno, frame.name) for frame in error][::-1]
    else:
        lines = [(f.filename, f.lineno, f.name) for f in traceback.extract_tb(error.__traceback__)]
        # An error of a running graph names the line that created the operation only in its text.
        lines = lines[::-1] + _LINE.findall(str(error))[::-1]
        if isinstance(error, SyntaxError) and error.filename:
            lines.insert(0, (error.filename, error.lineno or 0, "<module>"))
    roots, excluded = [Path(each).resolve() for each in folders], set(excluded)
    for file, number, function in lines:
        path = Path(file).resolve()
        is_library = {"site-packages", "dist-packages"} & set(path.parts)
        if is_library or file.startswith("<") or path.is_relative_to(_STANDARD_LIBRARY):
            continue
        if excluded & {path, path.parent}:
            continue
        if any(path.is_relative_to(root) for root in roots):
            return Line(path, int(number), "" if function == "<module>" else function)
    return None


def describe(error: BaseException, hints: Mapping[str, str]) -> str:
    """Returns an exception's type, message and first hint that fits, in one line.

    Args:
      error: The exception.
      hints: {regular expression of the type and message: hint}.
    """
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    lines = [line.strip() for line in message.splitlines()]
    lines = [line for line in lines if line and not line.startswith(_PREAMBLE)]
    text = f"{type(error).__name__}: {lines[0][:300] if lines else ''}".rstrip(": ")
    for pattern, hint in hints.items():
        if re.search(pattern, text):
            return f"{text} ({hint})"
    return text
