"""Small data sets in IDX files, with a number in each image."""

import gzip
import struct

import numpy as np

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def numbered_images(count, first=0):
    """Returns noise, uint8 `[count, 28, 28]`, numbered in the first two pixels."""
    images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
    numbers = np.arange(first, first + count)
    images[:, 0, 0], images[:, 0, 1] = numbers // 256, numbers % 256
    return images


def numbers_of(images):
    """Returns the numbers that `numbered_images` wrote, from float images in [0, 1]."""
    pixels = np.rint(images.reshape(len(images), 784)[:, :2] * 255).astype(int)
    return list(pixels[:, 0] * 256 + pixels[:, 1])


def idx(array, magic=None, count=None):
    """Returns bytes as the content of an IDX file, also with a wrong header."""
    array = np.asarray(array, np.uint8)
    magic = 0x800 + array.ndim if magic is None else magic
    shape = (len(array) if count is None else count, *array.shape[1:])
    return struct.pack(f">{1 + len(shape)}I", magic, *shape) + array.tobytes()


def payloads(train=30, test=7):
    """Returns the uncompressed content of the four files, by name."""
    arrays = (
        numbered_images(train),
        np.arange(train) % 10,
        numbered_images(test, first=1000),
        9 - np.arange(test) % 10,
    )
    return dict(zip(NAMES, map(idx, arrays), strict=True))


def write_set(folder, separator="-", suffix=".gz", **sizes):
    """Writes the four files into a new folder and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, payload in payloads(**sizes).items():
        path = folder / (name.replace("-idx", f"{separator}idx") + suffix)
        path.write_bytes(gzip.compress(payload, mtime=0) if suffix else payload)
    return folder
