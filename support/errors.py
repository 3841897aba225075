"""Errors that a user can correct, and their one line."""

import errno

# What a disk, a folder or a limit may have against a file.
_USERS_ERRNOS = (
    errno.EACCES, errno.EBUSY, errno.EDQUOT, errno.EFBIG, errno.EISDIR, errno.ELOOP, errno.EMFILE,
    errno.ENAMETOOLONG, errno.ENFILE, errno.ENODEV, errno.ENOENT, errno.ENOLCK, errno.ENOMEM,
    errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS,
)  # fmt: skip
_LIMITS = {errno.EFBIG: " (see `ulimit -f`)", errno.EMFILE: " (see `ulimit -n`)"}


class UserError(ValueError):
    """A value, file or folder that cannot be used; one line: the thing, what is there, what to do.

    `main.py` prints the line alone; any other exception is the program's fault and keeps its
    traceback.
    """

    exit_code = 1


class RunError(UserError):
    """A run folder that cannot be used as asked; one line that says what to do instead."""


class TemporaryError(UserError):
    """What the same command, run again, may not meet: a supervisor should do so (EX_TEMPFAIL)."""

    exit_code = 75


def reason(error):
    """-> the first line of an exception, with its type unless it was raised for the user."""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{kind}{error}".rstrip(": ").splitlines()[0]


def user_message(error):
    """-> what to say to a user whose value, file or machine caused an exception, or None."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _USERS_ERRNOS:
        limit = _LIMITS.get(error.errno, "")
        return f"{error.filename or 'cannot go on'}: {error.strerror}{limit}"
    if _is_lack_of_memory(error):
        why = reason(error)
        return f"not enough memory ({why}): free some, or lower --batch_size or --num_samples"
    return None


def one_line(text):
    """-> the text as one line of printable characters, all others as Python's escapes.

    What files and servers say may hold characters that command a terminal.
    """
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _is_lack_of_memory(error):
    """Also TensorFlow's own error, known by its name, and that of a library that found no room."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "ResourceExhaustedError"
        or (isinstance(error, ImportError) and "failed to map segment" in str(error))
    )
