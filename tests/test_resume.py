"""`main.py` that is stopped, killed and resumed, or that diverges."""

import hashlib
import random
import re
import signal
import time

import numpy as np
import pytest
from assembly import main
from processes import MAIN, Process, ended, sends_signals, wait_until
from small_sets import write_set

from support.files import LEFTOVERS
from training.run import RunFolder

QUICK = (
    "--engine=step",
    "--batch_size=8",
    "--checkpoint_every=40",
    "--image_every=50",
    # Resumed between two penalised steps, all three penalties end in the same bytes too.
    "--r1_gamma=1",
    "--r2_gamma=1",
    "--gradient_penalty=1",
    "--penalty_every=3",
)
STEPS = 200
READ = r"Read 10,000 and 20 images from IDX files in .*\n"
# What a run logs before its first step.
SUMMARY = "".join(rf"{net} +shape +parameters\n(.+\n)+\n" for net in ("generator", "discriminator"))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Images of which a run holds half out for validation."""
    return write_set(tmp_path_factory.mktemp("resume") / "data", suffix="", train=10_000, test=20)


@pytest.fixture
def run(data_dir, tmp_path, monkeypatch):
    """A function that runs `main.py` in tmp_path, on the small data."""
    monkeypatch.chdir(tmp_path)
    return lambda *flags: ended(*main(f"--data_dir={data_dir}", *flags))


@pytest.fixture(scope="module")
def unbroken(data_dir, tmp_path_factory):
    """The folder of a run of QUICK flags that nothing disturbed."""
    place = tmp_path_factory.mktemp("unbroken")
    flags = [f"--data_dir={data_dir}", *QUICK, f"--num_steps={STEPS}", "--run_dir=run"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        code, stdout, stderr = ended(*main(*flags))
    assert (code, stderr) == (0, "")
    assert re.fullmatch(READ + SUMMARY + done(STEPS), stdout)
    return place / "run"


def done(steps, folder="run"):
    """Returns a pattern of what a run logs last."""
    return rf"Done: {steps:,} steps in [\d,.]+ s\. Images and tables are in {folder}\.\n"


def results(folder):
    """Returns {name: SHA-256} of a run's tables, images and last weights."""
    facts = ("config.json", "summary.json")  # a summary has the command's duration
    paths = [*folder.glob("*.*"), *folder.glob("progress/*")]
    paths.append(max(folder.glob("checkpoints/step-*.npz")))
    # A killed process leaves a file that it was writing; it is removed an hour later.
    paths = [p for p in paths if p.name not in facts and not p.match(LEFTOVERS)]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


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


@sends_signals
def test_run_that_is_stopped_and_resumed_ends_in_the_same_bytes(data_dir, run, unbroken, tmp_path):
    folder, flags = tmp_path / "run", [*QUICK, f"--num_steps={STEPS}", "--run_dir=run"]

    def stopped_by(number, delay=0):
        """Sends the signal after a new checkpoint and a delay; returns how the run ended."""
        before = last_checkpoint(folder)
        process = Process(tmp_path, *MAIN, f"--data_dir={data_dir}", *flags)
        wait_until(process, lambda: last_checkpoint(folder) > before)
        time.sleep(delay)
        process.send(number)
        ended = process.end()
        assert continued_after(ended) == before
        assert ended.stderr == ""
        return ended

    assert stopped_by(signal.SIGKILL, random.uniform(0, 0.1)).code == -signal.SIGKILL
    for number, code in [(signal.SIGINT, 130), (signal.SIGTERM, 143)]:
        ended = stopped_by(number)
        assert ended.code == code
        stopped = last_checkpoint(folder)
        assert ended.stdout.splitlines()[2:] == [
            f"Stopped by {number.name} after step {stopped}; rerun the command to resume."
        ]
        assert len(RunFolder(folder).losses()) == stopped < STEPS
    ended = run(*flags)
    assert ended.code == 0
    assert re.fullmatch(
        rf"{READ}Continuing run after step {stopped}\.\n{done(STEPS)}", ended.stdout
    )
    assert ended.stderr == ""
    assert results(folder) == results(unbroken)


def test_finished_run_is_unchanged_until_it_is_extended(run, unbroken, tmp_path):
    shorter = [*QUICK, "--num_steps=150", "--run_dir=run"]
    assert run(*shorter).code == 0
    before = results(tmp_path / "run")
    code, stdout, stderr = run(*shorter)
    assert (code, stderr) == (0, "")
    assert "\nrun is finished: 150 steps are done. " in stdout
    assert results(tmp_path / "run") == before
    assert continued_after(run(*shorter, f"--num_steps={STEPS}")) == 150
    assert results(tmp_path / "run") == results(unbroken)


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
    assert len(RunFolder(tmp_path / "short").losses()) == 4
