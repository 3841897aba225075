"""The command: its help, refusals and output, and one small run on the real files."""

import fcntl
import os
import pty
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from assembly import main
from PIL import Image
from small_sets import write_set
from test_resume import (
    PROGRESS,
    SUMMARY,
    Ended,
    done,
    steps_of_checkpoints,
)

from command_line import FIELDS, MODES
from training.run import RunFolder

ROOT = Path(__file__).resolve().parent.parent
MAIN = [sys.executable, str(ROOT / "main.py")]
STEPS = 1000
JOB = (f"--num_steps={STEPS}", "--checkpoint_every=250", "--image_every=500")


def environment():
    """Returns this process's environment without what makes TensorFlow quiet."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "PYTHON"))}


def start(place, *words):
    """Starts `python main.py ...` in a folder, with pipes as its streams."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*MAIN, *words], cwd=place, env=environment(), text=True, **pipes)


def end(process):
    stdout, stderr = process.communicate(timeout=300)
    return Ended(process.returncode, stdout, stderr)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("main") / "data", suffix="", train=100, test=20)


# Help.


def flags_in(text):
    """Returns {name: (placeholder of its value, the rest as one line)} of a help text."""
    found = re.findall(r"^  --(?:\[no\])?(\w+)(\S*) +(.*(?:\n {26}.*)*)", text, re.M)
    return {name: (value, " ".join(rest.split())) for name, value, rest in found}


def test_help_shows_each_flag_with_its_range_and_default():
    """Quickly, and without TensorFlow."""
    words = [sys.executable, "-X", "importtime", str(ROOT / "main.py"), "--help"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = subprocess.run(words, capture_output=True, text=True, env=environment())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert shown.returncode == 0
    # Of the processor, since others may keep it busy.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert "absl.flags" in imported
    assert not {name for name in imported if name.split(".")[0] in ("tensorflow", "matplotlib")}
    help_text = shown.stdout
    assert re.match(r".*GANs on MNIST.*\.\n", help_text)
    assert "python main.py --nlatent=10 --num_steps=50000" in help_text
    assert max(map(len, help_text.splitlines())) <= 100
    entries = flags_in(help_text)
    assert entries.keys() == FIELDS.keys()
    for name, (value, text) in entries.items():
        assert re.search(r"\w{3}.* \[", text), name
        assert text.count("default ") == 1, name
        assert value not in ("=N", "=X") or re.search(r"\[(above )?\d\S* to \d", text), name
        assert "None" not in text and "unset" not in text, name


@pytest.mark.parametrize("mode", MODES)
def test_help_of_a_mode_shows_only_its_flags(mode):
    code, text, _ = main(f"--mode={mode}", "--help")
    assert code == 0
    valid = {name for name, field in FIELDS.items() if mode in field.metadata["modes"]}
    assert flags_in(text).keys() == valid - {"mode"}
    assert f"python main.py --mode={mode} " in text


def test_help_shows_the_defaults_of_a_recipe():
    shown = flags_in(main("--recipe=stable_cnn", "--help")[1])
    assert shown["learning_rate"][1].endswith("[1e-12 to 1, default 0.003]")
    assert shown["nlatent"][1].endswith("[1 to 4096, default 16]")


# Refusals.


@pytest.fixture
def refused(monkeypatch, tmp_path):
    """A function of flags that returns the line that refuses them."""
    monkeypatch.chdir(tmp_path)

    def refused(*words):
        before = sorted(tmp_path.rglob("*"))
        code, out, err = main(*words)
        assert (code, out) == (1, "")
        (line,) = err.splitlines()
        assert line.startswith("main.py: ") and len(line) < 700
        assert sorted(tmp_path.rglob("*")) == before
        return line

    return refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nosuch=1"], "--nosuch is not a flag; see python main.py --help"),
        (["--num_step=1"], "--num_step is not a flag; did you mean --num_steps?"),
        (["--learning-rate=1"], "did you mean --learning_rate?"),
        (["train"], "unexpected argument train: options start with --; use --mode=train"),
        (["--num_steps"], "num_steps"),
        (["--num_steps=1.5"], "--num_steps must be an integer from 1 to 1000000000, got 1.5$"),
        (["--nlatent=x"], "--nlatent must be an integer from 1 to 4096, got x$"),
        (["--lr_milestones=1,5"], "--lr_milestones must be .*, got 1,5$"),
        (
            ["--learning_rate=nan"],
            "--learning_rate must be a number from 1e-12 to 1, got nan",
        ),
        (["--new=perhaps"], "--new must be True or False, got perhaps$"),
        (["--recipe=nosuch"], "--recipe must be one of minimal, .*, got nosuch"),
        (["--mode=nosuch"], "--mode must be one of train, .*, got nosuch"),
        (["--prior="], "--prior= is empty: give it a value, or omit it"),
        (["--seed=2147483648"], "--seed must be an integer from 0 to 2147483647, got 2147483648"),
        (["--recipe=upsampling_cnn", "--conditional"], "--conditional requires networks that"),
        (["--dataset=kmnist", f"--data_dir={ROOT}/MNIST_data"], "MNIST"),
        (["--batch_size=55001"], "--batch_size must be at most 55000"),
        (["--labels=3"], "--labels is only valid with --mode=sample"),
        (["--out=a"], "only valid with --mode=sample, export, explore or compare$"),
        (["--mode=sample"], "--mode=sample requires --run_dir; no runs in runs/"),
        (["--mode=sample", "--run_dir=x", "--digit=3"], "--digit is only valid .*; .*--labels"),
        (["--mode=evaluate", "--run_dir=nosuch"], "--run_dir=nosuch is not a run folder"),
        (["--gan=a.py:A", "--gan=b.py:B"], "--gan must be given only once, got a.py:A, b.py:B"),
    ],
    ids=str,
)
def test_wrong_flags_are_refused_by_name(refused, words, message):
    assert re.search(message, refused(*words))


