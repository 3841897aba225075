"""IDX files of 28 x 28 images -> Datasets(train, validation, test), as `read_data_sets` gives them.

A drop-in for `tensorflow.examples.tutorials.mnist.input_data`, which TensorFlow removed; the
format: http://yann.lecun.com/exdb/mnist/. Imports no TensorFlow. Steps: find or download a file,
read and check it, wrap images and labels in a DataSet. What is wrong with a file is a DataError.
"""

import gzip
import hashlib
import http.client
import math
import os
import struct
import urllib.request
import zlib
from collections import namedtuple
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import numpy as np

from errors import UserError

SIDE = 28
IMAGE_SHAPE = (SIDE, SIDE)
NUM_PIXELS = SIDE * SIDE
NUM_CLASSES = 10
FAKE_EXAMPLES = 10_000

MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
# Of the uncompressed payload: packing the same file again changes the .gz but not these.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

MAX_EXAMPLES = 1_000_000
MAX_DOWNLOAD_BYTES = 2**28
CHUNK_BYTES = 2**20
TIMEOUT_SECONDS = 30

Datasets = namedtuple("Datasets", ["train", "validation", "test"])


class DataError(UserError):
    """A data file, data folder or download that cannot be used; one line that names it."""


def read_data_sets(
    train_dir,
    fake_data=False,
    one_hot=False,
    dtype=np.float32,
    reshape=True,
    validation_size=5000,
    seed=None,
    source_url=None,
):
    """Folder of four IDX files -> Datasets(train, validation, test) of DataSets.

    The first `validation_size` training images become the validation set. Missing files are
    downloaded into `train_dir`, from `source_url` if given, else from MIRRORS with checksums.
    The other arguments are those of DataSet. With `fake_data` nothing is read.

    Raises DataError for a bad file or folder or a failed download, ValueError for a
    `validation_size` outside 0..(training images), TypeError for a wrong `dtype`.
    """
    options = {"one_hot": one_hot, "dtype": _image_dtype(dtype), "reshape": reshape, "seed": seed}
    if fake_data:
        return Datasets(*(DataSet([], [], fake_data=True, **options) for _ in Datasets._fields))
    paths = _locate(Path(train_dir), source_url)
    images, labels = _read_pair(*paths[:2])
    if not 0 <= validation_size <= len(images):
        raise UserError(
            f"Validation size should be between 0 and {len(images)}, the images in "
            f"{train_dir}. Received: {validation_size}."
        )
    held_out, rest = slice(validation_size), slice(validation_size, None)
    return Datasets(
        train=DataSet(images[rest], labels[rest], **options),
        validation=DataSet(images[held_out], labels[held_out], **options),
        test=DataSet(*_read_pair(*paths[2:]), **options),
    )


def only_digit(data_set, digit):
    """DataSet -> DataSet of its images labelled `digit`, with the same options, from the start.

    Raises UserError for a digit outside 0..9 or one that the set does not hold.
    """
    if digit not in range(NUM_CLASSES):
        raise UserError(f"--digit={digit!r}: wanted 0 to {NUM_CLASSES - 1}")
    labels = data_set.labels
    chosen = (labels.argmax(axis=1) if labels.ndim == 2 else labels) == digit
    if not chosen.any():
        raise UserError(f"--digit={digit}: none among the {len(labels):,} labels of the data set")
    return DataSet(data_set.pixels[chosen], labels[chosen], **data_set.options)


