"""The command: its help, its refusals, what it shows, and one small run on the real files."""

import csv
import fcntl
import gzip
import itertools
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
from typing import NamedTuple

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image
from test_resume import (
    PROGRESS,
    SUMMARY,
    Ended,
    assert_same_results,
    done,
    error_of,
    last_checkpoint,
    rows_in,
    steps_of_checkpoints,
    write_data,
)

import command_line
import main as program
from models import hyperparameters

ROOT = Path(program.__file__).parent
REAL_DATA = ROOT / "MNIST_data"
STEPS = 1000
JOB = (f"--num_steps={STEPS}", "--checkpoint_every=250", "--image_every=500")


def command(*words):
    return [sys.executable, str(ROOT / "main.py"), *words]


def environment(**more):
    """This process's, as a user's would be: nothing in it asks TensorFlow to be quiet."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "PYTHON"))}
    return {**kept, **more}


def start(place, *words):
    """Starts `python main.py ...` in a folder, with pipes as its streams."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command(*words), cwd=place, env=environment(), text=True, **pipes)


def end(process):
    """Waits for what `start` started; -> Ended."""
    stdout, stderr = process.communicate(timeout=300)
    return Ended(process.returncode, stdout, stderr)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("main") / "data")


# Help.


@pytest.fixture(scope="module")
def help_text():
    """What --help prints, which ends well, within a second and without TensorFlow."""
    words = [sys.executable, "-X", "importtime", str(ROOT / "main.py"), "--help"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = subprocess.run(words, capture_output=True, text=True, env=environment())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert shown.returncode == 0
    # Of the processor, since others may keep it busy: 0.4 s where this was written.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert "absl.flags" in imported
    assert not {name for name in imported if name.split(".")[0] in ("tensorflow", "matplotlib")}
    return shown.stdout


@pytest.fixture(scope="module")
def own_flags():
    """{name: command_line.Flag} of all flags, which are defined."""
    if "mode" not in flags.FLAGS:
        program.define_flags()
    return {flag.name: flag for flag in itertools.chain(*command_line.groups().values())}


def test_help_begins_with_what_the_program_is_for(help_text):
    first = help_text.splitlines()[0]
    assert first.endswith(".")
    assert "GANs on MNIST" in first
    assert "python main.py --nlatent=10 --num_steps=50000" in help_text
    assert max(map(len, help_text.splitlines())) <= 100


def test_help_tells_every_flag_its_range_and_its_default(help_text, own_flags):
    entries = flags_in(help_text)
    assert entries.keys() == own_flags.keys()
    for name, (value, text) in entries.items():
        assert re.search(r"\w{3}.* \[", text), name
        assert text.count("default ") == 1, name
        if value in ("=N", "=X"):
            assert re.search(r"\[(above )?\d\S* to \d", text), name
        assert "None" not in text, name


def flags_in(text):
    """What --help prints -> {name: (what stands for its value, the rest as one line)}."""
    found = re.findall(r"^  --(?:\[no\])?(\w+)(\S*) +(.*(?:\n {26}.*)*)", text, re.M)
    return {name: (value, " ".join(rest.split())) for name, value, rest in found}


def test_help_of_a_mode_shows_its_flags_only(own_flags):
    for mode in command_line.MODES:
        text = command_line.help_text(mode)
        taken = {name for name, flag in own_flags.items() if mode in flag.modes}
        assert flags_in(text).keys() == taken - {"mode"}
        assert max(map(len, text.splitlines())) <= 100
        command = re.search(r"python (main\.py .*)", text)[1]
        with flagsaver.flagsaver():
            program.parse(command.split())
            command_line.check_taken(flags.FLAGS.mode)


def test_help_has_the_numbers_of_the_recipe_that_is_named(own_flags, capsys):
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as end:
        program.parse(["main.py", "--recipe=stable_cnn", "--help"])
    assert end.value.code == 0
    shown = flags_in(capsys.readouterr().out)
    assert shown["learning_rate"][1].endswith("default 0.003]")
    assert shown["nlatent"][1].endswith("[1 to 4096, default 16]")


# Refusals.


@pytest.fixture
def refused(own_flags, monkeypatch, capsys, tmp_path):
    """A function: flags -> the line that refuses them; the program runs in this process."""
    monkeypatch.chdir(tmp_path)

    def refused(*words):
        capsys.readouterr()
        before = sorted(tmp_path.rglob("*"))
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as end:
            program.main(program.parse(["main.py", *words]))
        assert end.value.code == 1
        shown = capsys.readouterr()
        assert shown.out == ""
        (line,) = shown.err.splitlines()
        assert line.startswith("main.py: ")
        assert len(line) < 700
        assert sorted(tmp_path.rglob("*")) == before
        return line

    return refused


def bad_values():
    """(name, value) of every number of a recipe with what it may not be."""
    for field in hyperparameters.overridable():
        bounds = field.metadata
        if bounds["high"] is not None:
            whole = "int" in str(field.type)
            low = bounds["low"] if bounds["above"] is None else bounds["above"] + 1
            beyond = [bounds["high"] + 1, low - 1, -(10**30), 10**30, "x", "", "1,5", "nan", "inf"]
            beyond += ["1.5", "1" + "0" * 400] if whole else ["-inf", "1e999", "-1e-9"]
            yield from ((field.name, value) for value in beyond)
        elif field.type in (bool, bool | None):
            yield field.name, "perhaps"


@pytest.mark.parametrize(("name", "value"), bad_values())
def test_numbers_of_a_recipe_that_cannot_be_are_refused_by_name(refused, name, value):
    assert f"--{name}=" in refused(f"--{name}={value}")


def test_numbers_above_zero_refuse_zero(refused):
    for name in ("learning_rate", "g_learning_rate"):
        assert f"--{name}=0.0: wanted above 0 to 1" in refused(f"--{name}=0")


OTHER_BAD_FLAGS = [
    (["--nosuch=1"], "'nosuch'"),
    (["--num_step=1"], "'num_step'. Did you mean: num_steps"),
    (["train"], "train: no such argument"),
    (["--num_steps", "5", "extra"], "extra: no such argument"),
    (["--num_steps"], "--num_steps"),
    (["--new=perhaps"], "--new=perhaps"),
    (["--recipe=nosuch"], "--recipe=nosuch: value should be one of <minimal|"),
    (["--mode=nosuch"], "--mode=nosuch: value should be one of <train|"),
    (["--engine=nosuch"], "--engine=nosuch: value should be one of <auto|fused|step>"),
    (["--prior=nosuch"], "--prior must be one of uniform, "),
    (["--prior="], "--prior= is empty: give it a value"),
    (["--seed=-1"], "--seed=-1"),
    (["--seed=2147483648"], "--seed=2147483648"),
    (["--seed=x"], "--seed=x"),
    (["--checkpoint_every=0"], "--checkpoint_every=0"),
    (["--checkpoint_every=1e3"], "--checkpoint_every=1e3"),
    (["--image_every=-1"], "--image_every=-1"),
    (["--flagfile=nosuch"], "nosuch"),
    (["--half_batches", "--batch_size=1"], "--batch_size=1"),
    (["--dataset=kmnist", f"--data_dir={REAL_DATA}"], "MNIST_data contains MNIST"),
    (["--recipe=leaky_mlp", "--conditional"], "article 004, Using GAN for Generating Hand-written"),
]


@pytest.mark.parametrize(("words", "named"), OTHER_BAD_FLAGS)
def test_other_flags_that_cannot_be_are_refused_by_name(refused, words, named):
    assert named in refused(*words)


def test_batches_larger_than_the_data_are_refused_by_name(refused, data_dir):
    small = f"--data_dir={data_dir}"
    assert "--batch_size=5001: wanted at most 5000," in refused(small, "--batch_size=5001")
    line = refused(small, "--digit=3", "--batch_size=501")
    assert "--batch_size=501: wanted at most 500," in line
    assert "--batch_size=55001: wanted at most 55000" in refused("--batch_size=55001")


def test_a_data_set_that_is_named_is_the_one_that_is_there(refused, data_dir):
    line = refused("--dataset=mnist", f"--data_dir={data_dir}")
    assert f"{data_dir} contains other images, not MNIST" in line


def test_data_folders_that_cannot_be_used_are_refused(refused, tmp_path, monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody answers
    (tmp_path / "empty").mkdir()
    line = refused(f"--data_dir={tmp_path / 'empty'}")
    assert f"train-images-idx3-ubyte.gz is not in {tmp_path / 'empty'} and could not be" in line
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in refused(f"--data_dir={tmp_path / 'file'}")
    write_data(tmp_path / "few", train=100)
    line = refused(f"--data_dir={tmp_path / 'few'}", "--validation_size=101")
    assert "Validation size should be between 0 and 100, the training images" in line


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:2000] + bytes([content[2000] ^ 1]) + content[2001:],
        lambda _: b"",
        lambda _: b"<html>Not found</html>",
        lambda content: gzip.compress(gzip.decompress(content)[:-1]),
    ],
)
def test_a_damaged_data_file_is_refused_by_name(refused, data_dir, tmp_path, damage):
    folder = shutil.copytree(data_dir, tmp_path / "data")
    name = "train-labels-idx1-ubyte"
    (folder / name).unlink()
    (folder / f"{name}.gz").write_bytes(damage((REAL_DATA / f"{name}.gz").read_bytes()))
    assert str(folder / f"{name}.gz") in refused(f"--data_dir={folder}")


