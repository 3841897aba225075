"""Small data sets in IDX files, with a number in each image."""

import gzip

import numpy as np

from support.data_sets import FILES as NAMES
from support.data_sets import idx_content


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


def idx(array):
    """Returns images or labels as the content of an IDX file."""
    return idx_content(np.asarray(array, np.uint8))


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
