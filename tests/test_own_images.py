"""The user's own images: every form that is read, and what is refused."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from input_data import DataError
from support import own_images

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (200, 28, 28), np.uint8)
LABELS = np.arange(200, dtype=np.uint8) % 3


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "my images"
    path.mkdir()
    return path


def read(folder, **options):
    lines = []
    return own_images.read(folder, log=lines.append, **options), "\n".join(lines)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_pictures(folder):
    for i, pixels in enumerate(PIXELS):
        save(folder / "abc"[LABELS[i]] / f"{i:03d}.PNG", pixels)


def write_arrays(folder):
    np.savez(folder / "set.npz", images=PIXELS, labels=LABELS)


def write_fractions(folder):
    np.save(folder / "images.npy", PIXELS[..., None] / 255)
    np.save(folder / "labels.npy", np.eye(10)[LABELS])


def write_csv(folder):
    rows = np.column_stack([LABELS, PIXELS.reshape(200, 784)])
    header = ",".join(["label", *(f"pixel{i}" for i in range(784))])
    np.savetxt(folder / "train.csv", rows, "%d", ",", header=header, comments="")
    (folder / "test.csv").write_text(header[6:] + "\n" + ",".join(["0"] * 784) + "\n")


@pytest.mark.parametrize("write", [write_pictures, write_arrays, write_fractions, write_csv])
def test_labelled_sets_are_read_and_a_tenth_is_held_out(folder, write):
    write(folder)
    images, said = read(folder)
    assert (len(images.train), len(images.test)) == (180, 20)
    pixels = np.concatenate([images.train, images.test])
    labels = np.concatenate([images.train_labels, images.test_labels])
    expected = {(p.tobytes(), label) for p, label in zip(PIXELS, LABELS, strict=True)}
    assert {(p.tobytes(), label) for p, label in zip(pixels, labels, strict=True)} == expected
    assert "Read 200 image" in said and "20 of them are held out for testing" in said
    again, _ = read(folder)  # from the cache
    np.testing.assert_array_equal(again.train, images.train)
    assert (
        again.class_names
        == images.class_names
        == (("a", "b", "c") if "pict" in write.__name__ else ())
    )
    np.testing.assert_array_equal(read(folder, invert=True)[0].train, 255 - images.train)


def test_keras_arrays_have_a_test_set_of_their_own(folder):
    np.savez(
        folder / "mnist.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS[:5], y_test=LABELS[:5]
    )
    images, _ = read(folder)
    assert (len(images.train), len(images.test), len(images.test_labels)) == (200, 5, 5)


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "gif", "webp"])
def test_pictures_of_any_size_and_colour_keep_their_form(folder, suffix):
    wide = np.full((28, 56, 3), 200, np.uint8)
    wide[10:18, 20:36] = [10, 10, 10]
    save(folder / f"a.{suffix}", wide)
    images, said = read(folder)
    (image,) = images.train
    assert images.train_labels is None and len(images.test) == 0
    assert "no test set" in said and "--invert" in said
    dark = np.argwhere(image < 100)
    height, width = np.ptp(dark, axis=0) + 1
    assert (dark.mean(axis=0).round(1) == 13.5).all() and (height, width) == (4, 8)
    assert abs(int(image[0, 0]) - 200) < 8


def test_transparent_pictures_have_a_white_background(folder):
    rgba = np.zeros((28, 28, 4), np.uint8)
    rgba[10:18, 10:18, 3] = 255
    save(folder / "ink.png", rgba)
    (image,) = read(folder)[0].train
    assert image[0, 0] == 255 and image[14, 14] == 0


def broken_picture(folder):
    save(folder / "good.png", PIXELS[0])
    (folder / "bad.png").write_bytes((folder / "good.png").read_bytes()[:200])


def renamed_page(folder):
    (folder / "page.jpg").write_text("<html>")


def eleven_classes(folder):
    for k in range(11):
        save(folder / str(k) / "a.png", PIXELS[k])


def pickled(folder):
    np.save(folder / "x_train.npy", np.array([{}], object), allow_pickle=True)


def huge_archive(folder):
    with (
        zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(4097):
            member.write(bytes(2**20))


@pytest.mark.parametrize(
    "write, message",
    [
        (
            lambda folder: (folder / "notes.txt").write_text("x"),
            "expected IDX files, PNG.* found notes.txt",
        ),
        (broken_picture, r"bad\.png: the image is damaged"),
        (renamed_page, r"page\.jpg: expected an image"),
        (eleven_classes, "at most 10 classes, found 11"),
        (pickled, "x_train.npy: expected NumPy arrays of numbers"),
        pytest.param(huge_archive, "expected at most 4,294,967,296 bytes", marks=pytest.mark.slow),
        (
            lambda f: np.savez(f / "a.npz", x_train=PIXELS, y_train=LABELS[:9]),
            "expected 200 labels",
        ),
        (lambda f: np.savez(f / "a.npz", x_train=PIXELS * 2.0), "pixels from 0 to 255 or 0 to 1"),
        (lambda f: np.savez(f / "a.npz", x_train=PIXELS, y_train=LABELS + 9), "labels from 0 to 9"),
        (lambda f: np.savez(f / "a.npz", y_train=LABELS, z=LABELS), "expected the arrays x_train"),
        (lambda f: (f / "a.csv").write_text("1,2,3\n"), "expected 784 columns"),
        (
            lambda f: (f / "a.csv").write_text(2 * (",".join(["x"] * 785) + "\n")),
            "expected numbers",
        ),
    ],
)
def test_unusable_folders_are_refused_by_name(folder, write, message):
    write(folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(DataError, match=message):
        read(folder)
    assert sorted(folder.rglob("*")) == before