def test_folders_that_cannot_hold_the_run_are_refused(refused, data_dir, tmp_path):
    small = f"--data_dir={data_dir}"
    (tmp_path / "file").write_text("mine")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("mine")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text('{"recipe": "mini')
    assert "--run_dir=file exists but is no run folder" in refused(small, "--run_dir=file")
    assert "--run_dir=thesis exists but is no" in refused(small, "--run_dir=thesis", "--new")
    assert "--run_dir=damaged: no readable config" in refused(small, "--run_dir=damaged")
    assert "--run_dir=file/run: cannot use file" in refused(small, "--run_dir=file/run")


def test_a_refusal_is_quick_and_the_same_in_a_process_of_its_own(tmp_path, data_dir):
    (tmp_path / "runs").touch()
    for words, named in [
        (["--nlatent=0"], "main.py: --nlatent=0: wanted 1 to 4096"),
        (["--nosuch"], "main.py: Unknown command line flag 'nosuch'. See python main.py --help"),
        ([f"--data_dir={data_dir}"], "main.py: --run_dir=runs/data="),
    ]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = end(start(tmp_path, *words))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert error_of(ended).startswith(named)
        assert ended.stdout == ""
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


# A small run on the real files, and the same one in a terminal, stopped there by Ctrl-C.


