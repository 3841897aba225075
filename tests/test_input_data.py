"""The IDX reader, the batches and the download, on small synthetic sets; the real files once."""

import gzip
import hashlib
import os
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from servers import Babble, Endless, Quiet, Redirect, Short, serving

import input_data
from input_data import (
    DataError,
    DataSet,
    dense_to_one_hot,
    download,
    extract_images,
    extract_labels,
    find_file,
    maybe_download,
    only_digit,
    read_data_sets,
    read_idx,
)
from support import data_sets

ROOT = Path(input_data.__file__).parent
TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
NAMES = (TRAIN_IMAGES, TRAIN_LABELS, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx_images(images, magic=2051, count=None, rows=28, columns=28):
    count = len(images) if count is None else count
    return struct.pack(">4I", magic, count, rows, columns) + images.tobytes()


def idx_labels(labels, magic=2049, count=None):
    count = len(labels) if count is None else count
    return struct.pack(">2I", magic, count) + bytes(labels)


def numbered_images(count, first=0):
    """Images that tell their number: it is in the first two pixels; the rest is noise."""
    images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
    numbers = np.arange(first, first + count)
    images[:, 0, 0], images[:, 0, 1] = numbers // 256, numbers % 256
    return images


def numbers_of(images):
    """Float images in [0, 1] -> the numbers that `numbered_images` wrote."""
    pixels = np.rint(images.reshape(len(images), 784)[:, :2] * 255).astype(int)
    return list(pixels[:, 0] * 256 + pixels[:, 1])


def payloads(train=30, test=7):
    return {
        TRAIN_IMAGES: idx_images(numbered_images(train)),
        TRAIN_LABELS: idx_labels([i % 10 for i in range(train)]),
        NAMES[2]: idx_images(numbered_images(test, first=1000)),
        NAMES[3]: idx_labels([9 - i % 10 for i in range(test)]),
    }


def write_set(folder, separator="-", end=".gz", **sizes):
    folder.mkdir(exist_ok=True)
    for name, payload in payloads(**sizes).items():
        path = folder / (name.replace("-idx", f"{separator}idx") + end)
        path.write_bytes(gzip.compress(payload) if end else payload)
    return folder


def numbered_set(count, one_hot=False, **options):
    labels = np.arange(count, dtype=np.uint8) % 10
    labels = np.eye(10)[labels] if one_hot else labels
    return DataSet(numbered_images(count), labels, one_hot=one_hot, **options)


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and "\r" not in text
    return text


@pytest.fixture
def small(tmp_path):
    return write_set(tmp_path / "small")


# --- The real files


@pytest.fixture(scope="module")
def mnist():
    return read_data_sets(ROOT / "MNIST_data", one_hot=True)


def test_real_files_are_mnist():
    readme = (ROOT / "MNIST_data" / "README.md").read_text()
    for name, wanted in zip(NAMES, data_sets.get("mnist").sha256, strict=True):
        payload = gzip.decompress((ROOT / "MNIST_data" / f"{name}.gz").read_bytes())
        assert hashlib.sha256(payload).hexdigest() == wanted
        assert f"`{name}.gz`" in readme and f"`{wanted}`" in readme


def test_real_counts_and_first_labels(mnist):
    assert [s.num_examples for s in mnist] == [55_000, 5_000, 10_000]
    assert list(mnist.validation.labels[:5].argmax(axis=1)) == [5, 0, 4, 1, 9]
    assert list(mnist.test.labels[:5].argmax(axis=1)) == [7, 2, 1, 0, 4]
    # How often each digit occurs among the 60,000, as published for this set.
    counts = (mnist.train.labels.sum(axis=0) + mnist.validation.labels.sum(axis=0)).astype(int)
    assert list(counts) == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_real_mean_pixel_and_memory(mnist):
    pixels = np.concatenate([mnist.train.pixels, mnist.validation.pixels])
    assert pixels.mean(dtype=np.float64) / 255 == pytest.approx(0.1306605, abs=1e-6)
    # Train and validation are parts of one array: read once, never copied.
    distance = mnist.train.pixels.ctypes.data - mnist.validation.pixels.ctypes.data
    assert distance == 5_000 * 784


def test_real_one_digit(mnist):
    fives = only_digit(mnist.test, 5)
    assert fives.num_examples == 892
    assert (fives.next_batch(100)[1].argmax(axis=1) == 5).all()


# --- Batches


@pytest.mark.parametrize("batch_size", [1, 7, 10, 29, 30])
def test_every_image_once_an_epoch(batch_size):
    data = numbered_set(30, seed=1)
    batches = [data.next_batch(batch_size) for _ in range(-(-120 // batch_size))]
    drawn = [number for images, _ in batches for number in numbers_of(images)]
    for epoch in range(4):
        assert sorted(drawn[30 * epoch : 30 * (epoch + 1)]) == list(range(30))
    assert drawn[:30] != drawn[30:60] != drawn[60:90]
    for images, labels in batches:
        assert len(images) == batch_size
        assert [number % 10 for number in numbers_of(images)] == list(labels)


def test_epochs_completed_counts_when_a_new_epoch_is_begun():
    data, seen = numbered_set(10), []
    for _ in range(8):
        data.next_batch(4)
        seen.append(data.epochs_completed)
    assert seen == [
        0,
        0,
        1,
        1,
        1,
        2,
        2,
        3,
    ]  # 4, 8 | 12, 16, 20 | 24, 28 | 32 images: 20 is not past


def test_unshuffled_is_the_file_order():
    data = numbered_set(10)
    drawn = [n for _ in range(5) for n in numbers_of(data.next_batch(4, shuffle=False)[0])]
    assert drawn == [*range(10), *range(10)]


def test_unshuffled_keeps_an_earlier_shuffle():
    data = numbered_set(10, seed=3)
    first = numbers_of(data.next_batch(10)[0])
    assert first != list(range(10))
    assert numbers_of(data.next_batch(10, shuffle=False)[0]) == first


def test_shuffle_from_the_second_epoch_on_starts_after_the_rest_of_the_old_order():
    data = numbered_set(10, seed=3)
    numbers_of(data.next_batch(8, shuffle=False)[0])
    across = numbers_of(data.next_batch(6)[0])
    assert across[:2] == [8, 9]
    assert sorted(across[2:] + numbers_of(data.next_batch(6)[0])) == list(range(10))


class Oracle:
    """The batches of the removed module, told by their numbers alone."""

    def __init__(self, count):
        self.rows, self.start, self.epochs = np.arange(count), 0, 0

    def next_batch(self, size, shuffle=True):
        if shuffle and self.start == self.epochs == 0:
            self.shuffle()
        count = len(self.rows)
        if self.start + size <= count:
            self.start += size
            return self.rows[self.start - size : self.start].tolist()
        self.epochs += 1
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


@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize("sizes", [[7] * 12, [20] * 5, [30, 30, 30], [50, 3, 40, 0, 8], [0, 31]])
@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_are_the_removed_modules(sizes, shuffle, touched):
    """By the global generator, which a notebook also draws its latents from."""

    def draw(make):
        data = make()
        for size in sizes:
            yield data.next_batch(size, shuffle=shuffle)
            np.random.uniform(size=3)  # noqa: NPY002

    def ours():
        data = numbered_set(30, seed=4)
        if touched:
            data.images.sum()
        return data

    def theirs():
        np.random.seed(4)  # noqa: NPY002
        return Oracle(30)

    batches = [(numbers_of(images), labels) for images, labels in draw(ours)]
    wanted = list(draw(theirs))
    assert [numbers for numbers, _ in batches] == wanted
    for numbers, labels in batches:
        assert labels.tolist() == [number % 10 for number in numbers]


def test_without_a_seed_the_callers_own_counts():
    orders = []
    for _ in range(2):
        np.random.seed(1)  # noqa: NPY002
        orders.append(numbers_of(numbered_set(30).next_batch(30)[0]))
    assert orders[0] == orders[1]


def seeded_order(seed):
    return numbers_of(numbered_set(30, seed=seed).next_batch(30)[0])


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 2, 2**31 - 1, 2**31, 2**32 + 5, -3])
@pytest.mark.parametrize("graph_seed", [None, 7])
def test_seeds_are_tensorflows(seed, graph_seed):
    """By TensorFlow's own rule, which the removed module called."""
    import tensorflow.compat.v1 as tf
    from tensorflow.python.framework import random_seed

    with tf.Graph().as_default():
        if graph_seed is not None:
            tf.set_random_seed(graph_seed)
        np.random.seed(random_seed.get_seed(seed)[1])  # noqa: NPY002
        wanted = Oracle(30).next_batch(30)
        assert seeded_order(seed) == wanted


def test_without_a_seed_that_of_tensorflows_graph_counts():
    import tensorflow.compat.v1 as tf
    from tensorflow.python.framework import random_seed

    with tf.Graph().as_default():
        tf.set_random_seed(777)
        np.random.seed(random_seed.get_seed(None)[0])  # noqa: NPY002
        wanted = Oracle(30).next_batch(30)
        np.random.seed(5)  # noqa: NPY002
        assert seeded_order(None) == wanted


def test_one_hot_of_a_set_is_of_fake_labels_alone():
    labels = DataSet(numbered_images(3), np.arange(3), one_hot=True).labels
    assert labels.tolist() == [0, 1, 2]


def test_an_empty_set_has_empty_batches():
    data = DataSet(np.zeros([0, 28, 28, 1], np.uint8), np.zeros(0, np.uint8))
    assert [len(part) for part in data.next_batch(5)] == [0, 0]


# --- What notebooks do to a set


def test_images_of_ones_own_are_in_the_batches():
    data = numbered_set(6)
    data._images = data.images[:, ::-1]
    np.testing.assert_array_equal(data.next_batch(6, shuffle=False)[0], data._images)
    with pytest.raises(AttributeError):
        data.images = data._images


def test_edits_in_place_are_in_the_batches():
    data = numbered_set(6, one_hot=True)
    data.images.setflags(write=1)
    data.images[2] = 0.5
    data.labels[2] = 0.1
    images, labels = data.next_batch(6, shuffle=False)
    assert (images[2] == 0.5).all() and (labels[2] == 0.1).all()
    assert data.pixels[2].any() and data.file_labels.tolist() == list(range(6))


@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_edits_of_a_batch_stay_in_the_batch(touched, dtype):
    data = numbered_set(6, one_hot=True, dtype=dtype)
    if touched:
        data.images.sum()
    images, labels = data.next_batch(6, shuffle=False)
    images[:], labels[:] = 1, 0.5
    images, labels = data.next_batch(6, shuffle=False)
    assert (images != 1).any() and (labels != 0.5).all()


def test_an_epoch_that_fails_counts_as_in_the_removed_module():
    """A smaller number of examples and a larger one again: there is no image behind the first."""
    data = numbered_set(30)
    data._num_examples = 10
    data.next_batch(11)
    data._num_examples = 12
    with pytest.raises(IndexError):
        data.next_batch(12)
    assert data.epochs_completed == 2


def test_a_smaller_number_of_examples_is_obeyed():
    data = numbered_set(30)
    data._num_examples = 10
    assert data.num_examples == 10
    seen = numbers_of(np.concatenate([data.next_batch(5)[0] for _ in range(4)]))
    assert set(seen) == set(range(10))


@pytest.mark.parametrize("reshape, shape", [(True, (3, 12)), (False, (3, 4, 3, 1))])
def test_images_of_other_types_and_sizes(reshape, shape):
    images = np.arange(36, dtype=np.float64).reshape(3, 4, 3, 1)
    data = DataSet(images, np.arange(3), reshape=reshape)
    assert data.images.shape == shape
    np.testing.assert_allclose(data.images.ravel(), np.arange(36) / 255, rtol=1e-6)
    with pytest.raises(ValueError, match=r"float64 .*, wanted uint8 with 784 pixels each"):
        data.pixels  # noqa: B018


def test_the_modules_small_functions(small):
    with open(find_file(small, NAMES[0]), "rb") as file:
        assert extract_images(file).shape == (30, 28, 28, 1)
    for one_hot, shape in [(False, (30,)), (True, (30, 10))]:
        with open(find_file(small, NAMES[1]), "rb") as file:
            assert extract_labels(file, one_hot=one_hot).shape == shape
    assert dense_to_one_hot(np.array([1, 0]), 3).tolist() == [[0, 1, 0], [1, 0, 0]]
    there = maybe_download(find_file(small, NAMES[0]).name, small, "https://localhost/none")
    assert there == str(find_file(small, NAMES[0]))


# --- What is handed out


@pytest.mark.parametrize("size", [0, 1, 12, 30])
def test_validation_is_the_head_of_train(small, size):
    sets = read_data_sets(small, validation_size=size)
    assert numbers_of(sets.validation.images) == list(range(size))
    assert numbers_of(sets.train.images) == list(range(size, 30))
    assert list(sets.train.labels) == [i % 10 for i in range(size, 30)]
    assert numbers_of(sets.test.images) == list(range(1000, 1007))
    assert sets._fields == ("train", "validation", "test")


@pytest.mark.parametrize("size", [-1, 31])
def test_impossible_validation_size(small, size):
    with pytest.raises(ValueError, match=f"between 0 and 30,.*Received: {size}") as error:
        read_data_sets(small, validation_size=size)
    one_line(error)


@pytest.mark.parametrize("dtype", [np.float32, "float32", np.dtype("float32")])
def test_float_images(dtype):
    raw = numbered_images(256)
    raw[0, 5] = np.arange(28) * 9  # and the two ends:
    raw[0, 6, :2] = 0, 255
    data = DataSet(raw, np.zeros(256, np.uint8), dtype=dtype)
    wanted = raw.reshape(256, 784) / 255  # float64
    for images in (data.images, data.next_batch(256, shuffle=False)[0]):
        assert images.dtype == np.float32
        np.testing.assert_allclose(images, wanted, atol=6e-8)
        assert images.min() == 0 and images.max() == 1


@pytest.mark.parametrize("dtype", [np.uint8, "uint8"])
def test_byte_images(dtype):
    raw = numbered_images(20)
    data = DataSet(raw, np.zeros(20, np.uint8), dtype=dtype)
    for images in (data.images, data.next_batch(20, shuffle=False)[0]):
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images, raw.reshape(20, 784))
    assert np.shares_memory(data.pixels, raw)


@pytest.mark.parametrize("dtype", [np.float64, "int32", float, None, "no such dtype", 5])
def test_other_dtypes_are_refused(small, dtype):
    for fake_data in (False, True):
        with pytest.raises(TypeError, match="Invalid image dtype") as error:
            read_data_sets(small, dtype=dtype, fake_data=fake_data)
        one_line(error)


def test_tensorflow_dtypes(small):
    import tensorflow as tf

    sizes = {"validation_size": 0}
    assert read_data_sets(small, dtype=tf.float32, **sizes).train.images.dtype == np.float32
    assert read_data_sets(small, dtype=tf.uint8, **sizes).train.images.dtype == np.uint8
    with pytest.raises(TypeError, match=r"tf\.float64, expected uint8 or float32"):
        read_data_sets(small, dtype=tf.float64, **sizes)


@pytest.mark.parametrize(("reshape", "shape"), [(True, (784,)), (False, (28, 28, 1))])
def test_reshape(reshape, shape):
    data = numbered_set(12, reshape=reshape)
    assert data.images.shape == (12, *shape)
    assert data.next_batch(5)[0].shape == (5, *shape)
    assert data.pixels.shape == (12, 784)
    np.testing.assert_array_equal(data.pixels.reshape(-1, 28, 28), numbered_images(12))


def test_one_hot(small):
    plain, hot = (read_data_sets(small, one_hot=flag, validation_size=4) for flag in (False, True))
    for before, after in zip(plain, hot, strict=True):
        assert before.labels.dtype == np.uint8 and after.labels.dtype == np.float64
        assert after.labels.shape == (before.num_examples, 10)
        assert (after.labels.sum(axis=1) == 1).all()
        assert list(after.labels.argmax(axis=1)) == list(before.labels)
    assert hot.train.next_batch(6)[1].shape == (6, 10)


def test_pixels_are_a_read_only_view_and_no_images_are_made():
    raw = numbered_images(8)
    data = DataSet(raw, np.zeros(8, np.uint8))
    assert data.pixels.dtype == np.uint8 and np.shares_memory(data.pixels, raw)
    with pytest.raises(ValueError, match="read-only"):
        data.pixels[0] = 1
    raw[0, 0, 0] = 1  # the caller's own array stays writable
    data.next_batch(3)[0][:] = 0  # and so is a batch, which is the caller's
    assert data.pixels.any() and data._made is None


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((3, 784), np.uint8), [1, 2], "2 labels, wanted 3"),
    ],
)
def test_wrong_arrays(images, labels, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        DataSet(images, np.array(labels, np.uint8))
    one_line(error)


@pytest.mark.parametrize(("one_hot", "label"), [(False, 0), (True, [1] + [0] * 9)])
def test_fake_data(one_hot, label):
    sets = read_data_sets("no such folder", fake_data=True, one_hot=one_hot)
    assert [data.num_examples for data in sets] == [10_000] * 3
    for flags in ({"fake_data": True}, {}):
        assert sets.train.next_batch(3, **flags) == ([[1] * 784] * 3, [label] * 3)
    assert not Path("no such folder").exists()


def test_fake_batch_of_a_real_set():
    assert numbered_set(5).next_batch(2, fake_data=True) == ([[1] * 784] * 2, [0, 0])


@pytest.mark.parametrize("one_hot", [False, True])
def test_only_digit(one_hot):
    data = numbered_set(47, one_hot=one_hot, reshape=False, seed=2)
    sevens = only_digit(data, 7)
    assert numbers_of(sevens.images) == [7, 17, 27, 37]
    assert sevens.images.shape == (4, 28, 28, 1)
    assert sevens.labels.shape == ((4, 10) if one_hot else (4,))
    assert sorted(numbers_of(sevens.next_batch(4)[0])) == [7, 17, 27, 37]


@pytest.mark.parametrize(
    ("digit", "message"),
    [(-1, "-1"), (10, "10"), ("5", "'5'"), (6, "no such label")],
)
def test_only_digit_refuses(digit, message):
    with pytest.raises(ValueError, match=message) as error:
        only_digit(numbered_set(5), digit)
    one_line(error)


# --- Files


@pytest.mark.parametrize("separator", ["-", "."])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_name_variants(tmp_path, separator, end):
    sets = read_data_sets(write_set(tmp_path, separator, end), validation_size=5)
    assert numbers_of(sets.train.images) == list(range(5, 30))
    assert sets.test.num_examples == 7


def test_folder_with_a_files_name_is_passed_over(small):
    """Some archives put each file in a folder of its own name."""
    (small / TRAIN_IMAGES).mkdir()
    (small / f"{TRAIN_LABELS}.gz").rename(small / "train-labels.idx1-ubyte.gz")
    (small / f"{TRAIN_LABELS}.gz").mkdir()
    assert read_data_sets(str(small), validation_size=0).train.num_examples == 30


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


IMAGES = payloads()[TRAIN_IMAGES]
LABELS = payloads()[TRAIN_LABELS]
PACKED = gzip.compress(IMAGES)
BAD_FILES = {
    "truncated gzip": (f"{TRAIN_IMAGES}.gz", PACKED[:-200], "end-of-stream"),
    "gzip without its CRC": (f"{TRAIN_IMAGES}.gz", PACKED[:-8], "end-of-stream"),
    "truncated raw": (TRAIN_IMAGES, IMAGES[:-200], "bytes: 23336, wanted 23536"),
    "not gzip": (f"{TRAIN_IMAGES}.gz", IMAGES, r"Not a gzipped file .*, wanted a whole gzip"),
    "gzip without .gz": (TRAIN_IMAGES, PACKED, "magic number: 529205248, wanted 2051"),
    "web page": (f"{TRAIN_IMAGES}.gz", b"<html>404</html>", "Not a gzipped file"),
    "magic of labels": (
        f"{TRAIN_IMAGES}.gz",
        gzip.compress(LABELS),
        "magic number: 2049, wanted 2051",
    ),
    "magic of images": (f"{TRAIN_LABELS}.gz", PACKED, "magic number: 2051, wanted 2049"),
    "wrong magic": (
        TRAIN_IMAGES,
        idx_images(numbered_images(30), magic=3331),
        "magic number: 3331, wanted 2051",
    ),
    "too short": (f"{TRAIN_IMAGES}.gz", gzip.compress(IMAGES[:-1]), "bytes: 23535, wanted 23536"),
    "too long": (f"{TRAIN_IMAGES}.gz", gzip.compress(IMAGES + b"\0"), "more than 23536, wanted"),
    "too long raw": (TRAIN_IMAGES, IMAGES + b"\0", "bytes: more than 23536, wanted 23536"),
    "labels too long": (TRAIN_LABELS, LABELS + b"\0", "bytes: more than 38, wanted 38"),
    "labels too short": (TRAIN_LABELS, LABELS[:-1], "bytes: 37, wanted 38"),
    "junk after gzip": (f"{TRAIN_IMAGES}.gz", PACKED + b"junk", "Not a gzipped file"),
    "empty raw": (TRAIN_IMAGES, b"", "bytes of header: 0, wanted 16"),
    "empty gz": (f"{TRAIN_IMAGES}.gz", b"", "bytes of header: 0, wanted 16"),
    "empty payload": (f"{TRAIN_LABELS}.gz", gzip.compress(b""), "bytes of header: 0, wanted 8"),
    "half a header": (TRAIN_IMAGES, IMAGES[:10], "bytes of header: 10, wanted 16"),
    "flipped data": (f"{TRAIN_IMAGES}.gz", flipped(PACKED, 9000), "CRC|Error|end-of-stream"),
    "flipped CRC": (f"{TRAIN_IMAGES}.gz", flipped(PACKED, -8), "CRC check failed"),
    "flipped length": (f"{TRAIN_IMAGES}.gz", flipped(PACKED, -4), "length"),
    "image size": (
        TRAIN_IMAGES,
        idx_images(numbered_images(30), rows=14, columns=56),
        r"image size: \[14, 56\], wanted \[28, 28\]",
    ),
    "no images": (TRAIN_IMAGES, idx_images(numbered_images(0)), "items: 0, wanted 1 to 1000000"),
    "a million and one": (
        TRAIN_IMAGES,
        idx_images(numbered_images(2), count=1_000_001),
        "items: 1000001, wanted 1 to 1000000",
    ),
    "fewer labels": (TRAIN_LABELS, idx_labels([1] * 29), "labels: 29, wanted 30 as in train-im"),
    "more labels": (TRAIN_LABELS, idx_labels([1] * 31), "labels: 31, wanted 30"),
    "label out of range": (TRAIN_LABELS, idx_labels([1] * 29 + [10]), "label: 10, wanted 0 to 9"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(small, case):
    name, content, message = BAD_FILES[case]
    (small / f"{name.removesuffix('.gz')}.gz").unlink()
    path = small / name
    path.write_bytes(content)
    before = sorted(small.iterdir())
    with pytest.raises(DataError, match=message) as error:
        read_data_sets(small)
    assert one_line(error).startswith(f"{path}: ")
    assert path.read_bytes() == content and sorted(small.iterdir()) == before


def test_train_dir_is_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    for folder in (path, path / "below"):
        with pytest.raises(DataError, match="Not a directory") as error:
            read_data_sets(folder)
        assert one_line(error).startswith(f"{folder}: ")
    assert path.read_bytes() == b"mine"


@contextmanager
def without_privileges():
    """Root may read anything; so be nobody for a while."""
    if user := os.geteuid():
        yield user
        return
    os.seteuid(65534)
    try:
        yield 65534
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("forbidden", ["folder", "file"])
def test_unreadable(small, monkeypatch, forbidden):
    small.parent.chmod(0o755)
    monkeypatch.chdir(small.parent)  # the folders above are closed to nobody
    target = Path("small") if forbidden == "folder" else Path("small", f"{TRAIN_IMAGES}.gz")
    target.chmod(0)
    with without_privileges(), pytest.raises(DataError, match="Permission denied") as error:
        read_data_sets("small")
    assert one_line(error).startswith(f"{target}: ")


def test_missing_files_are_not_taken_from_mnist_for_another_set(small):
    (small / f"{NAMES[3]}.gz").unlink()
    with pytest.raises(DataError, match=f"not MNIST's own, so {NAMES[3]}") as error:
        read_data_sets(small)
    assert one_line(error).startswith(f"{small / TRAIN_IMAGES}.gz: ")


# --- Memory and hostile files


def peak_memory(action):
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refuse(path):
    with pytest.raises(DataError) as error:
        read_idx(path)
    assert one_line(error).startswith(f"{path}: ")


@pytest.mark.parametrize("promised", [2, 1_000_000, 2**31, 2**32 - 1])
def test_gzip_bomb(tmp_path, promised):
    """64 MB of zeros behind a header that promises less, or next to nothing behind a large one."""
    path = tmp_path / f"{TRAIN_IMAGES}.gz"
    zeros = bytes(2**26) if promised == 2 else b"\0" * 1000
    header = struct.pack(">4I", 2051, promised, 28, 28)
    path.write_bytes(gzip.compress(header + zeros, 1))
    del zeros
    assert peak_memory(lambda: refuse(path)) < 2**22


@pytest.mark.parametrize("end", ["", ".gz"])
def test_promise_of_a_large_raw_file(tmp_path, end):
    path = tmp_path / f"{TRAIN_IMAGES}{end}"
    content = idx_images(numbered_images(3), count=999_999)
    path.write_bytes(gzip.compress(content) if end else content)
    assert peak_memory(lambda: refuse(path)) < 2**22


@st.composite
def nearly_idx(draw, header):
    """A sound small file with some bytes changed, then cut or lengthened."""
    item = 784 if len(header) == 4 else 1
    count = draw(st.integers(1, 3))
    content = bytearray(struct.pack(f">{len(header)}I", header[0], count, *header[2:]))
    content += bytes(count * item)
    for _ in range(draw(st.integers(0, 3))):
        content[draw(st.integers(0, min(len(content), 24) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)) | st.none())]) + draw(
        st.binary(max_size=3)
    )


FUZZED = st.one_of(
    st.tuples(st.just(TRAIN_IMAGES), st.binary(max_size=64) | nearly_idx((2051, 0, 28, 28))),
    st.tuples(st.just(TRAIN_LABELS), st.binary(max_size=64) | nearly_idx((2049, 0))),
)
FUZZ_SETTINGS = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read_or_refuse(path, content):
    """-> the array or None if refused; nothing else may happen, nor much memory be taken."""
    path.write_bytes(content)
    results = []

    def attempt():
        try:
            results.append(read_idx(path))
        except DataError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)

    assert peak_memory(attempt) < 2**22
    return results[0] if results else None


