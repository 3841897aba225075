"""Failing streams, signals, TensorFlow's import, bars, and error messages."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from processes import MAIN, Process

from support import errors, terminal

pty = pytest.importorskip("pty", reason="needs the shell and the terminals of Unix")
ROOT = Path(terminal.__file__).parent.parent


def start(program, *, shell='exec "$@"', **settings):
    """Starts a program that uses `support.terminal` through a shell."""
    imports = "import os, signal, sys, time\nfrom support import terminal\n"
    words = ["bash", "-c", shell, "bash", sys.executable, "-c", imports + textwrap.dedent(program)]
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **settings}
    return subprocess.Popen(words, cwd=ROOT, preexec_fn=reset_signals, **settings)


def reset_signals():
    """Restores the default actions, which differ if the tests run in the background."""
    for number in STOPS:
        signal.signal(number, signal.SIG_DFL)


def run(program, **settings):
    """Runs a program like `start`. Returns (exit code, stderr, stdout)."""
    process = start(program, **settings)
    out, err = process.communicate(timeout=60)
    return process.returncode, err, out


# Streams

SPEAKS = """
    terminal.open_streams()
    bar = terminal.Bar(1)
    for number in range(3):
        print("out", number)
        bar.line(f"err {number}")
        time.sleep(0.05)
    bar.close()
    terminal.check_output()
    sys.exit(7)
