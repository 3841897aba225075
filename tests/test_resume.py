"""Runs that are stopped, killed, broken or full, and resumed: `main.py` itself, in processes.

The processes are forks of one that has imported TensorFlow already, which saves each its import;
from there on each is the complete program, with its own flags, streams and signals.
"""

import contextlib
import multiprocessing
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from small_sets import write_set

from training.run import RunFolder

ROOT = Path(__file__).resolve().parent.parent
# Each as imported by the program at some time, and none that starts threads.
PRELOADED = ["pytest", "matplotlib.figure", "matplotlib.backends.backend_agg", "training.loop"]
QUICK = (
    "--engine=step",
    "--batch_size=8",
    "--checkpoint_every=40",
    "--image_every=50",
    "--validation_size=5000",
)
STEPS = 200
PROGRESS = (
    r"step [\d,]+ of [\d,]+, [\d,.]+ (steps/s|s/step), [\d:]+ to go, d_loss -?\d.*, g_loss -?\d.*"
)

# What a run logs before its first step.
SUMMARY = "".join(
    rf"{net} +output shape +parameters\n(.+\n)+\n" for net in ("generator", "discriminator")
)


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
        """Waits for its end; removes from stderr the progress lines that a slow machine prints."""
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


def write_data(folder, train=10_000, test=20):
    """Writes four small IDX files; returns the folder."""
    return write_set(folder, suffix="", train=train, test=test)


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
    """The folder of a run of QUICK flags that nothing disturbed."""
    place = tmp_path_factory.mktemp("unbroken")
    flags = [f"--data_dir={data_dir}", *QUICK, f"--num_steps={STEPS}", "--run_dir=run"]
    ended = Process(server, place, *flags).end()
    assert ended.code == 0
    assert re.fullmatch(SUMMARY + done(STEPS), ended.stdout)
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
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths if p.name not in facts}


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

    def stopped_by(number):
        """Sends the signal once there is a new checkpoint; returns how the run ended."""
        before, process = last_checkpoint(folder), start(*flags)
        process.wait_until(lambda: last_checkpoint(folder) > before)
        process.send(number)
        ended = process.end()
        assert continued_after(ended) == before
        assert ended.stderr == ""
        return ended

    assert stopped_by(signal.SIGKILL).code == -signal.SIGKILL
    for number, code in [(signal.SIGINT, 130), (signal.SIGTERM, 143)]:
        ended = stopped_by(number)
        assert ended.code == code
        stopped = last_checkpoint(folder)
        assert ended.stdout.splitlines()[1:] == [
            f"Stopped by {number.name} after step {stopped}; rerun the command to resume."
        ]
        assert rows_in(folder) == stopped < STEPS
    ended = run(*flags)
    assert ended.code == 0
    assert re.fullmatch(rf"Continuing run after step {stopped}\.\n{done(STEPS)}", ended.stdout)
    assert ended.stderr == ""
    assert_same_results(folder, unbroken)


def test_finished_run_is_unchanged_until_it_is_extended(run, unbroken, tmp_path):
    shorter = [*QUICK, "--num_steps=150", "--run_dir=run"]
    assert run(*shorter).code == 0
    before = results(tmp_path / "run")
    assert run(*shorter) == (
        0,
        "run is finished: 150 steps are done. Continue with a larger --num_steps, or start again "
        "with --new, which renames the folder.\n",
        "",
    )
    assert results(tmp_path / "run") == before
    assert continued_after(run(*shorter, f"--num_steps={STEPS}")) == 150
    assert_same_results(tmp_path / "run", unbroken)


def test_damage_costs_only_the_steps_since_the_checkpoint_before(run, unbroken, tmp_path):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    flags = [*QUICK, f"--num_steps={STEPS}", "--run_dir=run"]
    newest = max(folder.glob("checkpoints/*"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 4
    newest.write_bytes(content)
    table = (folder / "losses.csv").read_text()
    (folder / "losses.csv").write_text(table.replace("\n7,", "\n7,nan"))
    assert "losses.csv is damaged in line 8" in error_of(run(*flags))
    (folder / "losses.csv").write_text(table)
    ended = run(*flags)
    assert ended.code == 0
    first, second, _ = ended.stdout.splitlines()
    assert re.fullmatch(
        r"Warning: run/checkpoints/step-000000200\.npz is damaged .*; trying the .* before it\.",
        first,
    )
    assert second == "Continuing run after step 160."
    assert_same_results(folder, unbroken)


EXPLOSIVE = ("--r1_gamma=1e6", "--learning_rate=1", "--beta1=0", "--beta2=0")


def test_losses_that_are_not_finite_stop_a_run(run, tmp_path):
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
    step, _ = RunFolder(tmp_path / "run").load_checkpoint(pytest.fail)
    assert step == 3


def test_weights_that_are_not_finite_are_neither_drawn_nor_saved(run, tmp_path):
    """After step 4 weights are not finite, which the losses show only after step 5."""
    ended = run(*QUICK, *EXPLOSIVE, "--checkpoint_every=3", "--num_steps=4", "--run_dir=run")
    assert re.search(r"diverged at step 4: \S+ is no longer finite; ", error_of(ended))
    assert steps_of_checkpoints(tmp_path / "run") == [3]
    assert not (tmp_path / "run" / "samples.png").exists()
    assert rows_in(tmp_path / "run") == 4


@pytest.fixture
def small_disk(tmp_path):
    """A disk with space for two checkpoints, but not for three."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=14m", "tmpfs", str(disk)]
    mounted = subprocess.run(words, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk_stops_a_run_that_resumes_when_there_is_space(run, unbroken, small_disk):
    flags = [*QUICK, f"--num_steps={STEPS}", f"--run_dir={small_disk / 'run'}"]
    ended = run(*flags)
    assert re.fullmatch(
        rf"main\.py: disk full: cannot write {small_disk}/run/\S+ \(No space left on device\); the "
        "last checkpoint is at step 80; free some space and rerun the command",
        error_of(ended),
    )
    assert re.fullmatch(SUMMARY, ended.stdout)
    assert steps_of_checkpoints(small_disk / "run") == [40, 80]
    assert not list(small_disk.rglob("*unfinished*"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    ended = run(*flags)
    assert ended.code == 0
    assert "after step 80." in ended.stdout
    assert_same_results(small_disk / "run", unbroken)


@pytest.mark.slow
def test_run_killed_at_random_moments_ends_in_the_same_bytes(start, run, tmp_path):
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    flags = ["--num_steps=6000", "--checkpoint_every=50", "--image_every=700"]
    assert run(*flags, "--run_dir=unbroken").code == 0
    # Some during the start, the others after the first new checkpoint.
    for moment in range(9):
        process, before = start(*flags, "--run_dir=run"), last_checkpoint(tmp_path / "run")
        if moment % 3:
            process.wait_until(lambda: last_checkpoint(tmp_path / "run") > before)  # noqa: B023
            time.sleep(rng.uniform(0, 0.4))
        else:
            time.sleep(rng.uniform(0, 3))
        process.send(signal.SIGKILL)
        assert process.end().code == -signal.SIGKILL
        assert "damaged" not in process.end().stdout
    ended = run(*flags, "--run_dir=run")
    assert ended.code == 0
    assert 0 < continued_after(ended) < 6000
    assert_same_results(tmp_path / "run", tmp_path / "unbroken")