def sound(name, content):
    """Independent statement of which bytes are a good IDX file."""
    dimensions = 3 if name == TRAIN_IMAGES else 1
    size, item = 4 + 4 * dimensions, 784 if dimensions == 3 else 1
    head, count = content[:4], int.from_bytes(content[4:8], "big")
    return (
        head == bytes([0, 0, 8, dimensions])
        and content[8:size] == b"\0\0\0\x1c\0\0\0\x1c"[: size - 8]
        and count > 0
        and len(content) == size + count * item
    )


@FUZZ_SETTINGS
@given(FUZZED, st.booleans())
@example((TRAIN_IMAGES, IMAGES), True)
@example((TRAIN_LABELS, LABELS), False)
def test_fuzz_idx(tmp_path, named, packed):
    name, content = named
    path = tmp_path / (f"{name}.gz" if packed else name)
    array = read_or_refuse(path, gzip.compress(content, 1) if packed else content)
    assert (array is not None) == sound(name, content)
    if array is not None:
        assert content.endswith(array.tobytes()) and len(array) == content[7]


@FUZZ_SETTINGS
@given(
    st.binary(max_size=64)
    | st.builds(
        lambda changes, cut: bytes(
            changes.get(place, byte) for place, byte in enumerate(gzip.compress(LABELS)[:cut])
        ),
        st.dictionaries(st.integers(0, 60), st.integers(0, 255), max_size=4),
        st.integers(0, 80),
    )
)
def test_fuzz_gzip(tmp_path, content):
    """Damaged packing: only a payload equal to what zlib alone makes of it may come through."""
    array = read_or_refuse(tmp_path / f"{TRAIN_LABELS}.gz", content)
    if array is not None:
        # zlib minds flags of the header that are reserved and mean nothing.
        plain = content[:3] + bytes([content[3] & 31]) + content[4:]
        assert zlib.decompress(plain, 31)[8:] == array.tobytes()


