"""Training and scoring from Python: what the command does, without its flags."""

import json
import signal
import threading
from typing import ClassVar

import numpy as np
import pytest
from test_generation import _flags, main  # noqa: F401 - a fixture
from test_resume import write_data

import evaluation
import generation
import training
from support.errors import UserError
from training.callbacks import Callback

SMALL = {"nlatent": 3, "num_steps": 4, "batch_size": 4, "engine": "step", "events": False}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("job") / "data")


@pytest.fixture
def train(data_dir, tmp_path, monkeypatch):
    """`training.train` in a folder of its own, on small data; its lines are dropped."""
    monkeypatch.chdir(tmp_path)
    options = {"data_dir": data_dir, "log": lambda line: None, **SMALL}
    return lambda recipe="minimal", **more: training.train(recipe, **{**options, **more})


@pytest.mark.slow
def test_python_and_the_command_line_make_the_same_run(train, data_dir, tmp_path):
    lines = []
    run = train(log=lines.append)
    assert str(run).startswith("runs/") and str(run).endswith("minimal-nlatent=3-batch_size=4")
    assert lines[-1].startswith("Done: 4 steps")
    flags = [f"--{name}={value}" for name, value in SMALL.items()]
    main(*flags, f"--data_dir={data_dir}", f"--run_dir={tmp_path / 'other'}")
    for name in ("losses.csv", "samples.png", "config.json"):
        assert (run / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert not (run / "events").exists()
    train(log=lines.append)
    assert "is finished" in lines[-1]
    images, _ = generation.load(run).sample(6)
    picture = np.asarray(generation.picture(images, columns=4))
    assert picture.shape == (2 * 28, 4 * 28)
    np.testing.assert_array_equal(picture[28:, 28:56], np.rint(255 * images[5]))


@pytest.mark.slow
def test_scores_from_python_are_those_in_the_file(train, data_dir):
    run, lines = train(data_dir=None, extra=[evaluation.scores_every(2)]), []
    assert len((run / "metrics.csv").read_text().splitlines()) == 1 + 2
    scores = evaluation.evaluate(run, num_samples=200, log=lines.append)
    assert scores == json.loads((run / "metrics.json").read_text())
    assert f"{scores['frechet_distance']:.4g}" in lines[1]
    with pytest.raises(UserError, match="contains other images"):
        evaluation.evaluate(run, num_samples=200, data_dir=data_dir)


def test_too_few_samples_are_refused_before_a_classifier_is_made(
    train, data_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="--num_samples=50: a score wants 128 to"):
        evaluation.evaluate(train(), num_samples=50, data_dir=data_dir)
    assert not (tmp_path / "cache").exists()


class Interrupts(Callback):
    """Stops the first run that it sees at its second step, as Ctrl-C does."""

    every: ClassVar = 2
    left: ClassVar = [1]

    def on_interval(self, step):
        if self.left:
            self.left.pop()
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
def test_an_interrupted_training_goes_on(train):
    lines = []
    with pytest.raises(KeyboardInterrupt):
        train(extra=[lambda run: Interrupts()], log=lines.append)
    assert lines[-1].startswith("Stopped by SIGINT after step 3;")
    run = train(extra=[lambda run: Interrupts()], log=lines.append)
    assert any("after step 3" in line for line in lines[-2:-1])
    assert len((run / "losses.csv").read_text().splitlines()) == 1 + 4


@pytest.mark.slow
def test_a_thread_may_train(train):
    runs = []
    thread = threading.Thread(target=lambda: runs.append(train()))
    thread.start()
    thread.join()
    assert (runs[0] / "samples.png").exists()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"recipe": "minimax"}, "minimax"),
        ({"steps": 3}, "steps: no such hyper-parameter, choose from nlatent"),
        ({"num_steps": "3"}, "--num_steps='3': wanted a whole number"),
        ({"engine": "fast"}, "--engine=fast: wanted one of auto, fused, step"),
        ({"precision": "float16"}, "--precision=float16: wanted one of float32, bfloat16"),
        ({"dataset": "cifar"}, "--dataset=cifar: wanted one of mnist"),
        ({"seed": -1}, "--seed=-1: wanted a whole number from 0 to 2147483647"),
        ({"seed": 0.5}, "--seed=0.5: wanted a whole number"),
        ({"checkpoint_every": -1}, "--checkpoint_every=-1: wanted at least 1"),
        ({"image_every": -1}, "--image_every=-1: wanted at least 0"),
        ({"digit": "3"}, "--digit='3': wanted a whole number$"),
        ({"conditional": True, "held_out": 16}, "--conditional: not with --held_out"),
        ({"gan": "nowhere.py:Gan"}, "--gan=nowhere.py:Gan: cannot read"),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_makes_nothing(options, line, train, tmp_path):
    with pytest.raises(UserError, match=line) as raised:
        train(**options)
    assert len(str(raised.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
