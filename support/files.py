"""Files that are replaced atomically.

A reader finds the old content or all of the new.
"""

import contextlib
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from support.errors import UserError

# Names of temporary files, which remain if the process is killed.
LEFTOVERS = ".unfinished-" + 8 * "[0-9a-f]" + "*"
_STALE_SECONDS = 3600


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Context manager that replaces `path`, or the file it links to, atomically.

    Yields the path of an empty temporary file next to it, with the same suffix, for the body to
    write. After the body, the file is flushed to the disk and renamed to `path`. If anything
    fails, it is removed and `path` is unchanged.

    Raises:
      UserError: If the folder of `path` does not exist, or `path` is not a regular file.
    """
    path = Path(path)
    check_writable(path)
    path = path.resolve() if path.is_symlink() else path
    temporary = path.with_name(f".unfinished-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        temporary.touch()
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)  # the user does not know the temporary file
        raise


def write_text(path: str | Path, text: str) -> None:
    """Replaces the content of `path` with UTF-8 text, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: object) -> None:
    """Replaces the content of `path` with a value as JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def check_writable(path: Path) -> None:
    """Checks that `path` can be a regular file, whatever its content.

    Raises:
      UserError: If it cannot.
    """
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}")
    if path.exists() and not path.is_file():
        raise UserError(f"cannot write {path}: it is not a regular file; give another name")


def remove_stale_files(folder: str | Path) -> None:
    """Removes temporary files below a folder that are more than an hour old."""
    for path in Path(folder).rglob(LEFTOVERS):
        with contextlib.suppress(OSError):  # a folder, or already removed by another process
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def cache_folder() -> Path:
    """Returns the folder of files that can be made again, in the user's cache."""
    default = {"win32": os.environ.get("LOCALAPPDATA"), "darwin": "~/Library/Caches"}
    cache = os.environ.get("XDG_CACHE_HOME") or default.get(sys.platform) or "~/.cache"
    return Path(cache).expanduser() / "small_gans"
