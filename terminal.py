"""What the user sees on the terminal: our lines only, and progress where there is any."""

import contextlib
import os
import signal
import sys
import tempfile
import time

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 5
_SIZE = {"ncols": 100, "nrows": 25}
_STOPS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def on_stop(handle):
    """SIGINT and SIGTERM call handle(number) in the body, and after it whatever they did before."""
    old = {n: signal.signal(n, lambda number, _: handle(number)) for n in _STOPS}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def interrupt(number):
    """A handler for `on_stop`: raises KeyboardInterrupt(number) for either signal."""
    raise KeyboardInterrupt(number)


def leave(number):
    """Says which signal it was and ends the process at once, with the exit code of that signal.

    A handler for where an exception could be lost on its way out, as in TensorFlow's import.
    """
    os.write(1, f"Stopped by {signal.Signals(number).name}.\n".encode())
    os._exit(128 + number)


@contextlib.contextmanager
def stderr_held_back():
    """Holds back what libraries write to stderr, and writes it after all if the body raises.

    TensorFlow logs a few lines while it is imported, before it looks at its own log level.
    """
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


def import_tensorflow():
    """Imports TensorFlow without its log lines; from then on it logs fatal errors alone."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with on_stop(leave), stderr_held_back():
        import tensorflow

    tensorflow.get_logger().setLevel("ERROR")


class Bar:
    """A progress bar on stderr; where that is no terminal, a plain line every few seconds."""

    def __init__(self, total, *, start=0, unit="step"):
        self._total, self._done, self._unit = total, start, unit
        self._plain = not sys.stderr.isatty()
        self._bar = self._new_bar(leave=False)
        self._began = None

    def advance(self, count, note=""):
        """Adds to what is done; note: what to show beside it."""
        self._done += count
        if self._began is None:
            self._start_clock(note)
            return
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)
        now = time.monotonic()
        if self._plain and now - self._shown >= _SECONDS_BETWEEN_LINES:
            self._shown = now
            self.line(self._plain_line(now, note))

    def line(self, text):
        """A line of its own, above the bar if there is one."""
        tqdm.write(text, file=sys.stderr)

    def close(self):
        """Leaves the bar as it stands."""
        self._bar.close()

    def _new_bar(self, *, leave):
        # A terminal may not know its size, as in a container; tqdm would then show nothing.
        sized = not self._plain and os.get_terminal_size(2).columns > 0
        return tqdm(
            total=self._total, initial=self._done, unit=self._unit, leave=leave,
            disable=self._plain, **{"dynamic_ncols": True} if sized else _SIZE,
        )  # fmt: skip

    def _start_clock(self, note):
        """The rate counts from here, for most of the time before the first advance is compiling."""
        self._began = self._shown = time.monotonic()
        self._start = self._done
        self._bar.close()
        self._bar = self._new_bar(leave=True)
        self._bar.set_postfix_str(note)

    def _plain_line(self, now, note):
        rate = (self._done - self._start) / (now - self._began)
        left = tqdm.format_interval((self._total - self._done) / rate)
        pace = f"{rate:,.1f} {self._unit}s/s" if rate >= 1 else f"{1 / rate:,.1f} s/{self._unit}"
        return f"{self._unit} {self._done:,} of {self._total:,}, {pace}, {left} to go, {note}"
