"""Run folders: the only reader and writer of config.json, checkpoints and the tables of a run.

A checkpoint is one `.npz` of all variables, written under another name and then renamed, so a kill
leaves the old ones whole; the zip's checksums and the number of variables tell a damaged one. It
needs no graph to be read.
"""

import csv
import errno
import fcntl
import os
import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from atomic import LEFTOVERS, replacing
from errors import UserError
from training.configuration import Configuration

LOSSES = ("step", "d_loss", "g_loss")
_KEPT = 3
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DAMAGE = (
    OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class RunError(UserError):
    """A run folder that cannot be used as asked; one line that says what to do instead."""


class RunFolder:
    """The files of one run; nothing is created before `create` or a writer is called."""

    def __init__(self, path):
        self.path = Path(path)

    def __str__(self):
        return str(self.path)

    def file(self, name):
        """-> the path of a file or folder in the run folder."""
        return self.path / name

    # Opening.

    @contextmanager
    def prepared(self, configuration, *, new, say):
        """Holds the folder for a run of that configuration, made if it is not there.

        new: set an old run aside first, whatever it is. say: takes lines for the user.
        RunError, with the folder untouched, if it is another configuration's run, something
        else's folder, in another process's hands, or no folder to write in. RunError as well
        for a disk that fills up in the body.
        """
        with ExitStack() as held:
            with self._explained():
                if new and self.exists():
                    with self.lock():
                        say(f"The old run is kept as {self._set_aside()}.")
                if not self.exists():
                    self.path.mkdir(parents=True, exist_ok=True)
                held.enter_context(self.lock())
                self._begin(configuration, say)
            with self._explained(_FULL):
                yield

    def exists(self):
        """Whether there is a run; RunError for a folder of something else."""
        if self.file("config.json").is_file():
            return True
        if self.path.exists() and not self._is_bare():
            raise RunError(
                f"--run_dir={self.path} exists but is no run folder (it has no config.json): "
                "name another one"
            )
        return False

    def configuration(self):
        """-> the Configuration in config.json; RunError if there is none or it is not readable."""
        try:
            return Configuration.from_json(self.file("config.json").read_text())
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(
                f"--run_dir={self.path}: no readable config.json ({_reason(error)}); "
                "wanted the folder of a run that `python main.py` made"
            ) from error

    @contextmanager
    def lock(self):
        """Holds the folder for this process; RunError if another one has it."""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise RunError(
                f"--run_dir={self.path} is in use by another process: wait for it or stop it, "
                "or name another folder"
            ) from error
        try:
            yield
        finally:
            os.close(handle)

    def _is_bare(self):
        """Whether it is a folder that holds nothing, or what a run killed at birth left there."""
        return self.path.is_dir() and all(path.match(LEFTOVERS) for path in self.path.iterdir())

    def _begin(self, configuration, say):
        if self.file("config.json").exists():
            there = self.configuration()
            # Before there are results, as after a refusal by the trainer, nothing can be mixed up.
            if self._checkpoints() or self.file("losses.csv").exists():
                there.check_continued_by(configuration, self.path, say)
                configuration = there.extended_to(configuration)
        for leftover in self.path.rglob(LEFTOVERS):
            leftover.unlink()
        with replacing(self.file("config.json")) as temporary:
            temporary.write_text(configuration.to_json())
        self.file("checkpoints").mkdir(exist_ok=True)

    @contextmanager
    def _explained(self, numbers=None):
        """Turns OSErrors, or those of the given numbers alone, into RunErrors."""
        try:
            yield
        except OSError as error:
            if numbers and error.errno not in numbers:
                raise
            raise RunError(self._explanation(error)) from error

    def _explanation(self, error):
        if error.errno in _FULL:
            return (
                f"disk full: --run_dir={self.path} cannot grow ({error.strerror}); "
                f"{self.last_checkpoint()}; free some space and run the same command"
            )
        return (
            f"--run_dir={self.path}: cannot use {error.filename} ({error.strerror}); "
            "name a folder that can be made and written to"
        )

    def _set_aside(self):
        """Renames the folder to the first free `<name>.old-N`; -> that path."""
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
            number += 1
        return self.path.rename(aside)

    # Checkpoints.

    def save_checkpoint(self, step, state, name=None):
        """Writes {variable's name: ndarray} as of a step, then drops all but the newest few."""
        name = name or f"step-{step:09d}"
        with replacing(self.file("checkpoints") / f"{name}.npz") as temporary:
            np.savez(temporary, step=np.int64(step), variables=np.int64(len(state)), **state)
        for old in self._checkpoints()[:-_KEPT]:
            old.unlink()

    def last_checkpoint(self):
        """-> words for an error message: where the newest checkpoint stands."""
        paths = self._checkpoints()
        if not paths:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is at step {int(paths[-1].stem.removeprefix('step-')):,}"

    def load_checkpoint(self, warn):
        """-> (step, state) of the newest whole checkpoint, or None if none was ever written.

        warn: called with a line for each damaged one. RunError if none is whole.
        """
        paths = self._checkpoints()
        for path in reversed(paths):
            try:
                return read_checkpoint(path)
            except _DAMAGE as error:
                warn(f"{path} is damaged ({_reason(error)}): trying the one before.")
        if paths:
            raise RunError(
                f"--run_dir={self.path}: none of its checkpoints is whole; start afresh with --new "
                "(the folder is kept under another name)"
            )
        return None

    def load_named_checkpoint(self, name):
        """-> (step, state) of `checkpoints/<name>.npz`; RunError if it is missing or damaged."""
        folder = self.file("checkpoints")
        try:
            return read_checkpoint(folder / f"{name}.npz")
        except FileNotFoundError as error:
            there = ", ".join(sorted(path.stem for path in folder.glob("*.npz"))) or "none yet"
            raise RunError(f"--checkpoint={name}: {folder} has no such one, but {there}") from error
        except _DAMAGE as error:
            raise RunError(f"--checkpoint={name}: it is damaged ({_reason(error)})") from error

    def losses(self):
        """-> the rows (step, d_loss, g_loss) of losses.csv, none if it is not there yet."""
        return Table(self.file("losses.csv"), LOSSES).read()

    def _checkpoints(self):
        return sorted(self.file("checkpoints").glob("step-*.npz"))


class Table:
    """A CSV file of a run with one row a step or an epoch, appended to and cut back on resume."""

    def __init__(self, path, columns):
        self._path = Path(path)
        self._header = ",".join(columns) + "\n"
        self._file = None
        self._width = len(columns)

    def open(self, last):
        """Starts after the row whose first column is `last` or less; -> the rows up to there."""
        kept = [row for row in self.read() if row[0] <= last]
        with replacing(self._path) as temporary, open(temporary, "w") as file:
            file.write(self._header)
            file.writelines(map(_line, kept))
        self._file = open(self._path, "a")  # noqa: SIM115 - stays open for the run
        return kept

    def append(self, rows):
        """rows: sequences of one int and float32 values."""
        self._file.writelines(map(_line, rows))

    def flush(self):
        """Puts all rows on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self):
        """Ends the writing; what cannot be flushed any more is dropped."""
        try:
            self._file.close()
        except OSError as error:
            if error.errno not in _FULL:
                raise

    def read(self):
        """-> all whole rows that are in the file, if there is one."""
        if not self._path.exists():
            return []
        with open(self._path, newline="", errors="replace") as file:
            rows = [_parsed(row, self._width) for row in csv.reader(file)]
        return [row for row in rows if row is not None]


def load_state(model, state):
    """Sets a model's variables to a checkpoint's; RunError if those are of other nets."""
    try:
        model.load_state(state)
    except ValueError as error:
        raise RunError(
            f"the checkpoint does not fit the recipe as it is now ({error}): use the version of "
            "this project that trained it, or train again in another --run_dir"
        ) from error


def read_checkpoint(path):
    """-> (step, {name: ndarray}) of a checkpoint file; raises what a damaged file raises."""
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        state = {name: arrays[name] for name in arrays.files}
    step, variables = int(state.pop("step")), int(state.pop("variables"))
    if len(state) != variables:
        raise ValueError(f"{len(state)} variables, wanted {variables}")
    return step, state


def _line(row):
    first, *rest = row
    return ",".join([str(int(first)), *(f"{value:.9g}" for value in rest)]) + "\n"


def _parsed(row, width):
    """A row's numbers, or None for the header and for a line cut short."""
    try:
        return [int(row[0]), *map(float, row[1:])] if len(row) == width else None
    except ValueError:
        return None


def _reason(error):
    return f"{type(error).__name__}: {error}".splitlines()[0]
