"""What is shown and where: closed and broken streams, signals, and progress off a terminal."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from test_resume import PROGRESS

from support import errors, terminal

ROOT = Path(terminal.__file__).parent.parent


def python(program, *, shell='exec "$@"', wait=True, **settings):
    """Runs a program on `support.terminal` through a shell; -> (code, stderr, stdout)."""
    program = (
        f"import os, signal, sys, time\nfrom support import terminal\n{textwrap.dedent(program)}"
    )
    words = ["bash", "-c", shell, "bash", sys.executable, "-c", program]
    started = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=as_from_a_terminal, **settings,
    )  # fmt: skip
    return (*started.communicate(timeout=60), started.returncode)[::-1] if wait else started


def as_from_a_terminal():
    """Stops act as they do by default, also where the tests run in the background."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


# Streams.

SPEAKS = """
    terminal.open_streams()
    for number in range(3):
        print("out", number)
        print("err", number, file=sys.stderr)
        time.sleep(0.05)
    opened = os.open("/dev/zero", os.O_RDONLY)
    assert opened > 2, opened
    terminal.check_output()
    os._exit(7)
"""
OUT, ERR = ("".join(f"{name} {n}\n" for n in range(3)) for name in ("out", "err"))


@pytest.mark.parametrize(
    ("shell", "stdout", "stderr"),
    [
        ('exec "$@"', OUT, ERR),
        ('exec "$@" >&-', "", ERR),
        ('exec "$@" 2>&-', OUT, ""),
        ('exec "$@" >&- 2>&- <&-', "", ""),
        ('exec "$@" 2>/dev/full', OUT, ""),
        ('"$@" 2> >(true); exit $?', OUT, ""),
        ('"$@" | head -1; exit ${PIPESTATUS[0]}', "out 0\n", ERR),
        ('"$@" | true; exit ${PIPESTATUS[0]}', "", ERR),
    ],
)
def test_the_work_goes_on_whoever_listens(shell, stdout, stderr):
    assert python(SPEAKS, shell=shell) == (7, stderr, stdout)


def test_output_that_cannot_be_written_is_told_at_the_end():
    code, stderr, _ = python(SPEAKS, shell='exec "$@" >/dev/full')
    assert code == 1
    assert stderr.startswith(ERR)
    assert stderr.endswith("UserError: cannot write to standard output: No space left on device\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_character_is_too_much_for_an_encoding(encoding):
    program = r"""
        terminal.open_streams()
        for stream in (sys.stdout, sys.stderr):
            print("Fr\u00e9chet \u2013 \udcff", file=stream)
    """
    told = {
        "ascii": "Fr\\xe9chet \\u2013 \\udcff\n",
        "latin-1": "Fréchet \\u2013 \\udcff\n",
        "utf-8": "Fréchet \u2013 \\udcff\n",
    }[encoding]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    shown = python(program, env=environment, encoding=encoding)
    assert shown == (0, told, told)


def test_a_bar_whose_reader_goes_away_goes_on(tmp_path):
    program = """
        terminal.open_streams()
        terminal._SECONDS_BETWEEN_LINES = 0
        bar = terminal.Bar(5)
        for _ in range(5):
            bar.advance(1, "note")
            time.sleep(0.05)
        bar.line("a line")
        bar.close()
        print("done")
    """
    assert python(program, shell='"$@" 2> >(head -1 >&2); exit $?')[2] == "done\n"
    assert python(program, shell='exec "$@" 2>&-') == (0, "", "done\n")


# Signals.

STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
WAITS = """
    with terminal.stoppable():
        try:
            print("ready", flush=True)
            time.sleep(60)
        {handler}
"""
HANDLERS = {
    "passed on": "finally:\n            pass",
    "turned into another": 'except BaseException:\n            raise ImportError("lost")',
}


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS.keys())
def test_a_signal_ends_in_its_line_and_code_whatever_becomes_of_it(number, handler):
    process = python(WAITS.format(handler=handler), wait=False)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=60) == (f"Stopped by {number.name}.\n", "")
    assert process.returncode == 128 + number


