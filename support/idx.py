"""IDX files of 28 x 28 images or of labels: found, checked and read.

The format: http://yann.lecun.com/exdb/mnist/. Anything wrong with a file is a DataError.
"""

import gzip
import hashlib
import math
import struct
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from support.errors import UserError, one_line

SIDE = 28
IMAGE_SHAPE = (SIDE, SIDE)
NUM_PIXELS = SIDE * SIDE
MAX_EXAMPLES = 1_000_000
# Of a file of unsigned bytes; the number of dimensions is added.
_MAGIC = 0x800


class DataError(UserError):
    """A data file, data folder or download that cannot be used.

    The message is one line that names it.
    """


def require(condition, expected, actual):
    """Checks that a condition holds.

    Raises:
      DataError: If it does not; the message states both values.
    """
    if not condition:
        raise DataError(f"expected {expected}, found {actual}")


@contextmanager
def prefix_errors(culprit):
    """Context manager that makes errors of a file or folder DataErrors that name it.

    The name comes first.
    """
    try:
        yield
    except DataError as error:
        raise DataError(f"{culprit}: {error}") from None
    except OSError as error:
        raise DataError(f"{culprit}: {error.strerror or one_line(error)}") from error


def find_file(folder, name: str) -> Path | None:
    """Returns the path of IDX file `name` in a folder, or None if it is missing.

    The file may be compressed or not, and spelled with `-idx` or `.idx`.
    """
    with prefix_errors(folder):
        for suffix in (".gz", ""):
            for stem in (name, name.replace("-idx", ".idx")):
                path = Path(folder) / (stem + suffix)
                if path.is_file():
                    return path
    return None


def read_idx(path) -> np.ndarray:
    """Returns the content of an IDX file, compressed or not.

    Args:
      path: The file; `idx3` in its name says that it has images.

    Returns:
      Images, uint8 `[n, 28, 28]`, or labels, uint8 `[n]`.

    Raises:
      DataError: If header or size are not what the name promises.
    """
    with prefix_errors(path):
        return _read_file(Path(path))[1]


def extract(file, item_shape) -> np.ndarray:
    """Returns the items in an open gzip file, uint8 `[n, *item_shape]`."""
    with prefix_errors(getattr(file, "name", "file")), gzip.GzipFile(fileobj=file) as stream:
        return _read_stream(stream, item_shape)[1]


def checksums(path) -> set[str]:
    """Returns the SHA-256 of an IDX file's payload and of the file, in hexadecimal.

    The payload is uncompressed.

    Compressing the same payload again changes only the second. Errors do not name the path.
    """
    parts = _read_file(path)[0], path.read_bytes()
    return {hashlib.sha256(part).hexdigest() for part in parts}


def image_header(count: int) -> bytes:
    """Returns the first bytes of an IDX file of `count` images."""
    return struct.pack(">4I", _MAGIC + 3, count, *IMAGE_SHAPE)


def _read_file(path):
    with open(path, "rb") as file:
        # By content, because some servers and browsers decompress a file without renaming it.
        compressed = file.peek(2).startswith(b"\x1f\x8b")
        stream = gzip.GzipFile(fileobj=file) if compressed else file
        return _read_stream(stream, IMAGE_SHAPE if "idx3" in path.name else ())


def _read_stream(stream, item_shape):
    """Returns the uncompressed file, as a bytearray, and the array of items in it."""
    header_size = 4 * (2 + len(item_shape))
    magic_number = _MAGIC + 1 + len(item_shape)
    try:
        payload = bytearray(stream.read(header_size))
        require(payload, "an IDX file", "an empty file")
        require(not payload.lstrip().startswith(b"<"), "an IDX file", "an HTML page")
        require(len(payload) == header_size, f"a header of {header_size} bytes", len(payload))
        magic, count, *shape = struct.unpack(f">{header_size // 4}I", payload)
        require(magic == magic_number, f"magic number {magic_number}", magic)
        require(tuple(shape) == item_shape, f"images of size {list(item_shape)}", shape)
        require(1 <= count <= MAX_EXAMPLES, f"1 to {MAX_EXAMPLES} items", count)
        size = header_size + count * math.prod(item_shape)
        # One byte more than expected shows trailing data, and makes gzip compare its CRC.
        payload += stream.read(size - header_size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"expected a complete gzip file, found: {error}") from error
    require(len(payload) == size, f"{size} bytes", len(payload) if len(payload) < size else "more")
    return payload, np.frombuffer(payload, np.uint8, offset=header_size).reshape(-1, *item_shape)
