"""The user's own images: every form that is read, and what is refused."""

import numpy as np
import pytest
from assembly import main
from PIL import Image

import input_data
from evaluation import reference
from input_data import DataError
from support import own_images
from support.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (600, 28, 28), np.uint8)
PIXELS[:, [0, -1]] = PIXELS[:, :, [0, -1]] = 0
LABELS = np.arange(600, dtype=np.uint8) % 3
PAIRS = {(p.tobytes(), label) for p, label in zip(PIXELS, LABELS, strict=True)}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "my imäges"
    path.mkdir()
    return path


def load(folder, dataset=None, **options):
    """Returns the data set, its description, and what was logged."""
    lines: list = []
    data, info = input_data.load(dataset, folder, log=lines.append, **options)
    return data, info, "\n".join(lines)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def csv(path, *columns, header=None):
    header = {} if header is None else {"header": ",".join(header), "comments": ""}
    np.savetxt(path, np.column_stack(columns), "%d", ",", **header)


HEADER = [f"pixel{i}" for i in range(784)]
ROWS = PIXELS.reshape(-1, 784)


def image_files(folder):
    for i, pixels in enumerate(PIXELS):
        save(folder / "abc"[LABELS[i]] / f"{i:03d}.{['PNG', 'bmp'][i % 2]}", pixels)
    save(folder / ".hidden.png", PIXELS[0])
    save(folder / "a" / "Thumbs.db.png", PIXELS[0])
    (folder / "a" / "Thumbs.db.png").rename(folder / "a" / "Thumbs.db")


def one_file_each(folder):
    np.save(folder / "images.npy", PIXELS[..., None] / 255)
    np.save(folder / "labels.npy", np.eye(10)[LABELS])


def kaggle(folder):
    csv(folder / "train.csv", LABELS, ROWS, header=["label", *HEADER])
    csv(folder / "test.csv", ROWS[:3], header=HEADER)
    (folder / "sample_submission.csv").write_text("ImageId,Label\n1,0\n")


