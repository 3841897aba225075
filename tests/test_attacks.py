"""The whole program where files, streams, limits and signals turn against it: one line is due."""

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import test_resume
from test_resume import (
    QUICK,
    SUMMARY,
    assert_same_results,
    be_main,
    done,
    error_of,
    last_checkpoint,
    rows_in,
)
from test_terminal import as_from_a_terminal

from support import terminal

ROOT = Path(terminal.__file__).parent.parent
ENDLESS = [*QUICK, "--num_steps=1_000_000", "--run_dir=run"]

# Forks of one process that has TensorFlow, on small data.
server, data_dir = test_resume.server, test_resume.data_dir
start, run, unbroken = test_resume.start, test_resume.run, test_resume.unbroken


@pytest.fixture
def finished(unbroken, tmp_path):
    """A copy of a finished run, in tmp_path."""
    return shutil.copytree(unbroken, tmp_path / "run")


@pytest.fixture
def use(server, tmp_path):
    """A function that runs `main.py` in a mode that takes no data."""
    return lambda *flags: test_resume.Process(server, tmp_path, *flags).end()


# Run folders.


def edited(path, number, line):
    """Puts another text in the place of a line, counted from 1."""
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[: number - 1], line, *lines[number:]]))


@pytest.mark.parametrize("line", ['7,"0.5,0.5\n', "7,nan,0.5\n", "8,0.5,0.5\n"])
def test_a_damaged_row_of_losses_stops_a_run_before_it_cuts_anything(run, finished, line):
    edited(finished / "losses.csv", 8, line)
    table, flags = (finished / "losses.csv").read_bytes(), [*QUICK, "--run_dir=run"]
    for _ in range(2):
        ended = run(*flags, "--num_steps=210")
        told = error_of(ended)
        assert "losses.csv is damaged in line 8, " in told
        assert "correct it by hand, or move the file elsewhere" in told
        assert (finished / "losses.csv").read_bytes() == table
    (finished / "losses.csv").rename(finished / "damaged.csv")
    assert run(*flags, "--num_steps=210").code == 0
    assert rows_in(finished) == 10
    assert (finished / "damaged.csv").read_bytes() == table


@pytest.mark.timeout(60)
def test_a_folder_in_the_place_of_losses_is_refused_before_the_first_step(run, finished):
    (finished / "losses.csv").unlink()
    (finished / "losses.csv").mkdir()
    ended = run(*QUICK, "--num_steps=210", "--run_dir=run")
    assert "run/losses.csv is no ordinary file: move it elsewhere" in error_of(ended)
    assert ended.stdout == ""


def test_weights_that_are_no_numbers_are_neither_shown_nor_gone_on_from(use, finished):
    *_, newest = sorted(finished.glob("checkpoints/step-*.npz"))
    with np.load(newest) as arrays:
        state = dict(arrays)
    state["generator/hidden/bias"][3] = np.nan
    np.savez(newest, **state)
    for path in finished.glob("checkpoints/step-*.npz"):
        if path != newest:
            path.unlink()
    ended = use("--mode=sample", "--run_dir=run", "--out=out.png")
    assert re.search(r"none of its checkpoints is whole", error_of(ended))
    assert "'generator/hidden/bias.npy' holds NaN or infinity" in ended.stdout
    assert not (finished.parent / "out.png").exists()


