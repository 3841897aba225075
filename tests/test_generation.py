"""Uses of a trained run: the real program on a run of a few steps."""

import json

import assembly
import numpy as np
import onnxruntime
import pytest
from PIL import Image
from small_sets import NAMES, idx, write_set

import generation
from generation import numpy_generator
from support import pictures
from training.run import RunFolder

SMALL_CNN = ("--recipe=stable_cnn", "--g_channels=4", "--d_channels=4")


def main(*flags, ok=True):
    """Runs main.py in this process, checks its success and returns (stdout, stderr)."""
    code, out, err = assembly.main(*flags)
    assert (code == 0) == ok, err
    return out, err


def train(folder, *flags, labels=None):
    """Trains four steps on 40 images of noise; labels: theirs, by default 0 to 9."""
    data = write_set(folder / "data", suffix="", train=40)
    if labels is not None:
        (data / NAMES[1]).write_bytes(idx(np.resize(labels, 40)))
    few = ("--num_steps=4", "--batch_size=4", "--noevents", "--engine=step", "--pretraining=0")
    main(*flags, *few, f"--data_dir={data}", f"--run_dir={folder / 'run'}")
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of stable_cnn: normal prior, averaged weights."""
    return train(tmp_path_factory.mktemp("stable"), *SMALL_CNN)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    return train(tmp_path_factory.mktemp("all"), *SMALL_CNN, "--conditional")


@pytest.fixture(scope="module")
def generator(run):
    return generation.load(run)


@pytest.fixture(scope="module")
def labelled(conditional):
    return generation.load(conditional)


def sample(run, folder, *flags):
    """Returns the arrays of samples that main.py writes."""
    main("--mode=sample", f"--run_dir={run}", f"--out={folder / 'x.npz'}", *flags)
    with np.load(folder / "x.npz", allow_pickle=False) as file:
        return dict(file)


def metadata_of(exported):
    """Returns the metadata, which ONNX, NumPy and export.json all have."""
    onnx = onnxruntime.InferenceSession(exported / "generator.onnx").get_modelmeta()
    metadata = {name: json.loads(text) for name, text in onnx.custom_metadata_map.items()}
    about = json.loads((exported / "export.json").read_text())
    with np.load(exported / "generator.npz") as file:
        for name, value in metadata.items():
            assert file[name].tolist() == value == about.get(name, value)
    metadata.pop("prior_quantiles")
    return metadata


def test_samples_follow_from_the_seed_in_python_and_on_the_command_line(run, generator, tmp_path):
    saved = sample(run, tmp_path, "--num_samples=37", "--seed=3")
    assert saved.keys() == {"images", "latents"}
    images, latents = saved["images"], saved["latents"]
    assert images.dtype == np.float32 and images.shape == (37, 28, 28)
    again, same_latents = generator.sample(37, seed=3)
    np.testing.assert_array_equal(latents, same_latents)
    np.testing.assert_allclose(images, again, atol=1e-6)
    np.testing.assert_allclose(generator.generate(latents[5:8]), images[5:8], atol=1e-6)
    assert np.abs(generator.sample(37, seed=4)[1] - latents).min() > 0


def test_raw_weights_are_not_the_average(run, generator):
    z, raw = generator.latents(8, np.random.default_rng(0)), generation.load(run, raw=True)
    assert np.abs(raw.generate(z) - generator.generate(z)).max() > 1e-4
    _, state = RunFolder(run).load_checkpoint(print)
    kernel = raw.gan.session.run(raw.gan.x_hat.graph.get_collection("trainable_variables")[0])
    np.testing.assert_array_equal(kernel, state["generator/dense1/kernel"])


def test_files_of_samples_and_walks(run, generator, tmp_path):
    sample = ("--mode=sample", f"--run_dir={run}")
    main(*sample, "--num_samples=7", f"--out={tmp_path / 'sheet.png'}")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    images, _ = generator.sample(7, 0)
    assert sheet.shape == (3 * 28, 3 * 28) and sheet[56:, 28:].max() == 0
    np.testing.assert_allclose(sheet[28:56, 28:56] / 255, images[4], atol=0.5 / 255 + 1e-5)
    for name in ("walk.gif", "walk.png"):
        main(*sample, "--interpolate=2", f"--out={tmp_path / name}")
    assert Image.open(tmp_path / "walk.gif").n_frames > 10
    assert Image.open(tmp_path / "walk.png").size == (8 * 28, 2 * 28)


@pytest.mark.slow
def test_a_folder_takes_a_file_for_each_image(run, conditional, generator, tmp_path):
    folder, one = tmp_path / "new.png", ("--mode=sample", f"--run_dir={run}")
    main(*one, "--num_samples=3", f"--out={folder}/")
    images, _ = generator.sample(3)
    for k, path in enumerate(sorted(folder.iterdir())):
        assert path.name == f"00000{k}.png"
        np.testing.assert_allclose(np.asarray(Image.open(path)) / 255, images[k], atol=0.003)
    _, err = main(*one, f"--out={folder}", ok=False)
    assert f"--out={folder}/ must not contain numbered images, found 000000.png" in err
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "cat.png").write_text("mine")
    two = ("--mode=sample", f"--run_dir={conditional}", "--labels=7,3")
    main(*two, "--num_samples=3", f"--out={mine}")
    names = ["000000-label-7.png", "000001-label-3.png", "000002-label-7.png", "cat.png"]
    assert sorted(path.name for path in mine.iterdir()) == names
    assert (mine / "cat.png").read_text() == "mine"
    main(*one, "--interpolate=2", f"--out={tmp_path / 'walk'}/")
    assert len(list((tmp_path / "walk").glob("0000*.png"))) == 48


def test_walk_passes_through_its_draws_on_the_sphere(generator):
    images, z = generator.interpolate(3, 10, seed=2)
    corners = generator.latents(3, np.random.default_rng(2))
    np.testing.assert_allclose(z[::10], corners, atol=1e-5)
    norms = np.linalg.norm(z[:11], axis=1)
    expected = np.linspace(*np.linalg.norm(corners[:2], axis=1), 11)
    np.testing.assert_allclose(norms, expected, rtol=1e-4)
    bounded = generator.latents(500, np.random.default_rng(1), truncation=0.7)
    assert np.abs(bounded).max() <= 0.7 < np.abs(corners).max()
    steps = np.abs(np.diff(images, axis=0)).mean(axis=(1, 2))
    assert steps.max() < np.abs(images[0] - images[10]).mean()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--mode=sample --run_dir={run} --out=x.bmp", ".npz or .png, got x.bmp"),
        ("--mode=sample --run_dir={run} --out=x.gif", "got x.gif; add --interpolate=6"),
        ("--mode=export --run_dir={run} --out=g.tflite", "must be a folder for --mode=export"),
        ("--mode=sample --run_dir={run} --out=no/such/x.png", "no folder"),
        ("--mode=sample --run_dir={run} --num_samples=3 --interpolate=2", "not valid"),
        ("--mode=sample --run_dir={run} --labels=3", "this run has no labels"),
        ("--mode=sample --run_dir={run} --labels=x", "labels from 0 to 9"),
        ("--mode=compare --run_dirs={run} --out=notes.txt", "must end in .png"),
        ("--mode=sample --run_dir={run} --interpolate=2 --out=x.mp4", ".png or .npz, got"),
        ("--mode=explore --run_dir={run} --out=page.pdf", "must end in .html"),
    ],
)
def test_bad_input_is_one_line(run, flags, words):
    out, err = main(*(flag.format(run=run) for flag in flags.split()), ok=False)
    assert out == "" and len(err.splitlines()) == 1 and words in err


def test_labels_are_drawn_in_turn(conditional, labelled, tmp_path):
    flags = ("--num_samples=12", "--labels=3,7")
    saved = sample(conditional, tmp_path, *flags)
    assert saved["labels"].tolist() == 6 * [3, 7]
    again = labelled.generate(saved["latents"], saved["labels"])
    np.testing.assert_allclose(saved["images"], again, atol=1e-6)
    other = labelled.generate(saved["latents"], (saved["labels"] + 1) % 10)
    assert np.abs(saved["images"] - other).max() > 1e-4
    sheet, expected = tmp_path / "x.png", tmp_path / "expected.png"
    main("--mode=sample", f"--run_dir={conditional}", f"--out={sheet}", *flags)
    threes, sevens = saved["images"].reshape(6, 2, 784).swapaxes(0, 1)
    rows = [("class 3", threes[:4]), ("", threes[4:]), ("class 7", sevens[:4]), ("", sevens[4:])]
    pictures.compare(expected, rows)
    assert sheet.read_bytes() == expected.read_bytes()


def test_one_label_is_drawn_in_a_square(conditional, tmp_path):
    sheet = tmp_path / "x.png"
    main("--mode=sample", f"--run_dir={conditional}", "--labels=3", f"--out={sheet}")
    assert Image.open(sheet).size == (280, 280)


def test_invalid_labels_and_latents_are_rejected(labelled, generator):
    z = np.zeros([2, 16], np.float32)
    for labels in (None, [3], [3, 10], [-1, 3], [0.5, 1], np.eye(10)[:1]):
        with pytest.raises(ValueError, match=r"labels must be 2 of 0, 1, 2, .*or rows of 10"):
            labelled.generate(z, labels)
    assert labelled.generate(z, np.full([2, 10], 0.1)).shape == (2, 28, 28)
    for images, words in (
        (lambda: generator.generate(z, [1, 2]), "not conditional"),
        (lambda: generator.generate(z[:, :3]), "latents must have shape"),
        (lambda: generator.generate(z * np.nan), "latents must be finite"),
        (lambda: labelled.labels_in_turn(1, [1, 2]), "draw at least as many, got 1"),
    ):
        with pytest.raises(ValueError, match=words):
            images()


def test_walk_keeps_a_label_or_crosses(labelled):
    of_3, crossing, of_0 = (labelled.interpolate(2, 4, labels=k)[0] for k in ([3], [3, 4], None))
    np.testing.assert_allclose(of_3[0], crossing[0], atol=1e-6)
    assert np.abs(of_3[4] - crossing[4]).max() > 1e-4
    assert np.abs(of_3[0] - of_0[0]).max() > 1e-4


@pytest.mark.slow
def test_labels_that_the_images_lack_are_not_drawn(tmp_path):
    """Samples and exports of a set of 3s and 5s have no other labels."""
    run = train(tmp_path, "--conditional", labels=[3, 5])
    saved = sample(run, tmp_path, "--num_samples=5")
    assert saved["labels"].tolist() == [3, 5, 3, 5, 3]
    _, err = main("--mode=sample", f"--run_dir={run}", "--labels=4", ok=False)
    assert "--labels must be among the trained labels 3, 5, got 4" in err
    main("--mode=export", f"--run_dir={run}", f"--out={tmp_path / 'out'}")
    metadata = metadata_of(tmp_path / "out")
    assert metadata == {"nlatent": 10, "prior": "uniform", "classes": [3, 5]}
    path, z, labels = tmp_path / "out" / "generator.npz", saved["latents"], saved["labels"]
    onnx = onnxruntime.InferenceSession(path.with_suffix(".onnx"))
    (by_onnx,) = onnx.run(None, {"z": z, "labels": np.eye(10, dtype=np.float32)[labels]})
    for again in (by_onnx, numpy_generator.generate(path, z, labels)):
        np.testing.assert_allclose(again, saved["images"], atol=1e-4)
    images, z = numpy_generator.sample(path, 3)
    np.testing.assert_array_equal(images, numpy_generator.generate(path, z, [3, 5, 3]))
    with pytest.raises(ValueError, match="must be 1 of 3, 5"):
        numpy_generator.generate(path, z[:1], [4])