FORMS = {
    "images in folders": image_files,
    "npz": lambda f: np.savez(f / "set.npz", images=PIXELS, labels=LABELS),
    "one npz file": lambda f: np.savez(f / "set.npz", x=ROWS / 255, y=LABELS[:, None]),
    "npy": one_file_each,
    "channels": lambda f: np.savez(f / "a.npz", X=PIXELS[:, None], y=LABELS),
    "csv": kaggle,
    "one csv file": lambda f: csv(f / "a.CSV", LABELS, ROWS),
    "label in the last column": lambda f: csv(
        f / "a.csv", ROWS, LABELS, header=[*HEADER, '"Label"']
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_labelled_sets_are_read_and_a_part_is_held_out(folder, form):
    FORMS[form](folder)
    path = next(folder.iterdir()) if "one" in form else folder
    data, info, lines = load(str(path))
    assert [part.num_examples for part in data] == [472, 0, 128]
    read = zip(*(np.concatenate([getattr(p, name) for p in (data.train, data.test)])
                 for name in ("pixels", "file_labels")), strict=True)  # fmt: skip
    assert {(pixels.tobytes(), label) for pixels, label in read} == PAIRS
    assert len(np.unique(data.train.file_labels[:20])) == 3  # not sorted by class
    assert "Read 472 training and 128 test images of 3 classes" in lines and "Note" not in lines
    assert ("3 test images without labels are not used. Ignored" in lines) == (form == "csv")
    names = ("a", "b", "c") if "folders" in form else ("class 0", "class 1", "class 2")
    assert info.class_names[:3] == names and len(info.class_names) == 10 and info.name is None
    again, _, same = load(path)
    assert same == lines and again.train.pixels.tobytes() == data.train.pixels.tobytes()
    inverted, _, note = load(path, invert=True)
    np.testing.assert_array_equal(inverted.train.pixels, 255 - data.train.pixels)
    assert "Inverted them." in note and "omit --invert" in note


@pytest.mark.parametrize(
    "names", ["x_train y_train x_test y_test", "train_images train_labels val_images val_labels"]
)
def test_test_arrays_are_kept(folder, names):
    arrays = (PIXELS, LABELS, PIXELS[:5], LABELS[:5])
    np.savez(folder / "a.npz", **dict(zip(names.split(), arrays, strict=True)))
    data, _, lines = load(folder)
    assert data.train.pixels.tobytes() == PIXELS.tobytes()
    assert data.test.file_labels.tolist() == LABELS[:5].tolist() and " and 5 test images" in lines


def test_test_folders_are_kept(folder):
    for i in range(9):
        save(folder / ("Training" if i < 6 else "testing") / "ab"[i % 2] / f"{i}.png", PIXELS[i])
    data, info, _ = load(folder)
    assert data.train.num_examples == 6 and data.test.num_examples == 3
    assert info.class_names[:3] == ("a", "b", "class 2")


def test_folders_of_digits_are_what_they_say(folder):
    for k, name in enumerate("137"):
        save(folder / name / "a.png", PIXELS[k])
    data, info, _ = load(folder)
    assert sorted(data.train.file_labels) == [1, 3, 7] and info.class_names == tuple("0123456789")


def test_runs_in_the_folder_are_no_images(folder):
    save(folder / "a.png", PIXELS[0])
    save(folder / "run" / "samples.png", PIXELS[0])
    save(folder / "run" / "progress" / "step-1.png", PIXELS[0])
    (folder / "run" / "checkpoints").mkdir()
    np.savez(folder / "run" / "checkpoints" / "step-1.npz", x=PIXELS)
    assert load(folder)[0].train.num_examples == 1


def test_the_name_of_a_table_is_no_role(folder):
    csv(folder / "digits_labelled.csv", LABELS, ROWS, header=["label", *HEADER])
    assert load(folder)[0].train.num_examples == 472


def test_mnist_is_recognised_in_keras_arrays(folder, mnist):
    names = {"x_train": mnist.train.pixels, "x_test": mnist.test.pixels}
    names |= {"y_train": mnist.train.file_labels, "y_test": mnist.test.file_labels}
    np.savez(folder / "mnist.npz", **names)
    data, info, _ = load(folder / "mnist.npz", dataset="mnist")
    assert info.name == "mnist" and reference.checksum(data) in reference.SHIPPED


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "bmp", "gif", "webp", "png"])
def test_images_of_any_size_and_colour_keep_their_form(folder, suffix):
    wide = np.full((280, 560, 3), 200, np.uint8)
    wide[100:180, 200:360] = [10, 10, 10]
    save(folder / f"a.{suffix}", wide)
    data, _, lines = load(folder)
    image = data.train.pixels.reshape(28, 28)
    assert "Read 1 training and 0 test images without labels" in lines
    assert "as 28 x 28 grey images" in lines and "--invert makes it bright" in lines
    dark = np.argwhere(image < 100)
    assert (dark.mean(axis=0).round(1) == 13.5).all()
    assert (np.ptp(dark, axis=0) + 1).tolist() == [4, 8]
    assert abs(int(image[0, 0]) - 200) < 8


@pytest.mark.parametrize("ink", [0, 255])
def test_transparent_images_contrast_with_their_background(folder, ink):
    rgba = np.full((28, 28, 4), [ink, ink, ink, 0], np.uint8)
    rgba[10:18, 10:18, 3] = 255
    save(folder / "ink.png", rgba)
    image = load(folder)[0].train.pixels.reshape(28, 28)
    assert image[0, 0] == 255 - ink and image[14, 14] == ink
    save(folder / "blank.png", 0 * rgba)  # says nothing about the background
    save(folder / "another.png", 0 * rgba)
    assert load(folder)[0].train.pixels.min() == 0 and load(folder)[0].train.pixels.max() == 255