# --- Download


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1,127.0.0.2")


@pytest.fixture
def mirror(small):
    with serving(partial(Quiet, directory=str(small))) as url:
        yield url


@pytest.fixture
def other_mirror(tmp_path):
    """The same names, but other images."""
    folder = write_set(tmp_path / "other", train=11)
    with serving(partial(Quiet, directory=str(folder))) as url:
        yield url


def sha256(payload):
    return hashlib.sha256(payload).hexdigest()


@pytest.mark.parametrize("slash", ["/", ""])
def test_source_url_fills_a_new_folder(tmp_path, mirror, small, slash):
    folder = tmp_path / "new" / "folder"
    sets = read_data_sets(folder, validation_size=3, source_url=mirror.rstrip("/") + slash)
    assert numbers_of(sets.train.images) == list(range(3, 30))
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{n}.gz" for n in NAMES)
    for name in NAMES:
        assert (folder / f"{name}.gz").read_bytes() == (small / f"{name}.gz").read_bytes()


def test_only_what_is_missing_is_fetched(tmp_path, other_mirror):
    folder = write_set(tmp_path / "partly", end="")
    (folder / NAMES[3]).unlink()
    sets = read_data_sets(folder, validation_size=0, source_url=other_mirror)
    assert sets.train.num_examples == 30  # not the mirror's 11
    assert (folder / f"{NAMES[3]}.gz").is_file()


