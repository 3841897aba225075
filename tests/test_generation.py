"""What can be done with a trained run: the real program on a run of a few steps."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from absl.testing import flagsaver
from PIL import Image
from test_resume import write_data
from training.run_folder import RunFolder

import main as program

ROOT = Path(__file__).resolve().parent.parent


def main(*flags, ok=True):
    """Runs main.py in this process; -> (stdout, stderr), after checking the exit code."""
    out, err = io.StringIO(), io.StringIO()
    with flagsaver.flagsaver(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = _code_of([str(ROOT / "main.py"), *map(str, flags)])
    assert (code == 0) == ok, err.getvalue()
    return out.getvalue(), err.getvalue()


def _code_of(argv):
    try:
        return program.main(program.parse(argv)) or 0
    except SystemExit as end:
        return end.code


@pytest.fixture(scope="module", autouse=True)
def _flags():
    if "mode" not in program.FLAGS:
        program.define_flags()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of stable_cnn: normal prior, averaged weights, frames, scores, events."""
    folder = tmp_path_factory.mktemp("runs") / "stable"
    every = ("--image_every=20", "--eval_every=30", "--checkpoint_every=30")
    main("--recipe=stable_cnn", "--num_steps=60", "--engine=step", f"--run_dir={folder}", *every)
    return folder


@pytest.fixture(scope="module")
def generator(run):
    import generation

    return generation.load(run)


def test_samples_follow_from_the_seed_and_both_faces_give_the_same(run, generator, tmp_path):
    out = tmp_path / "samples.npz"
    main("--mode=sample", f"--run_dir={run}", "--num_samples=37", "--seed=3", f"--out={out}")
    with np.load(out, allow_pickle=False) as file:
        images, latents = file["images"], file["latents"]
    assert images.dtype == np.float32 and images.shape == (37, 28, 28)
    assert images.min() >= 0 and images.max() <= 1
    again, same_latents = generator.sample(37, seed=3)
    np.testing.assert_array_equal(latents, same_latents)
    np.testing.assert_allclose(images, again, atol=1e-6)
    np.testing.assert_allclose(generator.generate(latents[5:8]), images[5:8], atol=1e-6)


def test_raw_weights_are_not_the_average(run, generator):
    import generation

    z = generator.latents(8, np.random.default_rng(0))
    raw = generation.load(run, raw=True)
    assert np.abs(raw.generate(z) - generator.generate(z)).max() > 1e-4
    _, state = RunFolder(run).load_checkpoint(print)
    own = raw.gan.session.run(raw.gan.x_hat.graph.get_collection("trainable_variables")[0])
    np.testing.assert_array_equal(own, state["generator/dense1/kernel"])


def test_a_sheet_holds_every_sample(run, generator, tmp_path):
    out = tmp_path / "sheet.png"
    main("--mode=sample", f"--run_dir={run}", "--num_samples=7", f"--out={out}")
    sheet = np.asarray(Image.open(out))
    assert sheet.shape == (3 * 28, 3 * 28)
    images, _ = generator.sample(7, 0)
    np.testing.assert_allclose(sheet[28:56, 28:56] / 255, images[4], atol=0.5 / 255 + 1e-5)
    assert sheet[56:, 28:].max() == 0


def test_truncation_bounds_the_latents(generator):
    _, latents = generator.sample(500, seed=1, truncation=0.7)
    assert np.abs(latents).max() <= 0.7 < np.abs(generator.sample(500, seed=1)[1]).max()


def test_a_walk_passes_through_its_draws_on_the_sphere(generator):
    images, z = generator.interpolate(3, 10, seed=2)
    corners = generator.latents(3, np.random.default_rng(2))
    np.testing.assert_allclose(z[::10], corners, atol=1e-5)
    norms = np.linalg.norm(z[:11], axis=1)
    expected = np.linspace(*np.linalg.norm(corners[:2], axis=1), 11)
    np.testing.assert_allclose(norms, expected, rtol=1e-4)
    steps = np.abs(np.diff(images, axis=0)).mean(axis=(1, 2))
    assert steps.max() < np.abs(images[0] - images[10]).mean()