@pytest.mark.parametrize("shape", [(1, 1), (1, 999), (999, 1)])
def test_extreme_shapes(folder, shape):
    save(folder / "a.png", np.full(shape, 9, np.uint8))
    assert (load(folder)[0].train.pixels == 9).all()


def test_other_modes_of_images(folder):
    levels = np.arange(784).reshape(28, 28) // 4
    save(folder / "a.png", np.uint16(levels * 256))
    turned = Image.fromarray(np.uint8(np.rot90(levels)))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned.save(folder / "b.png", exif=exif)
    Image.fromarray(np.uint8(levels)).convert("P").save(folder / "c.png")
    frames = [Image.fromarray(np.uint8(each)) for each in (levels, 255 - levels)]
    frames[0].save(folder / "d.gif", save_all=True, append_images=frames[1:])
    images = load(folder)[0].train.pixels.reshape(-1, 28, 28)
    for image in images:
        np.testing.assert_array_equal(image, levels)
    assert len(images) == 4


def test_binary_arrays_use_the_whole_range(folder):
    for dtype in (bool, np.int64, np.uint8, np.float32):
        np.save(folder / "images.npy", (PIXELS[:9] > 127).astype(dtype))
        assert np.unique(load(folder)[0].train.pixels).tolist() == [0, 255]


def test_colour_arrays_become_grey(folder):
    colour = np.zeros([9, 32, 32, 3], np.uint8)
    colour[:, 8:24, 8:24, 1] = 255
    np.savez(folder / "cifar.npz", images=np.moveaxis(colour, 3, 1))
    image = load(folder)[0].train.pixels[0].reshape(28, 28)
    assert image[14, 14] == 150 and image[0, 0] == 0


# What is refused


def broken_image(folder):
    save(folder / "good.png", PIXELS[0])
    (folder / "bad.png").write_bytes((folder / "good.png").read_bytes()[:200])


def many_classes(folder):
    for k in range(11):
        save(folder / str(k) / "a.png", PIXELS[k])


def same_names(folder):
    for name in ("train.npz", "test.npz"):
        np.savez(folder / name, images=PIXELS)


def unsorted(folder):
    for path in ("a.png", "b/a.png"):
        save(folder / path, PIXELS[0])


