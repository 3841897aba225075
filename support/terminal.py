"""The terminal: streams that may be closed, signals and progress bars.

TensorFlow's import, which prints there, is here as well.
"""

import contextlib
import errno
import io
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # in a notebook without ipywidgets, the bar is one of text
    from tqdm.auto import tqdm

from support.errors import INSTALL, UserError, broken_package

_SECONDS_BETWEEN_LINES = 5
_OLDEST_TENSORFLOW = (2, 18)  # as in requirements.txt
# A pipe whose reader has exited, as `head` does (EINVAL on Windows), and a closed terminal.
_READER_GONE = (errno.EPIPE, errno.EINVAL, errno.EIO)


class _Stream(io.TextIOWrapper):
    """A text stream that discards its text after a failure.

    Attributes:
      failure: The `OSError` that ended the output, or None.
    """

    failure = None

    def write(self, text):
        try:
            super().write(text)
            super().flush()
        except OSError as error:
            self.failure = error
            # Its buffer would fail again, which Python 3.13 reports when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
        return len(text)


def open_streams() -> None:
    """Prepares stdout and stderr for any encoding, and for a reader that exits early.

    Characters that a stream cannot encode are written as escapes.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        encoding = stream.encoding
        setattr(sys, name, _Stream(stream.detach(), encoding, errors="backslashreplace"))


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

    The signal raises KeyboardInterrupt in the body. However the body ends then, the process does:
    an import may replace the exception with another one.
    """
    received = []

    def interrupt(number):
        received.append(number)
        raise KeyboardInterrupt(number)

    try:
        with on_stop(interrupt):
            yield
    finally:
        if received:
            exit_for_signal(received[0])


def exit_for_signal(number: int) -> None:
    """Prints the signal's name and ends the process at once.

    The exit code is 128 + number.
    """
    with contextlib.suppress(OSError):
        os.write(1, f"Stopped by {signal.Signals(number).name}.\n".encode())
    os._exit(128 + number)


@contextlib.contextmanager
def hide_stderr() -> Iterator[None]:
    """Context manager that hides what C++ and Python write to stderr."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)


def import_tensorflow() -> None:
    """Imports TensorFlow without its log lines, and without Keras.

    From then on TensorFlow logs only fatal errors. A signal during the import ends the process,
    except in a notebook.

    Raises:
      UserError: If TensorFlow, or a package that it needs, is missing, broken or too old.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    signals = contextlib.nullcontext() if in_notebook() else on_stop(exit_for_signal)
    # TensorFlow imports one of these modules last and ignores an ImportError, which None causes.
    # That saves a third of the time; Keras is imported when `tf.keras` is used.
    hidden = {"keras.src.optimizers", "tf_keras.src.optimizers"} - sys.modules.keys()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        # TensorFlow logs a few lines before it reads its own log level.
        with signals, hide_stderr():
            import tensorflow
            import tensorflow.compat.v1
    except Exception as error:
        raise broken_package("TensorFlow", error) from error
    finally:
        for name in hidden:
            del sys.modules[name]
    if tuple(map(int, tensorflow.__version__.split(".")[:2])) < _OLDEST_TENSORFLOW:
        raise UserError(f"TensorFlow {tensorflow.__version__} is too old; run {INSTALL}")
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
        self._file = sys.stdout if in_notebook() else sys.stderr
        on_terminal = self._file.isatty()
        self._plain = not on_terminal and not in_notebook()
        size: dict[str, int] = {"dynamic_ncols": True}
        if on_terminal and os.get_terminal_size(self._file.fileno()).columns == 0:
            size = {"ncols": 100, "nrows": 25}  # in a container; tqdm would show nothing
        if self._plain:  # tqdm only counts
            size = {"mininterval": _SECONDS_BETWEEN_LINES}
        drawn = io.StringIO() if self._plain else self._file
        self._bar = tqdm(total=total, initial=start, unit=unit, file=drawn, **size)
        self._shown: float | None = None

    def advance(self, count: int, note: str = "") -> None:
        """Adds `count` units to those done, and shows a note with them."""
        bar, now = self._bar, time.monotonic()
        bar.set_postfix_str(note, refresh=False)
        if self._shown is None:
            # Most of the time until now was compilation: the rate counts from here.
            bar.unpause()
            bar.initial = bar.n = bar.last_print_n = bar.n + count
            bar.refresh()
            self._shown = now
            return
        bar.update(count)
        if self._plain and now - self._shown >= _SECONDS_BETWEEN_LINES:
            self._shown = now
            state = bar.format_dict
            rate = (state["n"] - state["initial"]) / state["elapsed"]
            unit = state["unit"]
            pace = f"{rate:,.1f} {unit}s/s" if rate >= 1 else f"{1 / rate:,.1f} s/{unit}"
            left = tqdm.format_interval((bar.total - bar.n) / rate)
            self.line(f"{unit} {bar.n:,} of {bar.total:,}, {pace}, {left} to go, {note}")

    def line(self, text: str) -> None:
        """Prints a line above the bar."""
        tqdm.write(text, file=self._file)

    def close(self) -> None:
        """Ends the bar, which stays visible."""
        self._bar.close()