"""
OUT, ERR = ("".join(f"{name} {n}\n" for n in range(3)) for name in ("out", "err"))


@pytest.mark.parametrize(
    ("shell", "stdout", "stderr"),
    [
        ('exec "$@"', OUT, ERR),
        ('exec "$@" 2>/dev/full', OUT, ""),
        ('"$@" 2> >(true); exit $?', OUT, ""),
        ('"$@" | head -1; exit ${PIPESTATUS[0]}', "out 0\n", ERR),
        ('"$@" | true; exit ${PIPESTATUS[0]}', "", ERR),
    ],
)
def test_work_continues_after_a_reader_has_exited(shell, stdout, stderr):
    assert run(SPEAKS, shell=shell) == (7, stderr, stdout)


def test_output_on_a_full_disk_is_an_error_at_the_end():
    code, stderr, _ = run(SPEAKS, shell='exec "$@" >/dev/full')
    assert code == 1
    assert stderr.startswith(ERR)
    assert stderr.endswith("UserError: cannot write to standard output: No space left on device\n")


def test_characters_outside_an_encoding_are_escaped():
    encoding, expected = "latin-1", "Fréchet \\u2013 \\udcff\n"
    program = r"""
        terminal.open_streams()
        for stream in (sys.stdout, sys.stderr):
            print("Fr\u00e9chet \u2013 \udcff", file=stream)
    """
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    assert run(program, env=environment, encoding=encoding) == (0, expected, expected)


# Signals

STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
WAITS = """
    with terminal.stoppable():
        try:
            print("ready", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            {fate}
"""


@pytest.mark.parametrize(
    ("number", "fate"),
    [
        *((number, "raise") for number in STOPS),
        (signal.SIGINT, "raise ImportError"),
        (signal.SIGTERM, "pass"),
    ],
)
def test_a_signal_ends_the_process_whatever_becomes_of_its_exception(number, fate):
    process = start(WAITS.format(fate=fate))
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
    process = start(program, shell='trap "" HUP; exec "$@"', stdin=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert process.communicate("\n", timeout=60) == ("done\n", "")
    assert process.returncode == 0


def test_handlers_are_restored_and_other_errors_unchanged():
    before = [signal.getsignal(number) for number in STOPS]
    with pytest.raises(KeyError), terminal.stoppable():
        assert signal.getsignal(signal.SIGINT) != before[0]
        raise KeyError
    assert before == [signal.getsignal(number) for number in STOPS]


# Errors


def test_one_line_contains_nothing_that_controls_a_terminal():
    line = errors.one_line("a\nb\t c\x1b[2J\x9b\u202e\udcff é")
    assert line == "a b c\\x1b[2J\\x9b\\u202e\\udcff é"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.UserError("--a must be b"), "--a must be b"),
        (OSError(28, "No space left on device", "a.png"), "a.png: No space left on device"),
        (OSError(27, "File too large"), "cannot continue: File too large"),
        (MemoryError(), "not enough memory; free some, or lower --batch_size or --n"),
        (OSError(32, "Broken pipe"), None),
        (ImportError("no module"), None),
        (ValueError("ours"), None),
    ],
)
def test_only_errors_that_a_user_can_correct_have_a_message(error, message):
    actual = errors.user_message(error)
    assert actual is None if message is None else actual.startswith(message)


# Progress


def test_plain_lines_show_the_rate_since_the_first_advance(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_SECONDS_BETWEEN_LINES", 0)
    bar = terminal.Bar(10_000, start=1000)
    time.sleep(0.3)  # compiling
    bar.advance(4000, "d_loss 0.100, g_loss 1.000")
    time.sleep(0.1)
    bar.advance(500, "d_loss 0.200, g_loss 2.000")
    bar.close()
    shown = capsys.readouterr()
    assert shown.out == ""
    line = r"step 5,500 of 10,000, ([\d,.]+) steps/s, 00:(\d\d) to go, d_loss 0.200, g_loss 2.000\n"
    match = re.fullmatch(line, shown.err)
    rate = float(match[1].replace(",", ""))
    assert 500 < rate <= 5000
    assert int(match[2]) == int(4500 / rate)


def test_a_terminal_of_unknown_size_shows_a_bar():
    program = """
        assert os.get_terminal_size(2) == (0, 0)
        bar = terminal.Bar(500, start=100)
        bar.advance(100, "first")
        bar.line("a line")
        bar.advance(300, "last")
        bar.close()
    """
    ours, theirs = pty.openpty()
    assert start(program, stderr=theirs).wait(timeout=60) == 0
    shown = os.read(ours, 100_000).decode()
    assert all(text in shown for text in ("100/500", "a line\r\n"))
    assert re.search(r"500/500 \[00:0\d<00:00, +[\d.]+step/s, last\]", shown)


# TensorFlow


@pytest.mark.slow
def test_tensorflow_is_silent_and_imported_without_keras():
    program = """
        terminal.import_tensorflow()
        assert not {"keras", "tf_keras", "matplotlib"} & sys.modules.keys()
        import tensorflow as tf
        from tensorflow.keras import layers
        assert tf.keras.layers.Dense is layers.Dense
    """
    assert run(program) == (0, "", "")


OLD = """
import sys
__version__ = "2.9.1"
sys.modules["tensorflow.compat"] = sys.modules["tensorflow.compat.v1"] = sys.modules[__name__]
"""


@pytest.mark.parametrize(
    ("package", "content", "message"),
    [
        ("numpy", "raise ModuleNotFoundError('', name='numpy')", "numpy is not installed; run"),
        ("tensorflow", "raise TypeError('Descriptors\\nIf')", r"\(TypeError: Descriptors\)$"),
        ("tensorflow", "", "TensorFlow is broken; run python -m pip install --force-reinstall -r"),
        ("tensorflow", OLD, "TensorFlow 2.9.1 is too old; run python -m pip install -r req"),
        ("matplotlib", "1 / 0", "matplotlib, your matplotlibrc or MPLBACKEND, is broken; run"),
    ],
)
def test_missing_or_broken_package_is_one_line(tmp_path, package, content, message):
    """main.py finds the package in a folder on PYTHONPATH."""
    (tmp_path / package).mkdir(parents=True)
    (tmp_path / package / "__init__.py").write_text(content)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = Process(tmp_path, *MAIN, "--num_steps=1", env=environment).end()
    assert ended.code == 1
    (line,) = ended.stderr.splitlines()
    assert re.search(f"^main.py: .*{message}", line)
