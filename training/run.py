"""The folder of a run: its lock, checkpoints and tables.

Importing this module does not import TensorFlow.
"""

import contextlib
import dataclasses
import errno
import hashlib
import math
import os
import re
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from support.errors import FULL, RunError, reason
from support.files import LEFTOVERS, atomic_write, remove_stale_files, write_json
from training.options import Configuration

LOSS_COLUMNS = ("step", "d_loss", "g_loss")
RESERVED_NAMES = {"step", "file", "allow_pickle"}  # np.savez's own names and ours
_LOCK = ".lock"
_CHECKPOINTS_KEPT = 3
_STEP_NAME = re.compile(r"step-([0-9]{9}|[1-9][0-9]{9,18})\.npz")
_REMEDY = "correct it, or move it away and rerun the command, which then starts a new table"


class RunFolder:
    """The files of one run.

    Nothing is created before `open_for_training` or a writer is called.
    """

    def __init__(self, path):
        self.path = Path(path).expanduser()

    def __str__(self):
        return str(self.path)

    def file(self, name):
        """Returns the path of a file or folder in the run folder."""
        return self.path / name

    def configuration(self, flag="--run_dir"):
        """Returns the `Configuration` in config.json.

        Args:
          flag: The flag that an error names.

        Raises:
          RunError: If it cannot be read.
        """
        path = self.file("config.json")
        if self.path.is_file():
            raise RunError(f"{flag}={self.path} is a file; name a run folder")
        try:
            return Configuration.from_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise RunError(
                f"{flag}={self.path} is not a run folder (no config.json); name the folder of a "
                "run that `python main.py` made"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(
                f"cannot read {path}: {reason(error)}; restore the file, or train again with "
                "--new, which renames the folder"
            ) from error

    @contextlib.contextmanager
    def open_for_training(self, configuration, *, new, log):
        """Context manager that locks the folder for a run; creates it if missing.

        Args:
          configuration: The run's `Configuration`.
          new: Whether to rename the folder of an existing run first.
          log: Function of a line for the user.

        Raises:
          RunError: If the folder contains a different run or something else, is used by another
            process, or cannot be written; it is then untouched. Also if the disk becomes full while
            the folder is open.
        """
        with contextlib.ExitStack() as stack:
            with self._errors():
                if new and self._has_run():
                    self._move_to_backup(log)
                # Before the lock, whose file would be the first change of a rejected folder.
                self._resume(configuration, log=lambda line: None)
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(self.file(_LOCK), timeout=0))
                configuration = self._resume(configuration, log)
                remove_stale_files(self.path)
                write_json(self.file("config.json"), dataclasses.asdict(configuration))
                self.file("checkpoints").mkdir(exist_ok=True)
            with self._errors(only_full=True):
                yield

    def save_checkpoint(self, step, state, name=None):
        """Writes {variable name: ndarray} as of a step; keeps the last three checkpoints.

        Args:
          name: File name without its suffix; by default the step's.
        """
        path = self.file("checkpoints") / f"{name or f'step-{step:09d}'}.npz"
        with atomic_write(path) as temporary:
            # The step last: damage of the zip's directory that hides variables hides it too.
            np.savez(temporary, **state, step=np.int64(step))
        # Later checkpoints must be damaged; otherwise the run would have resumed from them.
        earlier = [each for number, each in self._checkpoints() if number <= step]
        for old in earlier[:-_CHECKPOINTS_KEPT]:
            old.unlink()

    def load_checkpoint(self, log):
        """Loads the newest valid checkpoint.

        Args:
          log: Function of a line for each damaged checkpoint.

        Returns:
          (step, {variable name: ndarray}), or None if there is none.

        Raises:
          RunError: If there are checkpoints, but none is valid.
        """
        found = self._checkpoints()
        for number, path in reversed(found):
            try:
                return _read_checkpoint(path, number)
            except RunError as error:
                is_first = number == found[0][0]
                log(f"Warning: {error}{'' if is_first else '; trying the checkpoint before it'}.")
        if found:
            raise RunError(
                f"no valid checkpoint in {self.file('checkpoints')}; train again with --new, which "
                "renames the folder"
            )
        return None

    def load_named_checkpoint(self, name):
        """Loads `checkpoints/NAME.npz`, such as `best`.

        Raises:
          RunError: If it is missing or damaged.
        """
        folder = self.file("checkpoints")
        names = sorted(path.stem for path in folder.glob("*.npz"))
        if name not in names:
            hint = "; train with --eval_every to get best" if name == "best" else ""
            known = f"one of {', '.join(names)}" if names else f"in {folder}, which has none yet"
            raise RunError(f"--checkpoint must be {known}, got {name}{hint}")
        return _read_checkpoint(folder / f"{name}.npz")

    def last_checkpoint(self):
        """Returns text for an error message: which checkpoint is the newest."""
        found = self._checkpoints()
        return f"the last checkpoint is at step {found[-1][0]:,}" if found else "no checkpoint yet"

    def losses(self):
        """Returns the rows (step, d_loss, g_loss) of losses.csv; none if it is missing."""
        return read_table(self.file("losses.csv"), LOSS_COLUMNS)

    def _resume(self, configuration, log):
        """Returns the configuration to train with.

        Raises:
          RunError: If the folder contains a different run or something else.
        """
        checkpoints = self._checkpoints()
        if self._has_run():
            existing = self.configuration()
            if checkpoints or self.file("losses.csv").exists():
                last = checkpoints[-1][0] if checkpoints else 0
                return existing.resumed_by(configuration, last, self.path, log)
        return configuration

    def _has_run(self):
        """Returns whether the folder has a run.

        Raises:
          RunError: If it has something else.
        """
        if self.file("config.json").is_file():
            return True
        if self.path.exists():
            # A run that was killed while it started may have left these files.
            ours = (_LOCK, LEFTOVERS)
            if not self.path.is_dir() or not all(
                any(each.match(pattern) for pattern in ours) for each in self.path.iterdir()
            ):
                raise RunError(
                    f"--run_dir={self.path} is not a run folder (no config.json); choose another"
                )
        return False

    def _move_to_backup(self, log):
        self.path = Path(os.path.abspath(self.path))  # `.` would be the renamed folder
        number = 1
        while (backup := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
            number += 1
        with FileLock(self.file(_LOCK), timeout=0):
            pass  # no other process uses it
        os.replace(self.path, backup)
        log(f"Moved the existing run to {backup}.")

    def _checkpoints(self):
        """Returns (step, path) of all checkpoints with a step in their name, oldest first."""
        paths = self.file("checkpoints").glob("step-*.npz")
        named = [(_STEP_NAME.fullmatch(path.name), path) for path in paths]
        return sorted((int(match[1]), path) for match, path in named if match)

    @contextlib.contextmanager
    def _errors(self, only_full=False):
        """Context manager that turns OSErrors, or only a full disk's, into RunErrors."""
        try:
            yield
        except Timeout as error:
            raise RunError(
                f"--run_dir={self.path} is used by another process; wait for it, stop it, or "
                "choose another folder"
            ) from error
        except OSError as error:
            if error.errno in FULL:
                what = "file too large" if error.errno == errno.EFBIG else "disk full"
                raise RunError(
                    f"{what}: cannot write {error.filename or self.path} ({error.strerror}); "
                    f"{self.last_checkpoint()}; free some space and rerun the command"
                ) from error
            if only_full:
                raise
            raise RunError(
                f"--run_dir={self.path}: cannot use {error.filename or 'it'} ({error.strerror}); "
                "choose a folder that can be created and written"
            ) from error


class Table:
    """A CSV file with one row per step, epoch or score, in the order of the steps.

    Attributes:
      rows: All rows, each of an integer step and float32 values.
    """

    def __init__(self, path, columns, last):
        """Opens the table to append rows after the step `last`.

        Later rows, which a killed run wrote after its last checkpoint, are removed.

        Args:
          columns: Names; the first is the step.

        Raises:
          RunError: If a row up to there is damaged; the file is then untouched.
        """
        self.rows = read_table(path, columns, last)
        with atomic_write(path) as temporary:
            temporary.write_text(f"{','.join(columns)}\n{_csv(self.rows)}", encoding="utf-8")
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def append(self, rows):
        """Appends rows, each of an integer step and float32 values."""
        self.rows.extend(rows)
        self._file.write(_csv(rows))

    def flush(self):
        """Writes all rows to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self):
        """Closes the file."""
        self._file.close()


def read_table(path, columns, last=math.inf):
    """Returns the complete rows of a `Table` up to `last`; none if it is missing.

    Raises:
      RunError: If one is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")

    def damaged(number, expected):
        line = lines[number - 1][:60]
        return RunError(
            f"{path} is damaged in line {number}, {line!r}: expected {expected}; {_REMEDY}"
        )

    lines.pop()  # empty, or cut short
    if lines and lines[0].strip() != ",".join(columns):
        raise damaged(1, ",".join(columns))
    rows, before = [], 0
    for number, line in enumerate(lines[1:], 2):
        if before >= last:
            break
        try:
            step, *values = line.split(",")
            row = [int(step), *map(float, values)]
            is_valid = len(row) == len(columns) and np.isfinite(row).all()
        except ValueError:
            is_valid = False
        if not is_valid or row[0] <= before:
            fields = f"{len(columns) - 1} finite numbers"
            raise damaged(number, f"a step above {before}, and {fields}")
        before = row[0]
        if before <= last:
            rows.append(row)
    return rows


def digest(state) -> str:
    """Returns a SHA-256 of the names, shapes, types and values in {name: ndarray}."""
    total = hashlib.sha256()
    for name, values in sorted(state.items()):
        values = np.ascontiguousarray(values)
        total.update(f"{name!r} {np.shape(values)} {values.dtype.str}\n".encode())
        total.update(values.tobytes())
    return total.hexdigest()


def _read_checkpoint(path, number=None):
    """Returns (step, {variable name: ndarray}).

    Raises:
      RunError: If the file is damaged, or not of step `number`.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:  # a zip, whose CRC shows damage
            state = {name: arrays[name] for name in arrays.files}
        step = state.pop("step")
        if step.shape or number not in (None, step):
            raise ValueError(f"expected step {number}, found {step}")
        return int(step), state
    except MemoryError:
        raise
    except Exception as error:  # the zip and array formats raise errors of many types
        # Damage can also point to a place outside the file, which is EINVAL.
        if getattr(error, "errno", None) not in (None, errno.EIO, errno.EINVAL):
            raise
        raise RunError(f"{path} is damaged ({reason(error)})") from error


def _csv(rows):
    """Returns the lines of rows, each of an integer step and float32 values."""
    return "".join(
        ",".join([str(int(step)), *(f"{value:.9g}" for value in values)]) + "\n"
        for step, *values in rows
    )
