"""The known data sets and their IDX files: found or downloaded, checked and read.

The format: http://yann.lecun.com/exdb/mnist/. `read` returns images and labels of the training and
of the test set in a folder.
"""

import functools
import gzip
import hashlib
import io
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from support.downloads import download
from support.errors import DataError, UserError
from support.files import atomic_write

NUM_CLASSES = 10
SIDE = 28
IMAGE_SHAPE = (SIDE, SIDE)
NUM_PIXELS = SIDE * SIDE
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
MAX_EXAMPLES = 1_000_000
# Of a file of unsigned bytes; the number of dimensions is added.
_MAGIC = 0x800


@dataclass(frozen=True)
class DataSetInfo:
    """A data set's names and, if it is a published one, its IDX files.

    Attributes:
      name: One of DATASETS, or None for an unknown set.
      title: Its name in sentences.
      class_names: Names of the labels 0 to 9.
      noun: Noun for a label's meaning.
      mirrors: Addresses of folders with the four IDX files, each with `.gz` at its end.
      sha256: Of these files in the order of `FILES`, each uncompressed or as published.
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
    by_checksum = {info.git_id or info.sha256[0]: info for info in _KNOWN.values()}
    if info := by_checksum.get(hashlib.sha256(payload).hexdigest()):
        return info
    git_id = hashlib.sha1(b"blob %d\0" % len(payload) + payload, usedforsecurity=False)
    return by_checksum.get(git_id.hexdigest(), _UNKNOWN)


def idx_content(array: np.ndarray) -> bytes:
    """Returns uint8 images `[n, 28, 28]` or labels `[n]` as an uncompressed IDX file."""
    return struct.pack(f">{1 + array.ndim}I", _MAGIC + array.ndim, *array.shape) + array.tobytes()


def read(folder: Path, dataset: str = "mnist", source_url: str | None = None) -> list[tuple]:
    """Reads the four files in a folder; downloads missing ones into it.

    They may be compressed or not, and spelled with `-idx` or `.idx`.

    Args:
      folder: Folder of the files.
      dataset: The known set whose mirrors and checksums are used for missing files.
      source_url: Address of a folder that replaces the mirrors; its files may be of any of
        DATASETS.

    Returns:
      (images, labels) of the training and of the test set: uint8 `[n, 28, 28]`, and uint8 `[n]` in
      0..9.

    Raises:
      DataError: If a file is damaged, or missing and cannot be downloaded, or if the files do not
        belong together.
      UserError: If `dataset` is not one of DATASETS.
    """
    if dataset not in DATASETS:
        raise UserError(f"--dataset must be one of {', '.join(DATASETS)}, got {dataset}")
    paths = find(folder)
    if len(paths) < len(FILES):
        _complete(paths, folder, dataset, source_url)
    arrays = {name: read_idx(paths[name]) for name in FILES}
    for images, labels in (FILES[:2], FILES[2:]):
        path, count, highest = paths[labels], len(arrays[images]), arrays[labels].max()
        described = f"{count} labels as in {paths[images].name}"
        require(len(arrays[labels]) == count, path, described, len(arrays[labels]))
        require(highest < NUM_CLASSES, path, f"labels from 0 to {NUM_CLASSES - 1}", highest)
    return [(arrays[images], arrays[labels]) for images, labels in (FILES[:2], FILES[2:])]


def find(folder: Path) -> dict[str, Path]:
    """Returns {name in FILES: path} of the IDX files in a folder.

    Raises:
      DataError: If files are missing and it has files of EMNIST, or is one.
    """
    paths: dict[str, Path] = {}
    for name in FILES:
        for suffix in (".gz", ""):
            for spelled in (name, name.replace("-idx", ".idx")):
                if (folder / (spelled + suffix)).is_file():
                    paths.setdefault(name, folder / (spelled + suffix))
    files = [folder] if folder.is_file() else folder.glob("*emnist-*")
    for path in files if len(paths) < len(FILES) else ():
        if "emnist-" in path.name:
            raise DataError(
                f"{folder}: {path.name} is of EMNIST, whose images are transposed: save them "
                f"upright, under MNIST's names such as {FILES[0]} (labels from 0 to 9)"
            )
    return paths


def read_idx(path) -> np.ndarray:
    """Returns the content of an IDX file, compressed or not.

    Args:
      path: The file; `idx3` in its name says that it has images.

    Returns:
      Images, uint8 `[n, 28, 28]`, or labels, uint8 `[n]`.

    Raises:
      DataError: If header or size are not what the name promises.
    """
    with open(path, "rb") as file:
        return parse(file, IMAGE_SHAPE if "idx3" in Path(path).name else (), path)


def parse(file, item_shape: tuple, name) -> np.ndarray:
    """Returns the items in an open IDX file, uint8 `[n, *item_shape]`.

    Args:
      file: A seekable binary file, compressed or not.
      item_shape: Shape of one item: `(28, 28)` for images, `()` for labels.
      name: What an error calls the file.
    """
    # By content, because some servers and browsers decompress a file without renaming it.
    is_compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    stream = gzip.GzipFile(fileobj=file) if is_compressed else file
    dimensions = 1 + len(item_shape)
    expected = f"images of {' x '.join(map(str, item_shape))}" if item_shape else "labels"
    try:
        header = stream.read(4 * (1 + dimensions))
        count = int.from_bytes(header[4:8], "big")
        right = struct.pack(f">{1 + dimensions}I", _MAGIC + dimensions, count, *item_shape)
        require(header == right, name, f"{expected} in IDX format", describe(header))
        require(1 <= count <= MAX_EXAMPLES, name, f"1 to {MAX_EXAMPLES} items", count)
        size = count * math.prod(item_shape)
        # One byte more than expected shows trailing data, and makes gzip compare its CRC.
        content = bytearray(stream.read(size + 1))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name}: expected a complete gzip file, found: {error}") from error
    found = str(len(content)) if len(content) < size else "more"
    require(len(content) == size, name, f"{size} bytes", found)
    return np.frombuffer(content, np.uint8).reshape(-1, *item_shape)


def describe(head: bytes) -> str:
    """Returns what a file is by its first bytes."""
    if head.startswith(b"\0\0\x08") and len(head) >= 4 * (1 + head[3]):
        return f"an IDX file of shape {struct.unpack_from(f'>{head[3]}I', head, 4)}"
    if head.startswith(b"\0\0\x08") and len(head) > 3:
        return f"an IDX file of {head[3]} dimensions"
    return f"a file that starts with {head[:16]!r}" if head else "an empty file"


def _complete(paths, folder, dataset, source_url):
    """Downloads the files that are missing in `paths`, {name: path}, and adds them.

    Each must be of a known set, and that of the files that exist: the sets have the same names and
    counts, and one set's images with another set's labels would train without an error.
    """
    sets = [known(name) for name in (DATASETS if source_url else [dataset])]
    for name, path in paths.items():
        sets = _sets_with(sets, name, path, path.read_bytes())
    missing = [name for name in FILES if name not in paths]
    if not sets:
        raise DataError(
            f"put {missing[0]} into {folder}, or name another folder: its files are not of the set "
            "that would be downloaded"
        )
    mirrors = [source_url] if source_url else known(dataset).mirrors
    for name in missing:
        path = folder / f"{name}.gz"
        addresses = [f"{mirror.rstrip('/')}/{path.name}" for mirror in mirrors]
        try:
            content = download(addresses, functools.partial(_check_download, sets, name))
        except DataError as error:
            raise DataError(
                f"{folder} lacks {path.name} and downloading it failed ({error}); copy the four "
                "files there"
            ) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
        paths[name] = path
        sets = _sets_with(sets, name, path, content)


def _check_download(sets, name, content):
    titles, found = " or ".join(each.title for each in sets), hashlib.sha256(content).hexdigest()
    has_any = bool(_sets_with(sets, name, name, content))
    require(has_any, name, f"the file of {titles}", f"another one (SHA-256 {found[:12]})")


def _sets_with(sets, name, place, content):
    """Returns those of the known sets whose file `name` has this content.

    Their checksum is of the file or of its uncompressed content; compressing the same content again
    changes only the first.
    """
    array = parse(io.BytesIO(content), IMAGE_SHAPE if "idx3" in name else (), place)
    found = {hashlib.sha256(part).hexdigest() for part in (content, idx_content(array))}
    return [each for each in sets if each.sha256[FILES.index(name)] in found]


def require(condition: bool, name: object, expected: str, found: object) -> None:
    """Raises a DataError about the file or folder `name` unless a condition holds."""
    if not condition:
        raise DataError(f"{name}: expected {expected}, found {found}")
