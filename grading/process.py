"""A child process that runs a student's class.

It is started, limited, asked and ended from here.
"""

import contextlib
import json
import os
import queue
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from support import user_code
from support.errors import INSTALL, UserError, one_line

WORKER = Path(__file__).with_name("worker.py")
START_SECONDS = 180  # for Python and TensorFlow, before any of the student's code
LONGEST_ANSWER = 2**24  # bytes
# In the environment of the child and of all that it starts: the child's working folder.
FOLDER_VARIABLE = "GRADING_FOLDER"
# The child's environment; the rest of this process's may contain passwords.
KEPT = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONUSERBASE"),
    *("SYSTEMROOT", "USERPROFILE", "APPDATA", "TEMP"),  # Windows
)
SETTINGS = {
    "CUDA_VISIBLE_DEVICES": "",
    "MALLOC_ARENA_MAX": "2",
    "PYTHONDONTWRITEBYTECODE": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # As many students as there are cores are marked at a time.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
}

_running: weakref.WeakSet = weakref.WeakSet()


class Raised(Exception):
    """An exception that the student's class raised, in one line."""


class Stopped(Exception):
    """The end of the child process: why, for the student to read."""


@dataclass(frozen=True)
class Limits:
    """Limits of what one student's class may use."""

    check_seconds: float = 30
    file_seconds: float = 300
    memory_gb: float = 4


class Process:
    """A child process for one student; it is started again after it was ended.

    `seconds_left` is what remains of the time for a student.
    """

    def __init__(self, limits: Limits):
        self.seconds_left = limits.file_seconds
        self._limits = limits
        self._child = None
        self._ended = False
        _running.add(self)

    @contextlib.contextmanager
    def check(self, folder: Path) -> Iterator[None]:
        """Context manager that limits its questions to the time for one check.

        `folder` is where the student's files are.
        """
        self._folder = folder
        if not self._child:
            self._start()
        began = time.monotonic()
        self._allowed = self._limits.check_seconds
        self._check_ends = began + min(self._allowed, self.seconds_left)
        try:
            yield
        finally:
            self.seconds_left -= time.monotonic() - began

    def ask(self, operation: str, **arguments):
        """Returns the answer of `measurements.Bench`.

        Raises:
          Raised: If the class raised an exception.
          Stopped: If there was no answer, and the process has been ended.
        """
        if not self._child:
            raise Stopped("its process has ended")
        token = secrets.token_hex(8)
        seconds = max(0.001, self._check_ends - time.monotonic())
        question = [token, operation, arguments, seconds]
        answer = self._exchange(json.dumps(question, default=np.ndarray.tolist), seconds)
        # What a class writes by itself is not an answer: it does not know the question's token.
        if not isinstance(answer, dict) or answer.get("token") != token:
            self._close()
            raise Stopped("it sent an unexpected answer")
        if "error" in answer:
            raise Raised(one_line(answer["error"])[:400])
        return answer.get("value")

    def end(self):
        """Ends the process for good: no question starts it again."""
        self._ended = True
        self._close()

    def _start(self):
        if self._ended:
            raise Stopped("marking was stopped")
        self._working_folder = tempfile.TemporaryDirectory(
            prefix="grading-", ignore_cleanup_errors=True
        )
        self._stack = tempfile.TemporaryFile()  # noqa: SIM115
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        kept[FOLDER_VARIABLE] = self._working_folder.name
        self._child = subprocess.Popen(
            [sys.executable, WORKER, str(self._limits.memory_gb)],
            cwd=self._working_folder.name,
            env={**kept, **SETTINGS},
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stack,
            start_new_session=True,
        )
        self._allowed = None
        self._check_ends = time.monotonic() + START_SECONDS
        try:
            self.ask("get_ready")
        except Stopped as error:
            self._stack.seek(0)
            text = self._stack.read().decode(errors="replace")
            found = re.findall(r"^\w+Error: .*", text, re.MULTILINE) or [error]
            raise UserError(
                f"the process for a class cannot start; run {INSTALL}, or try a larger "
                f"--memory_gb ({found[-1]})"
            ) from None

    def _exchange(self, question, seconds):
        """Sends a line and returns the answer's JSON.

        Raises:
          Stopped: If there is none; the process has then been ended.
        """
        child, answers = self._child, queue.SimpleQueue()
        # A class that has stopped its process, or given the pipe to another, blocks the thread.
        threading.Thread(target=_talk, args=[child, question, answers], daemon=True).start()
        try:
            line = answers.get(timeout=seconds)
            if line:
                return json.loads(line)
            code = child.wait(2)
        except queue.Empty:
            reason = self._describe_time_out()
        except (ValueError, RecursionError, subprocess.TimeoutExpired):
            reason = "its process sent something that is not an answer"
        else:
            reason = f"its process ended itself with exit code {code}: does the file exit?"
            if code < 0:
                names = {each.value: each.name for each in signal.Signals}
                reason = (
                    f"ended by {names.get(-code, f'signal {-code}')}: more than the "
                    f"{self._limits.memory_gb:g} GB of memory allowed, or a recursion without end?"
                )
        self._close()
        raise Stopped(reason)

    def _describe_time_out(self):
        """Returns the time that was exceeded, and the student's line at nine tenths of it."""
        seconds = f"{self._allowed or START_SECONDS:g} s"
        if self._allowed and self.seconds_left < self._allowed:
            seconds = f"the {self._limits.file_seconds:g} s that a file has"
        self._stack.seek(0)
        *_, stack = self._stack.read().decode(errors="replace").split("Timeout (")
        line = user_code.find_line(stack, [self._folder])
        where = f", line {line.number} of {one_line(line.path.name)}" if line else ""
        return f"still running after {seconds}{where}: an endless loop?"

    def _close(self):
        """Ends the child process, its group, and what else still has its environment."""
        child, self._child = self._child, None
        if child is None:
            return
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended
                os.killpg(child.pid, signal.SIGKILL)
        else:
            tree = ["taskkill", "/T", "/F", "/PID", str(child.pid)]
            subprocess.run(tree, capture_output=True)
        child.wait()
        # Those that left the group; only Linux has /proc.
        mark = f"{FOLDER_VARIABLE}={self._working_folder.name}".encode()
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                if mark in environment.read_bytes().split(b"\0"):
                    os.kill(int(environment.parent.name), signal.SIGKILL)
        child.stdin.close()
        child.stdout.close()
        self._working_folder.cleanup()


def _talk(child, question, answers):
    """Sends a line to the child and puts its answer.

    Nothing is put if the child has closed its pipes.
    """
    line, answer = f"{question}\n".encode(), bytearray()
    try:
        while line:
            line = line[child.stdin.write(line) :]
        while not answer.endswith(b"\n") and len(answer) < LONGEST_ANSWER:
            piece = child.stdout.read(2**20)
            if not piece:
                break
            answer += piece
    except (OSError, ValueError):  # closed by the child, or by this process
        answer.clear()
    answers.put(bytes(answer))


def end_all():
    """Ends every child process of this program."""
    for process in list(_running):
        process.end()