@pytest.mark.slow
def test_a_walk_is_an_animation_or_strips(run, tmp_path):
    gif, strip = tmp_path / "walk.gif", tmp_path / "walk.png"
    for out in (gif, strip):
        main("--mode=sample", f"--run_dir={run}", "--interpolate=2", f"--out={out}")
    assert Image.open(gif).n_frames > 10
    assert Image.open(strip).size == (8 * 28, 2 * 28)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--mode=sample"], "wants --run_dir"),
        (["--mode=sample", "--run_dir=nowhere"], "nowhere"),
        (["--mode=sample", "--run_dir={run}", "--out=x.bmp"], ".npz or .png"),
        (["--mode=sample", "--run_dir={run}", "--out=no/such/x.png"], "no folder"),
        (["--mode=sample", "--run_dir={run}", "--num_samples=0"], "num_samples"),
        (["--mode=sample", "--run_dir={run}", "--checkpoint=worst"], "worst"),
        (["--mode=compare"], "--run_dirs"),
        (["--mode=compare", "--run_dirs={run},nowhere"], "nowhere"),
        (["--mode=compare", "--run_dirs={run}", "--out=notes.txt"], "ends in .png"),
        (["--mode=evaluate", "--run_dir={run}", "--num_samples=2"], "num_samples"),
        (["--mode=sample", "--run_dir={run}", "--num_samples=3", "--interpolate=2"], "give one of"),
        (
            ["--mode=compare", "--run_dirs={run}", "--out=no/such/x.png"],
            "there is no folder no/such",
        ),
        (["--mode=export", "--run_dir={run}", "--batch_size=3"], "--batch_size goes with"),
    ],
)
def test_bad_input_is_one_line(run, flags, words):
    out, err = main(*(flag.format(run=run) for flag in flags), ok=False)
    assert out == "" and len(err.splitlines()) == 1 and words in err