class InTerminal:
    """A command whose three streams are a terminal of that many columns."""

    def __init__(self, place, words, columns=100):
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
        self._process = subprocess.Popen(
            words, cwd=place, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)
        self._shown = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def running(self):
        return self._process.poll() is None

    def press(self, key):
        os.write(self._ours, key)

    def end(self):
        """-> (exit code, all that was shown, one string for each line or return)."""
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


class SmallRuns(NamedTuple):
    """One run through pipes, and the same run in a terminal that Ctrl-C stopped, gone on with."""

    unbroken: Path
    ended: Ended
    broken: Path
    code: int
    shown: list
    continued: Ended


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    place = tmp_path_factory.mktemp("small")
    broken = place / "elsewhere" / "broken"
    in_terminal = InTerminal(place, command(*JOB, "--run_dir=elsewhere/broken"))
    through_pipes = start(place, *JOB)
    while in_terminal.running and not steps_of_checkpoints(broken):
        time.sleep(0.005)
    in_terminal.press(b"\x03")
    code, shown = in_terminal.end()
    ended = end(through_pipes)
    continued = end(start(place, *JOB, "--run_dir=elsewhere/broken"))
    return SmallRuns(place / "runs" / "minimal", ended, broken, code, shown, continued)


def test_through_pipes_only_our_lines_are_shown(small):
    assert small.ended.code == 0
    assert re.fullmatch(SUMMARY + done(STEPS, "runs/minimal"), small.ended.stdout)
    for line in small.ended.stderr.splitlines():
        assert re.fullmatch(PROGRESS, line)


def test_in_a_terminal_a_bar_shows_rate_time_left_and_losses(small):
    bar = re.compile(
        r" *\d+%\|[^|]*\| \d+/1000 \[(\d\d:\d\d)<(\?|\d\d:\d\d), +([\d.]+|\?)step/s"
        r"(, d_loss -?\d+\.\d{3}, g_loss -?\d+\.\d{3})?\]"
    )
    *shown, last = small.shown
    summary = [line for line in small.ended.stdout.splitlines()[:-1] if line]
    bars = shown[len(summary) :]
    assert shown[: len(summary)] == summary
    matches = [bar.fullmatch(line) for line in bars]
    assert all(matches), bars
    assert all(len(line) < 100 for line in bars)
    with_losses = [match for match in matches if match[4]]
    assert with_losses
    # The clock starts after the first block, which has to be compiled.
    assert with_losses[0][1] == "00:00"
    rates = [float(match[3]) for match in matches if match[3] != "?"]
    assert rates
    assert rates[0] > max(rates) / 10
    assert re.fullmatch(
        r"Stopped by SIGINT after step \d+; the same command goes on from there\.", last
    )
    assert small.code == 130


