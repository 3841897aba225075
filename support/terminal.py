"""What the user sees on the terminal: our lines only, and progress where there is any."""

import contextlib
import errno
import os
import resource
import signal
import sys
import tempfile
import threading
import time

from tqdm import tqdm

from support.errors import UserError, user_message

_SECONDS_BETWEEN_LINES = 5
_SECONDS_TO_TIDY_UP = 3
_SIZE = {"ncols": 100, "nrows": 25}
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ADDRESS_SPACE = 2.5e9  # bytes: where a small training succeeded; with 2.2e9 it was aborted
# A pipe whose reader has seen enough, as `head` has, and a terminal that was closed.
_READER_GONE = (errno.EPIPE, errno.EIO)


class _Stream:
    """A text stream that falls silent once it cannot be written to, so that the work goes on.

    failure: the OSError that silenced it, or None.
    """

    def __init__(self, stream):
        self._stream = stream
        self.failure = None

    def write(self, text):
        """-> the number of characters."""
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
            _to_nowhere(self._stream.fileno())  # what waits in its buffer as well


def open_streams():
    """Readies stdout and stderr for any terminal, pipe or disk, and for none.

    Characters that they cannot encode are written as escapes.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: no file that is opened later may get its number
            _to_nowhere(number)
    sys.stdout, sys.stderr = _Stream(_writer(sys.stdout, 1)), _Stream(_writer(sys.stderr, 2))


def _writer(stream, number):
    """-> a text file for a stream of that number; nowhere for one that Python found closed."""
    place, encoding = (os.devnull, "utf-8") if stream is None else (number, stream.encoding)
    return open(place, "w", 1, encoding, "backslashreplace", closefd=stream is None)


def check_output():
    """UserError if stdout failed for another reason than a reader who has seen enough."""
    failure = getattr(sys.stdout, "failure", None)
    if failure is not None and failure.errno not in _READER_GONE:
        raise UserError(f"cannot write to standard output: {failure.strerror}")


def _to_nowhere(number):
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)


@contextlib.contextmanager
def on_stop(handle):
    """SIGINT, SIGTERM and SIGHUP call handle(number) in the body, and then what they did before.

    Under `nohup`, SIGHUP stays ignored. Outside the main thread, which alone may take signals,
    they do what they did.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in _STOPS if not (n == signal.SIGHUP and _ignored(n))]
    old = {n: signal.signal(n, lambda number, _: handle(number)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _ignored(number):
    return signal.getsignal(number) == signal.SIG_IGN


@contextlib.contextmanager
def stoppable():
    """A signal raises KeyboardInterrupt in the body, and what it ends in is `exit_for_signal`.

    On its way out through an import, the exception may have become another one; called back from
    C++ it may be lost, therefore `exit_for_signal` comes in any case, a few seconds later.
    """
    received = []

    def interrupt(number):
        received.append(number)
        late = threading.Timer(_SECONDS_TO_TIDY_UP, exit_for_signal, [number])
        late.daemon = True
        late.start()
        raise KeyboardInterrupt(number)

    try:
        with on_stop(interrupt):
            yield
    except BaseException:
        if received:
            exit_for_signal(received[0])
        raise


def exit_for_signal(number):
    """Says which signal it was and ends the process at once, with the exit code of that signal.

    A handler for where an exception could be lost on its way out, as in TensorFlow's import.
    """
    with contextlib.suppress(OSError):
        os.write(1, f"Stopped by {signal.Signals(number).name}.\n".encode())
    os._exit(128 + number)


@contextlib.contextmanager
def capture_stderr():
    """Holds back what libraries write to stderr, and writes it after all before a traceback.

    TensorFlow logs a few lines while it is imported, before it looks at its own log level.
    """
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException as error:
            if user_message(error) is None:
                held.seek(0)
                os.write(stderr, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


def import_tensorflow():
    """Imports TensorFlow without its log lines; from then on it logs fatal errors alone.

    A signal on the way ends the process, unless it is a notebook's, which others go on using.
    UserError where it would have too little memory, of which it may die without an exception.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY and most < _ADDRESS_SPACE:
        raise UserError(
            f"the limit of memory is {most / 1e6:,.0f} MB (see `ulimit -v`): TensorFlow wants at "
            f"least {_ADDRESS_SPACE / 1e6:,.0f} MB to itself"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    signals = contextlib.nullcontext() if in_notebook() else on_stop(exit_for_signal)
    with signals, capture_stderr(), _keras_on_demand():
        import tensorflow

    tensorflow.get_logger().setLevel("ERROR")


def in_notebook():
    """Whether this process runs the cells of a notebook."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel")


class _Cell:
    """A text file whose last line is shown in a notebook, each in the place of the one before."""

    encoding = "utf-8"

    def __init__(self):
        self._shown = None

    def write(self, text):
        line = {"text/plain": text.strip()}
        if self._shown and text.strip():  # and not what clears a terminal's line
            self._shown.update(line, raw=True)
        elif text.strip():
            self._shown = sys.modules["IPython"].display.display(line, raw=True, display_id=True)

    def flush(self):
        """Nothing waits."""


@contextlib.contextmanager
def _keras_on_demand():
    """TensorFlow's import leaves Keras, a third of it, to whoever first asks for `tf.keras`."""
    name = "keras.src.optimizers"  # what TensorFlow imports last, and does without if it is missing
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None
    try:
        yield
    finally:
        del sys.modules[name]


class Bar:
    """A progress bar on stderr; where that is no terminal, a plain line every few seconds.

    In a notebook the bar is a line of the cell's output.
    """

    def __init__(self, total, *, start=0, unit="step"):
        self._total, self._done, self._unit = total, start, unit
        self._cell = _Cell() if in_notebook() else None
        self._plain = not (self._cell or sys.stderr.isatty())
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
        """A line of its own: above the bar if there is one, in a notebook below it."""
        if self._cell:
            print(text)
        else:
            tqdm.write(text, file=sys.stderr)

    def close(self):
        """Leaves the bar as it stands."""
        self._bar.close()

    def _new_bar(self, *, leave):
        # A terminal may not know its size, as in a container; tqdm would then show nothing.
        sized = not (self._plain or self._cell) and os.get_terminal_size(2).columns > 0
        return tqdm(
            total=self._total, initial=self._done, unit=self._unit, leave=leave, file=self._cell,
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
