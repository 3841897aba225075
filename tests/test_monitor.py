"""The monitor's plain words: said when a symptom shows, once, and again after it was gone."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import input_data
from evaluation.monitor import Monitor
from models import recipes
from training.draws import Draws
from training.engines import Progress
from training.readers import ProgressBar
from training.run_folder import RunFolder

DATA = Path(__file__).resolve().parent.parent / "MNIST_data"


@pytest.fixture(scope="module")
def pixels():
    return input_data.read_data_sets(DATA, validation_size=0).train.pixels


@pytest.fixture
def monitor(pixels, tmp_path):
    """-> an untrained model, whose samples are all noise, and its Monitor."""
    with tf.Graph().as_default():
        recipe = recipes.get("minimal")
        model = recipes.build_gan(recipe, seed=0)
        bar = ProgressBar(100)
        bar.open(0)
        (tmp_path / "checkpoints").mkdir()
        draws = Draws(recipe, pixels, 0)
        watch = Monitor(model, draws, RunFolder(tmp_path), bar, 1, lambda *_: None)
        watch.open(0)
        yield model, watch
        watch.close()
        bar.close()
        model.session.close()


def said(capfd):
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("Step ")]


@pytest.mark.slow
def test_what_looks_wrong_is_said_once_and_again_after_it_was_gone(monitor, capfd):
    model, watch = monitor
    watch.see([Progress(1, 0.001, 9.0)])
    watch.act(1)
    first = said(capfd)
    assert len(first) == 2
    assert any("hardly any sample is a 0, " in line for line in first)
    assert any(
        "D's loss is 0.001: it tells every sample from a real image" in each for each in first
    )
    watch.see([Progress(2, 1.3, 0.7)])
    watch.act(2)
    (still,) = said(capfd)
    assert "Step 2: the samples hardly change any more: G has stopped moving" in still
    state = model.state()
    model.load_state({name: np.flip(value) for name, value in state.items()})
    watch.see([Progress(3, 0.001, 9.0)])
    watch.act(3)
    (again,) = said(capfd)
    assert again.startswith("Step 3: D's loss is 0.001")
