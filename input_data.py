"""Data sets of 28 x 28 images.

`Datasets(train, validation, test)` is a drop-in for that of
`tensorflow.examples.tutorials.mnist.input_data`, which TensorFlow removed. Imports no TensorFlow.
`support/data_sets.py` reads IDX files, or downloads them; `support/own_images.py` reads a user's.
"""

import dataclasses
import functools
import math
import operator
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np

from support import data_sets
from support.data_sets import IMAGE_SHAPE, NUM_CLASSES, NUM_PIXELS, DataSetInfo, identify, known
from support.errors import DataError, UserError

# TensorFlow takes seeds modulo this.
_SEEDS = 2**31 - 1
_PROJECT = Path(__file__).parent
# Mean grey value of the border above which images seem to be dark on white.
_BRIGHT_BORDER = 150

Datasets = namedtuple("Datasets", ["train", "validation", "test"])


def load(
    dataset: str | None = None, data_dir=None, *, invert: bool = False, log: Callable = print
) -> tuple[Datasets, DataSetInfo]:
    """Loads a data set; no images are held out for validation.

    Args:
      dataset: One of `data_sets.DATASETS`, whose missing files are downloaded; None for the images
        in `data_dir`, or MNIST without one.
      data_dir: Folder of the four IDX files, or a folder or file of `support.own_images`; by
        default that of `data_folder`.
      invert: Whether to exchange black and white.
      log: Function of a line about the images in `data_dir`.

    Returns:
      The Datasets, whose `validation` is empty, and what they are. Without labels, all are 0.

    Raises:
      UserError: If the files cannot be used, or are not those of an explicit `dataset`.
    """
    if invert and not data_dir:
        raise UserError("set --data_dir to the images of the run; --invert is only for your own")
    folder = Path(data_folder(dataset, data_dir))
    found = data_sets.find(folder)
    names: tuple[str, ...] = ()
    is_empty = not any(folder.glob("[!.]*")) and not folder.is_file()
    if len(found) == len(data_sets.FILES) or not data_dir or (dataset and (found or is_empty)):
        sets = data_sets.read(folder, dataset or "mnist")
        counts = " and ".join(f"{len(images):,}" for images, _ in sets)
        sentence = f"Read {counts} images from IDX files in {folder}."
    elif found or is_empty:
        missing = [name for name in data_sets.FILES if name not in found]
        problem = f"lacks {missing[0]}" if found else "is missing or empty"
        raise DataError(
            f"--data_dir={folder} {problem}; correct it, or add --dataset=mnist to download "
            "MNIST into it"
        )
    else:
        from support import own_images

        sets, names, sentence = own_images.read(folder)
    if invert:
        sets = [(255 - images, labels) for images, labels in sets]
        sentence += " Inverted them."
    train, test = (DataSet(*each) for each in sets)
    info = identify(train.pixels)
    if dataset not in (None, info.name):
        actual = info.title if info.name else "other images"
        raise UserError(
            f"{folder} contains {actual}, not {known(dataset).title}; "
            "choose another --dataset or --data_dir"
        )
    if info.name is None:
        info = dataclasses.replace(info, class_names=names + info.class_names[len(names) :])
    if data_dir:
        log(sentence)
        images = sets[0][0]
        border = np.mean([images[:, [0, -1]].mean(), images[:, :, [0, -1]].mean()])
        if border > max(_BRIGHT_BORDER, images.mean()):
            hint = "omit --invert" if invert else "--invert makes it bright on black, like MNIST's"
            log(f"Note: the ink looks dark on white; {hint}.")
    return Datasets(train, train[:0], test), info


def data_folder(dataset: str | None = None, data_dir=None) -> str:
    """Returns the folder of a data set's files: `data_dir`, or the default one.

    That is MNIST_data in the project's folder for MNIST or None, else data/NAME in the current one.
    """
    if data_dir:
        return str(Path(data_dir).expanduser())
    return str(_PROJECT / "MNIST_data") if dataset in (None, "mnist") else f"data/{dataset}"


