"""IDX files of 28 x 28 images, or of labels: found, checked to the byte, read.

The format: http://yann.lecun.com/exdb/mnist/. What is wrong with a file is a DataError.
"""

import gzip
import hashlib
import http.client
import math
import os
import struct
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from support import errors
from support.errors import UserError

SIDE = 28
IMAGE_SHAPE = (SIDE, SIDE)
NUM_PIXELS = SIDE * SIDE

MAX_EXAMPLES = 1_000_000
CHUNK_BYTES = 2**20
# Of what a library or a server has to say about an error.
MAX_REASON = 200


class DataError(UserError):
    """A data file, data folder or download that cannot be used; one line that names it."""


def find_file(folder, name):
    """Path of `name` in the folder, packed or not, `-idx` or `.idx`; None if it is not there.

    Raises DataError if the folder cannot be listed.
    """
    folder = Path(folder)
    with prefix_errors(folder):
        if not folder.exists():
            return None
        files = {entry.name for entry in os.scandir(folder) if entry.is_file()}
    stems = (name, name.replace("-idx", ".idx"))
    spellings = (stem + end for end in (".gz", "") for stem in stems)
    return next((folder / spelling for spelling in spellings if spelling in files), None)


def read_idx(path):
    """IDX file, `.gz` or not -> uint8 `[n, 28, 28]` if `idx3` is in its name, else `[n]`.

    Raises DataError unless header and size are what the name promises, to the byte. Memory:
    what the payload takes, whatever the header claims.
    """
    path = Path(path)
    with prefix_errors(path):
        return _items(_read_payload(path), _item_shape(path))


def extract(file, item_shape):
    """An open gzip file -> uint8 `[n, *item_shape]`; DataError for another content."""
    with prefix_errors(getattr(file, "name", "file")), gzip.GzipFile(fileobj=file) as stream:
        return _items(_read_stream(stream, item_shape), item_shape)


def checksums(path):
    """Path of a sound IDX file -> SHA-256 of its payload and of the file as it is, in hexadecimal.

    Packing the same file again changes the second alone. Errors do not name the path.
    """
    payload = hashlib.sha256(_read_payload(path)).hexdigest()
    return payload, hashlib.sha256(path.read_bytes()).hexdigest()


def image_header(count):
    """Number of images -> the bytes that an IDX file of them begins with."""
    return struct.pack(">4I", _magic(IMAGE_SHAPE), count, *IMAGE_SHAPE)


@contextmanager
def prefix_errors(culprit):
    """Turns what goes wrong with a file or folder into a DataError that names it first."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{culprit}: {error}") from None
    except UserError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{culprit}: {error}, wanted a whole gzip stream") from error
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{culprit}: {reason(error)}") from error


def reason(error):
    """-> what an exception says, as one short line of printable characters."""
    said = getattr(error, "strerror", None) or f"{type(error).__name__} {error}"
    line = errors.one_line(said)
    return line if len(line) <= MAX_REASON else f"{line[:MAX_REASON]}..."


def require(condition, what, seen, wanted):
    """DataError that names the thing and both values, unless the condition holds."""
    if not condition:
        raise DataError(f"{what}: {seen}, wanted {wanted}")


def _read_payload(path):
    """Path -> the uncompressed file, header included, after all checks; errors do not name it."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
        return _read_stream(stream, _item_shape(path))


def _read_stream(stream, item_shape):
    header = stream.read(_header_size(item_shape))
    count = _header_count(header, item_shape)
    return _read_exactly(stream, header, len(header) + count * math.prod(item_shape))


def _items(payload, item_shape):
    items = np.frombuffer(payload, np.uint8, offset=_header_size(item_shape))
    return items.reshape(-1, *item_shape)


def _item_shape(path):
    return IMAGE_SHAPE if "idx3" in path.name else ()


def _magic(item_shape):
    # 8 stands for unsigned bytes; the last byte is the number of dimensions.
    return 0x800 + 1 + len(item_shape)


def _header_size(item_shape):
    """Bytes of magic number, count and item shape, four each."""
    return 4 * (2 + len(item_shape))


def _header_count(header, item_shape):
    """Header -> number of items, 1 to MAX_EXAMPLES; DataError if it is not one of `item_shape`."""
    size = _header_size(item_shape)
    require(len(header) == size, "bytes of header", len(header), size)
    magic, count, *shape = struct.unpack(f">{size // 4}I", header)
    require(magic == _magic(item_shape), "magic number", magic, _magic(item_shape))
    require(tuple(shape) == item_shape, "image size", shape, list(item_shape))
    require(1 <= count <= MAX_EXAMPLES, "number of items", count, f"1 to {MAX_EXAMPLES}")
    return count


def _read_exactly(stream, start, size):
    """Stream after `start` -> both, as a bytearray of `size`; DataError for less or more."""
    payload = bytearray(start)
    # Grows with what comes, not with what the header promises. The byte too much that is asked
    # for shows trailing data, and makes gzip compare its CRC.
    while chunk := stream.read(min(CHUNK_BYTES, size + 1 - len(payload))):
        payload += chunk
    require(len(payload) >= size, "bytes", len(payload), size)
    require(len(payload) <= size, "bytes", f"more than {size}", size)
    return payload
