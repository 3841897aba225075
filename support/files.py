"""Files that are either the old one or the whole new one, whatever happens in between."""

import contextlib
import errno
import fcntl
import json
import os
import stat
import uuid
from pathlib import Path

from support.errors import UserError

# No room for more: the disk is full, the user's share of it, or the longest file that may be.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What is left beside a file where the process was killed, as a pattern of names.
LEFTOVERS = ".*.unfinished-" + 8 * "[0-9a-f]" + "*"
# Of the file's own name, in bytes: with what is added to it, a name may have 255.
_LONGEST_STEM = 200


@contextlib.contextmanager
def atomic_write(path):
    """path -> a temporary path beside it with the same suffix; its file takes the place of `path`.

    The body writes the temporary file. When it ends well, the file is flushed to the disk and
    renamed to `path`, or to what a link of that name points to; when it raises, the file is removed
    and `path` stays as it was.
    UserError where `path` cannot be a file: its folder is missing, or it is a folder or device.
    """
    path = Path(path)
    check_is_for_a_file(path)
    path = path.resolve() if path.is_symlink() else path
    temporary, handle = _new_neighbour(path)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)  # a full disk's error names no file
        raise
    finally:
        os.close(handle)


def write_text(path, text):
    """Replaces the content of `path` by UTF-8 text, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value):
    """As `write_text`, of what JSON may hold."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def check_is_for_a_file(path):
    """UserError where a file of that name could not be written, whatever it would hold."""
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder, wanted a file's name")
    if path.exists() and not path.is_file():
        raise UserError(f"cannot write {path}: it is no ordinary file, wanted a file's name")


def remove_stale_files(folder, deep=True):
    """Removes the unfinished files of processes that are no more, at any depth if `deep`."""
    for path in Path(folder).glob(f"**/{LEFTOVERS}" if deep else LEFTOVERS):
        with contextlib.suppress(OSError, UserError), open_regular(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its writer holds it while it lives
            path.unlink()


def open_regular(path):
    """Opens a file to read its bytes; UserError for what is no ordinary file.

    A plain `open` would wait for ever for another program to write to a FIFO.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return open(handle, "rb")
    os.close(handle)
    raise UserError(f"{path} is no ordinary file")


def _new_neighbour(path):
    """-> (path, handle) of a new empty file beside `path`, locked as long as the handle is open."""
    # A random part, so that two processes that write the same file do not share a temporary one.
    stem = os.fsdecode(os.fsencode(path.stem)[:_LONGEST_STEM])
    temporary = path.with_name(f".{stem}.unfinished-{uuid.uuid4().hex[:8]}{path.suffix}")
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    with contextlib.suppress(OSError):  # some file systems have no locks
        fcntl.flock(handle, fcntl.LOCK_EX)
    if os.fstat(handle).st_nlink:
        return temporary, handle
    os.close(handle)  # another process took it for a leftover before it was locked
    return _new_neighbour(path)
