"""What the user sees on the terminal: our lines only, and progress where there is any."""

import contextlib
import os
import sys
import tempfile
import time

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 5


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
    with stderr_held_back():
        import tensorflow

    tensorflow.get_logger().setLevel("ERROR")


class Bar:
    """A progress bar on stderr; where that is no terminal, a plain line every few seconds."""

    def __init__(self, total, *, start=0, unit="step"):
        self._unit = unit
        self._plain = not sys.stderr.isatty()
        self._bar = tqdm(
            total=total, initial=start, unit=unit, unit_scale=False, disable=self._plain,
            dynamic_ncols=True,
        )  # fmt: skip
        self._total, self._start, self._done = total, start, start
        self._began = self._shown = time.monotonic()

    def advance(self, count, note=""):
        """Adds to what is done; note: what to show beside it."""
        self._done += count
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

    def _plain_line(self, now, note):
        rate = (self._done - self._start) / (now - self._began)
        left = (self._total - self._done) / rate if rate else float("inf")
        return (
            f"{self._unit} {self._done:,} of {self._total:,}, {rate:,.0f} {self._unit}s/s, "
            f"{left:,.0f} s to go, {note}"
        )
