"""Commands in processes of their own."""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

MAIN = (sys.executable, Path(__file__).resolve().parent.parent / "main.py")
PROGRESS = (
    r"step [\d,]+ of [\d,]+, [\d,.]+ (steps/s|s/step), [\d:]+ to go, d_loss -?\d.*, g_loss -?\d.*"
)
sends_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


class Ended(NamedTuple):
    code: int
    stdout: str
    stderr: str


def ended(code, stdout, stderr):
    """Returns how a command ended, without the progress lines of a slow machine."""
    return Ended(code, stdout, re.sub(rf"^{PROGRESS}\n", "", stderr, flags=re.M))


class Process:
    """A command in a folder, with pipes as its streams."""

    def __init__(self, place, *words, env=None):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._process = subprocess.Popen([*map(str, words)], cwd=place, env=env, text=True, **pipes)

    @property
    def running(self):
        return self._process.poll() is None

    def send(self, number):
        self._process.send_signal(number)

    def end(self, seconds=300):
        """Waits for its end, and ends it if it takes longer."""
        try:
            written = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            raise
        return ended(self._process.returncode, *written)


def wait_until(process, happened, seconds=200):
    """Waits for a condition while a process runs; fails if it ends or time is up first."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert process.running and time.monotonic() < deadline, process.end(10)
        time.sleep(0.005)
