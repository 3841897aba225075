"""Data sets by name and by checksum, and folders of files that are not quite one of them."""

import gzip
import hashlib
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from servers import Quiet, Short, serving

import input_data
from input_data import DataError, identify, known, read_data_sets
from support import data_sets, idx
from support.errors import UserError

ROOT = Path(input_data.__file__).parent
NAMES = data_sets.FILES


def write_set(folder, images, labels, test=20):
    """Arrays -> a folder of four files, whose test set is the first `test` of the training set."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = (len(images), len(images), test, test)
    for name, array, size in zip(NAMES, (images, labels) * 2, sizes, strict=True):
        part = np.asarray(array[:size], np.uint8)
        header = struct.pack(f">{1 + part.ndim}I", 0x800 + part.ndim, *part.shape)
        (folder / f"{name}.gz").write_bytes(gzip.compress(header + part.tobytes(), 1))
    return folder


def random_set(folder, labels, **options):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(labels), 28, 28), np.uint8)
    return write_set(folder, images, labels, **options)


@pytest.fixture(scope="module")
def mnist():
    return read_data_sets(ROOT / "MNIST_data", validation_size=0).train.pixels


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1,127.0.0.2")


# --- Names


def test_mnist_is_known_by_its_images(mnist):
    info = identify(mnist)
    assert info == known("mnist") and info.title == "MNIST" and info.noun == "digit"
    assert info.class_names == tuple("0123456789")
    for other in (255 - mnist, mnist[::-1], mnist[:-1], mnist.reshape(-1, 28, 28)[:, ::-1]):
        info = identify(other)
        assert info == known(None) and info.class_names[3] == "class 3"


def test_gits_id_of_the_training_images_is_git_s(mnist, tmp_path, monkeypatch):
    """What KMNIST is known by, here of MNIST's: by git itself."""
    file = tmp_path / "images"
    packed = ROOT / "MNIST_data" / f"{NAMES[0]}.gz"
    file.write_bytes(gzip.decompress(packed.read_bytes()))
    done = subprocess.run(["git", "hash-object", file], capture_output=True, text=True, check=True)
    renamed = data_sets.get("kmnist")._replace(training_images=done.stdout.strip())
    monkeypatch.setattr(data_sets, "_KNOWN", {"kmnist": renamed})
    assert identify(mnist).name == "kmnist"


@pytest.mark.parametrize("name", input_data.DATASETS)
def test_every_known_set_is_complete(name):
    entry = data_sets.get(name)
    assert known(name) == entry.info and entry.info.name == name
    assert len({*entry.info.class_names}) == 10 and len(entry.sha256) == 4
    assert len(entry.training_images) in (40, 64) and entry.mirrors


@pytest.mark.parametrize("name", ["cifar10", "", None, "MNIST"])
def test_other_names_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="wanted one of mnist, fashion_mnist, kmnist"):
        read_data_sets(tmp_path, dataset=name)
    assert known(name).name is None


# --- Sets of one's own


@pytest.mark.parametrize(
    "labels",
    [
        np.arange(1000) % 10,
        np.full(300, 7),
        np.r_[np.zeros(500), np.arange(10)],
        np.arange(20) % 2,
    ],
)
def test_any_set_of_ten_classes_is_read(tmp_path, labels):
    sets = read_data_sets(random_set(tmp_path, labels), validation_size=5, one_hot=True)
    assert sets.train.num_examples == len(labels) - 5 and sets.test.num_examples == 20
    assert sets.train.labels.shape == (len(labels) - 5, 10)
    assert sets.train.file_labels.tolist() == labels[5:].tolist()
    kinds = input_data.only_digit(sets.train, int(labels[-1]))
    assert set(kinds.file_labels) == {labels[-1]} and kinds.labels.shape[1] == 10
    assert identify(sets.train.pixels).name is None


def test_a_class_that_is_not_there_is_named_beside_those_that_are(tmp_path):
    sets = read_data_sets(random_set(tmp_path, np.arange(30) % 3 * 2), validation_size=0)
    with pytest.raises(UserError, match=r"--digit=5: .*, which has 0, 2, 4$"):
        input_data.only_digit(sets.train, 5)


