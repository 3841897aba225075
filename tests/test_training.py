"""Training: both engines, from Python, custom classes and changed code."""

import functools
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import assembly
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import twin
from assembly import PIXELS, assembled, changed, main, progress
from small_sets import write_set

import generation
import input_data
import training
from models import recipes
from models.gan import Gan
from models.inference import Inference
from models.losses import LOSSES
from support.errors import UserError
from training.batches import Batches, learning_rates
from training.callbacks import Callback, Context
from training.loop import pretrain
from training.run import LOSS_COLUMNS, RunFolder, digest, read_table
from training.updates import training_loss

ROOT = Path(__file__).resolve().parent.parent
DENSE = ["minimal", "leaky_mlp", "stable_cnn"]


def small(name="minimal", **values):
    return recipes.override(recipes.get(name), **{"batch_size": 8, **values})


# Two engines, the same training.


@functools.cache
def trained(recipe, engine, steps):
    return assembly.trained(recipe, steps, engine)


def check_agreement(recipe, engine, steps=8):
    """Checks losses to 1e-4, and variables to a tenth of a step but for 1 in 10,000.

    Adam divides by the gradient's own size: where that is only rounding, so is the step.
    """
    done, state = trained(recipe, engine, steps)
    step_done, step_state = trained(recipe, "step", steps)
    np.testing.assert_allclose(done, step_done, rtol=1e-4)
    assert state.keys() == step_state.keys()
    rate = min(learning_rates(recipe, 0))
    for name in state:
        difference = np.abs(state[name] - np.float64(step_state[name]))
        assert np.mean(difference > 0.1 * rate) < 1e-4, name
        assert difference.mean() < 1e-3 * rate or not name.endswith("kernel"), name


@pytest.mark.parametrize("engine", ["fused", "fused without XLA"])
def test_engines_train_equally(engine):
    check_agreement(small(), engine)


@pytest.mark.slow
@pytest.mark.parametrize("name", DENSE)
def test_every_dense_recipe_trains_equally_with_two_updates_per_step(name):
    # At these rates a rounding that takes a unit through zero grows in the next steps.
    check_agreement(small(name, d_iters=2, g_iters=2), "fused", steps=1)


@pytest.mark.slow
def test_reused_latents_pass_through_the_generator_once(tmp_path):
    flags = ["--recipe=leaky_mlp", "--batch_size=8", "--num_steps=2", "--noevents"]
    command = [sys.executable, ROOT / "main.py", *flags, f"--run_dir={tmp_path}/run"]
    dump = f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text"
    subprocess.run(command, env={**os.environ, "XLA_FLAGS": dump}, check=True)
    (loop,) = tmp_path.glob("*loop*cpu_after_optimizations.txt")
    # The images of both updates, and D's gradient in them.
    assert len(re.findall(r"= f32\[8,784\]\S* dot\(", loop.read_text())) == 2


@pytest.mark.parametrize(
    "additions",
    [
        {"loss": "relativistic", "r1_gamma": 1.0, "r2_gamma": 1.0, "penalty_every": 2},
        {"loss": "relativistic", "conditional": True, "d_iters": 2},
        {"loss": "wasserstein", "gradient_penalty": 10.0},
        {"loss": "hinge", "weight_clip": 0.01},
        {"g_learning_rate": 3e-4, "lr_decay": 0.1, "lr_milestones": (1, 3), "g_iters": 2},
        {"half_batches": True},
    ],
    ids=str,
)
def test_losses_and_penalties_train_equally_in_both_engines(additions):
    check_agreement(small(**additions), "fused without XLA", steps=4)


@pytest.mark.slow
def test_engines_train_convolutions_equally():
    """Separate updates, batch normalisation in both networks and dropout in one loop."""
    recipe = small("upsampling_cnn", batch_size=4)
    (done, end), (step_done, step_end) = (trained(recipe, e, 2) for e in ("fused", "step"))
    np.testing.assert_allclose(done, step_done, rtol=1e-3)
    for name in [name for name in end if "moving" in name or name.endswith("gamma")]:
        np.testing.assert_allclose(end[name], step_end[name], rtol=1e-3, atol=1e-3, err_msg=name)