class DataSet:
    """Images with labels, handed out in batches.

    images: uint8 `[n, 28, 28]`, `[n, 28, 28, 1]` or `[n, 784]`; kept as they are, not copied.
    labels: uint8 `[n]` of 0..9, turned into float64 `[n, 10]` by `one_hot`; or one-hot already.
    dtype: of the images handed out, float32 in [0, 1] or uint8 in 0..255 (NumPy's or TensorFlow's).
    reshape: images are handed out as `[n, 784]` if true, `[n, 28, 28, 1]` if false.
    seed: fixes the shuffles; None draws new ones. NumPy's global generator is never touched.
    fake_data: holds nothing, claims 10,000 examples, and every batch is a fake one.

    Raises TypeError for another dtype, ValueError for wrong images or unequal numbers. Unlike
    the removed module, `images` and `labels` keep their order when batches are shuffled.
    """

    def __init__(
        self,
        images,
        labels,
        fake_data=False,
        one_hot=False,
        dtype=np.float32,
        reshape=True,
        seed=None,
    ):
        dtype = _image_dtype(dtype)
        if fake_data:
            images, labels = np.empty((0, NUM_PIXELS), np.uint8), np.empty(0, np.uint8)
        self.options = {"one_hot": one_hot, "dtype": dtype, "reshape": reshape, "seed": seed}
        self._fake_data = fake_data
        self._scale = dtype == np.float32
        self._shape = (NUM_PIXELS,) if reshape else (*IMAGE_SHAPE, 1)
        self._pixels = _flat_pixels(images)
        labels = np.asarray(labels)
        self._labels = _read_only(_one_hot(labels) if one_hot and labels.ndim == 1 else labels)
        if len(self._pixels) != len(self._labels):
            raise ValueError(
                f"{len(self._labels):,} labels, wanted {len(self._pixels):,} as images"
            )
        self._rng = np.random.default_rng(seed)
        self._order = np.arange(len(self._pixels))
        self._index_in_epoch = 0
        self._epochs_completed = 0

    @property
    def pixels(self):
        """Uint8 `[n, 784]` in 0..255, whatever `dtype` and `reshape`: a read-only view, no copy."""
        return self._pixels

    @cached_property
    def images(self):
        """All images as `dtype` and `reshape` say, read-only; float32 are made once, when asked."""
        return _read_only(self._hand_out(self._pixels))

    @property
    def labels(self):
        """Uint8 `[n]`, or one-hot float64 `[n, 10]`; read-only."""
        return self._labels

    @property
    def num_examples(self):
        """Number of images, n; 10,000 if fake."""
        return FAKE_EXAMPLES if self._fake_data else len(self._pixels)

    @property
    def epochs_completed(self):
        """Epochs left behind: counted by the batch that takes the first image of a new epoch."""
        return self._epochs_completed

    def next_batch(self, batch_size, fake_data=False, shuffle=True):
        """Next (images, labels) of the epoch, `[batch_size, ...]` each: every image once an epoch.

        A batch across the end of an epoch has the rest of the old order, then the start of a new
        shuffle; without `shuffle` the order stays as it is. With `fake_data`: two lists, images
        of 784 ones and labels of class 0. Raises ValueError unless 1 <= batch_size <= n.
        """
        if not 1 <= batch_size <= self.num_examples:
            raise ValueError(f"batch_size {batch_size}, wanted 1 to {self.num_examples} (examples)")
        if fake_data or self._fake_data:
            label = [1] + [0] * (NUM_CLASSES - 1) if self.options["one_hot"] else 0
            return [[1] * NUM_PIXELS] * batch_size, [label] * batch_size
        rows = self._next_rows(batch_size, shuffle)
        return self._hand_out(self._pixels[rows]), self._labels[rows]

    def _next_rows(self, batch_size, shuffle):
        """Indices `[batch_size]` of the next images; moves the position in the epoch."""
        if shuffle and self._index_in_epoch == 0:  # only before the first batch of all
            self._order = self._rng.permutation(self._order)
        rows = self._order[self._index_in_epoch :][:batch_size]
        self._index_in_epoch += len(rows)
        missing = batch_size - len(rows)
        if missing:
            if shuffle:
                self._order = self._rng.permutation(self._order)
            rows = np.concatenate((rows, self._order[:missing]))
            self._index_in_epoch = missing
            self._epochs_completed += 1
        return rows

    def _hand_out(self, pixels):
        """Uint8 `[n, 784]` -> `[n, 784]` or `[n, 28, 28, 1]` in the wanted dtype and range."""
        images = pixels.reshape(-1, *self._shape)
        # A product, not a quotient: the removed module's bits; 255 gives exactly 1.
        return np.multiply(images, 1 / 255, dtype=np.float32) if self._scale else images


