"""The data sets that are known by checksum: their names, classes, mirrors and files."""

import hashlib
from typing import NamedTuple

import numpy as np

from support.errors import UserError
from support.idx import image_header

NUM_CLASSES = 10
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class DataSetInfo(NamedTuple):
    """What a data set is called. name: None for one that is not known; class_names: of the labels
    0 to 9; noun: what a label stands for.
    """

    name: str | None
    title: str
    class_names: tuple
    noun: str

    def label(self, number):
        """0 to 9 -> `the digit 3`, `ankle boot`, `class 3`: what a sentence calls it."""
        name = self.class_names[number]
        return name if self.noun == "class" else f"the {self.noun} {name}"


class KnownSet(NamedTuple):
    """mirrors: addresses of folders. sha256: of the FILES, each of its uncompressed payload, which
    packing it again does not change, or of the file as published. training_images: what `identify`
    knows the set by.
    """

    info: DataSetInfo
    mirrors: tuple
    sha256: tuple
    training_images: str


_MNIST = KnownSet(
    DataSetInfo("mnist", "MNIST", tuple("0123456789"), "digit"),
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
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
)
_FASHION_MNIST = KnownSet(
    DataSetInfo(
        "fashion_mnist",
        "Fashion-MNIST",
        (
            "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker",
            "bag", "ankle boot",
        ),
        "class",
    ),
    ("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",),
    (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
)  # fmt: skip
_KMNIST = KnownSet(
    DataSetInfo(
        "kmnist",
        "KMNIST",
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        "character",
    ),
    ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    (
        "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",  # as published
        "2a16eeae62da984b8bd24fa32e31d47291f01dac3fe84d5594f304f71e7d374b",
        "76fbd229ce87db80dd281af5e6670de4ad0e42fb30a7bd643972994c47c1f42e",
        "a11dc742be8e781a40a92f53d6a4957e7b7d36df2faa097659131ebfd8fd60c6",
    ),
    "3cf037df1ccd08cf71c7e9465ca6bc729e79a251",  # Git's id of it: on record, where SHA-256 is not
)
_KNOWN = {each.info.name: each for each in (_MNIST, _FASHION_MNIST, _KMNIST)}
_UNKNOWN = DataSetInfo(
    None, "these images", tuple(f"class {k}" for k in range(NUM_CLASSES)), "class"
)
DATASETS = tuple(_KNOWN)


def get(name):
    """-> the KnownSet of a name; UserError for one that is not in DATASETS."""
    if name not in _KNOWN:
        raise UserError(f"data set {name!r}: wanted one of {', '.join(DATASETS)}")
    return _KNOWN[name]


def known(name):
    """One of DATASETS or None -> the DataSetInfo."""
    return _KNOWN[name].info if name in _KNOWN else _UNKNOWN


def all_sha256(file):
    """One of FILES -> the SHA-256 that it has in the known sets; () for another name."""
    if file not in FILES:
        return ()
    return tuple(each.sha256[FILES.index(file)] for each in _KNOWN.values())


def identify(pixels):
    """Uint8 [n, 784], all training images in file order -> their DataSetInfo, by checksum."""
    pixels = np.ascontiguousarray(pixels)
    header = image_header(len(pixels))
    git_header = b"blob %d\0" % (len(header) + pixels.nbytes)
    digests = {
        _digest(hashlib.sha256(header), pixels),
        _digest(hashlib.sha1(git_header + header, usedforsecurity=False), pixels),
    }
    found = (each.info for each in _KNOWN.values() if each.training_images in digests)
    return next(found, _UNKNOWN)


def is_mnist(pixels):
    """Uint8 [n, 784] -> whether they are all of MNIST's training images, by checksum."""
    return identify(pixels).name == "mnist"


def _digest(begun, pixels):
    begun.update(pixels)
    return begun.hexdigest()
