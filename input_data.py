"""IDX files of 28 x 28 images -> Datasets(train, validation, test), as `read_data_sets` gives them.

A drop-in for `tensorflow.examples.tutorials.mnist.input_data`, which TensorFlow removed. Imports no
TensorFlow. Steps: find or download a file (`support/downloads.py`), read and check it
(`support/idx.py`), wrap images and labels in a DataSet. What is wrong with a file is a DataError.
"""

import math
import sys
from collections import namedtuple
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from support import data_sets, downloads, idx
from support.data_sets import DATASETS, NUM_CLASSES, DataSetInfo, identify, is_mnist, known
from support.downloads import DownloadError
from support.errors import UserError
from support.files import atomic_write, remove_stale_files
from support.idx import IMAGE_SHAPE, NUM_PIXELS, SIDE, DataError, find_file, read_idx

__all__ = [
    "DATASETS", "IMAGE_SHAPE", "NUM_CLASSES", "NUM_PIXELS", "SIDE", "DataError", "DataSet",
    "DataSetInfo", "Datasets", "dense_to_one_hot", "download", "extract_images", "extract_labels",
    "find_file", "identify", "is_mnist", "known", "maybe_download", "only_digit", "read_data_sets",
    "read_idx", "split_validation",
]  # fmt: skip
FAKE_EXAMPLES = 10_000
# TensorFlow takes seeds modulo this.
_SEEDS = 2**31 - 1

Datasets = namedtuple("Datasets", ["train", "validation", "test"])


def read_data_sets(
    train_dir,
    fake_data=False,
    one_hot=False,
    dtype=np.float32,
    reshape=True,
    validation_size=5000,
    seed=None,
    source_url=None,
    dataset="mnist",
):
    """Folder of four IDX files -> Datasets(train, validation, test) of DataSets.

    The first `validation_size` training images become the validation set. Missing files are
    downloaded into `train_dir`, from `source_url` if given, else from the mirrors of `dataset`, one
    of DATASETS, with checksums. From a `source_url` of plain http only files of DATASETS are taken.
    The other arguments are those of DataSet, but that `one_hot` turns labels into float64
    `[n, 10]`. With `fake_data` nothing is read.

    Raises DataError for a bad file or folder or a failed download, ValueError for a
    `validation_size` outside 0..(training images), TypeError for a wrong `dtype`.
    """
    options = {"one_hot": one_hot, "dtype": _image_dtype(dtype), "reshape": reshape, "seed": seed}
    if fake_data:
        return Datasets(*(DataSet([], [], fake_data=True, **options) for _ in Datasets._fields))
    paths = _locate(Path(train_dir), source_url, dataset)
    train = DataSet(*_read_pair(*paths[:2], one_hot), **options)
    none = DataSet(train.pixels[:0], train.given_labels[:0], **options)
    test = DataSet(*_read_pair(*paths[2:], one_hot), **options)
    return split_validation(Datasets(train, none, test), validation_size)


def split_validation(data, validation_size):
    """Datasets -> the same, with the first `validation_size` training images as validation set.

    UserError for another number than 0..(training images).
    """
    images, labels, options = data.train.pixels, data.train.given_labels, data.train.options
    if not 0 <= validation_size <= len(images):
        raise UserError(
            f"Validation size should be between 0 and {len(images)}, the training images. "
            f"Received: {validation_size}."
        )
    parts = slice(validation_size, None), slice(validation_size)
    train, validation = (DataSet(images[part], labels[part], **options) for part in parts)
    return data._replace(train=train, validation=validation)


def only_digit(data_set, digit):
    """DataSet -> DataSet of its images labelled `digit`, with the same options, from the start.

    Raises UserError for a digit outside 0..9 or one that the set does not hold.
    """
    if digit not in range(NUM_CLASSES):
        raise UserError(f"--digit={digit!r}: wanted 0 to {NUM_CLASSES - 1}")
    labels = data_set.file_labels
    if not (labels == digit).any():
        there = ", ".join(map(str, np.unique(labels)))
        raise UserError(f"--digit={digit}: no such label in the data set, which has {there}")
    here = labels == digit
    return DataSet(data_set.pixels[here], data_set.given_labels[here], **data_set.options)