@pytest.fixture
def full_events(tmp_path):
    """A folder whose `run/events` has no room left, though all else has."""
    events = tmp_path / "run" / "events"
    events.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(events)]
    mounted = subprocess.run(words, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    (events / "filling").write_bytes(bytes(4096))
    yield
    subprocess.run(["umount", str(events)], check=True)


def test_events_on_a_full_disk_end_in_one_line(run, unbroken, full_events, tmp_path):
    shutil.copy(unbroken / "config.json", tmp_path / "run")
    ended = run(*QUICK, f"--num_steps={test_resume.STEPS}", "--run_dir=run")
    told = error_of(ended)
    assert "cannot write run/events (" in told and "No space left on device" in told
    assert "--noevents" in told
    assert re.fullmatch(SUMMARY, ended.stdout)


# Streams and signals.


def be_talkative(*arguments):
    """`main.py` that shows its progress at every block of steps."""
    terminal._SECONDS_BETWEEN_LINES = 0
    be_main(*arguments)


@pytest.fixture
def begin(server, data_dir, tmp_path):
    """A function that starts a talkative `main.py` with these two streams."""
    started = []

    def begin(out, err, *flags):
        arguments = (tmp_path, [out, err], [f"--data_dir={data_dir}", *flags])
        process = server.Process(target=be_talkative, args=arguments)
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.join()


class Reader:
    """A pipe by name, which is read until some bytes came, and then by nobody."""

    def __init__(self, path):
        os.mkfifo(path)
        self._handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def go_after(self, wanted, process):
        read = b""
        while wanted not in read:
            assert process.is_alive(), read
            with contextlib.suppress(BlockingIOError):
                read += os.read(self._handle, 4096)
            time.sleep(0.005)
        os.close(self._handle)


def test_a_training_goes_on_when_nobody_reads_its_progress(begin, unbroken, tmp_path):
    reader = Reader(tmp_path / "err")
    flags = [*QUICK, f"--num_steps={test_resume.STEPS}", "--run_dir=run"]
    process = begin(tmp_path / "out", tmp_path / "err", *flags)
    reader.go_after(b"step ", process)
    process.join(60)
    assert process.exitcode == 0
    assert (tmp_path / "out").read_text().startswith("generator")
    assert_same_results(tmp_path / "run", unbroken)


def test_a_training_goes_on_when_nobody_reads_its_output(begin, finished, unbroken, tmp_path):
    """As in `python main.py --new | true`."""
    reader = Reader(tmp_path / "out")
    flags = [*QUICK, f"--num_steps={test_resume.STEPS}", "--run_dir=run", "--new"]
    process = begin(tmp_path / "out", tmp_path / "err", *flags)
    reader.go_after(b"The old run is kept as run.old-1.", process)
    process.join(60)
    assert process.exitcode == 0
    assert_same_results(tmp_path / "run", unbroken)
    assert_same_results(tmp_path / "run.old-1", unbroken)


def test_a_full_output_is_told_when_the_work_is_done(begin, unbroken, tmp_path):
    flags = [*QUICK, f"--num_steps={test_resume.STEPS}", "--run_dir=run"]
    process = begin("/dev/full", tmp_path / "err", *flags)
    process.join(60)
    assert process.exitcode == 1
    *_, told = (tmp_path / "err").read_text().splitlines()
    assert told == "main.py: cannot write to standard output: No space left on device"
    assert_same_results(tmp_path / "run", unbroken)


def be_in_terminal(place, terminal_path, flags):
    """`main.py` as a shell starts it in a terminal of its own."""
    os.setsid()
    os.dup2(os.open(terminal_path, os.O_RDWR), 0)  # which makes it the controlling terminal
    be_talkative(place, [terminal_path, terminal_path], flags)


def test_a_terminal_that_is_closed_saves_a_checkpoint(server, data_dir, tmp_path):
    ours, theirs = pty.openpty()
    arguments = (tmp_path, os.ttyname(theirs), [f"--data_dir={data_dir}", *ENDLESS])
    process = server.Process(target=be_in_terminal, args=arguments)
    process.start()
    try:
        while last_checkpoint(tmp_path / "run") < 80:
            assert process.is_alive()
            os.read(ours, 65536)
        os.close(theirs)
        os.close(ours)
        process.join(60)
        assert process.exitcode == 129
    finally:
        process.kill()
    stopped = last_checkpoint(tmp_path / "run")
    assert rows_in(tmp_path / "run") == stopped > 0
    assert not list((tmp_path / "run").rglob(".*"))


def test_a_hangup_saves_a_checkpoint(start, tmp_path):
    process = start(*ENDLESS)
    process.wait_until(lambda: last_checkpoint(tmp_path / "run"))
    process.send(signal.SIGHUP)
    ended = process.end()
    stopped = last_checkpoint(tmp_path / "run")
    assert ended.code == 129
    assert ended.stderr == ""
    assert ended.stdout.endswith(
        f"Stopped by SIGHUP after step {stopped:,}; the same command goes on from there.\n"
    )
    assert rows_in(tmp_path / "run") == stopped


# Flags.


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--noevents=1"], "noevents=1 does not take an argument. See python main.py --help"),
        (["--flagfile=bytes"], "'utf-8' codec can't decode byte 0xff"),
        (
            ["--mode=sample", "--digit=3", "--run_dir=run"],
            "--digit goes with --mode=train, not sample: --digit picks what is trained on; "
            "--labels draws one kind",
        ),
        (["--mode=sample", "--run_dir=" + "n" * 300], "name too long"),
        (["--gan="], "--gan= is empty: give it a value, or leave it out"),
        (["--data_dir="], "--data_dir= is empty"),
        (["--mode=compare", "--run_dirs=run,,other"], "--run_dirs=run,,other: one of its names"),
        (["--mode=export", "--run_dir=run\x1b[2J"], "--run_dir=run\\x1b[2J: no readable config"),
    ],
)
def test_flags_that_cannot_be_end_in_one_line(use, tmp_path, flags, told):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    ended = use(*flags)
    assert told in error_of(ended)
    assert ended.stdout == ""


