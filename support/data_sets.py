"""The data sets that are known by checksum, and the shape of images."""

import hashlib
import struct
from dataclasses import dataclass

import numpy as np

NUM_CLASSES = 10
SIDE = 28
IMAGE_SHAPE = (SIDE, SIDE)
NUM_PIXELS = SIDE * SIDE


@dataclass(frozen=True)
class DataSetInfo:
    """A data set's names and, if it is a published one, its IDX files.

    Attributes:
      name: One of DATASETS, or None for an unknown set.
      title: Its name in sentences.
      class_names: Names of the labels 0 to 9.
      noun: Noun for a label's meaning.
      mirrors: Addresses of folders with the four IDX files, each with `.gz` at its end.
      sha256: Of these files in the order of `idx.FILES`, each uncompressed or as published.
      git_id: Git's SHA-1 of the uncompressed training images, if `sha256` is not of them.
    """

    name: str | None
    title: str
    class_names: tuple[str, ...]
    noun: str
    mirrors: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()
    git_id: str | None = None

    def label(self, number: int) -> str:
        """Returns what a sentence calls a class: `the digit 3`, `ankle boot`, `class 3`."""
        name = self.class_names[number]
        return name if self.noun == "class" else f"the {self.noun} {name}"


_MNIST = DataSetInfo(
    "mnist",
    "MNIST",
    tuple("0123456789"),
    "digit",
    (
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
_CLOTHES = "T-shirt/top,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot"
_FASHION_MNIST = DataSetInfo(
    "fashion_mnist",
    "Fashion-MNIST",
    tuple(_CLOTHES.split(",")),
    "class",
    ("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",),
    (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)
_KMNIST = DataSetInfo(
    "kmnist",
    "KMNIST",
    ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    "character",
    ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    (  # of the files as published
        "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        "2a16eeae62da984b8bd24fa32e31d47291f01dac3fe84d5594f304f71e7d374b",
        "76fbd229ce87db80dd281af5e6670de4ad0e42fb30a7bd643972994c47c1f42e",
        "a11dc742be8e781a40a92f53d6a4957e7b7d36df2faa097659131ebfd8fd60c6",
    ),
    git_id="3cf037df1ccd08cf71c7e9465ca6bc729e79a251",
)
_UNKNOWN = DataSetInfo(
    None, "these images", tuple(f"class {k}" for k in range(NUM_CLASSES)), "class"
)
_KNOWN = {str(each.name): each for each in (_MNIST, _FASHION_MNIST, _KMNIST)}
DATASETS = tuple(_KNOWN)


def known(name: str | None) -> DataSetInfo:
    """Returns the DataSetInfo of a name, an unknown set's if it is not in DATASETS."""
    return _KNOWN.get(str(name), _UNKNOWN)


def identify(pixels: np.ndarray) -> DataSetInfo:
    """Returns the DataSetInfo of a set, found by checksum.

    Args:
      pixels: All training images in the order of the file, uint8 `[n, 784]`.
    """
    payload = idx_content(np.asarray(pixels).reshape(-1, *IMAGE_SHAPE))
    sha256 = hashlib.sha256(payload).hexdigest()
    git_id = hashlib.sha1(b"blob %d\0" % len(payload) + payload, usedforsecurity=False).hexdigest()
    for info in _KNOWN.values():
        if info.sha256[0] == sha256 or info.git_id == git_id:
            return info
    return _UNKNOWN


def idx_content(array: np.ndarray) -> bytes:
    """Returns uint8 images `[n, 28, 28]` or labels `[n]` as an uncompressed IDX file."""
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()