def test_damaged_data_and_folders_without_a_run_are_refused(refused, data_dir, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("mine")
    small = (f"--data_dir={data_dir}", "--validation_size=0", "--run_dir=thesis", "--new")
    assert "--run_dir=thesis is not a run folder" in refused(*small)
    folder = shutil.copytree(data_dir, tmp_path / "data")
    labels = folder / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1])
    assert str(labels) in refused(f"--data_dir={folder}")


def test_tilde_in_a_path_is_the_home_folder(data_dir, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    (home / "mine.py").write_text("from models.gan import Gan\n\n\nclass Mine(Gan):\n    pass\n")
    shutil.copytree(data_dir, home / "data")
    class_and_run = ("--gan=~/mine.py:Mine", "--run_dir=~/run")
    code, _, err = main("--data_dir=~/data", *class_and_run, "--num_steps=2", "--batch_size=4")
    assert code == 0, err
    assert main("--mode=sample", *class_and_run, "--out=~/a.png")[0] == 0
    assert main("--mode=compare", "--run_dirs=~/run", class_and_run[0], "--out=~/b.png")[0] == 0
    assert {path.name for path in home.iterdir()} >= {"run", "a.png", "b.png"}
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


# A small run on the real files, and the same one in a terminal, stopped there by Ctrl-C.


class InTerminal:
    """A command whose three streams are a terminal of 100 columns."""

    def __init__(self, place, words):
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 100, 0, 0))
        self._process = subprocess.Popen(
            words,
            cwd=place,
            env=environment(),
            **dict.fromkeys(["stdin", "stdout", "stderr"], theirs),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self._shown = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def press(self, key, when):
        """Presses a key once a condition is true; fails if the process ends first."""
        while not when():
            assert self._process.poll() is None
            time.sleep(0.005)
        os.write(self._ours, key)

    def end(self):
        """Returns the exit code, and the lines shown; a carriage return ends a line too."""
        code = self._process.wait(300)
        self._reader.join()
        os.close(self._ours)
        lines = re.split(r"[\r\n]+", self._shown.decode().replace("^C", ""))
        return code, [line for line in lines if line.strip()]

    def _read(self):
        while True:
            try:
                self._shown += os.read(self._ours, 65536)
            except OSError:  # the other end is closed
                return


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Returns the run's folder, how it ended, and the code and lines of that in the terminal."""
    place = tmp_path_factory.mktemp("small")
    in_terminal = InTerminal(place, [*MAIN, *JOB, "--run_dir=broken"])
    through_pipes = start(place, *JOB)
    in_terminal.press(b"\x03", lambda: steps_of_checkpoints(place / "broken"))
    return place / "runs" / "minimal", end(through_pipes), *in_terminal.end()


def test_only_our_lines_are_printed_through_pipes(small):
    folder, ended, _, _ = small
    assert ended.code == 0
    assert re.fullmatch(SUMMARY + done(STEPS, "runs/minimal"), ended.stdout)
    for line in ended.stderr.splitlines():
        assert re.fullmatch(PROGRESS, line)
    assert steps_of_checkpoints(folder) == [500, 750, 1000]
    losses = np.array(RunFolder(folder).losses())
    assert list(losses[:, 0]) == list(range(1, STEPS + 1))
    # D has not learned anything: both of its cross-entropies are near log 2.
    assert losses[0, 1] == pytest.approx(np.log(4), abs=0.3)
    for name in ("samples.png", "latent_grid.png"):
        tiles = np.asarray(Image.open(folder / name)).reshape(20, 28, 20, 28).swapaxes(1, 2)
        assert len(np.unique(tiles.reshape(400, 784), axis=0)) > 300


def test_bar_in_a_terminal_shows_rate_time_left_and_losses(small):
    bar = re.compile(
        r" *\d+%\|[^|]*\| \d+/1000 \[(\d\d:\d\d)<(\?|\d\d:\d\d), +([\d.]+|\?)step/s"
        r"(, d_loss -?\d+\.\d{3}, g_loss -?\d+\.\d{3})?\]"
    )
    _, ended, code, (*shown, last) = small
    summary = [line for line in ended.stdout.splitlines()[:-1] if line]
    bars = shown[len(summary) :]
    assert shown[: len(summary)] == summary
    matches = [bar.fullmatch(line) for line in bars]
    assert all(matches), bars
    assert all(len(line) < 100 for line in bars)
    with_losses = [match for match in matches if match[4]]
    # The clock starts after the first block, which has to be compiled.
    assert with_losses[0][1] == "00:00"
    assert re.fullmatch(r"Stopped by SIGINT after step \d+; rerun the command to resume\.", last)
    assert code == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_the_import_of_tensorflow_ends_cleanly(tmp_path, data_dir, number):
    process = start(tmp_path, f"--data_dir={data_dir}", "--num_steps=10", "--run_dir=run")
    folder = tmp_path / "run"
    while process.poll() is None and not (folder / "config.json").exists():
        time.sleep(0.005)
    time.sleep(0.2)  # the import comes next, and takes seconds
    process.send_signal(number)
    code, stdout, stderr = end(process)
    assert (code, stderr) == (128 + number, "")
    assert stdout.splitlines()[-1] == f"Stopped by {number.name}."
    assert [path.name for path in folder.rglob("*.npz")] == []