def _image_dtype(dtype):
    """NumPy's, TensorFlow's or a named dtype -> np.dtype float32 or uint8; else TypeError."""
    wanted = getattr(dtype, "as_numpy_dtype", dtype)
    for known in (np.dtype(np.float32), np.dtype(np.uint8)):
        if known == wanted:
            return known
    raise TypeError(f"Invalid image dtype {dtype!r}, expected uint8 or float32")


def _flat_pixels(images):
    """Uint8 `[n, ...]` of 784 pixels each -> read-only view `[n, 784]`; else ValueError."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.size != len(images) * NUM_PIXELS:
        seen = f"{images.dtype} {list(images.shape)}"
        raise ValueError(f"images are {seen}, wanted uint8 with {NUM_PIXELS} pixels each")
    return _read_only(images.reshape(-1, NUM_PIXELS))


def _one_hot(labels):
    """Integers `[n]` in 0..9 -> float64 `[n, 10]`."""
    return np.eye(NUM_CLASSES)[labels]


def _read_only(array):
    view = array.view()
    view.flags.writeable = False
    return view


def _locate(folder, source_url):
    """Folder -> paths of the four files in the order of MNIST_SHA256; downloads what is missing."""
    found = {name: find_file(folder, name) for name in MNIST_SHA256}
    if source_url:
        mirrors, checksums = (source_url,), {}
    else:
        mirrors, checksums = MIRRORS, MNIST_SHA256
        _refuse_mixture(found)
    return [
        path or download(f"{name}.gz", folder, mirrors, checksums.get(name))
        for name, path in found.items()
    ]


def is_mnist(pixels):
    """Uint8 [n, 784] -> whether they are all of MNIST's training images, by checksum."""
    digest = hashlib.sha256(struct.pack(">4I", 2051, len(pixels), *IMAGE_SHAPE))
    digest.update(np.ascontiguousarray(pixels))
    return digest.hexdigest() == MNIST_SHA256["train-images-idx3-ubyte"]


def _refuse_mixture(found):
    """DataError if files are missing and those there are not MNIST's, as the mirrors' would be.

    Fashion-MNIST has MNIST's names and counts: nobody would notice its images with digits' labels.
    """
    missing = [name for name, path in found.items() if path is None]
    present = {name: path for name, path in found.items() if path and missing}
    for name, path in present.items():
        with _blame(path):
            if _payload_sha256(path) != MNIST_SHA256[name]:
                raise DataError(
                    f"not MNIST's own, so {missing[0]}, missing beside it, is not downloaded "
                    "from MNIST's mirrors; put the file there by hand or give source_url"
                )


def find_file(folder, name):
    """Path of `name` in the folder, packed or not, `-idx` or `.idx`; None if it is not there.

    Raises DataError if the folder cannot be listed.
    """
    folder = Path(folder)
    with _blame(folder):
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
    with _blame(path):
        payload = _read_payload(path)
    item_shape = _item_shape(path)
    items = np.frombuffer(payload, np.uint8, offset=_header_size(item_shape))
    return items.reshape(-1, *item_shape)


def _read_pair(images_path, labels_path):
    """Two paths -> images uint8 `[n, 28, 28]`, labels uint8 `[n]` in 0..9; else DataError."""
    images, labels = read_idx(images_path), read_idx(labels_path)
    with _blame(labels_path):
        wanted = f"{len(images)} as in {images_path.name}"
        _require(len(labels) == len(images), "labels", len(labels), wanted)
        _require(labels.max() < NUM_CLASSES, "label", labels.max(), f"0 to {NUM_CLASSES - 1}")
    return images, labels


def _payload_sha256(path):
    """Path -> SHA-256 of the checked, uncompressed payload, in hexadecimal."""
    return hashlib.sha256(_read_payload(path)).hexdigest()


def _read_payload(path):
    """Path -> the uncompressed file, header included, after all checks; errors do not name it."""
    item_shape = _item_shape(path)
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
        header = stream.read(_header_size(item_shape))
        count = _header_count(header, item_shape)
        return _read_exactly(stream, header, len(header) + count * math.prod(item_shape))


def _item_shape(path):
    return IMAGE_SHAPE if "idx3" in path.name else ()


def _header_size(item_shape):
    """Bytes of magic number, count and item shape, four each."""
    return 4 * (2 + len(item_shape))