def test_a_closed_terminal_stops_nothing_under_nohup():
    program = """
        with terminal.stoppable():
            print("ready", flush=True)
            sys.stdin.readline()
            print("done")
    """
    process = python(program, shell='trap "" HUP; exec "$@"', wait=False, stdin=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert process.communicate("\n", timeout=60) == ("done\n", "")
    assert process.returncode == 0


def test_other_errors_stay_what_they_are():
    with pytest.raises(KeyError), terminal.stoppable():
        raise KeyError
    before = [signal.getsignal(number) for number in STOPS]
    with terminal.on_stop(print):
        assert before != [signal.getsignal(number) for number in STOPS]
    assert before == [signal.getsignal(number) for number in STOPS]


# What is told.


def test_lines_hold_nothing_that_commands_a_terminal():
    assert errors.one_line("a\nb\t c\x1b[2J\x9b\u202e\udcff é") == (
        "a b c\\x1b[2J\\x9b\\u202e\\udcff é"
    )


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (errors.UserError("--a: b"), "--a: b"),
        (OSError(28, "No space left on device", "a.png"), "a.png: No space left on device"),
        (OSError(24, "Too many open files", "a"), "a: Too many open files (see `ulimit -n`)"),
        (OSError(27, "File too large"), "cannot go on: File too large (see `ulimit -f`)"),
        (MemoryError(), "not enough memory (MemoryError): free some, or lower --batch_size or --n"),
        (ImportError("a.so: failed to map segment from shared object"), "not enough memory (Imp"),
        (OSError(5, "Input/output error"), None),
        (ImportError("no module"), None),
        (ValueError("ours"), None),
    ],
)
def test_what_a_user_can_mend_is_told_in_a_line(error, line):
    told = errors.user_message(error)
    assert told is None if line is None else told.startswith(line)


def test_a_signal_whose_exception_is_lost_still_ends_the_process():
    code, errors, shown = python("""
        import contextlib
        with terminal.stoppable():
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            time.sleep(50)
    """)
    assert (code, errors, shown) == (130, "", "Stopped by SIGINT.\n")


# Progress where stderr is no terminal.


def test_lines_of_progress_tell_rate_and_time_left_since_the_first_advance(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_SECONDS_BETWEEN_LINES", 0)
    bar = terminal.Bar(10_000, start=1000)
    time.sleep(0.3)  # compiling
    bar.advance(4000, "d_loss 0.100, g_loss 1.000")
    time.sleep(0.1)
    bar.advance(500, "d_loss 0.200, g_loss 2.000")
    bar.close()
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert re.fullmatch(PROGRESS, line)
    found = re.fullmatch(
        r"step 5,500 of 10,000, ([\d,.]+) steps/s, 00:(\d\d) to go, d_loss 0\.200, g_loss 2\.000",
        line,
    )
    rate = float(found[1].replace(",", ""))
    assert 500 < rate <= 5000
    assert int(found[2]) == int(4500 / rate)


def test_lines_of_progress_of_slow_things_tell_seconds(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_SECONDS_BETWEEN_LINES", 0)
    bar = terminal.Bar(9, unit="run")
    bar.advance(1)
    bar._began -= 8
    bar.advance(2, "dcgan")
    bar.close()
    assert capsys.readouterr().err == "run 3 of 9, 4.0 s/run, 00:24 to go, dcgan\n"


@pytest.mark.slow
def test_keras_is_imported_for_those_alone_who_ask_for_it():
    program = """
import sys
from support import terminal
terminal.import_tensorflow()
assert not {"keras", "matplotlib"} & sys.modules.keys()
import tensorflow as tf
from tensorflow.keras import layers
assert tf.keras.layers.Dense is layers.Dense
assert issubclass(tf.keras.optimizers.Adam, tf.keras.optimizers.Optimizer)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
