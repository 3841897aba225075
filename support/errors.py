"""Errors that a user can correct, and their one-line messages."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

# Error numbers of a full disk, a used-up quota and a file larger than the system allows.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What requirements.txt installs, by the names under which it is imported.
_REQUIRED = (
    "PIL", "absl", "filelock", "matplotlib", "numpy", "requests", "tensorflow", "tf_keras",
    "tf_slim", "tqdm",
)  # fmt: skip
INSTALL = "python -m pip install -r requirements.txt"


class UserError(ValueError):
    """A value, file or folder that cannot be used, with a one-line message.

    The message says what was expected, what was found and what to do. `main.py` prints only this
    line, as for the other exceptions of `user_message`; the rest keep their traceback.
    """


class RunError(UserError):
    """A run folder that cannot be used as requested."""


class DataError(UserError):
    """A data file, data folder or download that cannot be used; the message names it."""


def reason(error: BaseException) -> str:
    """Returns the first line of an exception, with its type unless it is a UserError."""
    prefix = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{prefix}{error}".rstrip(": ").splitlines()[0]


def user_message(error: BaseException) -> str | None:
    """Returns one line about an exception that the user can do something about.

    Returns:
      The line, or None if the exception is a fault of the program.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:  # not an HTTPError, which has a filename too
        if error.filename or error.errno in FULL:
            return f"{error.filename or 'cannot continue'}: {error.strerror}"
        return None
    if isinstance(error, ModuleNotFoundError) and error.name in _REQUIRED:
        return f"{error.name} is not installed; run {INSTALL}"
    # TensorFlow's ResourceExhaustedError, without importing it.
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        remedy = "free some, or lower --batch_size or --num_samples"
        return f"not enough memory; {remedy} ({reason(error)})"
    return None


@contextlib.contextmanager
def imports_of(program: str) -> Iterator[None]:
    """Context manager that ends a program, with one line, if a package is missing."""
    try:
        yield
    except ImportError as error:
        message = user_message(error)
        if message is None:
            raise
        sys.exit(f"{program}: {message}")


def broken_package(name: str, error: BaseException) -> UserError:
    """Returns the error of a package in requirements.txt that cannot be imported."""
    if message := user_message(error):
        return UserError(message)
    command = INSTALL.replace("install", "install --force-reinstall", 1)
    dll = "install Microsoft's Visual C++ Redistributable, or " if os.name == "nt" else ""
    return UserError(f"{name} is broken; {dll}run {command} ({reason(error)})")


def one_line(text: object) -> str:
    """Returns the text as one line; escapes characters that cannot be printed.

    Text from files and servers may contain characters that control a terminal.
    """
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
