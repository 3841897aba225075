"""Checkpoint files: one `.npz` of all variables, written whole or not at all.

The zip's checksums and the number of variables tell a damaged one. Reading one needs no graph,
runs no code, and takes no more memory than the file is long.
"""

import errno
import io
import math
import struct
import zipfile

import numpy as np

from support.errors import RunError, UserError, reason
from support.files import atomic_write

_MOST_BYTES = 2**32
_LONGEST_HEADER = 1000  # of an array, in characters; ours have 118
_RESERVED = {"step", "variables", "file", "allow_pickle"}  # np.savez's own and ours
_NUMBERS = "biuf"  # kinds of dtypes: bool, int, unsigned, float
# What the zip and array formats raise for bytes that are not theirs.
_DAMAGE = (
    ValueError, TypeError, LookupError, ArithmeticError, EOFError, RuntimeError, struct.error,
    zipfile.BadZipFile,
)  # fmt: skip


def check_names(names):
    """UserError for a variable's name that a checkpoint has another use for."""
    for name in sorted(_RESERVED & set(names)):
        raise UserError(f"the variable {name}: no checkpoint can hold that name, give it another")


def write_checkpoint(path, step, state):
    """Writes {variable's name: ndarray} as of a step."""
    with atomic_write(path) as temporary:
        np.savez(temporary, step=np.int64(step), variables=np.int64(len(state)), **state)


def read_checkpoint(path):
    """-> (step, {name: ndarray}), all finite; RunError for a damaged file.

    An OSError is left as it is, such as that of a file that is not there or may not be read.
    """
    try:
        arrays = _arrays(_content(path))
        step, variables = (_whole_number(arrays, name) for name in ("step", "variables"))
        if len(arrays) != variables:
            raise ValueError(f"{len(arrays)} variables, wanted {variables}")
        return step, arrays
    except _DAMAGE as error:
        raise RunError(f"{path} is damaged ({reason(error)})") from error
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise RunError(f"{path} is damaged ({error.strerror})") from error


def _content(path):
    """-> the bytes of a file; ValueError for one that no checkpoint of ours could be."""
    with open(path, "rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"larger than {_MOST_BYTES:,} bytes")
    return content


def _arrays(content):
    """The bytes of an .npz file -> {name: ndarray}; ValueError unless all are finite numbers."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        # Packed, or one in another, members could take any amount of memory.
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it is compressed, which checkpoints are not")
        if sum(member.file_size for member in members) > len(content):
            raise ValueError("its parts are larger than the whole")
        return {
            m.filename.removesuffix(".npy"): _array(m.filename, archive.read(m)) for m in members
        }


def _array(name, content):
    """The bytes of an .npy file -> ndarray; ValueError unless it holds finite numbers alone."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{name!r}: wanted version 1.0 of NumPy's format")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file, _LONGEST_HEADER)
    if dtype.kind not in _NUMBERS:
        raise ValueError(f"{name!r} is of type {dtype}, wanted numbers")
    found = len(content) - file.tell()
    if math.prod(shape) * dtype.itemsize != found:
        raise ValueError(f"{name!r}: {found} bytes, wanted those of {list(shape)} {dtype}")
    values = np.frombuffer(content, dtype, offset=file.tell())
    if not np.isfinite(values).all():
        raise ValueError(f"{name!r} holds NaN or infinity")
    return values.reshape(shape, order="F" if by_columns else "C").copy()


def _whole_number(arrays, name):
    """Takes an array out; -> its value; ValueError if it is no single integer from 0 up."""
    if name not in arrays:
        raise ValueError(f"it holds no {name}")
    value = arrays.pop(name)
    if value.shape or value.dtype.kind not in "iu" or value < 0:
        raise ValueError(
            f"{name} is {value.dtype} {list(value.shape)}, wanted an integer from 0 up"
        )
    return int(value)