@pytest.mark.slow
def test_the_program_samples_in_a_process_of_its_own(run, tmp_path):
    command = [sys.executable, ROOT / "main.py", "--mode=sample", f"--run_dir={run}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Written: {run / 'sampled.png'}.\n"


def test_report_counts_the_digits_of_the_samples(run):
    out, err = main("--mode=evaluate", f"--run_dir={run}", "--num_samples=500")
    scores = json.loads((run / "metrics.json").read_text())
    assert scores["num_samples"] == 500 and scores["step"] == 60 and err == ""
    assert "500 samples of --seed=0 after step 60:" in out
    assert sum(scores["histogram"]) == pytest.approx(1)
    assert (
        scores["frechet_distance"]
        > 10 * scores["reference_scores"]["real test images"]["frechet_distance"]
    )
    assert "Mode collapse" in out
    assert np.asarray(Image.open(run / "report.png")).std() > 10


def test_scores_name_all_that_they_follow_from(run):
    import generation
    from evaluation.classifier import WEIGHTS_SHA256

    main("--mode=evaluate", f"--run_dir={run}", "--num_samples=128", "--seed=3")
    scores = json.loads((run / "metrics.json").read_text())
    configuration = json.loads((run / "config.json").read_text())
    assert scores["classifier_sha256"] == WEIGHTS_SHA256
    assert scores["checkpoint_sha256"] == generation.load(run).digest
    assert (scores["seed"], scores["run_seed"], scores["raw"]) == (3, 0, False)
    for name in ("recipe", "data", "hyperparameters", "gan", "gan_sha256"):
        assert scores[name] == configuration[name]
    assert scores["versions"].keys() == {"tensorflow", "numpy"}


@pytest.mark.slow
def test_scores_are_told_before_they_are_written(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "metrics.json").unlink(missing_ok=True)
    (copy / "metrics.json").mkdir()
    out, err = main("--mode=evaluate", f"--run_dir={copy}", "--num_samples=128", ok=False)
    assert "Fréchet distance" in out
    assert "metrics.json: it is a folder; give the name of a file" in err


def test_the_monitor_scores_on_the_way_and_keeps_the_best(run):
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    assert rows[0][:3] == ["step", "frechet_distance", "classes_covered"]
    assert [row[0] for row in rows[1:]] == ["30", "60"]
    best = min(rows[1:], key=lambda row: float(row[1]))
    with np.load(run / "checkpoints" / "best.npz", allow_pickle=False) as file:
        assert int(file["step"]) == int(best[0])


def test_frames_become_an_animation(run):
    assert len(list((run / "progress").iterdir())) == 3
    assert Image.open(run / "training.gif").n_frames == 3


def test_events_can_be_read_back(tmp_path):
    main("--num_steps=100", "--engine=step", f"--run_dir={tmp_path / 'run'}")
    events = {}
    import tensorflow.compat.v1 as tf

    (path,) = (tmp_path / "run" / "events").iterdir()
    for event in tf.train.summary_iterator(str(path)):
        for value in event.summary.value:
            events[value.tag] = (event.step, value)
    last = (tmp_path / "run" / "losses.csv").read_text().splitlines()[-1].split(",")
    step, value = events["loss/discriminator"]
    assert step == 100 and value.simple_value == pytest.approx(float(last[1]), rel=1e-6)
    written = (tmp_path / "run" / "samples.png").read_bytes()
    assert events["samples"][1].image.encoded_image_string == written


@pytest.mark.slow
def test_runs_side_by_side(run, tmp_path):
    out = tmp_path / "both.png"
    text, _ = main("--mode=compare", f"--run_dirs={run},{run}", f"--out={out}")
    table = dict(line.split(None, 1) for line in text.splitlines() if line.strip())
    assert table["recipe"].split() == ["stable_cnn"] * 2
    assert table["steps"].split() == ["60"] * 2
    assert Image.open(out).size[0] > 16 * 28


def test_scores_of_an_earlier_step_are_not_shown(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    scores = {"step": 59, "raw": False, "frechet_distance": 1.0}
    (copy / "metrics.json").write_text(json.dumps(scores))
    text, _ = main("--mode=compare", f"--run_dirs={copy}", f"--out={tmp_path / 'a.png'}")
    (row,) = (line.split() for line in text.splitlines() if line.startswith("Fréchet distance"))
    assert row[-1] == "-"
    assert f"python main.py --mode=evaluate --run_dir={copy}" in text


def test_a_score_of_other_images_is_refused(run, tmp_path):
    data = write_data(tmp_path / "data")
    _, err = main("--mode=evaluate", f"--run_dir={run}", f"--data_dir={data}", ok=False)
    assert err.startswith(f"main.py: --data_dir={data} holds other images")


def test_a_checkpoint_of_other_nets_is_refused_in_one_line(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(
        json.dumps(config | {"hyperparameters": {**config["hyperparameters"], "nlatent": 3}})
    )
    _, err = main("--mode=sample", f"--run_dir={copy}", ok=False)
    assert "main.py: the checkpoint has generator/dense1/kernel" in err
    assert len(err.splitlines()) == 1


_PEAK_OF_A_COMMAND = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
def test_a_score_of_10000_samples_fits_into_memory(run):
    evaluate = [sys.executable, ROOT / "main.py", "--mode=evaluate", f"--run_dir={run}"]
    command = [sys.executable, "-c", _PEAK_OF_A_COMMAND, *evaluate]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert 1e8 < 1024 * int(done.stdout) < 1.5e9


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """A conditional run of a few steps."""
    folder = tmp_path_factory.mktemp("conditional")
    data = write_data(folder / "data")
    run = folder / "run"
    main(
        "--recipe=stable_cnn", "--conditional", "--num_steps=2", "--batch_size=4", "--noevents",
        f"--data_dir={data}", f"--run_dir={run}",
    )  # fmt: skip
    return run


@pytest.mark.slow
def test_labels_are_drawn_in_turn_or_as_asked_for(conditional, tmp_path):
    import generation

    generator = generation.load(conditional)
    for flags, wanted in [
        ((), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]),
        (("--labels=3",), [3] * 12),
        (("--labels=3,7",), [3, 7] * 6),
    ]:
        out = tmp_path / "x.npz"
        main(
            "--mode=sample", f"--run_dir={conditional}", "--num_samples=12", f"--out={out}", *flags
        )
        with np.load(out) as file:
            assert file["labels"].tolist() == wanted
            again = generator.generate(file["latents"], file["labels"])
            np.testing.assert_allclose(file["images"], again, atol=1e-6)
            other = generator.generate(file["latents"], (file["labels"] + 1) % 10)
            assert np.abs(file["images"] - other).max() > 1e-4
    sheet = tmp_path / "x.png"
    main("--mode=sample", f"--run_dir={conditional}", f"--out={sheet}")
    assert Image.open(sheet).size[1] > 10 * 28


def test_labels_that_cannot_be_are_named(conditional, run):
    import generation

    generator = generation.load(conditional)
    z = np.zeros([2, 16], np.float32)
    for labels in (None, [3], [3, 10], [-1, 3], [0.5, 1], np.eye(10)[:1]):
        with pytest.raises(ValueError, match=r"labels: wanted 2 of 0, 1, 2, .*or rows of 10"):
            generator.generate(z, labels)
    halves = generator.generate(z, np.full([2, 10], 0.1))
    assert halves.shape == (2, 28, 28)
    with pytest.raises(ValueError, match="not conditional"):
        generation.load(run).generate(z, [1, 2])


def test_a_walk_keeps_a_label_or_crosses(conditional, tmp_path):
    out = tmp_path / "x.npz"
    seen = []
    for flags in (("--labels=3",), ("--labels=3,4",), ()):
        main("--mode=sample", f"--run_dir={conditional}", "--interpolate=2", f"--out={out}", *flags)
        with np.load(out) as file:
            seen.append(file["images"])
    # All begin at the same latents, the first two with a 3, the third with a 0.
    np.testing.assert_allclose(seen[0][0], seen[1][0], atol=1e-6)
    assert np.abs(seen[0][24] - seen[1][24]).max() > 1e-4
    assert np.abs(seen[0][0] - seen[2][0]).max() > 1e-4


def test_labels_of_a_run_without_are_refused(run, tmp_path):
    _, err = main("--mode=sample", f"--run_dir={run}", "--labels=3", ok=False)
    assert "--labels: this run learnt no labels" in err
    _, err = main("--mode=sample", f"--run_dir={run}", "--labels=x", ok=False)
    assert "--labels=x: wanted labels from 0 to 9" in err


@pytest.mark.slow
def test_labels_that_the_images_lack_are_not_drawn(tmp_path):
    """A set of 3s and 5s: neither in pictures and exports, nor when asked for."""
    import generation
    from generation import numpy_generator

    data, run, out = write_data(tmp_path / "data", train=40), tmp_path / "run", tmp_path / "x.npz"
    labels = np.tile(np.uint8([3, 5]), 20)
    file = data / "train-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:8] + labels.tobytes())
    main(
        "--conditional", "--num_steps=2", "--batch_size=4", "--noevents", "--engine=step",
        f"--data_dir={data}", f"--run_dir={run}",
    )  # fmt: skip
    main("--mode=sample", f"--run_dir={run}", "--num_samples=5", f"--out={out}")
    with np.load(out) as file:
        assert file["labels"].tolist() == [3, 5, 3, 5, 3]
        images = file["images"]
    _, err = main("--mode=sample", f"--run_dir={run}", "--labels=4", ok=False)
    assert "--labels=4: this run learnt the labels 3, 5" in err
    main("--mode=export", f"--run_dir={run}", f"--out={tmp_path / 'out'}")
    path = tmp_path / "out" / "generator.npz"
    z = generation.load(run).latents(5, np.random.default_rng(0))
    again = numpy_generator.generate(path, z, [3, 5, 3, 5, 3])
    np.testing.assert_allclose(again, images, atol=1e-4)
    drawn, z = numpy_generator.sample(path, 3)
    np.testing.assert_array_equal(drawn, numpy_generator.generate(path, z, [3, 5, 3]))
    with pytest.raises(ValueError, match="wanted 1 of 3, 5"):
        numpy_generator.generate(path, z[:1], [4])


@pytest.mark.slow
def test_a_conditional_run_is_exported_with_labels(conditional, tmp_path):
    import generation
    from generation import numpy_generator

    main("--mode=export", f"--run_dir={conditional}", f"--out={tmp_path / 'out'}")
    generator = generation.load(conditional)
    images, z = generator.sample(10, seed=3)
    onnx = onnxruntime.InferenceSession(str(tmp_path / "out" / "generator.onnx"))
    labels = np.eye(10, dtype=np.float32)
    (again,) = onnx.run(None, {"z": z, "labels": labels})
    np.testing.assert_allclose(again, images, atol=1e-4)
    numpy_images = numpy_generator.generate(
        str(tmp_path / "out" / "generator.npz"), z, np.arange(10)
    )
    np.testing.assert_allclose(numpy_images, images, atol=1e-4)
    main("--mode=explore", f"--run_dir={conditional}", f"--out={tmp_path / 'x.html'}")
    assert (tmp_path / "x.html").stat().st_size < 3e6
