"""The terminal: streams that may be closed, signals and progress bars.

TensorFlow's import, which prints there, is here as well.
"""

import contextlib
import errno
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # in a notebook without ipywidgets, the bar is one of text
    from tqdm.auto import tqdm

from support.errors import UserError, user_message

_SECONDS_BETWEEN_LINES = 5
_SECONDS_TO_CLEAN_UP = 3
# A pipe whose reader has exited, as `head` does (EINVAL on Windows), and a closed terminal.
_READER_GONE = (errno.EPIPE, errno.EINVAL, errno.EIO)


class _Stream:
    """A text stream that discards its text after a failure, so that the work continues.

    Attributes:
      failure: The `OSError` that ended the output, or None.
    """

    def __init__(self, stream):
        self._stream = stream
        self.failure = None

    def write(self, text):
        self._try(self._stream.write, text)
        return len(text)

    def flush(self):
        self._try(self._stream.flush)

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def _try(self, function, *arguments):
        try:
            function(*arguments)
        except OSError as error:
            self.failure = error
            # Its buffer would fail again, which Python 3.13 reports when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def open_streams() -> None:
    """Prepares stdout and stderr for any encoding, and for a reader that exits early.

    Characters that a stream cannot encode are written as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(  # type: ignore[union-attr]
            errors="backslashreplace", line_buffering=True
        )
    sys.stdout, sys.stderr = _Stream(sys.stdout), _Stream(sys.stderr)


def check_output() -> None:
    """Checks that stdout has not failed, unless its pipe or terminal was closed.

    Raises:
      UserError: If it has.
    """
    failure = getattr(sys.stdout, "failure", None)
    if failure is not None and failure.errno not in _READER_GONE:
        raise UserError(f"cannot write to standard output: {failure.strerror}")


@contextlib.contextmanager
def on_stop(handle: Callable[[int], None]) -> Iterator[None]:
    """Context manager in which SIGINT, SIGTERM and SIGHUP call `handle(number)`.

    SIGHUP stays ignored under `nohup`. Only the main thread can handle signals; in another one
    nothing changes.
    """
    numbers = []
    if threading.current_thread() is threading.main_thread():
        numbers = [signal.SIGINT, signal.SIGTERM]
        hangup = getattr(signal, "SIGHUP", None)  # not on Windows
        if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
            numbers.append(hangup)
    before = {n: signal.signal(n, lambda number, _: handle(number)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Context manager that ends the process after a signal.

    The signal raises KeyboardInterrupt in the body.

    However the body ends after a signal, `exit_for_signal` follows: an import may replace the
    exception with another one. C++ code that calls Python may discard it, therefore a thread
    ends the process after a few seconds in any case.
    """
    received = []

    def interrupt(number):
        received.append(number)
        exits = threading.Timer(_SECONDS_TO_CLEAN_UP, exit_for_signal, [number])
        exits.daemon = True
        exits.start()
        raise KeyboardInterrupt(number)

    try:
        with on_stop(interrupt):
            yield
    except BaseException:
        if received:
            exit_for_signal(received[0])
        raise


def exit_for_signal(number: int) -> None:
    """Prints the signal's name and ends the process at once.

    The exit code is 128 + number.
    """
    with contextlib.suppress(OSError):
        os.write(1, f"Stopped by {signal.Signals(number).name}.\n".encode())
    os._exit(128 + number)


@contextlib.contextmanager
def capture_stderr() -> Iterator[None]:
    """Context manager that hides stderr, except before a traceback.

    It hides what C++ and Python write.
    """
    with tempfile.TemporaryFile() as captured:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException as error:
            if user_message(error) is None:
                captured.seek(0)
                os.write(stderr, captured.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


@contextlib.contextmanager
def _keras_on_demand():
    """Context manager that keeps TensorFlow from importing Keras.

    That saves a third of the time of its import.

    TensorFlow imports one of these modules last and ignores an ImportError. Keras is imported
    when `tf.keras` is used.
    """
    names = ("keras.src.optimizers", "tf_keras.src.optimizers")
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # None makes an import fail
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def import_tensorflow() -> None:
    """Imports TensorFlow without its log lines.

    From then on it logs only fatal errors.

    A signal during the import ends the process, except in a notebook.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    signals = contextlib.nullcontext() if in_notebook() else on_stop(exit_for_signal)
    # TensorFlow logs a few lines before it reads its own log level.
    with signals, capture_stderr(), _keras_on_demand():
        import tensorflow

    tensorflow.get_logger().setLevel("ERROR")


def in_notebook() -> bool:
    """Returns whether this process runs the cells of a notebook."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel")


class Bar:
    """A progress bar on stderr, or a plain line every few seconds.

    The line replaces the bar if stderr is not a terminal.

    In a notebook the bar is part of the cell's output.

    Args:
      total: Number of units of the complete work.
      start: Number of units that are already done.
      unit: Name of one unit.
    """

    def __init__(self, total: int, *, start: int = 0, unit: str = "step"):
        self._total, self._start, self._done, self._unit = total, start, start, unit
        self._began: float | None = None
        self._file = sys.stdout if in_notebook() else sys.stderr
        on_terminal = self._file.isatty()
        self._plain = not on_terminal and not in_notebook()
        size: dict[str, int] = {"dynamic_ncols": True}
        if on_terminal and os.get_terminal_size(self._file.fileno()).columns == 0:
            size = {"ncols": 100, "nrows": 25}  # in a container; tqdm would show nothing
        self._bar = tqdm(
            total=total, initial=start, unit=unit, file=self._file, disable=self._plain, **size
        )

    def advance(self, count: int, note: str = "") -> None:
        """Adds `count` units to those done, and shows a note with them."""
        self._done += count
        now = time.monotonic()
        if self._began is None:
            # Most of the time until now was compilation: the rate counts from here.
            self._began = self._shown = now
            self._start = self._done
            self._bar.unpause()
            self._bar.initial = self._bar.n = self._bar.last_print_n = self._done
            self._bar.set_postfix_str(note)
            return
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)
        if self._plain and now - self._shown >= _SECONDS_BETWEEN_LINES:
            self._shown = now
            rate = (self._done - self._start) / (now - self._began)
            pace = f"{rate:,.1f} {self._unit}s/s"
            if rate < 1:
                pace = f"{1 / rate:,.1f} s/{self._unit}"
            left = tqdm.format_interval((self._total - self._done) / rate)
            done = f"{self._unit} {self._done:,} of {self._total:,}"
            self.line(f"{done}, {pace}, {left} to go, {note}")

    def line(self, text: str) -> None:
        """Prints a line above the bar."""
        tqdm.write(text, file=self._file)

    def close(self) -> None:
        """Ends the bar, which stays visible."""
        self._bar.close()
