"""Training with several processes: real ones, started by mpirun."""

import contextlib
import dataclasses
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
from test_resume import Ended, last_checkpoint, results, wait_until

from models import layers, passes, recipes
from models.gan import Gan
from models.passes import WHOLE, Shard
from support.errors import UserError
from training import mpi
from training.batches import Batches
from training.updates import Updates

ROOT = Path(__file__).resolve().parent.parent
MPIRUN = Path(sys.executable).with_name("mpirun")
ENVIRONMENT = {
    **os.environ,
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
SLOW = pytest.mark.slow
NET = "from models.gan import Gan\n\n\nclass Net(Gan):\n    pass\n"
# A run of many short steps, and one of few long ones.
QUICK = ["--batch_size=12", "--num_steps=2400", "--checkpoint_every=300", "--noevents"]
SMALL = {
    "minimal": [
        *("--batch_size=12", "--loss=relativistic", "--penalty_every=2", "--ema_decay=0.99"),
        *("--r1_gamma=1", "--r2_gamma=1", "--gradient_penalty=1"),
    ],
    "leaky_mlp": ["--batch_size=12"],
    "dcgan": ["--batch_size=64"],  # the smaller, the sooner rounding errors grow
    "stable_cnn": ["--batch_size=24", "--penalty_every=2"],
    "pretrained_cnn": ["--batch_size=12", "--pretraining=48", "--pretraining_batch=12"],
}


def program_lines(ended):
    """Returns the program's error lines, without mpirun's own explanations."""
    return [line for line in ended.stderr.splitlines() if line.startswith("main.py: ")]


class Job:
    """A command of several processes in a folder."""

    def __init__(self, place, *words, **environment):
        self._process = subprocess.Popen(
            list(map(str, words)),
            cwd=place,
            env={**ENVIRONMENT, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    @property
    def running(self):
        return self._process.poll() is None

    def send(self, number, rank):
        """Sends a signal to the process of a rank."""
        os.kill(self._rank_pids()[rank], number)

    def end(self, seconds=300):
        try:
            written = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            self.kill()
            pytest.fail(f"it hangs: {error.stdout}, {error.stderr}")
        return Ended(self._process.returncode, *written)

    def kill(self):
        ranks = self._rank_pids() if self.running else []
        for pid in [*ranks, self._process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def _rank_pids(self):
        """Returns the ranks' process ids in order, in which mpirun starts them."""
        listed = subprocess.run(
            ["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True
        )
        return sorted(map(int, listed.stdout.split()))


@pytest.fixture
def start(tmp_path):
    """A function that starts main.py as that many ranks; 1 means without mpirun."""
    jobs = []

    def start(ranks, *flags, others=None, **environment):
        program = [sys.executable, ROOT / "main.py", *flags]
        if ranks > 1:
            words = [MPIRUN, "--oversubscribe", "--bind-to", "none", "-n"]
            if others is None:
                program = [*words, ranks, *program]
            else:  # other flags for all but rank 0
                program = [*words, 1, *program, ":", "-n", ranks - 1, *program, *others]
        jobs.append(Job(tmp_path, *program, **environment))
        return jobs[-1]

    yield start
    for job in jobs:
        if job.running:
            job.kill()


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
        ({"SLURM_STEP_NUM_TASKS": "1", "PMIX_RANK": "0"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
    ],
)
def test_a_launcher_is_recognised_by_its_variables(environment, expected):
    assert (mpi.launched_count(environment) != 1) is expected
    if not expected:
        assert mpi.connect(environment) is mpi.SINGLE


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
    ("ranks", "flags", "others", "message"),
    [
        (3, [], None, "--batch_size must be a multiple of 3 with 3 processes, got 16"),
        (2, ["--mode=evaluate"], None, "--mode=evaluate runs in one process"),
        pytest.param(
            2, ["--num_steps=9"], ["--seed=1"], "--seed is 1 on rank 1 and 0 on rank 0", marks=SLOW
        ),
        pytest.param(
            3, ["--batch_size=12"], ["--data_dir=missing"], "rank 1: .*missing", marks=SLOW
        ),
        pytest.param(2, ["--run_dir=taken"], None, "is not a run folder", marks=SLOW),
        pytest.param(2, ["--gan=mine.py:Net"], None, "own train ops.*--engine=fused", marks=SLOW),
    ],
)
def test_errors_at_the_start_are_one_line(start, tmp_path, ranks, flags, others, message):
    (tmp_path / "mine.py").write_text(NET)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "something").touch()
    ended = start(ranks, *flags, others=others).end()
    assert ended.code == 1
    (line,) = program_lines(ended)
    assert re.search(message, line), line
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


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
    parts = [Batches(recipe, pixels, 1, labels, (i, 3)).block(3, 5) for i in range(3)]
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
    found, waiting = set(), [op]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += [*each.control_inputs, *(tensor.op for tensor in each.inputs)]
    return [each for each in found if each.type == "PyFunc"]


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


@SLOW
@pytest.mark.parametrize(
    ("recipe", "ranks", "more"),
    [
        *((recipe, 2, []) for recipe in SMALL if recipe != "stable_cnn"),
        ("stable_cnn", 3, ["--conditional", "--engine=step"]),
        ("minimal", 2, ["--gan=mine.py:Net", "--engine=fused", "--loss=cross_entropy"]),
    ],
)
def test_several_processes_learn_what_one_learns(start, tmp_path, recipe, ranks, more):
    (tmp_path / "mine.py").write_text(NET)
    flags = [f"--recipe={recipe}", *SMALL[recipe], *more, "--num_steps=8", "--noevents"]
    for count, name in [(1, "one"), (ranks, "several")]:
        ended = start(count, *flags, f"--run_dir={name}").end()
        assert ended.code == 0, ended
    one, several = losses(tmp_path / "one"), losses(tmp_path / "several")
    np.testing.assert_allclose(several, one, rtol=1e-3, atol=1e-3)


# Stopping and failing.


@SLOW
def test_killed_and_stopped_a_run_ends_in_the_same_bytes(start, tmp_path):
    ranks = 3  # the sum of two numbers does not depend on their order
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    assert start(ranks, *QUICK, "--run_dir=unbroken").end().code == 0
    folder, flags = tmp_path / "run", [*QUICK, "--run_dir=run"]
    for number, rank in [
        (signal.SIGKILL, rng.randrange(ranks)),
        (signal.SIGTERM, 0),
        (signal.SIGTERM, ranks - 1),
    ]:
        before, job = last_checkpoint(folder), start(ranks, *flags)
        wait_until(job, lambda: last_checkpoint(folder) > before)  # noqa: B023
        if number == signal.SIGKILL:
            time.sleep(rng.uniform(0, 0.3))
        job.send(number, rank)
        ended = job.end(60)
        if number == signal.SIGKILL:
            assert ended.code != 0
        else:
            assert ended.code == 128 + signal.SIGTERM, ended
            stopped = last_checkpoint(folder)
            assert f"Stopped by SIGTERM after step {stopped:,}; " in ended.stdout
            assert len(losses(folder)) == stopped < 2400
    ended = start(ranks, *flags).end()
    assert ended.code == 0, ended
    assert f"Continuing run after step {stopped:,}" in ended.stdout
    assert results(folder) == results(tmp_path / "unbroken")


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


@SLOW
def test_an_exception_on_one_rank_ends_all(start, tmp_path):
    (tmp_path / "failing.py").write_text(FAILING)
    flags = ["--gan=failing.py:Failing", "--engine=fused", "--noevents", "--run_dir=run"]
    ended = start(2, *flags).end(120)
    assert ended.code == 1, ended
    assert "out of luck" in ended.stderr


@SLOW
def test_losses_that_are_not_finite_are_reported_once(start, tmp_path):
    explosive = ["--r1_gamma=1e6", "--learning_rate=1", "--beta1=0", "--beta2=0"]
    ended = start(2, *explosive, "--noevents", "--run_dir=run").end(120)
    assert ended.code == 1, ended
    (line,) = program_lines(ended)
    step = int(re.match(r"main\.py: training diverged at step (\d+): ", line)[1])
    assert len(losses(tmp_path / "run")) == step - 1