def test_a_comparison_is_told_before_its_picture_is_written(use, finished):
    ended = use("--mode=compare", "--run_dirs=run", "--out=/proc/a.png")  # which takes no files
    assert "/proc/" in error_of(ended)
    assert re.search(r"^run +run\nrecipe +minimal\n", ended.stdout)


@pytest.mark.slow
def test_an_export_to_a_name_that_tensorflow_cannot_write_is_refused(use, finished, tmp_path):
    folder = tmp_path / os.fsdecode(b"x\xff")
    folder.mkdir()
    ended = use("--mode=export", "--run_dir=run", f"--out={folder / 'export'}")
    assert "TensorFlow writes to names in UTF-8 alone" in error_of(ended)
    assert not list(folder.iterdir())


def test_a_name_of_250_characters_can_be_written_to(use, finished, tmp_path):
    name = "n" * 246 + ".png"
    assert use("--mode=sample", "--run_dir=run", f"--out={name}").code == 0
    assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    ended = use("--mode=sample", "--run_dir=run", f"--out=n{name}{name}")
    assert "File name too long" in error_of(ended)


# Processes from their first instant, as a shell starts them; each imports TensorFlow.


def shell(place, data_dir, words, *flags):
    """`bash -c words`, in which "$@" is `python main.py ...`; -> the ended process."""
    command = [sys.executable, ROOT / "main.py", f"--data_dir={data_dir}", *QUICK, "--num_steps=50"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "PYTHON"))}
    return subprocess.run(
        ["bash", "-c", words, "bash", *command, "--run_dir=run", *flags],
        cwd=place, capture_output=True, text=True, env=kept, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        '"$@" | head -1; exit ${PIPESTATUS[0]}',
        'PYTHONIOENCODING=ascii exec "$@" --run_dir=run/ün',
        "exec \"$@\" --run_dir=$'run/\\xff'",
    ],
)
def test_a_run_is_trained_whatever_the_streams_are(tmp_path, data_dir, words):
    ended = shell(tmp_path, data_dir, words)
    assert (ended.returncode, ended.stderr) == (0, "")
    ((table),) = tmp_path.rglob("losses.csv")
    assert rows_in(table.parent) == 50
    if "PYTHONIOENCODING" in words:
        assert re.search(done(50, r"run/\\xfcn"), ended.stdout)


def test_a_working_folder_that_is_gone_is_told_in_one_line(tmp_path, data_dir):
    ended = shell(tmp_path, data_dir, 'mkdir gone; cd gone; rmdir ../gone; exec "$@"')
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("main.py: --run_dir=run: cannot use run (No such file or directory)")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_at_any_moment_of_the_start_leaves_no_traceback(tmp_path, data_dir, number):
    """From its first imports on: before, Python itself starts, and no program of ours runs yet."""
    words = [sys.executable, ROOT / "main.py", f"--data_dir={data_dir}", *ENDLESS]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    for moment in (0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.2, 1.6, 2.4, 3.2):
        process = subprocess.Popen(
            words, cwd=tmp_path, text=True, preexec_fn=as_from_a_terminal, **pipes
        )
        while "/numpy/" not in Path(f"/proc/{process.pid}/maps").read_text():
            time.sleep(0.001)
        time.sleep(moment)
        process.send_signal(number)
        shown, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors, moment
        assert process.returncode in (-number, 128 + number)
        if process.returncode > 0:
            assert shown.splitlines()[-1].startswith(f"Stopped by {number.name}")
