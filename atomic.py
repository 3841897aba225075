"""Files that are either the old one or the whole new one, whatever happens in between."""

import os
import uuid
from contextlib import contextmanager
from pathlib import Path

from errors import UserError

# What is left beside a file where the process was killed, as a pattern of names.
LEFTOVERS = ".*.unfinished-*"


@contextmanager
def replacing(path):
    """path -> a temporary path beside it with the same suffix; its file takes the place of `path`.

    The body writes the temporary file. When it ends well, the file is flushed to the disk and
    renamed to `path`; when it raises, the file is removed and `path` stays as it was.
    UserError where `path` cannot be a file: its folder is missing, or it is a folder itself.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder, wanted a file's name")
    # A random part, so that two processes that write the same file do not share a temporary one.
    temporary = path.with_name(f".{path.stem}.unfinished-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