def test_run_cut_between_any_steps_ends_in_the_same_bytes():
    with assembled(small(batch_size=1024), "fused") as engine:  # in blocks of 4 steps
        start, expected = engine.state(), None
        for spans in [[(0, 10)], [(0, 7), (7, 7), (7, 10)], [(0, 1), (1, 10)]]:
            engine.load(start)
            done = progress(engine, *spans), digest(engine.state())
            expected = expected or done
            assert done == expected
        engine.load(start)
        sizes = []
        for block in engine.train(0, 10):
            state = engine.state()
            assert state["d_adam/updates"] == state["g_adam/updates"] == block[-1].step
            sizes.append(len(block))
        assert sizes == [4, 4, 2]


class Plain(Gan):
    pass


@pytest.mark.parametrize(
    "name, gan_class, devices, choice, expected",
    [
        ("minimal", None, [], "auto", "fused"),
        ("minimal", Plain, [], "auto", "step"),
        ("minimal", Plain, [], "fused", "fused"),
        ("upsampling_cnn", None, [], "auto", "step"),
        pytest.param("upsampling_cnn", None, ["GPU"], "auto", "fused", marks=pytest.mark.slow),
        pytest.param(
            "upsampling_cnn", None, [], "fused", "fused without XLA", marks=pytest.mark.slow
        ),
    ],
)
def test_choice_of_the_engine(monkeypatch, name, gan_class, devices, choice, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: devices)
    with assembled(small(name), choice, gan_class=gan_class) as engine:
        assert engine.name == expected


class Convolution(Gan):
    """Convolves its images, by a recipe of dense networks."""

    def _discriminator(self, x, reuse=False):
        x = tf.reshape(x, [-1, 28, 28, 1])
        x = tf.nn.conv2d(x, tf.ones([3, 3, 1, 1]) / 9, 1, "SAME")
        return super()._discriminator(tf.reshape(x, [-1, 784]), reuse)


def test_bfloat16_requires_convolutions_also_of_a_class():
    with assembled(small(), "step", gan_class=Convolution, precision="bfloat16") as engine:
        assert np.isfinite(progress(engine, (0, 1))).all()
    message = "--precision=bfloat16 requires TensorFlow's convolutions"
    with pytest.raises(UserError, match=message), assembled(small(), precision="bfloat16"):
        pass


# Runs from Python.

SMALL = {"nlatent": 3, "num_steps": 4, "batch_size": 4, "engine": "step", "events": False}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("training") / "data", suffix="", train=64, test=40)


@pytest.fixture
def train(data_dir, tmp_path, monkeypatch):
    """`training.train` in an empty folder, on small data, with `lines` logged."""
    monkeypatch.chdir(tmp_path)

    def train(recipe="minimal", **more):
        options = {"data_dir": data_dir, "run_dir": tmp_path / "run", "log": train.lines.append}
        return training.train(recipe, **{**options, **SMALL, **more})

    train.lines = []
    return train