def select(data: Datasets, validation_size: int = 0, digit: int | None = None) -> Datasets:
    """Returns the Datasets that a run trains on.

    Args:
      data: Datasets whose `validation` is replaced.
      validation_size: Number of training images to hold out for validation, from the start.
      digit: If given, training and test images of other labels are dropped.

    Raises:
      UserError: If `validation_size` is not in 0..(training images), or no image is a `digit`.
    """
    count = len(data.train.pixels)
    if not 0 <= validation_size <= count:
        raise UserError(
            f"Validation size should be between 0 and {count}, the training images. "
            f"Received: {validation_size}."
        )
    train, validation = data.train[validation_size:], data.train[:validation_size]
    if digit is None:
        return Datasets(train, validation, data.test)
    if digit not in train.file_labels:
        existing = ", ".join(map(str, np.unique(train.file_labels)))
        raise UserError(f"--digit must be a label of the data set ({existing}), got {digit}")
    train, test = (part[part.file_labels == digit] for part in (train, data.test))
    return Datasets(train, validation, test)


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
) -> Datasets:
    """Reads the four IDX files in a folder; downloads missing ones into it.

    Args:
      train_dir: The folder.
      fake_data: Must be false; the removed module's fake sets are not supported.
      one_hot: Whether labels are float64 `[n, 10]` instead of uint8 `[n]`.
      dtype, reshape, seed: As for DataSet.
      validation_size: Number of training images, from the start, that become the validation set.
      source_url: Address of a folder from which missing files are downloaded, of any known set.
      dataset: One of `data_sets.DATASETS`: without a `source_url`, missing files are downloaded
        from its mirrors. All downloads are compared with the sets' checksums.

    Raises:
      DataError: For a bad file or folder or a failed download.
      ValueError: For a `validation_size` outside 0..(training images), or fake data.
      TypeError: For an unsupported `dtype`.
    """
    dtype = _image_dtype(dtype)  # before anything is read
    options = {"one_hot": one_hot, "dtype": dtype, "reshape": reshape, "seed": seed}
    if fake_data:
        raise ValueError("fake_data must be False, got True; use real images")
    train, test = (
        DataSet(images, dense_to_one_hot(labels, NUM_CLASSES) if one_hot else labels, **options)
        for images, labels in data_sets.read(Path(train_dir).expanduser(), dataset, source_url)
    )
    return select(Datasets(train, train[:0], test), validation_size)