def _header_count(header, item_shape):
    """Header -> number of items, 1 to MAX_EXAMPLES; DataError if it is not one of `item_shape`."""
    size = _header_size(item_shape)
    _require(len(header) == size, "bytes of header", len(header), size)
    magic, count, *shape = struct.unpack(f">{size // 4}I", header)
    # 8 stands for unsigned bytes; the last byte is the number of dimensions.
    wanted_magic = 0x800 + 1 + len(item_shape)
    _require(magic == wanted_magic, "magic number", magic, wanted_magic)
    _require(tuple(shape) == item_shape, "image size", shape, list(item_shape))
    _require(1 <= count <= MAX_EXAMPLES, "number of items", count, f"1 to {MAX_EXAMPLES}")
    return count


def _read_exactly(stream, start, size):
    """Stream after `start` -> both, as a bytearray of `size`; DataError for less or more."""
    payload = bytearray(start)
    # Grows with what comes, not with what the header promises. The byte too much that is asked
    # for shows trailing data, and makes gzip compare its CRC.
    while chunk := stream.read(min(CHUNK_BYTES, size + 1 - len(payload))):
        payload += chunk
    _require(len(payload) >= size, "bytes", len(payload), size)
    _require(len(payload) <= size, "bytes", f"more than {size}", size)
    return payload


def download(name, folder, mirrors, sha256=None, max_bytes=MAX_DOWNLOAD_BYTES):
    """Fetch IDX file `name` from the first mirror that has a good one -> its path in the folder.

    Good: sound as for `read_idx`, at most `max_bytes` long, and the SHA-256 of its uncompressed
    payload is `sha256` if that is given. Nothing else is left in the folder, which is made if
    need be. Raises DataError if no mirror has one, with each mirror's reason.
    """
    folder = Path(folder)
    with _blame(folder):
        folder.mkdir(parents=True, exist_ok=True)
        scratch = TemporaryDirectory(dir=folder, prefix=".download-")
    reasons = []
    with scratch:
        part = Path(scratch.name, name)
        for mirror in mirrors:
            url = f"{mirror.rstrip('/')}/{name}"
            try:
                with _blame(url):
                    _fetch(url, part, max_bytes)
                    seen = _payload_sha256(part)
                    _require(sha256 in (None, seen), "SHA-256", seen, sha256)
                    return part.replace(folder / name)
            except DataError as error:
                reasons.append(str(error))
    raise DataError(
        f"{name} is not in {folder} and could not be downloaded ({'; '.join(reasons)}): "
        "put the file there by hand"
    )


def _fetch(url, path, max_bytes):
    """URL -> file of at most `max_bytes`, with a progress bar; DataError if it is cut short."""
    from tqdm import tqdm  # only a download needs it

    _require_safe(url)
    opener = urllib.request.build_opener(_SafeRedirects)
    with opener.open(url, timeout=TIMEOUT_SECONDS) as reply, open(path, "wb") as file:
        promised = reply.length
        _require((promised or 0) <= max_bytes, "bytes", promised, f"at most {max_bytes}")
        with tqdm(total=promised, desc=path.name, unit="B", unit_scale=True, disable=None) as bar:
            while chunk := reply.read(2**16):
                bar.update(file.write(chunk))
                _require(file.tell() <= max_bytes, "bytes", file.tell(), f"at most {max_bytes}")
        _require(promised in (None, file.tell()), "bytes", file.tell(), promised)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _require_safe(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_safe(url):
    """DataError unless the address is https, or http on this machine."""
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    safe = parts.scheme == "https" or (parts.scheme == "http" and local)
    _require(safe, "address", url, "https")


@contextmanager
def _blame(culprit):
    """Turns what goes wrong with a file, folder or URL into a DataError that names it first."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{culprit}: {error}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{culprit}: {error}, wanted a whole gzip stream") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__} {error}"
        # A server's words may hold line ends.
        raise DataError(f"{culprit}: {' '.join(reason.split())}") from error


def _require(condition, what, seen, wanted):
    if not condition:
        raise DataError(f"{what}: {seen}, wanted {wanted}")
