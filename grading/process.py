"""A child process that runs a student's class.

It is started, limited, asked and ended from here.
"""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from support import user_code
from support.errors import INSTALL, UserError, one_line

WORKER = Path(__file__).with_name("worker.py")
START_SECONDS = 180  # for Python and TensorFlow, before any of the student's code
LONGEST_ANSWER = 2**24  # bytes
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


class Raised(Exception):
    """An exception that the student's class raised, in one line."""


class Stopped(Exception):
    """The end of the child process: why, for the student to read."""


class Process:
    """A child process for one student; it is started again after it was ended.

    Args:
      check_seconds: Time limit of a check.
      memory_gb: Memory limit.
    """

    def __init__(self, check_seconds: float = 30, memory_gb: float = 4):
        self._check_seconds, self._memory_gb = check_seconds, memory_gb
        self._child = None
        self._ended = False

    def begin_check(self, folder: Path):
        """Starts the time for one check; `folder` is where the student's files are."""
        self._folder = folder
        if not self._child:
            self._start()
        self._allow(self._check_seconds)

    def _allow(self, seconds):
        self._allowed, self._deadline = seconds, time.monotonic() + seconds

    def ask(self, operation: str, **arguments):
        """Returns the answer of `measurements.Bench`.

        Raises:
          Raised: If the class raised an exception.
          Stopped: If there was no answer, and the process has been ended.
        """
        if not self._child:
            raise Stopped("its process has ended")
        seconds = max(0.001, self._deadline - time.monotonic())
        question = json.dumps([operation, arguments, seconds], default=np.ndarray.tolist)
        child, answers = self._child, queue.SimpleQueue()
        # A class that has stopped its process, or given the pipe to another, blocks the thread.
        threading.Thread(target=_talk, args=[child, question, answers], daemon=True).start()
        try:
            if line := answers.get(timeout=seconds):
                answer = json.loads(line)
                if "error" in answer:
                    raise Raised(one_line(answer["error"])[:400])
                return answer["value"]
            code = child.wait(2)
        except queue.Empty:
            reason = self._describe_time_out()
        except (ValueError, TypeError, LookupError, RecursionError, subprocess.TimeoutExpired):
            reason = "its process sent something that is not an answer"
        else:
            reason = f"its process ended itself with exit code {code}: does the file exit?"
            if code < 0:
                names = {each.value: each.name for each in signal.Signals}
                reason = (
                    f"ended by {names.get(-code, f'signal {-code}')}: more than the "
                    f"{self._memory_gb:g} GB of memory allowed, or a recursion without end?"
                )
        self._close()
        raise Stopped(reason)

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
        self._child = subprocess.Popen(
            [sys.executable, WORKER, str(self._memory_gb)],
            cwd=self._working_folder.name,
            env={**kept, **SETTINGS},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stack,
            bufsize=0,
            start_new_session=True,
        )
        self._allow(START_SECONDS)
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

    def _describe_time_out(self):
        """Returns the time that was exceeded, and the student's line at nine tenths of it."""
        self._stack.seek(0)
        *_, stack = self._stack.read().decode(errors="replace").split("Timeout (")
        line = user_code.find_line(stack, [self._folder])
        where = f", line {line.number} of {one_line(line.path.name)}" if line else ""
        return f"still running after {self._allowed:g} s{where}: an endless loop?"

    def _close(self):
        """Ends the child process and its group."""
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
