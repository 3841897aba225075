"""The monitor's plain words: said when a symptom shows, once, and again after it was gone."""

from pathlib import Path

import numpy as np
import pytest
from assembly import assembled
from training.run_folder import RunFolder
from training.trainer import Settings

import input_data
from evaluation import reference
from evaluation.monitor import Monitor
from models import recipes
from training import callbacks
from training.engines import Progress

DATA = Path(__file__).resolve().parent.parent / "MNIST_data"


@pytest.fixture(scope="module")
def data():
    return input_data.read_data_sets(DATA, validation_size=0)


@pytest.fixture
def monitor(data, tmp_path):
    """-> an untrained model, whose samples are all noise, and its Monitor."""
    recipe, info = recipes.get("minimal"), input_data.identify(data.train.pixels)
    with assembled(recipe, pixels=data.train.pixels) as engine:
        bar = callbacks.ProgressBar(100)
        bar.on_train_begin(0)
        (tmp_path / "checkpoints").mkdir()
        run = callbacks.Run(
            model, engine._batches, data, RunFolder(tmp_path), Settings(), bar, listeners=[]
        )
        watch = Monitor(run, 1, reference.of(data, info), info)
        watch.on_train_begin(0)
        yield model, watch
        watch.on_train_end()
        bar.on_train_end()


def said(capfd):
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("Step ")]


@pytest.mark.slow
def test_what_looks_wrong_is_said_once_and_again_after_it_was_gone(monitor, capfd):
    model, watch = monitor
    watch.on_steps([Progress(1, 0.001, 9.0)])
    watch.on_interval(1)
    first = said(capfd)
    assert len(first) == 2
    assert any("hardly any samples of 0, " in line for line in first)
    assert any(
        "D's loss is 0.001: it tells every sample from a real image" in each for each in first
    )
    watch.on_steps([Progress(2, 1.3, 0.7)])
    watch.on_interval(2)
    (still,) = said(capfd)
    assert "Step 2: the samples hardly change any more: G has stopped moving" in still
    state = engine.state()
    engine.load({name: np.flip(value) for name, value in state.items()})
    watch.on_steps([Progress(3, 0.001, 9.0)])
    watch.on_interval(3)
    (again,) = said(capfd)
    assert again.startswith("Step 3: D's loss is 0.001")


def test_a_class_that_is_rare_among_the_images_is_no_collapse():
    """Half a percent of real images, half a percent of samples."""
    shares = np.array([0.005, 0.995, *[0] * 8])
    watch = object.__new__(Monitor)
    watch._real_shares, watch._names = shares, tuple("0123456789")
    watch._images, watch._d_losses = None, []
    assert watch._symptoms(shares, np.zeros([1, 784])) == {}
    (said,) = watch._symptoms(np.eye(10)[1], np.zeros([1, 784])).values()
    assert said.startswith("hardly any samples of 0: ")