def test_emnist_is_not_taken_for_an_empty_folder(tmp_path):
    (tmp_path / "emnist-digits-train-images-idx3-ubyte.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"is of EMNIST, whose images are transposed: .*upright"):
        read_data_sets(tmp_path, source_url="http://127.0.0.1:9/")


# --- Files that are missing


def test_one_line_says_which_files_to_put_where(tmp_path):
    with serving(Short) as url, pytest.raises(DataError) as error:
        read_data_sets(tmp_path / "to", source_url=url)
    names = ", ".join(f"{name}.gz" for name in NAMES)
    assert str(error.value).endswith(f": put {names} there by hand")
    assert f"is not in {tmp_path / 'to'} and could not" in str(error.value)


def test_a_mistyped_folder_is_not_made(tmp_path):
    with serving(Short) as url, pytest.raises(DataError):
        read_data_sets(tmp_path / "MNIST_dta" / "deep", source_url=url)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_stays(tmp_path):
    (tmp_path / "mine").mkdir()
    with serving(Short) as url, pytest.raises(DataError):
        read_data_sets(tmp_path / "mine" / "deep", source_url=url)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert list((tmp_path / "mine").iterdir()) == []


def test_what_a_killed_download_left_is_cleared(tmp_path):
    source = random_set(tmp_path / "from", np.arange(30) % 10)
    left = tmp_path / "to" / f".{NAMES[0]}.unfinished-0123abcd.gz"
    deep = tmp_path / "to" / "others" / f".{NAMES[0]}.unfinished-0123abcd.gz"
    deep.parent.mkdir(parents=True)
    left.touch()
    deep.touch()  # not this program's business
    with serving(lambda *a: Quiet(*a, directory=str(source))) as url:
        read_data_sets(tmp_path / "to", source_url=url, validation_size=0)
    assert not left.exists() and deep.exists()


@pytest.mark.parametrize("packed", [False, True])
def test_a_checksum_is_of_the_payload_or_of_the_file(tmp_path, packed):
    source = random_set(tmp_path / "from", np.arange(30) % 10)
    content = (source / f"{NAMES[0]}.gz").read_bytes()
    sha256 = hashlib.sha256(content if packed else gzip.decompress(content)).hexdigest()
    assert sha256 in idx.checksums(source / f"{NAMES[0]}.gz")
    with serving(lambda *a: Quiet(*a, directory=str(source))) as url:
        path = input_data.download(f"{NAMES[0]}.gz", tmp_path / "to", [url], sha256)
    assert path.read_bytes() == content


def known_as(monkeypatch, folder):
    """Makes a folder's files those of a known set."""
    digests = tuple(idx.checksums(folder / f"{name}.gz")[0] for name in NAMES)
    entry = data_sets.get("mnist")._replace(sha256=digests)
    monkeypatch.setitem(data_sets._KNOWN, "mnist", entry)


def test_http_gives_known_files_alone(tmp_path, monkeypatch):
    """As Fashion-MNIST's own page tells readers of the removed module to fetch it."""
    source = random_set(tmp_path / "from", np.arange(30) % 10)
    with serving(lambda *a: Quiet(*a, directory=str(source)), host="127.0.0.2") as url:
        with pytest.raises(DataError, match="wanted that of a known set: http is not protected"):
            read_data_sets(tmp_path / "to", source_url=url)
        assert not (tmp_path / "to").exists()
        known_as(monkeypatch, source)
        sets = read_data_sets(tmp_path / "to", source_url=url, validation_size=0)
        assert sets.train.num_examples == 30
        there = input_data.maybe_download(
            f"{NAMES[1]}.gz", tmp_path / "more", f"{url}{NAMES[1]}.gz"
        )
        assert Path(there).exists()


def test_maybe_download_takes_any_sound_file_from_here(tmp_path):
    source = random_set(tmp_path / "from", np.arange(30) % 10)
    (source / "another").write_bytes((source / f"{NAMES[0]}.gz").read_bytes())
    with serving(lambda *a: Quiet(*a, directory=str(source))) as url:
        there = input_data.maybe_download(f"{NAMES[0]}.gz", tmp_path / "to", f"{url}another")
    assert len(input_data.read_idx(there)) == 30