def test_a_run_stopped_by_ctrl_c_goes_on_to_the_same_bytes(small):
    stopped = re.search(r"after step (\d+);", small.shown[-1])[1]
    assert 250 <= int(stopped) < STEPS
    assert small.continued.code == 0
    folder = "elsewhere/broken"
    assert re.fullmatch(
        rf"Continuing {folder} after step {stopped}\.\n{done(STEPS, folder)}",
        small.continued.stdout,
    )
    assert_same_results(small.broken, small.unbroken)
    for name in ("config.json", "checkpoints/step-000001000.npz"):
        assert (small.broken / name).read_bytes() == (small.unbroken / name).read_bytes()


def test_the_run_folder_holds_all_that_is_promised(small):
    names = ["config.json", "losses.csv", "losses.png", "samples.png", "latent_grid.png"]
    found = {path.name for path in small.unbroken.iterdir()}
    assert found >= {*names, "checkpoints", "progress"}
    assert not list(small.unbroken.rglob(".*"))
    assert steps_of_checkpoints(small.unbroken) == [500, 750, 1000]
    assert last_checkpoint(small.unbroken) == rows_in(small.unbroken) == STEPS


def test_losses_have_a_header_and_a_finite_row_for_each_step(small):
    with open(small.unbroken / "losses.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["step", "d_loss", "g_loss"]
    assert [int(row[0]) for row in rows] == list(range(1, STEPS + 1))
    losses = np.array([row[1:] for row in rows], float)
    assert np.isfinite(losses).all()
    assert (losses >= 0).all()
    # D knows nothing at first: both of its cross-entropies are near log 2.
    assert losses[0, 0] == pytest.approx(np.log(4), abs=0.3)


def grey(path):
    """-> the pixels of a grey picture."""
    with Image.open(path) as picture:
        assert picture.mode == "L"
        return np.asarray(picture, float)


def tiles_of(path):
    """A picture of 20 x 20 images -> [20, 20, 784] grey values."""
    pixels = grey(path)
    assert pixels.shape == (560, 560)
    return pixels.reshape(20, 28, 20, 28).swapaxes(1, 2).reshape(20, 20, 784)


def test_pictures_have_their_sizes_and_show_something(small):
    for name in ("samples.png", "latent_grid.png"):
        tiles = tiles_of(small.unbroken / name)
        assert tiles.max() > 200 and tiles.min() < 50
        assert len(np.unique(tiles.reshape(400, 784), axis=0)) > 300
    for step in (500, 1000):
        assert grey(small.unbroken / "progress" / f"step-{step:09d}.png").shape == (224, 224)
    with Image.open(small.unbroken / "losses.png") as picture:
        assert picture.format == "PNG"


def test_neighbours_in_the_latent_grid_are_alike(small):
    tiles = tiles_of(small.unbroken / "latent_grid.png")
    beside = np.abs(np.diff(tiles, axis=1)).mean()
    below = np.abs(np.diff(tiles, axis=0)).mean()
    flat = tiles.reshape(400, 784)
    at_random = np.abs(flat - np.random.default_rng(0).permutation(flat)).mean()
    assert 0 < beside < at_random / 2
    assert 0 < below < at_random / 2


def test_another_configuration_is_refused_by_the_default_folder_of_the_same_name(small, refused):
    before = {path: path.stat().st_mtime_ns for path in small.unbroken.rglob("*")}
    line = refused(f"--run_dir={small.unbroken}", "--nlatent=2", "--seed=1", "--digit=3")
    for told in (
        "--seed is 0 there and 1 here",
        "--nlatent is 10 there and 2 here",
        "--digit is unset there and 3 here",
        "use the same flags, name another --run_dir, or start afresh with --new",
    ):
        assert told in line
    assert {path: path.stat().st_mtime_ns for path in small.unbroken.rglob("*")} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_import_of_tensorflow_ends_cleanly(tmp_path, data_dir, number):
    words = ["--num_steps=10", "--validation_size=5000", "--run_dir=run"]
    process = start(tmp_path, f"--data_dir={data_dir}", *words)
    folder = tmp_path / "run"
    while process.poll() is None and not (folder / "config.json").exists():
        time.sleep(0.005)
    time.sleep(0.2)  # what comes next is the import, and takes seconds
    process.send_signal(number)
    assert end(process) == (128 + number, f"Stopped by {number.name}.\n", "")
    assert [path.name for path in folder.rglob("*.npz")] == []
