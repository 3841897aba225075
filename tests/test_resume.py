"""Runs that are stopped, killed, broken or full, and go on: `main.py` itself, in processes.

The processes are forks of one that has imported TensorFlow already, which saves each its import;
from there on each is the whole program, with its own flags, streams and signals.
"""

import contextlib
import multiprocessing
import os
import re
import runpy
import signal
import struct
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import training.run_folder

ROOT = Path(training.run_folder.__file__).parent.parent
# Each as imported by the program at some time, and none that starts threads.
PRELOADED = ["pytest", "matplotlib.figure", "matplotlib.backends.backend_agg", "training.trainer"]
QUICK = ("--engine=step", "--batch_size=8", "--checkpoint_every=60", "--image_every=40")
STEPS = 200


class Ended(NamedTuple):
    code: int
    stdout: str
    stderr: str


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

    def wait_until(self, happened, seconds=120):
        """Waits for a condition while the process runs; fails if it ends or time is up first."""
        deadline = time.monotonic() + seconds
        while not happened():
            assert self.running, self.end()
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def send(self, number):
        os.kill(self.pid, number)

    def end(self):
        self._process.join(300)
        texts = [path.read_text() if path.exists() else "" for path in self._streams]
        return Ended(self._process.exitcode, *texts)


def be_main(place, streams, flags):
    """Turns this process into `main.py` with those flags."""
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


def write_data(folder, train=5_300, test=20):
    """Four small IDX files; the first 5,000 training images are set aside for validation."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    for prefix, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, [count, 784], np.uint8)
        head = struct.pack(">4I", 2051, count, 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        head = struct.pack(">2I", 2049, count)
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
    return folder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("resume") / "data")


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
    """The folder of a run of QUICK flags that nothing has disturbed."""
    place = tmp_path_factory.mktemp("unbroken")
    flags = [f"--data_dir={data_dir}", *QUICK, f"--num_steps={STEPS}", "--run_dir=run"]
    ended = Process(server, place, *flags).end()
    assert ended == (0, f"Done: {STEPS} steps. Pictures and tables are in run.\n", "")
    return place / "run"


def rows_in(folder):
    path = folder / "losses.csv"
    return len(path.read_bytes().splitlines()) - 1 if path.exists() else 0


def results(folder):
    """{name: bytes} of a run's tables, pictures and last weights."""
    paths = [*folder.glob("*.csv"), *folder.glob("*.png"), *folder.glob("progress/*.png")]
    paths.append(max(folder.glob("checkpoints/step-*.npz")))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def assert_same_results(folder, other):
    ours, theirs = results(folder), results(other)
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []


def steps_of_checkpoints(folder):
    return [int(path.stem[5:]) for path in sorted(folder.glob("checkpoints/step-*.npz"))]


def continued_after(ended):
    """The step that a run says it goes on from."""
    return int(re.search(r"^Continuing run after step ([\d,]+)\.$", ended.stdout, re.M)[1])


def test_an_unbroken_run_leaves_these_files(unbroken):
    names = ["config.json", "losses.csv", "losses.png", "samples.png", "latent_grid.png"]
    assert {path.name for path in unbroken.iterdir()} >= {*names, "checkpoints", "progress"}
    assert steps_of_checkpoints(unbroken) == [120, 180, STEPS]
    frames = sorted(path.name for path in unbroken.glob("progress/*"))
    assert frames == [f"step-{step:09d}.png" for step in (40, 80, 120, 160, 200)]
    assert rows_in(unbroken) == STEPS


def test_signals_end_a_run_cleanly_and_it_ends_in_the_same_bytes(start, run, unbroken, tmp_path):
    folder, flags = tmp_path / "run", [*QUICK, f"--num_steps={STEPS}", "--run_dir=run"]
    done = 0
    for number, code in [(signal.SIGINT, 130), (signal.SIGTERM, 143)]:
        process = start(*flags)
        process.wait_until(lambda: max([0, *steps_of_checkpoints(folder)]) > done)  # noqa: B023
        refused = run(*flags)
        assert refused.code == 1
        assert refused.stdout == ""
        assert re.fullmatch(
            r"main\.py: --run_dir=run is in use by another process: .*\n", refused.stderr
        )
        process.send(number)
        ended = process.end()
        assert ended.code == code
        assert ended.stderr == ""
        name, stopped = re.search(
            r"^Stopped by (\w+) after step (\d+); the same command goes on from there\.$",
            ended.stdout, re.M,
        ).groups()  # fmt: skip
        assert name == number.name
        assert continued_after(ended) == done if done else "Continuing" not in ended.stdout
        done = int(stopped)
        assert rows_in(folder) == done == steps_of_checkpoints(folder)[-1] < STEPS
    ended = run(*flags)
    assert ended.stdout == (
        f"Continuing run after step {done}.\nDone: {STEPS} steps. Pictures and tables are in run.\n"
    )
    assert ended.code == 0
    assert_same_results(folder, unbroken)