def test_local_files_need_no_server(small):
    sets = read_data_sets(small, validation_size=0, source_url="http://127.0.0.1:9/")
    assert sets.train.num_examples == 30


def test_wrong_checksum_tries_the_next_mirror(tmp_path, mirror, other_mirror):
    wanted = sha256(payloads()[TRAIN_IMAGES])
    mirrors = (other_mirror, mirror)
    path = download(f"{TRAIN_IMAGES}.gz", tmp_path / "to", mirrors, wanted)
    assert len(read_idx(path)) == 30
    assert list((tmp_path / "to").iterdir()) == [path]


def test_all_mirrors_wrong(tmp_path, mirror, other_mirror):
    folder, name = tmp_path / "to", f"{TRAIN_IMAGES}.gz"
    with pytest.raises(DataError) as error:
        download(name, folder, (mirror, other_mirror), "0" * 64)
    text = one_line(error)
    assert text.startswith(f"{name} is not in {folder}") and f"put {name} there by hand" in text
    for url, images in ((mirror, 30), (other_mirror, 11)):
        seen = sha256(payloads(train=images)[TRAIN_IMAGES])
        assert f"{url}{name}: SHA-256: {seen}, wanted {'0' * 64}" in text
    assert not folder.exists()


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (Short, "bytes: 400, wanted 5000"),
        (Endless, "wanted at most 100000"),
        (Redirect, "http://192.0.2.1/elsewhere.gz, wanted https"),
        (Babble, "BadStatusLine SSH"),
        (partial(Quiet, directory="/nonexistent"), "HTTPError HTTP Error 404"),
    ],
)
def test_failed_download_leaves_nothing(tmp_path, handler, message):
    folder = tmp_path / "to"
    with serving(handler) as url, pytest.raises(DataError, match=message) as error:
        download(f"{TRAIN_IMAGES}.gz", folder, (url,), max_bytes=100_000)
    assert f"{url}{TRAIN_IMAGES}.gz" in one_line(error)
    assert not folder.exists()


