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

import main as program
import numpy_generator

ROOT = Path(__file__).resolve().parent.parent
EXPORTED = [
    "stable_mlp",
    *(pytest.param(r, marks=pytest.mark.slow) for r in ("minimal", "leaky_mlp", "upsampling_cnn")),
]


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
    """A run of stable_mlp: normal prior, averaged weights, frames, scores, events."""
    folder = tmp_path_factory.mktemp("runs") / "stable"
    every = ("--image_every=20", "--eval_every=30", "--checkpoint_every=30")
    main("--recipe=stable_mlp", "--num_steps=60", "--engine=step", f"--run_dir={folder}", *every)
    return folder


@pytest.fixture(scope="module")
def generator(run):
    import trained

    return trained.load(run)


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
    import trained

    z = generator.latents(8, np.random.default_rng(0))
    raw = trained.load(run, raw=True)
    assert np.abs(raw.generate(z) - generator.generate(z)).max() > 1e-4
    feed = {generator.model.z_placeholder: z}
    x_hat = generator.model.session.run(generator.model.x_hat, feed)
    np.testing.assert_allclose(raw.generate(z).reshape(8, -1), x_hat, atol=1e-6)


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


@pytest.mark.slow
def test_the_program_exports_in_a_process_of_its_own(run, tmp_path):
    command = [sys.executable, ROOT / "main.py", "--mode=export", f"--run_dir={run}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Written: generator.npz, generator.onnx, ")


def test_report_counts_the_digits_of_the_samples(run):
    out, err = main("--mode=evaluate", f"--run_dir={run}", "--num_samples=500")
    scores = json.loads((run / "metrics.json").read_text())
    assert scores["num_samples"] == 500 and scores["step"] == 60 and err == ""
    assert sum(scores["histogram"]) == pytest.approx(1)
    assert (
        scores["frechet_distance"] > 10 * scores["floors"]["real test images"]["frechet_distance"]
    )
    assert "Mode collapse" in out
    assert np.asarray(Image.open(run / "report.png")).std() > 10


def test_the_monitor_scores_on_the_way_and_keeps_the_best(run):
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    assert rows[0][:3] == ["step", "frechet_distance", "digits_covered"]
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


_PLAIN_TENSORFLOW = """
import sys, numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
z = tf.constant(np.load(sys.argv[2]))
with tf.GradientTape() as tape:
    tape.watch(z)
    out = model.signatures["serving_default"](z=z)["images"]
assert np.any(tape.gradient(out, z))
draw = model.signatures["sample"]
one, two = (draw(seed=tf.constant(s), count=tf.constant(5)) for s in (1, 2))
same = draw(seed=tf.constant(1), count=tf.constant(5))
assert one["images"].shape == (5, 28, 28) and one["z"].shape[0] == 5
assert np.array_equal(one["z"], same["z"]) and not np.array_equal(one["z"], two["z"])
np.save(sys.argv[3], out.numpy())
"""


@pytest.mark.parametrize("recipe", EXPORTED)
def test_exports_give_the_same_images(recipe, run, tmp_path):
    import trained

    folder = run
    if recipe != "stable_mlp":
        folder = tmp_path / "run"
        few = ("--num_steps=3", "--engine=step", "--batch_size=4")
        main(f"--recipe={recipe}", *few, f"--run_dir={folder}")
    main("--mode=export", f"--run_dir={folder}")
    generator = trained.load(folder)
    images, z = generator.sample(9, seed=4)
    onnx = onnxruntime.InferenceSession(folder / "export" / "generator.onnx")
    np.testing.assert_allclose(onnx.run(["images"], {"z": z})[0], images, atol=1e-5)
    if recipe != "upsampling_cnn":
        by_numpy = numpy_generator.generate(folder / "export" / "generator.npz", z)
        np.testing.assert_allclose(by_numpy, images, atol=1e-5)
    np.save(tmp_path / "z.npy", z)
    saved_model = folder / "export" / "saved_model"
    subprocess.run(
        [sys.executable, "-c", _PLAIN_TENSORFLOW, saved_model, tmp_path / "z.npy",
         tmp_path / "out.npy"],
        check=True, cwd=tmp_path, capture_output=True,
    )  # fmt: skip
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), images, atol=1e-5)


@pytest.mark.slow
def test_an_export_takes_the_place_of_an_export_and_of_nothing_else(run, tmp_path):
    out = tmp_path / "out"
    main("--mode=export", f"--run_dir={run}", f"--out={out}")
    main("--mode=export", f"--run_dir={run}", f"--out={out}")
    (out / "mine.txt").write_text("kept")
    for path in (out, run, out / "mine.txt"):
        _, err = main("--mode=export", f"--run_dir={run}", f"--out={path}", ok=False)
        assert err == f"main.py: --out={path} exists and is no export: name another folder\n"
    assert (out / "mine.txt").read_text() == "kept" and (run / "config.json").exists()


@pytest.mark.slow
def test_without_its_converter_there_is_no_onnx_file_and_a_line_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    text, _ = main("--mode=export", f"--run_dir={run}", f"--out={tmp_path / 'out'}")
    assert text.splitlines()[0] == "Left out: generator.onnx, which takes `pip install tf2onnx`."
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"generator.npz", "numpy_generator.py", "saved_model"}


@pytest.mark.slow
def test_the_command_line_of_saved_models_shows_the_signatures(run):
    main("--mode=export", f"--run_dir={run}")
    command = [
        "from tensorflow.python.tools.saved_model_cli import main; main()",
        "show", "--dir", run / "export" / "saved_model", "--all",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "serving_default" in done.stdout and "(-1, 28, 28)" in done.stdout


def test_the_exported_sampler_runs_without_this_project(run, tmp_path):
    main("--mode=export", f"--run_dir={run}", f"--out={tmp_path / 'out'}")
    command = [sys.executable, "numpy_generator.py", "generator.npz", "6"]
    subprocess.run(command, check=True, cwd=tmp_path / "out", env={"PYTHONSAFEPATH": "1"})
    with np.load(tmp_path / "out" / "samples.npz") as file:
        assert file["images"].shape == (6, 28, 28)


@pytest.mark.slow
def test_runs_side_by_side(run, tmp_path):
    out = tmp_path / "both.png"
    text, _ = main("--mode=compare", f"--run_dirs={run},{run}", f"--out={out}")
    table = dict(line.split(None, 1) for line in text.splitlines() if line.strip())
    assert table["recipe"].split() == ["stable_mlp"] * 2
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


def test_a_score_of_other_images_is_refused(run, tmp_path):
    data = write_data(tmp_path / "data")
    _, err = main("--mode=evaluate", f"--run_dir={run}", f"--data_dir={data}", ok=False)
    assert err.startswith(f"main.py: --data_dir={data} is not MNIST")


def test_a_checkpoint_of_other_nets_is_refused_in_one_line(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"numbers": {"windows": 3}}))
    _, err = main("--mode=sample", f"--run_dir={copy}", ok=False)
    assert err.startswith("main.py: the checkpoint does not fit the recipe as it is now")
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


def test_one_digit_alone_is_no_collapse():
    from evaluation import report

    histogram = np.eye(10)[5] * 0.9 + 0.01
    assert report.in_words(histogram, 5) == (
        "Trained on the digit 5 alone: 91.0% of the samples are it. "
        "All other figures compare them with all ten digits."
    )
    assert report.in_words(histogram).startswith("Mode collapse")
