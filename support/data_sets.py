"""The data sets that are known by checksum, and downloads of their files."""

import hashlib
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import numpy as np

from support.errors import UserError, one_line
from support.files import atomic_write, remove_stale_files
from support.idx import DataError, checksums, find_file, image_header, prefix_errors, require

NUM_CLASSES = 10
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
MAX_BYTES = 2**28
_LONGEST_REASON = 200
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class DataSetInfo:
    """A data set's names and, if it is a published one, its files.

    Attributes:
      name: One of DATASETS, or None for an unknown set.
      title: Its name in sentences.
      class_names: Names of the labels 0 to 9.
      noun: Noun for a label's meaning.
      mirrors: Addresses of folders with the FILES, each with `.gz` at its end.
      sha256: Of the FILES, each of its uncompressed payload or of the file as published.
      git_id: Git's SHA-1 of the uncompressed training images, if `sha256` is not of their payload.
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
    payload = image_header(len(pixels)) + np.asarray(pixels).tobytes()
    sha256 = hashlib.sha256(payload).hexdigest()
    git_id = hashlib.sha1(b"blob %d\0" % len(payload) + payload, usedforsecurity=False).hexdigest()
    for info in _KNOWN.values():
        if info.sha256[0] == sha256 or info.git_id == git_id:
            return info
    return _UNKNOWN


def is_mnist(pixels: np.ndarray) -> bool:
    """Returns whether uint8 `[n, 784]` are all of MNIST's training images."""
    return identify(pixels).name == "mnist"


def locate(folder: Path, dataset: str = "mnist", source_url: str | None = None) -> list[Path]:
    """Returns the paths of the four files; downloads missing ones.

    The order is that of FILES.

    Args:
      folder: Folder of the files.
      dataset: The known set whose mirrors and checksums are used for missing files.
      source_url: Address of a folder that replaces the mirrors and their checksums.

    Raises:
      DataError: If files are missing and cannot be downloaded, or do not belong together.
      UserError: If `dataset` is not one of DATASETS.
    """
    if dataset not in DATASETS:
        raise UserError(f"--dataset must be one of {', '.join(DATASETS)}, got {dataset!r}")
    info = known(dataset)
    published = dict(zip(FILES, info.sha256, strict=True))
    found = {name: find_file(folder, name) for name in FILES}
    missing = [name for name in FILES if found[name] is None]
    for path in folder.glob("*emnist-*") if missing else ():
        raise DataError(
            f"{folder}: {path.name} is of EMNIST, whose images are transposed: save them upright, "
            f"under MNIST's names such as {FILES[0]} (labels from 0 to 9)"
        )
    # The known sets have the same names and counts: one set's images with another set's labels
    # would train without an error.
    for name, existing in found.items() if missing and not source_url else ():
        with prefix_errors(existing):
            if existing and published[name] not in checksums(existing):
                raise DataError(
                    f"not a file of {info.title}, from whose mirrors the missing {missing[0]} "
                    "would be downloaded; put that file there by hand or pass source_url"
                )
    for name in missing:
        accepted = accepted_from(source_url, name) if source_url else {published[name]}
        folders = [source_url] if source_url else info.mirrors
        urls = [f"{each.rstrip('/')}/{name}.gz" for each in folders]
        by_hand = [f"{each}.gz" for each in missing if found[each] is None]
        found[name] = fetch(folder / f"{name}.gz", urls, accepted, by_hand=by_hand)
    return [path for path in found.values() if path is not None]


def accepted_from(url: str, name: str) -> set[str]:
    """Returns the SHA-256 that file `name` from `url` may have; empty for any file."""
    if _is_protected(url) or name not in FILES:
        return set()
    return {info.sha256[FILES.index(name)] for info in _KNOWN.values()}


def fetch(path: Path, urls, accepted=frozenset(), max_bytes=MAX_BYTES, by_hand=()) -> Path:
    """Downloads an IDX file from the first address that has a valid one.

    The folder is created if it is missing. A download that fails leaves nothing.

    Args:
      path: Path of the file to save; its name says whether it has images, see `read_idx`.
      urls: Addresses to try in turn: https, http on this machine, or any http if `accepted` is not
        empty.
      accepted: SHA-256 of the uncompressed payload or of the file, of which it must have one; any
        if empty.
      max_bytes: The largest file that is accepted.
      by_hand: Names of the files that the error recommends to put there by hand.

    Returns:
      The path.

    Raises:
      DataError: If no address has a valid file, with each one's reason.
    """
    folder = path.parent
    reasons = []
    with prefix_errors(folder):
        created = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            remove_stale_files(folder, deep=False)
            for url in urls:
                try:
                    with atomic_write(path) as part:
                        _download(url, part, accepted, max_bytes)
                    return path
                except DataError as error:
                    reasons.append(f"{_shorten(url)}: {error}")
        finally:
            for each in created:
                with suppress(OSError):  # it contains something
                    each.rmdir()
    raise DataError(
        f"{path.name} is not in {folder} and could not be downloaded ({'; '.join(reasons)}): "
        f"put {', '.join(by_hand or [path.name])} there by hand"
    )


def _download(url, path, accepted, max_bytes):
    import pooch  # only downloads need it
    import requests  # comes with pooch

    def check_address(address):
        protected = _is_protected(address) or (accepted and address.startswith("http://"))
        require(protected, "an https address", _shorten(address))

    def check_redirect(response, **_):
        if response.is_redirect:
            check_address(urljoin(response.url, response.headers["location"]))

    check_address(url)
    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        chunk_size=2**16,
        headers={"Accept-Encoding": "identity"},
        hooks={"response": check_redirect},
    )
    try:
        with open(path, "wb") as file:
            downloader(url, _LimitedFile(file, max_bytes), None)
    except DataError:
        raise
    except (requests.RequestException, ValueError) as error:  # ValueError: an invalid redirect
        raise DataError(_reason(error)) from error
    actual = checksums(path)
    if accepted and accepted.isdisjoint(actual):
        expected = " or ".join(sorted(accepted))
        raise DataError(f"expected SHA-256 {expected}, found {' and '.join(sorted(actual))}")


class _LimitedFile:
    """A file for writing whose size is limited."""

    def __init__(self, file, max_bytes):
        self._file = file
        self._max_bytes = max_bytes

    def write(self, chunk):
        self._file.write(chunk)
        within = self._file.tell() <= self._max_bytes
        require(within, f"at most {self._max_bytes} bytes", "more")

    def flush(self):
        self._file.flush()


def _is_protected(url):
    """Returns whether a file cannot be changed on the way.

    It cannot with https, or http on this machine.
    """
    with suppress(ValueError):
        parts = urlsplit(url)
        return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL)
    return False


def _reason(error):
    """Returns the innermost reason of a failed request as one line."""
    response = getattr(error, "response", None)
    if response is not None and not response.ok:
        return f"HTTP status {response.status_code}"
    while isinstance(inner := error.__cause__ or (error.args and error.args[0]), Exception):
        error = inner
    return _shorten(getattr(error, "strerror", None) or f"{type(error).__name__} {error}")


def _shorten(text):
    line = one_line(text)
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."
