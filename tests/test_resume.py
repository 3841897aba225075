"""`main.py` in processes that are stopped, killed, broken or full.

The processes are forks of one that has imported TensorFlow already, which saves each its import;
from there on each is the complete program, with its own flags, streams and signals.
"""

import contextlib
import multiprocessing
import os
import random
import re
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from small_sets import write_set

from support.files import LEFTOVERS
from training.run import RunFolder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no forks")
ROOT = Path(__file__).resolve().parent.parent
# Each as imported by the program at some time, and none that starts threads.
PRELOADED = ["pytest", "matplotlib.figure", "matplotlib.backends.backend_agg", "training.loop"]
QUICK = (
    "--engine=step",
    "--batch_size=8",
    "--checkpoint_every=40",
    "--image_every=50",
    "--validation_size=5000",
    # Resumed between two penalised steps, all three penalties end in the same bytes too.
    "--r1_gamma=1",
    "--r2_gamma=1",
    "--gradient_penalty=1",
    "--penalty_every=3",
)
STEPS = 200
PROGRESS = (
    r"step [\d,]+ of [\d,]+, [\d,.]+ (steps/s|s/step), [\d:]+ to go, d_loss -?\d.*, g_loss -?\d.*"
)

READ = r"Read 10,000 and 20 images from IDX files in .*\n"
# What a run logs before its first step.
SUMMARY = "".join(
    rf"{net} +output shape +parameters\n(.+\n)+\n" for net in ("generator", "discriminator")
)


class Ended(NamedTuple):
    code: int
    stdout: str
    stderr: str


def wait_until(process, happened, seconds=200):
    """Waits for a condition while a process runs; fails if it ends or time is up first."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert process.running, process.end()
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Process:
    """`python main.py --flag ...`, started in `place`."""

    def __init__(self, server, place, *flags):
        self._streams = [place / f".{name}-{time.monotonic_ns()}" for name in ("out", "err")]
        self._process = server.Process(target=be_main, args=(place, self._streams, flags))
        self._process.start()
        self.pid = self._process.pid

    @property
    def running(self):
        return self._process.is_alive()

    def send(self, number):
        os.kill(self.pid, number)

    def end(self):
        """Waits for its end; removes progress lines of a slow machine from stderr."""
        self._process.join(300)
        out, err = (path.read_text() if path.exists() else "" for path in self._streams)
        return Ended(self._process.exitcode, out, re.sub(rf"^{PROGRESS}\n", "", err, flags=re.M))


def be_main(place, streams, flags):
    """Turns this process into `main.py` with these flags."""
    multiprocessing.set_start_method("fork", force=True)  # as in any program
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which is ignored where the tests run under nohup
    os.chdir(place)
    for number, path in zip((1, 2), streams, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv = ["main.py", *flags]
    runpy.run_path(str(ROOT / "main.py"), run_name="__main__")


@pytest.fixture(scope="module")
def server():
    """The process that all others are forks of."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    settings = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "OPENBLAS_NUM_THREADS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        multiprocessing.forkserver.ensure_running()
        yield context


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("resume") / "data", suffix="", train=10_000, test=20)


@pytest.fixture
def start(server, data_dir, tmp_path):
    """A function that starts `main.py` in tmp_path, on the small data."""
    started = []

    def start(*flags):
        started.append(Process(server, tmp_path, f"--data_dir={data_dir}", *flags))
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.send(signal.SIGKILL)
        process.end()


@pytest.fixture
def run(start):
    """A function that runs `main.py` to its end."""
    return lambda *flags: start(*flags).end()


@pytest.fixture(scope="module")
def unbroken(server, data_dir, tmp_path_factory):
    """The folder of a run of QUICK flags that nothing disturbed."""
    place = tmp_path_factory.mktemp("unbroken")
    flags = [f"--data_dir={data_dir}", *QUICK, f"--num_steps={STEPS}", "--run_dir=run"]
    ended = Process(server, place, *flags).end()
    assert ended.code == 0
    assert re.fullmatch(READ + SUMMARY + done(STEPS), ended.stdout)
    assert ended.stderr == ""
    return place / "run"


def done(steps, folder="run"):
    """Returns a pattern of what a run logs last."""
    return rf"Done: {steps:,} steps in [\d,.]+ s\. Images and tables are in {folder}\.\n"


def rows_in(folder):
    path = folder / "losses.csv"
    return len(path.read_bytes().splitlines()) - 1 if path.exists() else 0


def results(folder):
    """Returns {name: bytes} of a run's tables, images and last weights."""
    facts = ("config.json", "summary.json")  # a summary has the command's duration
    paths = [*folder.glob("*.*"), *folder.glob("progress/*")]
    paths.append(max(folder.glob("checkpoints/step-*.npz")))
    # A killed process leaves a file that it was writing; it is removed an hour later.
    paths = [p for p in paths if p.name not in facts and not p.match(LEFTOVERS)]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def assert_same_results(folder, other):
    ours, theirs = results(folder), results(other)
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []


def steps_of_checkpoints(folder):
    return [int(path.stem[5:]) for path in sorted(folder.glob("checkpoints/step-*.npz"))]


def last_checkpoint(folder):
    return max([0, *steps_of_checkpoints(folder)])


def continued_after(ended):
    """Returns the step that a run logs as its start; 0 if it logs none."""
    found = re.search(r"^Continuing run after step ([\d,]+)\.$", ended.stdout, re.M)
    return int(found[1].replace(",", "")) if found else 0


def error_of(ended):
    """Returns the one line of a run that ended in an error."""
    assert ended.code == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("main.py: ")
    return line


def test_finished_run_has_these_files(unbroken):
    names = ["config.json", "losses.csv", "losses.png", "samples.png", "latent_grid.png"]
    folders = ["checkpoints", "progress", "events"]
    assert {path.name for path in unbroken.iterdir()} >= {*names, *folders, "training.gif"}
    assert steps_of_checkpoints(unbroken) == [120, 160, STEPS]
    frames = sorted(path.name for path in unbroken.glob("progress/*"))
    assert frames == [f"step-{step:09d}.png" for step in (50, 100, 150, 200)]
    assert [row[0] for row in RunFolder(unbroken).losses()] == list(range(1, STEPS + 1))


def test_run_that_is_stopped_and_resumed_ends_in_the_same_bytes(start, run, unbroken, tmp_path):
    folder, flags = tmp_path / "run", [*QUICK, f"--num_steps={STEPS}", "--run_dir=run"]

    def stopped_by(number, delay=0):
        """Sends the signal after a new checkpoint and a delay; returns how the run ended."""
        before, process = last_checkpoint(folder), start(*flags)
        wait_until(process, lambda: last_checkpoint(folder) > before)
        time.sleep(delay)
        process.send(number)
        ended = process.end()
        assert continued_after(ended) == before
        assert ended.stderr == ""
        return ended

    seed = random.randrange(10**6)
    print(f"seed {seed}")
    delays = random.Random(seed)
    assert stopped_by(signal.SIGKILL, delays.uniform(0, 0.1)).code == -signal.SIGKILL
    for number, code in [(signal.SIGINT, 130), (signal.SIGTERM, 143)]:
        ended = stopped_by(number)
        assert ended.code == code
        stopped = last_checkpoint(folder)
        assert ended.stdout.splitlines()[2:] == [
            f"Stopped by {number.name} after step {stopped}; rerun the command to resume."
        ]
        assert rows_in(folder) == stopped < STEPS
    ended = run(*flags)
    assert ended.code == 0
    assert re.fullmatch(
        rf"{READ}Continuing run after step {stopped}\.\n{done(STEPS)}", ended.stdout
    )
    assert ended.stderr == ""
    assert_same_results(folder, unbroken)


def test_finished_run_is_unchanged_until_it_is_extended(run, unbroken, tmp_path):
    shorter = [*QUICK, "--num_steps=150", "--run_dir=run"]
    assert run(*shorter).code == 0
    before = results(tmp_path / "run")
    code, stdout, stderr = run(*shorter)
    assert (code, stderr) == (0, "")
    assert "\nrun is finished: 150 steps are done. " in stdout
    assert results(tmp_path / "run") == before
    assert continued_after(run(*shorter, f"--num_steps={STEPS}")) == 150
    assert_same_results(tmp_path / "run", unbroken)


EXPLOSIVE = ("--r1_gamma=1e6", "--learning_rate=1", "--beta1=0", "--beta2=0")


def test_losses_and_weights_that_are_not_finite_stop_a_run(run, tmp_path):
    flags = [*QUICK, *EXPLOSIVE, "--checkpoint_every=3", "--image_every=0", "--run_dir=run"]
    for kept in (0, 3):
        ended = run(*flags)
        assert continued_after(ended) == kept
        found = re.fullmatch(
            r"main\.py: training diverged at step (\d+): d_loss is (\S+), g_loss (\S+); the last "
            r"checkpoint is at step 3\. Try a lower --learning_rate in another --run_dir",
            error_of(ended),
        )
        assert not np.isfinite([float(found[2]), float(found[3])]).all()
        assert len(RunFolder(tmp_path / "run").losses()) == int(found[1]) - 1
    assert RunFolder(tmp_path / "run").load_checkpoint(pytest.fail)[0] == 3
    # After step 4 weights are not finite, which the losses show only after step 5.
    ended = run(*flags, "--image_every=50", "--num_steps=4", "--run_dir=short")
    assert re.search(r"diverged at step 4: the weights \S+ are no longer finite; ", error_of(ended))
    assert steps_of_checkpoints(tmp_path / "short") == [3]
    assert not (tmp_path / "short" / "samples.png").exists()
    assert rows_in(tmp_path / "short") == 4
