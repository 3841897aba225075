"""Errors that a user can correct, and their one-line messages."""

import errno

# An OSError of these may name no file: the disk, a quota or a limit of the process is used up.
_OUT_OF_RESOURCES = (
    errno.EDQUOT,
    errno.EFBIG,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
)


class UserError(ValueError):
    """A value, file or folder that cannot be used, with a one-line message.

    The message says what was expected, what was found and what to do. `main.py` prints only this
    line; all other exceptions are faults of the program and keep their traceback.
    """


class RunError(UserError):
    """A run folder that cannot be used as requested."""


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
        if error.filename or error.errno in _OUT_OF_RESOURCES:
            return f"{error.filename or 'cannot continue'}: {error.strerror}"
        return None
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "ResourceExhaustedError"  # TensorFlow's, which is not imported
        or (isinstance(error, ImportError) and "failed to map segment" in str(error))
    ):
        cause = reason(error)
        return f"not enough memory ({cause}); free some, or lower --batch_size or --num_samples"
    return None


def one_line(text: object) -> str:
    """Returns the text as one line of printable characters.

    Others are replaced by Python's escapes.

    Text from files and servers may contain characters that control a terminal.
    """
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
