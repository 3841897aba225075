"""Training with several processes: real ones, started by mpirun."""

import contextlib
import dataclasses
import functools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from assembly import main
from processes import MAIN, Ended, Process, wait_until
from test_resume import last_checkpoint, results

from models import layers, passes, recipes
from models.gan import Gan
from models.passes import WHOLE, Shard
from support.errors import UserError
from support.tf import upstream_ops
from training import mpi
from training.batches import Batches
from training.updates import Updates

ROOT = Path(__file__).resolve().parent.parent
MPIRUN = Path(sys.executable).with_name("mpirun")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no mpirun for Windows")
ENVIRONMENT = {
    **os.environ,
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
NET = "from models.gan import Gan\n\n\nclass Net(Gan):\n    pass\n"
FAILING = """
import itertools, os
import tensorflow.compat.v1 as tf
from models.gan import Gan

calls = itertools.count()

def fail(y_hat):
    if next(calls) > 100 and os.environ["OMPI_COMM_WORLD_RANK"] == "1":
        raise RuntimeError("out of luck")

class Failing(Gan):
    def _generator_loss(self, y_hat):
        with tf.control_dependencies([tf.numpy_function(fail, [y_hat], [])]):
            return super()._generator_loss(y_hat)
"""
# A run of many short steps.
STEPS = 1600
QUICK = ["--batch_size=12", f"--num_steps={STEPS}", "--checkpoint_every=150", "--noevents"]
FEW = ["--num_steps=4", "--noevents", "--image_every=0"]
# Runs that several processes repeat: name and flags.
LEARNING = {
    "minimal": [
        *("--batch_size=12", "--loss=relativistic", "--penalty_every=2", "--ema_decay=0.99"),
        *("--r1_gamma=1", "--r2_gamma=1", "--gradient_penalty=1"),
    ],
    "class": ["--batch_size=12", "--gan=mine.py:Net", "--engine=fused"],
    "leaky_mlp": ["--recipe=leaky_mlp", "--batch_size=12"],
    # The smaller the batch, the sooner rounding errors grow.
    "dcgan": ["--recipe=dcgan", "--batch_size=32"],
    "stable_cnn": [
        *("--recipe=stable_cnn", "--batch_size=24", "--penalty_every=2", "--conditional"),
        "--engine=step",
    ],
    "pretrained_cnn": [
        *("--recipe=pretrained_cnn", "--batch_size=12"),
        *("--pretraining=48", "--pretraining_batch=12"),
    ],
}
# Name, flags of both ranks, those of rank 1 too, and the error.
WRONG = {
    "other seed": ([], ["--seed=1"], "--seed is 1 on rank 1 and 0 on rank 0"),
    "no data": ([], ["--data_dir=missing"], "rank 1: .*missing"),
    "other folder": (["--run_dir=taken"], [], "is not a run folder"),
    "own train ops": (["--gan=mine.py:Net"], [], "own train ops.*--engine=fused"),
}


def program_lines(ended):
    """Returns the program's error lines, without mpirun's own explanations."""
    return [line for line in ended.stderr.splitlines() if line.startswith("main.py: ")]


# Runs commands of main.py one after another; the last one may end the process.
COMMANDS = """
import json, os, sys
from pathlib import Path
from assembly import main, program

*commands, (last, _) = json.loads(sys.argv[1])
rank = os.environ["OMPI_COMM_WORLD_RANK"]
ended = [main(*flags, *(others if rank != "0" else ())) for flags, others in commands]
Path(f"ended-{rank}.json").write_text(json.dumps(ended))
program.main(program.parse(["main.py", *last]))
"""


class Job(Process):
    """A command of several processes in a folder."""

    def send(self, number, rank):
        """Sends a signal to the process of a rank."""
        # In order, in which mpirun starts them.
        ranks = subprocess.check_output(["pgrep", "-P", str(self._process.pid)], text=True)
        os.kill(sorted(map(int, ranks.split()))[rank], number)


def start_in(place, ranks, *flags, commands=None, **environment):
    """Starts that many ranks in a folder; 1 means without mpirun.

    They run main.py with some flags or, one after another, the commands of `COMMANDS`.
    """
    program = [*MAIN, *flags]
    if commands is not None:
        program = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
        environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    if ranks > 1:
        program = [MPIRUN, "--oversubscribe", "--bind-to", "none", "-n", ranks, *program]
    return Job(place, *program, env={**ENVIRONMENT, **environment})


@pytest.fixture
def start(tmp_path):
    return functools.partial(start_in, tmp_path)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A job of two ranks.

    Returns:
      Its folder; how each command of `LEARNING` and `WRONG` ended, {name: Ended of both ranks}; and
      how the last command ended the job, `FAILING`.
    """
    place = tmp_path_factory.mktemp("pair")
    (place / "mine.py").write_text(NET)
    (place / "failing.py").write_text(FAILING)
    (place / "taken").mkdir()
    (place / "taken" / "something").touch()
    commands = {name: ([*flags, f"--run_dir={name}", *FEW], []) for name, flags in LEARNING.items()}
    commands |= {name: (flags, others) for name, (flags, others, _) in WRONG.items()}
    failing = ["--gan=failing.py:Failing", "--engine=fused", "--noevents", "--run_dir=failing"]
    last = start_in(place, 2, commands=[*commands.values(), (failing, [])]).end()
    ended = [json.loads((place / f"ended-{rank}.json").read_text()) for rank in range(2)]
    ranks = [dict(zip(commands, map(Ended._make, each), strict=True)) for each in ended]
    return place, {name: [rank[name] for rank in ranks] for name in commands}, last


def losses(folder):
    return np.loadtxt(folder / "losses.csv", delimiter=",", skiprows=1)


# Start.


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"SLURM_STEP_NUM_TASKS": "2", "PMIX_RANK": "1"}, True),
        ({"PMIX_RANK": "0"}, True),
        ({"SLURM_NTASKS": "8"}, False),
    ],
)
def test_a_launcher_is_recognised_by_its_variables(environment, expected):
    assert (mpi.launched_count(environment) != 1) is expected


@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "the launcher started 2 processes, but MPI connects 1"),
        ({"PMI_SIZE": "2", "PYTHONPATH": "."}, ".* requires mpi4py .*requirements-mpi.txt"),
    ],
)
def test_an_mpi_that_does_not_connect_the_processes_is_rejected(start, tmp_path, launcher, message):
    (tmp_path / "mpi4py.py").write_text("raise ImportError('not installed')\n")
    ended = start(1, **launcher).end()
    assert ended.code == 1
    assert re.match(f"main.py: {message}", ended.stderr)


@pytest.mark.parametrize(
    ("ranks", "flags", "message"),
    [
        (3, [], "--batch_size must be a multiple of 3 with 3 processes, got 16"),
        (2, ["--mode=evaluate"], "--mode=evaluate runs in one process"),
    ],
)
def test_errors_at_the_start_are_one_line(start, ranks, flags, message):
    ended = start(ranks, *flags).end()
    assert ended.code == 1
    (line,) = program_lines(ended)
    assert re.search(message, line), line
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_errors_of_one_rank_are_a_line_of_rank_0(pair, name):
    _, ended, _ = pair
    first, second = ended[name]
    assert (first.code, first.stdout) == (1, "") and second == Ended(1, "", "")
    (line,) = program_lines(first)
    assert re.search(WRONG[name][2], line) and first.stderr == f"{line}\n"


# Shards.


class Sum(Gan):
    def _generator_loss(self, y_hat):
        return tf.reduce_sum(tf.nn.softplus(-y_hat))


class Paired(Gan):
    def _discriminator_loss(self, y, y_hat):
        return super()._discriminator_loss(y - tf.reduce_mean(y_hat), y_hat)


class OwnStatistics(Gan):
    def _discriminator(self, x, reuse=False):
        return super()._discriminator(x - tf.reduce_mean(x, axis=0), reuse)


class OurStatistics(Gan):
    def _discriminator(self, x, reuse=False):
        y = super()._discriminator(x, reuse)
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            return layers.batch_norm(y, name="norm", momentum=None)


@pytest.mark.parametrize(
    ("gan_class", "message"),
    [
        (Gan, None),
        (OurStatistics, None),
        (Sum, r"Sum\._generator_loss must be a mean over the batch"),
        (Paired, r"Paired\._discriminator_loss must be a mean over the batch"),
        (OwnStatistics, r"OwnStatistics\._discriminator mixes the images of a batch"),
    ],
)
def test_a_class_that_shards_would_change_is_rejected(gan_class, message):
    with tf.Graph().as_default():
        gan = gan_class(nlatent=3)
        with pytest.raises(UserError, match=message) if message else contextlib.nullcontext():
            Updates(gan, recipes.get("minimal"), 0, Shard(0, 2))
        gan.session.close()


@pytest.mark.parametrize("name", ["minimal", "stable_cnn", "upsampling_cnn"])
def test_shards_are_the_parts_of_a_batch_in_order(name):
    recipe = dataclasses.replace(recipes.get(name), batch_size=12, d_iters=2)
    recipe = dataclasses.replace(recipe, conditional=name != "upsampling_cnn")
    pixels = np.random.default_rng(0).integers(0, 256, [50, 784], np.uint8)
    labels = np.arange(50) % 10
    whole = Batches(recipe, pixels, 1, labels).block(3, 5)
    parts = [Batches(recipe, pixels, 1, labels, Shard(i, 3)).block(3, 5) for i in range(3)]
    for field in whole._fields:
        arrays = [getattr(part, field) for part in parts]
        if field == "rates":
            assert all((array == whole.rates).all() for array in arrays)
        else:
            np.testing.assert_array_equal(np.concatenate(arrays, axis=2), getattr(whole, field))


@pytest.mark.parametrize("width", [4, 5])
def test_shards_drop_what_the_whole_batch_drops(width):
    def dropped(rows, shard):
        with passes.sharding(shard), passes.training(tf.constant([1, 2]), batches=2):
            return layers.dropout(tf.ones([2 * rows, width]), 0.5)

    with tf.Graph().as_default(), tf.Session() as session:
        parts = [dropped(3, Shard(i, 3)) for i in range(3)]
        whole, *shards = session.run([dropped(9, WHOLE), *parts])
    whole = whole.reshape(2, 3, 3, width)
    for i, shard in enumerate(shards):
        np.testing.assert_array_equal(shard.reshape(2, 3, width), whole[:, i])


def calls_behind(op):
    """Returns the MPI calls that must run before an operation, or are this operation."""
    return [each for each in upstream_ops([op]) if each.type == "PyFunc"]


@pytest.mark.slow
def test_each_update_of_dcgan_is_one_chain_of_calls(monkeypatch):
    """Gradients of both networks, and four layers' means and variances in G."""
    monkeypatch.setattr(Gan, "_minimize", lambda *_: None)  # slow, and replaced by `install`
    with tf.Graph().as_default():
        recipe = dataclasses.replace(recipes.get("dcgan"), batch_size=4)
        gan = recipes.build_gan(recipe)
        mean = mpi.Mean(comm=None)
        Updates(gan, recipe, 0, Shard(0, 2, mean, mean.begin_update)).install()
        for op, count in [(gan.d_optimizer, 1), (gan.g_optimizer, 8 + 8 + 1)]:
            calls = calls_behind(op)
            assert len(calls) == count
            # One waits for none, one for one other, and so on.
            assert sorted(len(calls_behind(call)) for call in calls) == [*range(1, count + 1)]
        gan.session.close()


# Training.


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNING)
def test_several_processes_learn_what_one_learns(pair, name, monkeypatch):
    place, ended, _ = pair
    assert [code for code, *_ in ended[name]] == [0, 0], ended[name]
    monkeypatch.chdir(place)
    assert main(*LEARNING[name], *FEW, f"--run_dir=one-{name}")[0] == 0
    several, one = losses(place / name), losses(place / f"one-{name}")
    np.testing.assert_allclose(several, one, rtol=1e-3, atol=1e-3)