def written(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def arrays(**named):
    return lambda folder: np.savez(folder / "a.npz", **named)


def pickled(folder):
    np.save(folder / "x_train.npy", np.array([{}], object), allow_pickle=True)


BAD = {
    "other files": (written("a.txt", b"x"), "four IDX files, PNG, .*with a.txt; nothing was down"),
    "other CSV": (written("a.csv", b"1,2,3\n"), "784 columns of pixels, got .* with a.csv"),
    "nothing": (lambda folder: None, "empty; correct it, or add --dataset=mnist to"),
    "broken": (broken_image, r"bad\.png: expected a PNG, .*image \(image file is trunc"),
    "eleven classes": (many_classes, "at most 10 classes, found 11"),
    "not all in folders": (unsorted, r"a\.png: expected it in a folder named by its class"),
    "deep": (lambda f: save(f / "a/b/c.png", PIXELS[0]), "one folder per class; set --data_dir to"),
    "pickle": (pickled, "x_train.npy: expected numbers: Object arrays cannot"),
    "same names": (same_names, "expected the array images once, found it also in train.npz"),
    "a page": (written("a.npz", b"<html>"), "a.npz: expected NumPy arrays, found .*<html"),
    "damaged": (written("a.npz", b"PK\3\4"), "a.npz: expected numbers: File is not a zip"),
    "labels": (arrays(x=PIXELS, y=LABELS[:9]), r"imäges \(y\): expected 600 labels, found 9"),
    "values": (arrays(x_train=PIXELS * 2.0), "pixels from 0 to 255, or from 0 to 1, found 0 to 5"),
    "NaN": (arrays(x=PIXELS * np.nan), "or from 0 to 1, found nan"),
    "shape": (arrays(images=LABELS), r"images \[n, height, width\], found \[600\]"),
    "text": (arrays(images=PIXELS.astype(str)), "numbers as pixels"),
    "label": (arrays(x_train=PIXELS, y_train=LABELS + 9), "labels from 0 to 9, found .10"),
    "names": (arrays(y_train=LABELS, z=LABELS), "one array of images .*, found y_train, z"),
    "a gap": (written("a.csv", b",".join(784 * [b""])), "a.csv: expected numbers: could not conv"),
    "only a header": (written("a.csv", b",".join(784 * [b"x"])), "a images.: expected 1 to 1,0"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_unusable_folders_are_refused_by_name(folder, case):
    write, message = BAD[case]
    write(folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(DataError, match=message) as error:
        load(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    assert sorted(folder.rglob("*")) == before


def test_too_many_images_are_refused(folder, monkeypatch):
    monkeypatch.setattr(own_images, "MAX_EXAMPLES", 599)
    image_files(folder)
    with pytest.raises(DataError, match="expected at most 599 images"):
        load(folder)


def test_a_data_set_is_not_downloaded_next_to_other_files(folder):
    save(folder / "a.png", PIXELS[0])
    with pytest.raises(UserError, match=r"contains other images, not KMNIST"):
        load(folder, dataset="kmnist")
    assert [path.name for path in folder.iterdir()] == ["a.png"]
    with pytest.raises(UserError, match="--invert is only for your own"):
        input_data.load(invert=True)


# Runs


@pytest.mark.slow
def test_a_run_on_images_by_class(folder, tmp_path):
    """From the command line, with the folder's names; in the folder itself."""
    image_files(folder)
    run = folder / "runs" / "run"
    flags = [f"--data_dir={folder}", "--invert", "--conditional", "--nlatent=3", "--num_steps=3",
             "--engine=step", "--noevents", f"--run_dir={run}"]  # fmt: skip
    code, out, err = main(*flags)
    assert code == 0 and "of 3 classes (a, b, c)" in out, err
    assert '"a",' in (run / "config.json").read_text()
    code, out, err = main(*flags, "--num_steps=5")
    assert code == 0 and "after step 3" in out, err
    sample = ["--mode=sample", f"--run_dir={run}", f"--out={tmp_path / 'a.npz'}"]
    code, _, err = main(*sample, "--labels=c,0", "--num_samples=4")
    assert code == 0 and np.load(tmp_path / "a.npz")["labels"].tolist() == [2, 0, 2, 0], err
    assert "names of classes, got d" in main(*sample, "--labels=d")[2]
    assert "--invert was True, now False" in main(*flags, "--noinvert")[2]


def test_sets_of_one_label_are_scored_by_mnists_classifier(folder, tmp_path):
    np.savez(folder / "a.npz", images=PIXELS, labels=np.full(600, 7))
    run, data = tmp_path / "run", f"--data_dir={folder / 'a.npz'}"
    flags = [data, "--nlatent=3", "--num_steps=3", "--engine=step", f"--run_dir={run}"]
    assert "requires images of at least two labels" in main(*flags, "--conditional")[2]
    code, out, err = main(*flags, "--eval_every=3")
    assert code == 0, err
    assert (run / "metrics.csv").read_text().startswith("step,frechet_distance\n3,")
    code, out, err = main("--mode=evaluate", f"--run_dir={run}", data, "--num_samples=128")
    assert code == 0 and "Without at least two labels" in out and "classes covered  " not in out
    assert "Fréchet distance" in out and "precision" in out and (run / "report.png").exists(), err
    code, out, err = main("--mode=compare", f"--run_dirs={run}", f"--out={tmp_path / 'a.png'}")
    assert code == 0 and "nan" in out and "has no scores" not in out
    code, _, err = main("--mode=explore", f"--run_dir={run}", f"--out={tmp_path / 'a.html'}")
    assert code == 0 and "\\u00e9chet" in (tmp_path / "a.html").read_text(encoding="utf-8"), err