class DataSet:
    """Images with labels, handed out in batches, as the removed module's class of that name.

    images: `[n, h, w, 1]`, `[n, h, w]` or `[n, pixels]`, of 0..255; kept as they are, not copied.
    labels: `[n]` of 0..9, or one-hot `[n, 10]`; `one_hot` is of fake labels only.
    dtype: of the images handed out, float32 in [0, 1] or uint8 in 0..255 (NumPy's or TensorFlow's).
    reshape: images are handed out as `[n, pixels]` if true, `[n, h, w, 1]` if false.
    seed: seeds NumPy's global generator, from which the shuffles are drawn, as they always were;
    with None the seed of TensorFlow's default graph does, if it has one.
    fake_data: holds nothing, claims 10,000 examples, and every batch is a fake one.

    `images`, `labels` and what is under `_images`, `_labels`, `_num_examples` are in the order of
    the batches, may be written to and show in the batches after; `pixels`, `file_labels` and
    `given_labels` stay as they were given. As long as nobody asks for `images`, none but the
    batches are made.

    Raises TypeError for another dtype, ValueError for unequal numbers.
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
        self.one_hot = one_hot
        self._fake_data = fake_data
        self._scale = dtype == np.float32
        self._given = _read_only(_shaped(np.asarray(images), reshape))
        self.given_labels = _read_only(np.asarray(labels))
        if len(self._given) != len(self.given_labels):
            raise ValueError(
                f"{len(self.given_labels):,} labels, wanted {len(self._given):,} as images"
            )
        _seed_shuffles(seed)
        self._order = np.arange(len(self._given))
        self._made = None  # the images in the order of the batches, once somebody asks for them
        self._labels = self.given_labels.copy()
        self._num_examples = FAKE_EXAMPLES if fake_data else len(self._given)
        self._index_in_epoch = 0
        self._epochs_completed = 0

    @property
    def pixels(self):
        """Uint8 `[n, 784]` in 0..255 in the order given: a read-only view, no copy.

        ValueError for images of another type or size.
        """
        given = self._given
        if given.dtype != np.uint8 or given.size != len(given) * NUM_PIXELS:
            seen = f"{given.dtype} {list(given.shape)}"
            raise ValueError(f"images are {seen}, wanted uint8 with {NUM_PIXELS} pixels each")
        return given.reshape(-1, NUM_PIXELS)

    @property
    def file_labels(self):
        """The labels in the order given, uint8 `[n]` of 0..9 also where they are one-hot."""
        labels = self.given_labels
        return np.asarray(labels.argmax(axis=1) if labels.ndim == 2 else labels, np.uint8)

    @property
    def images(self):
        """All images as `dtype` and `reshape` say, made when first asked for."""
        return self._images

    @property
    def _images(self):
        if self._made is None:
            self._made = np.array(self._hand_out(self._given[self._order]))
        return self._made

    @_images.setter
    def _images(self, images):
        self._made = images

    @property
    def labels(self):
        """Uint8 `[n]`, or one-hot float64 `[n, 10]`."""
        return self._labels

    @property
    def num_examples(self):
        """Number of images, n; 10,000 if fake."""
        return self._num_examples

    @property
    def epochs_completed(self):
        """Epochs left behind: counted by the batch that takes the first image of a new epoch."""
        return self._epochs_completed

    def next_batch(self, batch_size, fake_data=False, shuffle=True):
        """Next (images, labels) of the epoch, `[batch_size, ...]` each: every image once an epoch.

        A batch across the end of an epoch has the rest of the old order, then the start of a new
        shuffle; one of more than there are is the rest and one whole epoch. Without `shuffle` the
        order stays as it is. Edits of a batch stay in the batch.

        With `fake_data`: two lists, images of 784 ones and labels of class 0.
        """
        if fake_data or self._fake_data:
            label = [1] + [0] * (NUM_CLASSES - 1) if self.one_hot else 0
            return [[1] * NUM_PIXELS] * batch_size, [label] * batch_size
        start = self._index_in_epoch
        if shuffle and start == 0 and self._epochs_completed == 0:
            self._shuffle()
        if start + batch_size <= self._num_examples:
            self._index_in_epoch += batch_size
            return self._slice(start, self._index_in_epoch)
        self._epochs_completed += 1
        rest = self._slice(start, self._num_examples)
        if shuffle:
            self._shuffle()
        self._index_in_epoch = batch_size - (self._num_examples - start)
        new = self._slice(0, self._index_in_epoch)
        return tuple(np.concatenate(parts) for parts in zip(rest, new, strict=True))

    def _slice(self, start, stop):
        """-> images and labels from one place in the order to another, copied."""
        if self._made is None:
            images = self._hand_out(self._given[self._order[start:stop]])
        else:
            images = self._made[start:stop].copy()
        return images, self._labels[start:stop].copy()

    def _shuffle(self):
        new = np.arange(self._num_examples)
        np.random.shuffle(new)  # noqa: NPY002 - the removed module's generator
        self._labels = self._labels[new]
        if self._made is None:
            self._order = self._order[new]
        else:
            self._made = self._made[new]

    def _hand_out(self, images):
        """Images as given -> in the wanted dtype and range."""
        # A product, not a quotient: the removed module's bits; 255 gives exactly 1.
        return np.multiply(images, 1 / 255, dtype=np.float32) if self._scale else images


def _image_dtype(dtype):
    """NumPy's, TensorFlow's or a named dtype -> np.dtype float32 or uint8; else TypeError."""
    wanted = getattr(dtype, "as_numpy_dtype", dtype)
    for allowed in (np.dtype(np.float32), np.dtype(np.uint8)):
        if allowed == wanted:
            return allowed
    raise TypeError(f"Invalid image dtype {dtype!r}, expected uint8 or float32")


def _shaped(images, reshape):
    """`[n, h, w]`, `[n, h, w, 1]` or `[n, pixels]` -> `[n, pixels]`, or pictures of one channel."""
    if reshape:
        return images.reshape(len(images), math.prod(images.shape[1:]))
    if images.ndim == 2:
        side = math.isqrt(images.shape[1])
        return images.reshape(-1, side, side, 1)
    return images if images.ndim == 4 else images[..., None]


def _seed_shuffles(seed):
    """Seeds NumPy's global generator as the removed module did, by TensorFlow's rules for seeds."""
    if seed is None and (tensorflow := sys.modules.get("tensorflow")):
        seed = tensorflow.compat.v1.get_default_graph().seed
    if seed is not None:
        np.random.seed(seed % _SEEDS)  # noqa: NPY002 - the removed module's generator


def _read_only(array):
    view = array.view()
    view.flags.writeable = False
    return view


def extract_images(f):
    """An open gzip file of IDX images -> uint8 `[n, 28, 28, 1]`; DataError for another content."""
    return idx.extract(f, IMAGE_SHAPE)[..., None]


def extract_labels(f, one_hot=False, num_classes=NUM_CLASSES):
    """An open gzip file of IDX labels -> uint8 `[n]`, or float64 `[n, num_classes]`."""
    labels = idx.extract(f, ())
    return dense_to_one_hot(labels, num_classes) if one_hot else labels


def dense_to_one_hot(labels_dense, num_classes):
    """Whole numbers `[n]` below num_classes -> float64 `[n, num_classes]`."""
    return np.eye(num_classes)[np.ravel(labels_dense)]


def maybe_download(filename, work_directory, source_url):
    """Fetches source_url into work_directory unless it has a file of that name; -> its path."""
    path = Path(work_directory) / filename
    if not path.exists():
        sha256 = _wanted_of(source_url, filename.removesuffix(".gz"))
        _download_first(path, [source_url], sha256, downloads.MAX_BYTES, [filename])
    return str(path)


def _read_pair(images_path, labels_path, one_hot):
    """Two paths -> images uint8 `[n, 28, 28]`, labels uint8 `[n]` in 0..9 or float64 `[n, 10]`."""
    images, labels = read_idx(images_path), read_idx(labels_path)
    with idx.prefix_errors(labels_path):
        wanted = f"{len(images)} as in {images_path.name}"
        idx.require(len(labels) == len(images), "labels", len(labels), wanted)
        idx.require(labels.max() < NUM_CLASSES, "label", labels.max(), f"0 to {NUM_CLASSES - 1}")
    return images, dense_to_one_hot(labels, NUM_CLASSES) if one_hot else labels


def _locate(folder, source_url, dataset):
    """Folder -> paths of the four files in the order of FILES; downloads what is missing."""
    wanted_set = data_sets.get(dataset)
    found = {name: find_file(folder, name) for name in data_sets.FILES}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        _refuse_emnist(folder)
    if missing and not source_url:
        _refuse_mixture(found, missing[0], wanted_set)
    for name in missing:
        by_hand = [f"{each}.gz" for each in missing if found[each] is None]
        path = folder / f"{name}.gz"
        mirrors = [source_url] if source_url else wanted_set.mirrors
        sha256 = _wanted_of(source_url, name) if source_url else _sha256_in(wanted_set, name)
        urls = [_under(mirror, path.name) for mirror in mirrors]
        found[name] = _download_first(path, urls, sha256, downloads.MAX_BYTES, by_hand)
    return list(found.values())


def _sha256_in(known_set, name):
    return (known_set.sha256[data_sets.FILES.index(name)],)


def _wanted_of(url, name):
    """-> the SHA-256 of which a file from `url` must have one; () for any."""
    return () if downloads.is_protected(url) else data_sets.all_sha256(name)


def _refuse_emnist(folder):
    """DataError for a folder of EMNIST, into which MNIST would be downloaded."""
    for path in folder.glob("*emnist-*"):
        raise DataError(
            f"{folder}: {path.name} is of EMNIST, whose images are transposed: save them upright, "
            f"under MNIST's names such as {data_sets.FILES[0]} (labels from 0 to 9)"
        )


def _refuse_mixture(found, missing, wanted_set):
    """DataError if the files that are there are not the set's, as the mirrors' would be.

    The known sets have the same names and counts: nobody would notice one's images with another's
    labels.
    """
    title = wanted_set.info.title
    for name, path in found.items():
        if path is None:
            continue
        with idx.prefix_errors(path):
            if not {*_sha256_in(wanted_set, name)} & {*idx.checksums(path)}:
                raise DataError(
                    f"not {title}'s own, so {missing}, missing beside it, is not downloaded "
                    f"from {title}'s mirrors; put the file there by hand or give source_url"
                )


def download(name, folder, mirrors, sha256=None, max_bytes=downloads.MAX_BYTES):
    """Fetch IDX file `name` from the first mirror that has a good one -> its path in the folder.

    Good: sound as for `read_idx`, at most `max_bytes` long, and the SHA-256 of its uncompressed
    payload or of the file is `sha256` if that is given. The folder is made if need be, and nothing
    else is left in it or made. Raises DataError if no mirror has one, with each mirror's reason.
    """
    urls = [_under(mirror, name) for mirror in mirrors]
    wanted = (sha256,) if sha256 else ()
    return _download_first(Path(folder) / name, urls, wanted, max_bytes, [name])


def _download_first(path, urls, sha256, max_bytes, by_hand):
    """Path, addresses -> the path, of what the first good one of them has.

    sha256: those of which a good file has one; () for any. by_hand: names to say if none is good.
    """
    reasons = []
    with idx.prefix_errors(path.parent), _folder(path.parent):
        remove_stale_files(path.parent, deep=False)
        for url in urls:
            try:
                _download(path, url, sha256, max_bytes)
                return path
            except (DataError, DownloadError) as error:
                reasons.append(str(error))
    raise DataError(
        f"{path.name} is not in {path.parent} and could not be downloaded ({'; '.join(reasons)}): "
        f"put {', '.join(by_hand)} there by hand"
    )


def _download(path, url, sha256, max_bytes):
    with atomic_write(path) as part:
        downloads.fetch(url, part, max_bytes, verified=bool(sha256))
        with idx.prefix_errors(url):
            seen = idx.checksums(part)
            wanted = sha256[0] if len(sha256) == 1 else "that of a known set: http is not protected"
            idx.require(not sha256 or {*sha256} & {*seen}, "SHA-256", seen[0], wanted)


def _under(mirror, name):
    return f"{mirror.rstrip('/')}/{name}"


@contextmanager
def _folder(folder):
    """Makes a folder and those above it, and removes what it made of them if nothing is put in."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for each in made:
            with suppress(OSError):  # it holds something
                each.rmdir()