def test_python_and_the_command_line_make_the_same_run(train, data_dir, tmp_path, monkeypatch):
    recipe = recipes.override(recipes.get("minimal"), validation_size=33)  # of 64: more than half
    monkeypatch.setitem(recipes.RECIPES, "minimal", recipe)
    run = train(run_dir=None)
    name = r"runs/data=\w+-minimal-nlatent=3-batch_size=4-validation_size=0-engine=step"
    assert re.fullmatch(name, str(run))
    assert train.lines[0].startswith("Read 64 and 40 images from IDX files in ")
    assert train.lines[1] == "Note: none of the 64 images are held out for validation."
    assert train.lines[-1].startswith("Done: 4 steps")
    flags = [f"--{name}={value}" for name, value in SMALL.items()]
    code, _, _ = main(*flags, f"--data_dir={data_dir}", f"--run_dir={tmp_path / 'other'}")
    assert code == 0
    for name in ("losses.csv", "samples.png", "config.json", "checkpoints/step-000000004.npz"):
        assert (run / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert not (run / "events").exists()


@pytest.mark.parametrize(
    ("options", "symptom"),
    [
        (
            {"loss": "minimax", "learning_rate": 0.5, "g_learning_rate": 1e-6},
            "G's gradient has vanished",
        ),
        ({"learning_rate": 1.0}, "G makes the same image from all latents"),
    ],
    ids=str,
)
def test_generator_that_cannot_learn_is_named_once(train, capsys, options, symptom):
    run = train(num_steps=40, **options)
    shown = "".join(capsys.readouterr())
    assert shown.count("Warning: ") == 1 and symptom in shown
    assert len(list((run / "progress").iterdir())) == 5  # after steps 10, 14, 20, 28 and 40


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_normal_run_of_any_loss_does_not_warn(train, capsys, small_data_dir, loss):
    train(num_steps=57, loss=loss, data_dir=small_data_dir)
    assert "Warning" not in "".join(capsys.readouterr())


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_normal_run_of_any_recipe_does_not_warn(train, capsys, small_data_dir, recipe):
    nlatent = recipes.get(recipe).nlatent
    train(recipe, num_steps=14, nlatent=nlatent, data_dir=small_data_dir, pretraining=0)
    assert "Warning" not in "".join(capsys.readouterr())


class Look(Callback):
    """Notes checkpoints and rows of losses.csv on the disk at every second step."""

    def __init__(self, context, seen):
        super().__init__(context, every=2)
        self._folder, self._seen = context.folder, seen

    def on_interval(self, step):
        checkpoints = len(list(self._folder.file("checkpoints").iterdir()))
        self._seen.append((step, checkpoints, len(self._folder.losses())))


def test_checkpoint_is_written_after_the_tables_and_all_else(train):
    before = []
    path = train(extra=[lambda context: Look(context, before)], checkpoint_every=2)
    assert [look[:2] for look in before] == [(2, 0), (4, 1)]
    assert len(RunFolder(path).losses()) == 4


class Interrupts(Callback):
    """Stops the first run that it sees at its second step, like Ctrl-C."""

    left = [1]

    def on_interval(self, step):
        if self.left:
            self.left.pop()
            signal.raise_signal(signal.SIGINT)


def test_interrupted_training_resumes_also_in_a_thread(train):
    with pytest.raises(KeyboardInterrupt):
        train(extra=[lambda context: Interrupts(context, every=2)])
    assert train.lines[-1].startswith("Stopped by SIGINT after step 3; rerun")
    thread = threading.Thread(
        target=lambda: train(extra=[lambda context: Interrupts(context, every=2)])
    )
    thread.start()
    thread.join()
    assert any("after step 3." in line for line in train.lines[-2:-1])
    assert train.lines[-1].startswith("Done: 4 steps")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 3}, "steps is neither a hyperparameter nor an option of a run"),
        ({"num_steps": "3"}, "--num_steps must be an integer from 1 to 1000000000, got 3"),
        ({"gan": "gan.py:Gan", "r1_gamma": 1.0}, "--r1_gamma has no effect on the train ops of"),
    ],
    ids=str,
)
def test_what_cannot_be_trained_is_refused_and_creates_nothing(options, message, train, tmp_path):
    with pytest.raises(UserError, match=message) as raised:
        train(**options)
    assert len(str(raised.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


# Losses on held-out images, and pre-training.

HELD_OUT = {"nlatent": 100, "checkpoint_every": 8, "num_steps": 24}


@pytest.mark.slow
def test_losses_on_held_out_images_by_hand_and_after_a_kill(train, data_dir, capfd):
    """64 images in batches of 4 are epochs of 16 steps."""
    run = train("leaky_mlp", **HELD_OUT)
    recipe = RunFolder(run).configuration().full_recipe()
    _, w = RunFolder(run).load_named_checkpoint("step-000000016")
    images = input_data.load(None, data_dir)[0]
    x, z = Batches(recipe, images.train.pixels, 0).held_out(images.test.pixels, 16, 1)
    y, y_hat = twin.leaky_logits(w, x / 255), twin.leaky_logits(w, twin.leaky_generate(w, z))
    d_loss = (twin.softplus(-y) + twin.softplus(y_hat)).mean()
    (row,) = read_table(run / "held_out.csv", LOSS_COLUMNS)
    assert row == pytest.approx([16, d_loss, twin.softplus(-y_hat).mean()], rel=1e-4)
    _, d_loss, g_loss = row
    line = f"Epoch:   1/1 Discriminator Loss: {d_loss:.4f} Generator Loss: {g_loss:.4f}"
    assert line in capfd.readouterr().err.splitlines()
    # As if killed after step 24 with step 8 as the last checkpoint: a row to cut and rewrite.
    expected = (run / "held_out.csv").read_bytes(), (run / "held_out.png").read_bytes()
    for step in (16, 24):
        (run / "checkpoints" / f"step-{step:09d}.npz").unlink()
    train("leaky_mlp", **HELD_OUT)
    assert f"Continuing {run} after step 8." in train.lines
    assert ((run / "held_out.csv").read_bytes(), (run / "held_out.png").read_bytes()) == expected


def test_losses_on_held_out_images_are_of_the_weights_and_samples_of_their_average(tmp_path):
    batch = PIXELS[:4] / np.float32(255), np.ones([4, 10], np.float32)
    recipe = small(ema_decay=0.9)
    with assembled(recipe, engine="fused without XLA") as engine:
        inference = Inference(engine.gan, training_loss(engine.gan, recipe))
        progress(engine, (0, 3))
        inference.load(engine.state(), average=False)
        losses = inference.losses(*batch)
        context = Context(recipe, None, None, None, engine, inference, RunFolder(tmp_path), 0)
        context.load_weights(3)
        samples = inference.generate(batch[1])
        assert context.losses(*batch) == losses != inference.losses(*batch)
        np.testing.assert_array_equal(inference.generate(batch[1]), samples)


@pytest.mark.parametrize(
    "name, engine, loss",
    [
        ("leaky_mlp", "step", "cross_entropy"),
        ("leaky_mlp", "fused", "least_squares"),
        pytest.param("pretrained_cnn", "fused", "cross_entropy", marks=pytest.mark.slow),
    ],
)
def test_pretraining_trains_only_the_discriminator(name, engine, loss):
    greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 784, axis=1)
    recipe, lines = small(name, pretraining=128, loss=loss), []
    with assembled(recipe, engine, pixels=greys) as built:
        inference = Inference(built.gan)
        before, after = built.state(), []
        for _ in range(2):
            built.load(before)
            pretrain(recipe, greys[:100], built, built._batches, inference, log=lines.append)
            after.append(built.state())
        x, z = built._batches.held_out(greys[:100], 100, epoch=0)
        y, y_hat = inference.logits(x[:64] / np.float32(255), z[:64])
    assert not changed(*after)
    moved = changed(before, after[0])
    assert moved
    assert all(n.startswith(("discriminator", "d_adam", "beta")) for n in moved)
    assert after[0]["d_adam/updates"] == 128 // 64 * (2 if recipe.separate_updates else 1)
    right, count = (int(word) for word in lines[0].split() if word.isdigit())
    # Of 100 test images and as many generated ones, whole batches of 64.
    assert count == 2 * 64
    middle = 0.5 if loss == "least_squares" else 0  # between the logits of real and generated
    assert right == np.count_nonzero([y > middle, y_hat < middle])
    assert right > 0.5 * count or (name, loss) != ("leaky_mlp", "cross_entropy")


# Networks whose code has changed.


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_changed_code_of_a_network_is_refused_by_name(train, monkeypatch, network):
    run, build = train(), getattr(Gan, f"_{network}")
    before = sorted(run.rglob("*"))

    def edited(self, x, reuse=False):
        return build(self, tf.tanh(x), reuse)

    with monkeypatch.context() as patch:
        patch.setattr(Gan, f"_{network}", edited)
        for use in (lambda: train(num_steps=6), lambda: generation.load(run)):
            with pytest.raises(UserError, match=f"the code of the {network} has changed since"):
                use()
    assert sorted(run.rglob("*")) == before
    train(num_steps=6)
    assert train.lines[-1].startswith("Done: 6 steps")


def test_network_that_draws_random_numbers_is_not_refused(train, monkeypatch):
    build = Gan._discriminator

    def noisy(self, x, reuse=False):
        return build(self, x + tf.random.normal(tf.shape(x)), reuse)

    monkeypatch.setattr(Gan, "_discriminator", noisy)
    assert train() == train(num_steps=6)
    assert train.lines[-1].startswith("Done: 6 steps")
