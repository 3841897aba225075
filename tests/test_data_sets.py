"""Data sets by name and by checksum, their folders, and what a run selects of them."""

import dataclasses
import gzip
import subprocess
from pathlib import Path

import numpy as np
import pytest
from small_sets import NAMES, idx, numbers_of, write_set

import input_data
from input_data import DataError, data_folder, identify, known, load, read_data_sets, select
from support import data_sets
from support.errors import UserError

MNIST = Path(input_data.__file__).parent / "MNIST_data"


def labelled_set(folder, labels):
    """Writes a set with these labels for training and test."""
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 28, 28), np.uint8)
    for name in NAMES:
        (folder / name).write_bytes(idx(images if "images" in name else labels))
    return folder


# --- Known sets


def test_mnist_is_known_by_its_images(mnist):
    pixels = mnist.train.pixels
    info = identify(pixels)
    assert info == known("mnist") and info.title == "MNIST" and info.noun == "digit"
    assert info.class_names == tuple("0123456789") and info.label(9) == "the digit 9"
    for other in (255 - pixels, pixels[::-1], pixels[:-1], pixels.reshape(-1, 28, 28)[:, ::-1]):
        info = identify(other)
        assert info == known(None) and info.class_names[3] == info.label(3) == "class 3"
    assert known("fashion_mnist").label(9) == "ankle boot"


def test_training_images_are_also_known_by_gits_id(mnist, tmp_path, monkeypatch):
    """KMNIST is known by this id; here that of MNIST's images, from git itself."""
    path = tmp_path / "images"
    path.write_bytes(gzip.decompress((MNIST / f"{NAMES[0]}.gz").read_bytes()))
    done = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True)
    info = dataclasses.replace(known("kmnist"), git_id=done.stdout.strip())
    monkeypatch.setattr(data_sets, "_KNOWN", {"kmnist": info})
    assert identify(mnist.train.pixels).name == "kmnist"


@pytest.mark.parametrize("name", data_sets.DATASETS)
def test_every_known_set_is_complete(name):
    info = known(name)
    assert info.name == name and len({*info.class_names}) == 10
    assert all(url.startswith("https://") for url in info.mirrors) and info.mirrors
    assert len({*info.sha256}) == 4 and all(len(bytes.fromhex(each)) == 32 for each in info.sha256)


@pytest.mark.parametrize("name", ["cifar10", "", "MNIST"])
def test_other_names_are_rejected(tmp_path, name):
    with pytest.raises(UserError, match="--dataset must be one of mnist, fashion_mnist, kmnist"):
        read_data_sets(tmp_path, dataset=name)
    assert known(name).name is None


# --- load and data_folder


def test_load_says_what_the_folder_contains(tmp_path):
    data, info = load()
    assert [part.num_examples for part in data] == [60_000, 0, 10_000] and info == known("mnist")
    data, info = load(data_dir=write_set(tmp_path))
    assert numbers_of(data.train.images) == list(range(30)) and info.name is None
    with pytest.raises(UserError, match=f"^{MNIST} contains MNIST, not KMNIST;"):
        load("kmnist", MNIST)
    with pytest.raises(UserError, match=f"^{tmp_path} contains other images, not MNIST;"):
        load("mnist", tmp_path)


def test_default_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder() == data_folder("mnist") == str(MNIST)
    assert data_folder("kmnist") == "data/kmnist"
    assert data_folder("kmnist", tmp_path) == str(tmp_path)
    assert data_folder(None, "~/data") == str(tmp_path / "data")
    write_set(tmp_path / "data")
    assert read_data_sets("~/data", validation_size=0).train.num_examples == 30


# --- select


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize(
    "labels",
    [np.arange(100) % 10, np.full(30, 7), np.r_[np.zeros(50), np.arange(10)], np.arange(20) % 2],
)
def test_select_holds_out_images_and_keeps_one_digit(tmp_path, labels, one_hot):
    data = read_data_sets(labelled_set(tmp_path, labels), validation_size=0, one_hot=one_hot)
    digit = int(labels[-1])
    chosen = select(data, validation_size=5, digit=digit)
    np.testing.assert_array_equal(chosen.validation.file_labels, labels[:5])
    np.testing.assert_array_equal(chosen.train.pixels, data.train.pixels[5:][labels[5:] == digit])
    np.testing.assert_array_equal(chosen.test.pixels, data.test.pixels[labels == digit])
    assert set(chosen.train.file_labels) == set(chosen.test.file_labels) == {digit}
    assert chosen.train.labels.ndim == (2 if one_hot else 1)


@pytest.mark.parametrize("digit", [5, 10, -1, "3"])
def test_missing_digit_is_named_with_the_existing_ones(tmp_path, digit):
    data = read_data_sets(labelled_set(tmp_path, np.arange(30) % 3 * 2), validation_size=0)
    message = rf"--digit must be a label of the data set \(0, 2, 4\), got {digit}$"
    with pytest.raises(UserError, match=message):
        select(data, digit=digit)


# --- Folders that are not quite a known set


def test_emnist_is_not_taken_for_an_empty_folder(tmp_path):
    (tmp_path / "emnist-digits-train-images-idx3-ubyte.gz").touch()
    with pytest.raises(DataError, match=r"is of EMNIST, whose images are transposed: .*upright"):
        read_data_sets(tmp_path, source_url="http://127.0.0.1:9/")
    with pytest.raises(DataError, match="is of EMNIST"):
        load(data_dir=next(tmp_path.iterdir()))
    write_set(tmp_path)
    load(data_dir=tmp_path)  # they were saved upright next to it


def test_files_of_other_images_are_not_completed_from_mirrors(tmp_path):
    folder = write_set(tmp_path)
    (folder / f"{NAMES[3]}.gz").unlink()
    with pytest.raises(DataError, match=f"^put {NAMES[3]} into .* its files are not of"):
        read_data_sets(folder)