def test_promised_length_above_the_bound(tmp_path):
    with serving(Short) as url, pytest.raises(DataError, match="5000, wanted at most 4999"):
        download(f"{TRAIN_IMAGES}.gz", tmp_path / "to", (url,), max_bytes=4999)


@pytest.mark.parametrize("case", ["truncated gzip", "not gzip", "too long", "wrong magic"])
def test_bad_file_on_a_server_is_not_kept(tmp_path, case):
    (tmp_path / "from").mkdir()
    name, content, message = BAD_FILES[case]
    (tmp_path / "from" / name).write_bytes(content)
    handler = partial(Quiet, directory=str(tmp_path / "from"))
    with serving(handler) as url, pytest.raises(DataError, match=message):
        download(name, tmp_path / "to", (url,))
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    "url", ["https://[::1", "https://" + "x" * 300, "https://\u00fc\x1b[2J.test"]
)
def test_addresses_that_are_none_end_in_one_line(tmp_path, url):
    with pytest.raises(DataError) as error:
        download(f"{TRAIN_LABELS}.gz", tmp_path, [url])
    assert one_line(error).isprintable()


def test_nobody_listens(tmp_path):
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9/.*refused.*by hand") as error:
        read_data_sets(tmp_path / "to", source_url="http://127.0.0.1:9")
    one_line(error)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "file:///tmp/", "example.org"])
def test_unsafe_addresses(tmp_path, url):
    with pytest.raises(DataError, match="wanted https") as error:
        read_data_sets(tmp_path / "to", source_url=url)
    assert url in one_line(error)


def test_folder_that_cannot_be_written(tmp_path, mirror):
    (tmp_path / "to").write_bytes(b"a file")
    with pytest.raises(DataError, match="to: File exists"):
        download(f"{TRAIN_IMAGES}.gz", tmp_path / "to", (mirror,))


def test_mirrors_are_protected_and_known_by_checksum():
    assert data_sets.FILES == NAMES
    for name in input_data.DATASETS:
        known = data_sets.get(name)
        assert all(url.startswith("https://") and url.endswith("/") for url in known.mirrors)
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in known.sha256)
    assert len({*sum((data_sets.all_sha256(name) for name in NAMES), ())}) == 4 * len(
        input_data.DATASETS
    )


# --- Start


def test_import_is_light():
    heavy = ("tensorflow", "matplotlib", "scipy", "tqdm")
    code = f"import sys, input_data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
