"""The IDX reader and the batches, on small synthetic sets; the real files once."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from assembly import python
from small_sets import NAMES, idx, numbered_images, numbers_of, payloads, write_set
from tensorflow.python.framework import random_seed

import input_data
from input_data import DataError, DataSet, read_data_sets

ROOT = Path(input_data.__file__).parent
TRAIN_IMAGES, TRAIN_LABELS, *_ = NAMES


def numbered_set(count, one_hot=False, **options):
    labels = np.arange(count, dtype=np.uint8) % 10
    labels = np.eye(10)[labels] if one_hot else labels
    return DataSet(numbered_images(count), labels, one_hot=one_hot, **options)


@pytest.fixture
def small(tmp_path):
    return write_set(tmp_path / "small")


# --- The real files


def test_real_files_are_mnist():
    readme = (ROOT / "MNIST_data" / "README.md").read_text()
    for name, sha256 in zip(NAMES, input_data.known("mnist").sha256, strict=True):
        payload = gzip.decompress((ROOT / "MNIST_data" / f"{name}.gz").read_bytes())
        assert hashlib.sha256(payload).hexdigest() == sha256
        assert f"`{name}.gz`" in readme and f"`{sha256}`" in readme


def test_real_counts_and_labels():
    mnist = read_data_sets(ROOT / "MNIST_data", one_hot=True)
    assert [data_set.num_examples for data_set in mnist] == [55_000, 5_000, 10_000]
    assert list(mnist.validation.labels[:5].argmax(axis=1)) == [5, 0, 4, 1, 9]
    assert list(mnist.test.labels[:5].argmax(axis=1)) == [7, 2, 1, 0, 4]
    distance = mnist.train.pixels.ctypes.data - mnist.validation.pixels.ctypes.data
    assert distance == 5_000 * 784  # both are views of one array


# --- Batches


class Oracle:
    """The numbers in the batches of the removed module."""

    def __init__(self, count):
        self.rows, self.start, self.epochs_completed = np.arange(count), 0, 0

    def next_batch(self, size, shuffle=True):
        if shuffle and self.start == self.epochs_completed == 0:
            self.shuffle()
        count = len(self.rows)
        if self.start + size <= count:
            self.start += size
            return self.rows[self.start - size : self.start].tolist()
        self.epochs_completed += 1
        rest = self.rows[self.start : count].tolist()
        left = count - self.start
        if shuffle:
            self.shuffle()
        self.start = size - left
        return rest + self.rows[: self.start].tolist()

    def shuffle(self):
        order = np.arange(len(self.rows))
        np.random.shuffle(order)  # noqa: NPY002
        self.rows = self.rows[order]


@pytest.mark.parametrize("read_images", [False, True])
@pytest.mark.parametrize("shuffle", [[True], [False], [False, True], [True, False]])
@pytest.mark.parametrize("sizes", [[7] * 12, [20] * 5, [30, 30, 30], [50, 3, 40, 0, 8], [0, 31]])
def test_batches_are_the_removed_modules(sizes, shuffle, read_images):
    """From the global generator, from which a notebook also draws its latents."""

    def draw(data):
        for place, size in enumerate(sizes):
            batch = data.next_batch(size, shuffle=shuffle[place % len(shuffle)])
            yield batch, data.epochs_completed
            np.random.uniform(size=3)  # noqa: NPY002

    data = numbered_set(30, seed=4)
    if read_images:
        data.images.sum()
    drawn = list(draw(data))
    np.random.seed(4)  # noqa: NPY002
    for ((images, labels), epochs), expected in zip(drawn, draw(Oracle(30)), strict=True):
        numbers = numbers_of(images)
        assert (numbers, epochs) == expected
        assert labels.tolist() == [number % 10 for number in numbers]


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 2, 2**31 - 1, 2**31, 2**32 + 5, -3, None])
@pytest.mark.parametrize("graph_seed", [None, 7])
def test_seeds_follow_tensorflows_rules(seed, graph_seed):
    with tf.Graph().as_default():
        if graph_seed is not None:
            tf.set_random_seed(graph_seed)
        graph, operation = random_seed.get_seed(seed)
        np.random.seed(graph if seed is None else operation)  # noqa: NPY002
        state = np.random.get_state()  # noqa: NPY002
        expected = Oracle(30).next_batch(30)
        if seed is None and graph_seed is None:
            np.random.set_state(state)  # noqa: NPY002 - the caller's own state counts
        assert numbers_of(numbered_set(30, seed=seed).next_batch(30)[0]) == expected


@pytest.mark.parametrize(
    ("size", "error"),
    [(-1, ValueError), *((bad, TypeError) for bad in (2.0, np.float32(2), "2", None, True, [2]))],
)
def test_bad_batch_size_leaves_the_set_unchanged(size, error):
    data = numbered_set(10)
    assert numbers_of(data.next_batch(np.uint8(4), shuffle=False)[0]) == [0, 1, 2, 3]
    with pytest.raises(error):
        data.next_batch(size)
    images, _ = data.next_batch(np.int64(8), shuffle=False)
    assert numbers_of(images) == [4, 5, 6, 7, 8, 9, 0, 1]
    assert data.epochs_completed == 1


# --- Edits that notebooks make


def test_edited_and_replaced_images_are_in_the_batches():
    data = numbered_set(6, one_hot=True)
    data.images.setflags(write=1)
    data.images[2] = 0.5
    data.labels[2] = 0.1
    images, labels = data.next_batch(6, shuffle=False)
    assert (images[2] == 0.5).all() and (labels[2] == 0.1).all()
    assert data.pixels[2].any() and data.file_labels.tolist() == list(range(6))
    with pytest.raises(ValueError, match="read-only"):
        data.pixels[2] = 0
    with pytest.raises(AttributeError):
        data.images = images
    data._images = mirrored = data.images[:, ::-1].copy()
    np.testing.assert_array_equal(data.images, mirrored)
    np.testing.assert_array_equal(data.next_batch(6, shuffle=False)[0], mirrored)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_edits_of_a_batch_do_not_change_the_set(dtype):
    data = numbered_set(6, one_hot=True, dtype=dtype)
    images, labels = data.next_batch(6, shuffle=False)
    images[:], labels[:] = 1, 0.5
    images, labels = data.next_batch(6, shuffle=False)
    assert (images != 1).any() and (labels != 0.5).all()


def test_smaller_number_of_examples_counts():
    data = numbered_set(30)
    data._num_examples = 10
    assert data.num_examples == 10
    drawn = numbers_of(np.concatenate([data.next_batch(5)[0] for _ in range(4)]))
    assert set(drawn) == set(range(10))


# --- Types, shapes and options


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("size", [0, 12, 30])
def test_validation_is_the_start_of_train(small, size, one_hot):
    sets = read_data_sets(small, validation_size=size, one_hot=one_hot)
    assert sets._fields == ("train", "validation", "test")
    numbers = range(size, 30), range(size), range(1000, 1007)
    assert [numbers_of(data.images) for data in sets] == [list(each) for each in numbers]
    given = sets.train.labels
    assert given.dtype == (np.float64 if one_hot else np.uint8)
    labels = given.argmax(axis=1) if one_hot else given
    assert labels.tolist() == sets.train.file_labels.tolist() == [n % 10 for n in numbers[0]]
    assert sets.test.file_labels.tolist() == [9, 8, 7, 6, 5, 4, 3]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"validation_size": -1}, ValueError, "between 0 and 30,.*Received: -1"),
        ({"validation_size": 31}, ValueError, "between 0 and 30,.*Received: 31"),
        ({"dtype": float}, TypeError, "Invalid image dtype"),
        ({"dtype": None}, TypeError, "Invalid image dtype"),
        ({"fake_data": True}, ValueError, "fake_data must be False"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_used_are_rejected(small, options, error, message):
    with pytest.raises(error, match=message):
        read_data_sets(small, **options)


@pytest.mark.parametrize("shape", [(3, 4, 3, 1), (3, 4, 3), (3, 12)])
def test_images_of_other_types_and_sizes(shape):
    images = np.arange(36, dtype=np.float64).reshape(shape)
    data = DataSet(images, np.arange(3))
    assert data.images.shape == (3, 12)
    np.testing.assert_allclose(data.images.ravel(), np.arange(36) / 255, rtol=1e-6)
    with pytest.raises(ValueError, match=r"must be uint8 with 784 pixels each, got float64"):
        data.pixels  # noqa: B018


@pytest.mark.parametrize("reshape", [True, False])
@pytest.mark.parametrize("shape", [(3, 28, 28, 1), (3, 28, 28), (3, 784)])
def test_byte_images_are_unchanged_and_have_a_channel_unless_reshaped(shape, reshape):
    images = numbered_images(3)
    data = DataSet(images.reshape(shape), np.arange(3), reshape=reshape, dtype="uint8")
    expected = images.reshape(3, 784) if reshape else images[..., None]
    for returned in (data.images, data.next_batch(3, shuffle=False)[0]):
        assert returned.dtype == np.uint8
        np.testing.assert_array_equal(returned, expected)
    assert data.pixels.shape == (3, 784) and np.shares_memory(data.pixels, images)


def test_odd_sets():
    """Labels that are not from files, and no images."""
    assert DataSet(numbered_images(3), np.arange(3), one_hot=True).labels.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="as many as images, 3, got 2"):
        DataSet(numbered_images(3), np.arange(2))
    with pytest.raises(ValueError, match="fake_data must be False"):
        numbered_set(5).next_batch(3, fake_data=True)
    empty = DataSet(np.zeros([0, 28, 28, 1], np.uint8), np.zeros(0, np.uint8))
    assert [len(part) for part in empty.next_batch(5)] == [0, 0]


def test_small_functions_of_the_removed_module(small):
    with open(small / f"{TRAIN_IMAGES}.gz", "rb") as file:
        images = input_data.extract_images(file)
    np.testing.assert_array_equal(images, numbered_images(30)[..., None])
    for one_hot, shape in [(False, (30,)), (True, (30, 10))]:
        with open(small / f"{TRAIN_LABELS}.gz", "rb") as file:
            assert input_data.extract_labels(file, one_hot=one_hot).shape == shape
    assert input_data.dense_to_one_hot(np.array([1, 0]), 3).tolist() == [[0, 1, 0], [1, 0, 0]]


# --- Files


@pytest.mark.parametrize("separator", ["-", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_may_be_compressed_or_spelled_with_a_dot(tmp_path, separator, suffix):
    folder = write_set(tmp_path, separator, suffix)
    assert numbers_of(read_data_sets(folder, validation_size=0).train.images) == list(range(30))


IMAGES, LABELS, *_ = payloads().values()
PACKED = gzip.compress(IMAGES)
WRONG_CRC = PACKED[:-8] + bytes([PACKED[-8] ^ 16]) + PACKED[-7:]
TOO_MANY = (1_000_001).to_bytes(4, "big")
BAD_FILES = {
    "truncated gzip": (TRAIN_IMAGES, PACKED[:-200], "a complete gzip file, found: .*end-of-stream"),
    "wrong CRC": (TRAIN_IMAGES, WRONG_CRC, "a complete gzip file, found: CRC check failed"),
    "too short": (TRAIN_IMAGES, gzip.compress(IMAGES[:-1]), "expected 23520 bytes, found 23519"),
    "too long": (TRAIN_IMAGES, gzip.compress(IMAGES + b"\0"), "expected 23520 bytes, found more"),
    "empty file": (TRAIN_IMAGES, b"", "of 28 x 28 in IDX format, found an empty file"),
    "web page": (TRAIN_IMAGES, b"<!doctype html>404", "found a file that starts with b'<!doctype"),
    "labels for images": (TRAIN_IMAGES, LABELS, "images of 28 x 28 in IDX .* of shape .30,."),
    "images for labels": (TRAIN_LABELS, PACKED, "labels in IDX .*, found .* of 3 dimensions"),
    "image size": (TRAIN_IMAGES, idx(np.zeros([3, 32, 32])), "found .* of shape .3, 32, 32"),
    "colour": (TRAIN_IMAGES, idx(np.zeros([3, 28, 28, 3])), "found an IDX file of 4 dimensions"),
    "half a header": (TRAIN_IMAGES, IMAGES[:10], "found an IDX file of 3 dimensions"),
    "no images": (TRAIN_IMAGES, idx(numbered_images(0)), "expected 1 to 1000000 items, found 0"),
    "a million and one": (TRAIN_LABELS, LABELS[:4] + TOO_MANY + LABELS[8:], "items, found 1000001"),
    "fewer labels": (TRAIN_LABELS, idx([1] * 29), "expected 30 labels as in train-im.*, found 29"),
    "label out of range": (TRAIN_LABELS, idx([1] * 29 + [10]), "labels from 0 to 9, found 10"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_is_named_and_unchanged(small, case):
    name, content, message = BAD_FILES[case]
    path = small / f"{name}.gz"
    path.write_bytes(content)
    before = sorted(small.iterdir())
    with pytest.raises(DataError, match=message) as error:
        read_data_sets(small)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert path.read_bytes() == content and sorted(small.iterdir()) == before


def test_import_is_light():
    heavy = ("tensorflow", "matplotlib", "scipy", "tqdm", "requests")
    code = f"import sys, input_data; print([m for m in {heavy} if m in sys.modules])"
    assert python("-c", code, cwd=ROOT).strip() == "[]"