# Stopping and failing.


@pytest.mark.slow
def test_killed_and_stopped_a_run_ends_in_the_same_bytes(start, tmp_path):
    ranks = 3  # the sum of two numbers does not depend on their order
    folder, flags = tmp_path / "run", [*QUICK, "--run_dir=run"]

    def signal_after_checkpoint(job, number, rank, delay=0):
        before = last_checkpoint(folder)
        wait_until(job, lambda: last_checkpoint(folder) > before)
        time.sleep(delay)
        job.send(number, rank)

    # The same processes train another run before, and resume the one that they stopped.
    job = start(ranks, commands=[([*QUICK, "--run_dir=unbroken"], []), (flags, []), (flags, [])])
    signal_after_checkpoint(job, signal.SIGTERM, ranks - 1)
    files = [tmp_path / f"ended-{rank}.json" for rank in range(ranks)]
    wait_until(job, lambda: all(file.exists() for file in files))
    signal_after_checkpoint(job, signal.SIGKILL, random.randrange(ranks), random.uniform(0, 0.2))
    assert job.end(60).code != 0
    codes = [[code for code, *_ in json.loads(file.read_text())] for file in files]
    assert codes == ranks * [[0, 128 + signal.SIGTERM]]

    job = start(ranks, *flags)
    signal_after_checkpoint(job, signal.SIGTERM, 0)
    ended = job.end(60)
    assert ended.code == 128 + signal.SIGTERM, ended
    stopped = last_checkpoint(folder)
    assert f"Stopped by SIGTERM after step {stopped:,}; " in ended.stdout
    assert len(losses(folder)) == stopped < STEPS
    ended = start(ranks, *flags).end()
    assert ended.code == 0, ended
    assert f"Continuing run after step {stopped:,}" in ended.stdout
    assert results(folder) == results(tmp_path / "unbroken")


@pytest.mark.slow
def test_an_exception_on_one_rank_ends_all(pair):
    *_, ended = pair
    assert ended.code == 1, ended
    assert "out of luck" in ended.stderr


@pytest.mark.slow
def test_losses_that_are_not_finite_are_reported_once(start, tmp_path):
    explosive = ["--r1_gamma=1e6", "--learning_rate=1", "--beta1=0", "--beta2=0"]
    ended = start(2, *explosive, "--noevents", "--run_dir=run").end(120)
    assert ended.code == 1, ended
    (line,) = program_lines(ended)
    step = int(re.match(r"main\.py: training diverged at step (\d+): ", line)[1])
    assert len(losses(tmp_path / "run")) == step - 1