class DataSet:
    """Images with labels, returned in batches, like the removed module's `DataSet`.

    `images`, `labels` and the attributes `_images`, `_labels`, `_num_examples` are in the order of
    the batches, may be written to, and affect later batches; `pixels`, `file_labels` and
    `given_labels` stay as they were given. All images are converted at the first batch, or when
    `images` is read.

    Args:
      images: `[n, h, w, 1]`, `[n, h, w]` or `[n, pixels]`, in 0..255; not copied.
      labels: `[n]` of 0..9, or one-hot `[n, 10]`.
      fake_data: Must be false, as in `read_data_sets`.
      one_hot: Without effect: labels stay as given.
      dtype: Type of the returned images: float32 in [0, 1] or uint8 in 0..255 (NumPy's or
        TensorFlow's).
      reshape: Whether images are returned as `[n, pixels]` instead of `[n, h, w, 1]`.
      seed: Seed of NumPy's global generator, which shuffles, as in the removed module; None for the
        seed of TensorFlow's default graph, if it has one.

    Raises:
      TypeError: For another dtype.
      ValueError: For unequal numbers of images and labels, or fake data.
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
            raise ValueError("fake_data must be False, got True; use real images")
        self.options = {"one_hot": one_hot, "dtype": dtype, "reshape": reshape, "seed": seed}
        self._scale = dtype == np.float32
        images = np.asarray(images)
        if reshape:
            images = images.reshape(len(images), math.prod(images.shape[1:]))
        elif images.ndim == 2:
            side = math.isqrt(images.shape[1])
            images = images.reshape(-1, side, side, 1)
        elif images.ndim == 3:
            images = images[..., None]
        self._given, self.given_labels = images.view(), np.asarray(labels).view()
        for array in (self._given, self.given_labels):
            array.flags.writeable = False
        if len(images) != len(self.given_labels):
            raise ValueError(
                f"labels must be as many as images, {len(images):,}, got {len(self.given_labels):,}"
            )
        if seed is None and (tensorflow := sys.modules.get("tensorflow")):
            seed = tensorflow.compat.v1.get_default_graph().seed
        if seed is not None:  # by TensorFlow's rules
            np.random.seed(seed % _SEEDS)  # noqa: NPY002 - the removed module's generator
        self._labels = self.given_labels.copy()
        self._num_examples = len(self._given)
        self._index_in_epoch = 0
        self._epochs_completed = 0

    def __getitem__(self, rows) -> "DataSet":
        """Returns a DataSet of a slice or mask of this one's order, with its options."""
        return DataSet(self._given[rows], self.given_labels[rows], **self.options)

    @property
    def pixels(self) -> np.ndarray:
        """Images in the order given, uint8 `[n, 784]` in 0..255.

        A read-only view, no copy.

        Raises:
          ValueError: For images of another type or size.
        """
        given = self._given
        if given.dtype != np.uint8 or given.size != len(given) * NUM_PIXELS:
            actual = f"{given.dtype} {list(given.shape)}"
            raise ValueError(f"images must be uint8 with {NUM_PIXELS} pixels each, got {actual}")
        return given.reshape(-1, NUM_PIXELS)

    @property
    def file_labels(self) -> np.ndarray:
        """Labels in the order given, uint8 `[n]` of 0..9.

        Also if the given ones are one-hot.
        """
        labels = self.given_labels
        return np.asarray(labels.argmax(axis=1) if labels.ndim == 2 else labels, np.uint8)

    @property
    def images(self) -> np.ndarray:
        """All images in the order of the batches, converted when first needed."""
        return self._images

    @functools.cached_property
    def _images(self):
        if not self._scale:
            return self._given.copy()
        # A product, not a quotient: the removed module's bits; 255 becomes exactly 1.
        return np.multiply(self._given, 1 / 255, dtype=np.float32)

    @property
    def labels(self) -> np.ndarray:
        """All labels in the order of the batches, `[n]`, or `[n, 10]` if given as one-hot."""
        return self._labels

    @property
    def num_examples(self) -> int:
        """Number of images, n."""
        return self._num_examples

    @property
    def epochs_completed(self) -> int:
        """Number of epochs completed.

        A batch that takes the first image of the next epoch counts the last one.
        """
        return self._epochs_completed

    def next_batch(self, batch_size, fake_data=False, shuffle=True):
        """Returns the next images and labels, `[batch_size, ...]`.

        Each image occurs once per epoch.

        A batch across the end of an epoch has the rest of the old order, then the start of a new
        shuffle; one of more than n has the rest and one complete epoch. Without `shuffle` the order
        is unchanged. Edits of a batch do not change the set.

        Raises:
          TypeError: For a batch size that is not an integer; the set is unchanged.
          ValueError: For a negative one, or fake data.
        """
        if isinstance(batch_size, bool) or not hasattr(batch_size, "__index__"):
            raise TypeError(f"batch_size must be an integer, got {batch_size!r}; divide by //")
        batch_size = operator.index(batch_size)
        if batch_size < 0:
            raise ValueError(f"batch_size must be at least 0, got {batch_size}")
        if fake_data:
            raise ValueError("fake_data must be False, got True; use real images")
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
        """Returns copies of the images and labels at `start` to `stop` of the order."""
        return self._images[start:stop].copy(), self._labels[start:stop].copy()

    def _shuffle(self):
        new = np.arange(self._num_examples)
        np.random.shuffle(new)  # noqa: NPY002 - the removed module's generator
        self._images, self._labels = self._images[new], self._labels[new]


def _image_dtype(dtype):
    """Returns float32 or uint8 for NumPy's, TensorFlow's or a named dtype.

    Raises:
      TypeError: For another dtype.
    """
    for allowed in (np.dtype(np.float32), np.dtype(np.uint8)):
        if allowed == getattr(dtype, "as_numpy_dtype", dtype):
            return allowed
    raise TypeError(f"Invalid image dtype {dtype}, expected uint8 or float32")


def extract_images(f) -> np.ndarray:
    """Returns the images in an open gzip file, uint8 `[n, 28, 28, 1]`."""
    return data_sets.parse(f, IMAGE_SHAPE, getattr(f, "name", "file"))[..., None]


def extract_labels(f, one_hot=False, num_classes=NUM_CLASSES) -> np.ndarray:
    """Returns the labels in an open gzip file.

    They are uint8 `[n]` or float64 `[n, num_classes]`.
    """
    labels = data_sets.parse(f, (), getattr(f, "name", "file"))
    return dense_to_one_hot(labels, num_classes) if one_hot else labels


def dense_to_one_hot(labels_dense, num_classes) -> np.ndarray:
    """Returns integers `[n]` below `num_classes` as float64 `[n, num_classes]`."""
    return np.eye(num_classes)[np.ravel(labels_dense)]
