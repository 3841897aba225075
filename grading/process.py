"""A student's class in a process of its own: started, limited, asked and ended from here."""

import contextlib
import functools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

from grading import crowd
from grading.candidate import place_in
from grading.messages import STACK, Broken, Channel, pair, printable
from support.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 180  # for Python and TensorFlow, before any of the student's code
# What a student's code sees of the environment, which may hold passwords besides.
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONUSERBASE")
# As many students as there are cores are marked at a time.
ONE_THREAD = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}


_running = weakref.WeakSet()


class Raised(Exception):
    """What the student's class raised, in one line."""


class Stopped(Exception):
    """The student's process is no more; in words for the student."""


@dataclass(frozen=True)
class Limits:
    """What one student's class may take."""

    check_seconds: float = 30
    file_seconds: float = 300
    memory_gb: float = 4
    processes: int = crowd.MOST


class Process:
    """Runs one class after another, started when first asked and again when it was ended."""

    def __init__(self, limits):
        self._limits = limits
        self._chosen = None
        self._started = None
        self._channel = None
        self._folder = None
        self._left = limits.file_seconds
        self._check_ends = None
        self._crowd = None
        self._ended = False
        _running.add(self)

    def choose(self, path, class_name):
        """The class that the next questions are about, with the whole time for a file."""
        self._chosen = {"path": str(path), "class_name": class_name}
        self._left = self._limits.file_seconds
        if self._channel:
            self._ask("load", self._chosen)

    @property
    def out_of_time(self):
        """Whether the class has used up the time for a file."""
        return self._left <= 0

    @contextlib.contextmanager
    def check(self):
        """Limits what is asked in the body to the time for one check, and that for a file."""
        self._start_if_needed()
        began = time.monotonic()
        self._check_ends = began + min(self._limits.check_seconds, self._left)
        try:
            yield
        finally:
            self._check_ends = None
            self._left -= time.monotonic() - began

    def ask(self, operation, **arguments):
        """The answer of a `worker.Bench`; Raised, or Stopped and the process is ended."""
        if not self._channel:
            raise Stopped("its process has ended")
        return self._ask(operation, arguments)

    def close(self):
        """Ends the process, whatever it does, and all that it has started."""
        if self._started:
            # Also what the class has started, unless it left the group on purpose.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._started.pid, signal.SIGKILL)
            self._started.wait()
            self._channel.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        self._started = self._channel = self._folder = None

    def end(self):
        """Ends the process for good: no question starts it again."""
        self._ended = True
        self.close()

    def _start_if_needed(self):
        if self._channel:
            return
        if self._ended:
            raise Stopped("marking was stopped")
        self._folder = tempfile.mkdtemp(prefix="grading-")
        mine, theirs = pair()
        self._channel = Channel(mine)
        with theirs:
            self._started = self._spawn(theirs.fileno())
        self._crowd = crowd.Watch(self._started, self._limits.processes)
        try:
            self._receive(time.monotonic() + START_SECONDS)
        except Stopped as error:
            memory = f"does it need more than --memory_gb={self._limits.memory_gb:g}?"
            raise UserError(f"the process for a class cannot start: {error} {memory}") from None
        self._ask("load", self._chosen)

    def _spawn(self, descriptor):
        worker = ["-m", "grading.worker", str(descriptor), str(self._limits.memory_gb)]
        python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(
            [*isolation(), sys.executable, *worker],
            cwd=self._folder,
            env={**environment(), **ONE_THREAD, "PYTHONPATH": python_path},
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _ask(self, operation, arguments):
        ends = self._check_ends or time.monotonic() + self._limits.check_seconds
        token = secrets.token_hex(8)
        answer = self._receive(ends, [token, operation, arguments, ends - time.monotonic()])
        # What a class writes by itself is no answer: it does not know the question's token.
        if not isinstance(answer, dict) or answer.get("token") != token:
            self.close()
            raise Stopped("it answered what was not asked")
        if "error" in answer:
            raise Raised(printable(answer["error"])[:400])
        return answer.get("value")

    def _receive(self, ends, request=None):
        """The next message after a request; Stopped if there is none in time."""
        try:
            if request:
                self._channel.send(request)
            return self._channel.receive(max(0.001, ends - time.monotonic()))
        except TimeoutError:
            words = self._too_long()
            self.close()
            raise Stopped(words) from None
        except Broken as error:
            raise Stopped(self._last_words(error)) from None

    def _too_long(self):
        seconds = f"{self._limits.check_seconds:g} s"
        if self._left < self._limits.check_seconds:
            seconds = f"the {self._limits.file_seconds:g} s that a file has"
        return f"still running after {seconds}{self._where()}: an endless loop?"

    def _where(self):
        """The student's innermost line just before the time was over, if the process told."""
        # The class may have put something else there, even a pipe that nobody writes to.
        try:
            found = os.open(Path(self._folder) / STACK, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return ""
        with open(found, "rb") as stack:
            return place_in((stack.read(100_000) or b"").decode(errors="replace"))

    def _last_words(self, error):
        """Ends the process -> how it ended by itself."""
        try:
            code = self._started.wait(2)
        except subprocess.TimeoutExpired:
            code = None
        self.close()
        if self._crowd.found:
            return f"more than {self._limits.processes} processes at a time"
        if code is None:
            return f"its process sent {error} in the place of an answer"
        # A shell's and unshare's way to tell a signal, and Python's.
        number = -code if code < 0 else code - 128
        if number > 0:
            memory = f"more than the {self._limits.memory_gb:g} GB of memory allowed"
            return f"ended by {signal_name(number)}: {memory}, or a recursion without end?"
        return f"its process ended itself with exit code {code}: is there an exit?"


def end_all():
    """Ends every process of this program."""
    for process in list(_running):
        process.end()


def environment():
    """The environment of a process in which a student's code runs."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**kept, **quiet, "CUDA_VISIBLE_DEVICES": ""}


def signal_name(number):
    """`9 -> "SIGKILL"`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@functools.cache
def isolation():
    """The command that cuts a process off from the network and other processes, [] if none can."""
    command = shutil.which("unshare")
    for user in ([], ["--map-root-user"]):
        flags = [command, *user, "--net", "--pid", "--fork", "--kill-child"]
        if command and subprocess.run([*flags, "true"], capture_output=True).returncode == 0:
            return flags
    return []
