"""The folder of a run: its configuration, lock, checkpoints and tables.

Importing this module does not import TensorFlow.
"""

import dataclasses
import errno
import hashlib
import importlib.metadata
import json
import math
import os
import re
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from input_data import NUM_CLASSES
from models import custom_class, recipes
from support.errors import FULL, RunError, UserError, reason
from support.files import LEFTOVERS, atomic_write, remove_stale_files, write_text

FORMAT = 2  # of run folders; 1 had networks.json and no format number
LOSSES = ("step", "d_loss", "g_loss")
_LOCK = ".lock"
_CHECKPOINTS_KEPT = 3
_MAX_CHECKPOINT_BYTES = 2**32
_RESERVED = {"step", "file", "allow_pickle"}  # np.savez's own names and ours
_STEP_NAME = re.compile(r"step-([0-9]{9}|[1-9][0-9]{9,18})\.npz")
_ALL_CLASSES = tuple(range(NUM_CLASSES))
_PACKAGES = ("tensorflow", "numpy")
# A run can be extended: its number of steps is not part of what it is.
_EXTENDABLE = "num_steps"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Configuration:
    """Everything that a run's weights and tables follow from: config.json.

    On one machine they follow from it to the last byte.

    Attributes:
      recipe: Name of the recipe.
      overrides: {name: value} where the run differs from the recipe.
      hyperparameters: All of them, so that later changes of the defaults do not change the run.
      seed, engine, precision: As in `RunOptions`.
      data: Checksum of the images (and of the labels if they are learned).
      dataset: Name of a known data set, or None.
      classes: Labels that a conditional run learned.
      gan, gan_sha256: `FILE.py:CLASS` of a custom class and the file's SHA-256, or None.
      workers: Processes that train together.
      versions: {package: version} and the number of processor cores, for the record.
    """

    recipe: str
    hyperparameters: dict
    overrides: dict
    seed: int
    engine: str
    precision: str
    data: str
    dataset: str | None
    classes: tuple = _ALL_CLASSES
    gan: str | None = None
    gan_sha256: str | None = None
    workers: int = 1
    versions: dict = dataclasses.field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def of(cls, name, recipe, options, data, dataset, workers=1):
        """Returns the configuration of a run.

        Args:
          name: The recipe's name.
          recipe: The `Recipe` with its overrides.
          options: `RunOptions`.
          data: The `DataSet` to train on.
          dataset: Its name, or None if it is not a known one.
          workers: Number of processes that train together.

        Raises:
          UserError: If batches are larger than the data.
        """
        for field in ("batch_size", "pretraining_batch"):
            is_used = field == "batch_size" or recipe.pretraining
            if is_used and getattr(recipe, field) > data.num_examples:
                raise UserError(
                    f"--{field} must be at most {data.num_examples}, the number of training "
                    f"images, got {getattr(recipe, field)}"
                )
        versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
        # Sums over other numbers of cores differ in the last bits.
        versions["number of processor cores"] = str(processor_cores())
        labels = tuple(np.unique(data.file_labels).tolist())
        return cls(
            recipe=name,
            hyperparameters=recipes.values_of(recipe),
            overrides=recipes.difference(name, recipe),
            seed=options.seed,
            engine=options.engine,
            precision=options.precision,
            data=_checksum(data, recipe),
            dataset=dataset,
            classes=labels if recipe.conditional else _ALL_CLASSES,
            gan=options.gan,
            gan_sha256=custom_class.parse(options.gan)[2] if options.gan else None,
            workers=workers,
            versions=versions,
        )

    @classmethod
    def from_json(cls, text):
        """Returns the configuration in the text of a config.json.

        Raises:
          UserError, ValueError, TypeError, KeyError: If the text is not a configuration.
        """
        content = json.loads(text)
        if not isinstance(content, dict) or "hyperparameters" not in content:
            raise ValueError("expected the configuration of a run")
        if content.get("format") != FORMAT:
            raise UserError(
                f"its format is {content.get('format', 1)}, expected {FORMAT}: another version of "
                "this project made it; train again in another --run_dir, or with --new"
            )
        names = {field.name for field in dataclasses.fields(cls)}
        for name, value in content.items():
            if name not in names:
                raise ValueError(f"unknown key {name!r}")
            if name in ("hyperparameters", "overrides", "versions") and not isinstance(value, dict):
                raise ValueError(f"{name} must be an object")
        configuration = cls(**{**content, "classes": tuple(content["classes"])})
        recipe = configuration.full_recipe()  # whose values are tuples where JSON has lists
        return dataclasses.replace(
            configuration,
            hyperparameters=recipes.values_of(recipe),
            overrides=recipes.difference(configuration.recipe, recipe),
        )

    def to_json(self):
        """Returns the text for config.json."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def full_recipe(self):
        """Returns the `Recipe` with the run's hyperparameters."""
        return recipes.override(recipes.get(self.recipe), **self.hyperparameters)

    def folder_name(self):
        """Returns the default folder's name, such as `minimal-seed=1-batch_size=64`."""
        parts = []
        if self.dataset != "mnist":
            parts.append(self.dataset or f"data={self.data.removeprefix('crc32:')}")
        if self.gan:
            parts.append(f"{Path(self.gan.rpartition(':')[0]).stem}.{_class_name(self.gan)}")
        values = {name: v for name, v in self.overrides.items() if name != _EXTENDABLE}
        if self.engine != "auto":
            values["engine"] = self.engine
        if self.precision != "float32":
            values["precision"] = self.precision
        if self.seed:
            values["seed"] = self.seed
        return "-".join([*parts, self.recipe, *(f"{k}={_text(v)}" for k, v in values.items())])

    def check_is_continued_by(self, other, path, log):
        """Checks that `other` is the same run; its number of steps may differ.

        Other package versions are only logged, because their results may be the same.

        Raises:
          UserError: If it is a different run.
        """
        old, new = self._identity(), other._identity()
        differing = [
            f"{name} was {_text(old[name])}, now {_text(new[name])}"
            for name in new
            if old[name] != new[name]
        ]
        if differing:
            raise RunError(
                f"{path} contains a different run: {'; '.join(differing)}. Use the same flags, "
                "another --run_dir, or --new, which renames the existing run"
            )
        steps, new_steps = (each.hyperparameters[_EXTENDABLE] for each in (self, other))
        if other.hyperparameters["lr_cooldown"] and steps != new_steps:
            log(
                f"Note: --lr_cooldown counts back from the last step; --num_steps was {steps:,} "
                f"and is now {new_steps:,}."
            )
        changed = {"the number of processes": (self.workers, other.workers)} | {
            package: (self.versions.get(package), version)
            for package, version in other.versions.items()
        }
        for name, (before, now) in changed.items():
            if before != now:
                log(
                    f"Note: {name} was {before} when the run began and is {now} now; the run may "
                    "not be bit-identical to an uninterrupted one."
                )

    def continued_by(self, other, step):
        """Returns this run, after `step` steps, with the number of steps of `other`.

        The versions and the number of workers stay those with which the run began.
        """
        if other.hyperparameters[_EXTENDABLE] <= step:
            return self
        return dataclasses.replace(other, versions=self.versions, workers=self.workers)

    def check_class(self, gan):
        """Loads the custom class that made the run.

        Args:
          gan: `FILE.py:CLASS` from the command line, or None.

        Returns:
          A `CustomClass`, or None if the run is a recipe's own.

        Raises:
          UserError: If it is not the class of the run, or its file has changed.
        """
        if gan and not self.gan:
            raise UserError(
                f"--gan is not valid here: the run was trained with the recipe {self.recipe}"
            )
        if self.gan and not gan:
            raise UserError(
                f"the run was trained with a custom class: add --gan={self.gan} (no code is loaded "
                "from a run folder)"
            )
        if gan and _class_name(gan) != _class_name(self.gan):
            raise UserError(f"--gan must name the class {_class_name(self.gan)}, got {gan}")
        if gan and custom_class.parse(gan)[2] != self.gan_sha256:
            raise UserError(
                f"--gan={gan} is not the file that the run was trained with (its SHA-256 differs); "
                "restore that version, or train the new one in another --run_dir"
            )
        return custom_class.load(gan) if gan else None

    def check_data(self, data, path):
        """Checks that a `DataSet` has the images that the run was trained on.

        Raises:
          UserError: If it has not.
        """
        found = _checksum(data, self.full_recipe())
        if found != self.data:
            named = f"use --dataset={self.dataset}, or " if self.dataset else ""
            raise UserError(
                f"{path} does not contain the images that the run was trained on; {named}set "
                f"--data_dir to their folder (checksum {found}, expected {self.data})"
            )

    def facts(self):
        """Returns {name: text} of what all processes of a run must have in common."""
        facts = {**self._identity(), f"--{_EXTENDABLE}": self.hyperparameters[_EXTENDABLE]}
        facts |= {package: self.versions[package] for package in _PACKAGES}
        return {name: str(value) for name, value in facts.items()}

    def _identity(self):
        flags = {f"--{name}": getattr(self, name) for name in ("recipe", "seed", "engine")}
        return {
            **flags,
            "--precision": self.precision,
            "the checksum of the images (--data_dir)": self.data,
            "the class (--gan)": self.gan and _class_name(self.gan),
            "the SHA-256 of the class file (--gan)": self.gan_sha256,
            **{f"--{k}": v for k, v in self.hyperparameters.items() if k != _EXTENDABLE},
        }


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

    def configuration(self):
        """Returns the `Configuration` in config.json.

        Raises:
          RunError: If it cannot be read.
        """
        path = self.file("config.json")
        try:
            return Configuration.from_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise RunError(
                f"--run_dir={self.path} is not a run folder (it has no config.json); name the "
                "folder of a run that `python main.py` made"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(f"cannot read {path}: {reason(error)}") from error

    @contextmanager
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
        with self._disk_errors():
            if new and self.path.exists():
                self._move_to_backup(log)
            # Before the lock, whose file would be the first change of a folder that is refused.
            self._check(configuration, log=lambda line: None)
            self.path.mkdir(parents=True, exist_ok=True)
        with self._lock():
            with self._disk_errors():
                configuration = self._check(configuration, log)
                remove_stale_files(self.path)
                write_text(self.file("config.json"), configuration.to_json())
                self.file("checkpoints").mkdir(exist_ok=True)
            with self._disk_errors(only=FULL):
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
                step, state = _read_checkpoint(path)
                if step == number:
                    return step, state
                log(f"Warning: {path} is of step {step:,}; trying the checkpoint before it.")
            except RunError as error:
                log(f"Warning: {error}; trying the checkpoint before it.")
        if found:
            raise RunError(
                f"--run_dir={self.path}: none of its checkpoints is valid; start again with --new, "
                "which renames the folder"
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
            known = ", ".join(names) or "none yet"
            raise RunError(
                f"--checkpoint must name a file in {folder}, got {name}; it contains {known}"
            )
        return _read_checkpoint(folder / f"{name}.npz")

    def last_checkpoint(self):
        """Returns text for an error message: which checkpoint is the newest."""
        found = self._checkpoints()
        return f"the last checkpoint is at step {found[-1][0]:,}" if found else "no checkpoint yet"

    def losses(self):
        """Returns the rows (step, d_loss, g_loss) of losses.csv; none if it is missing."""
        return Table(self.file("losses.csv"), LOSSES, every=1).read()

    @contextmanager
    def _lock(self):
        lock = FileLock(self.file(_LOCK))
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RunError(
                f"--run_dir={self.path} is used by another process; wait for it, stop it, or "
                "choose another folder"
            ) from error
        except OSError as error:
            raise self._cannot_use(error) from error
        try:
            yield
        finally:
            lock.release()

    def _check(self, configuration, log):
        """Returns the configuration to train with.

        Raises:
          RunError: If the folder is unusable.
        """
        if self._has_run():
            existing = self.configuration()
            if self._checkpoints() or self.file("losses.csv").exists():
                last = max((step for step, _ in self._checkpoints()), default=0)
                # A run without a checkpoint starts again, on this machine.
                existing.check_is_continued_by(
                    configuration, self.path, log if last else lambda line: None
                )
                if last:
                    configuration = existing.continued_by(configuration, last)
        for name in ("checkpoints", "events", "progress"):
            if self.file(name).exists() and not self.file(name).is_dir():
                raise RunError(f"{self.file(name)} is not a folder; move it away")
        for path in [*self.path.glob("*.csv"), *self.path.glob("*.png"), *self.path.glob("*.gif")]:
            if not path.is_file():
                raise RunError(f"{path} is not a regular file; move it away")
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
            if not self.path.is_dir() or any(
                not any(each.match(pattern) for pattern in ours) for each in self.path.iterdir()
            ):
                raise RunError(
                    f"--run_dir={self.path} is not a run folder (no config.json); choose another"
                )
        return False

    def _move_to_backup(self, log):
        if not self._has_run():
            return
        if self.path.name in ("", ".."):
            raise RunError(f"--run_dir must name the folder itself with --new, got {self.path}")
        number = 1
        while (backup := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
            number += 1
        with self._lock():
            if os.name != "nt":
                os.replace(self.path, backup)
        if os.name == "nt":  # which cannot rename a folder with an open file, the lock
            os.replace(self.path, backup)
        log(f"Moved the existing run to {backup}.")

    def _checkpoints(self):
        """Returns (step, path) of all checkpoints with a step in their name, oldest first."""
        paths = self.file("checkpoints").glob("step-*.npz")
        named = [(_STEP_NAME.fullmatch(path.name), path) for path in paths]
        return sorted((int(match[1]), path) for match, path in named if match)

    @contextmanager
    def _disk_errors(self, only=None):
        """Context manager that turns OSErrors (with these numbers) into RunErrors."""
        try:
            yield
        except OSError as error:
            if only and error.errno not in only:
                raise
            raise self._cannot_use(error) from error

    def _cannot_use(self, error):
        if error.errno in FULL:
            what = "file too large" if error.errno == errno.EFBIG else "disk full"
            return RunError(
                f"{what}: cannot write {error.filename or self.path} ({error.strerror}); "
                f"{self.last_checkpoint()}; free some space and rerun the command"
            )
        return RunError(
            f"--run_dir={self.path}: cannot use {error.filename or 'it'} ({error.strerror}); "
            "choose a folder that can be created and written"
        )


class Table:
    """A CSV file with one row per step, epoch or score, in the order of the steps."""

    def __init__(self, path, columns, every=None):
        """Opens nothing yet.

        Args:
          columns: Names; the first is the step.
          every: Number of steps between two rows, if it is always the same.
        """
        self._path = Path(path)
        self._header = ",".join(columns)
        self._width = len(columns)
        self._every = every
        self._file = None

    def open(self, last):
        """Opens the table to append rows after the step `last`.

        Later rows, which a killed run wrote after its last checkpoint, are removed.

        Returns:
          The rows up to `last`.

        Raises:
          RunError: If a row up to there is damaged or missing; the file is then untouched.
        """
        rows = self._rows(last)
        if self._every and rows and rows[-1][0] + self._every <= last:
            raise RunError(
                f"{self._path} ends at step {rows[-1][0]:,}, but the run is at step {last:,}; "
                f"{self._remedy()}"
            )
        with atomic_write(self._path) as temporary:
            lines = [self._header, *map(_csv_line, rows)]
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
        return rows

    def append(self, rows):
        """Appends rows, each of an integer step and float32 values."""
        self._file.writelines(f"{_csv_line(row)}\n" for row in rows)

    def flush(self):
        """Writes all rows to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self):
        """Closes the file; a full disk is ignored, since no checkpoint needs these rows."""
        try:
            self._file.close()
        except OSError as error:
            if error.errno not in FULL:
                raise

    def read(self):
        """Returns all complete rows.

        Raises:
          RunError: If one is damaged.
        """
        return self._rows(math.inf)

    def _rows(self, last):
        if not self._path.exists():
            return []
        text = self._path.read_text(encoding="utf-8", errors="replace")
        header, *lines = text.split("\n")[:-1] or [self._header]  # the last line may be cut short
        if header.strip() != self._header:
            raise self._damaged(1, header, f"expected {self._header}")
        rows = []
        for number, line in enumerate(lines, 2):
            before = rows[-1][0] if rows else 0
            if before >= last:
                break
            row = _parse_csv(line, self._width)
            if row is None:
                fault = f"expected a step and {self._width - 1} finite numbers"
                raise self._damaged(number, line, fault)
            expected = before + self._every if self._every and rows else None
            if row[0] <= before or expected not in (None, row[0]):
                raise self._damaged(number, line, f"it follows step {before}")
            if row[0] > last:
                break
            rows.append(row)
        return rows

    def _damaged(self, number, line, fault):
        return RunError(
            f"{self._path} is damaged in line {number}, {line[:60]!r}: {fault}; {self._remedy()}"
        )

    def _remedy(self):
        return "correct it, or move it away and rerun the command, which then starts a new table"


def processor_cores() -> int:
    """Returns the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_names(names):
    """Checks that a checkpoint can hold variables of these names.

    Raises:
      UserError: If it cannot.
    """
    for name in sorted(_RESERVED & set(names)):
        raise UserError(f"a variable must not be called {name}: checkpoints use that name")


def digest(state) -> str:
    """Returns a SHA-256 of the names, shapes, types and values in {name: ndarray}."""
    total = hashlib.sha256()
    for name, values in sorted(state.items()):
        values = np.ascontiguousarray(values)
        total.update(f"{name!r} {np.shape(values)} {values.dtype.str}\n".encode())
        total.update(values.tobytes())
    return total.hexdigest()


def _read_checkpoint(path):
    """Returns (step, {variable name: ndarray}).

    Raises:
      RunError: If the file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # whose CRC shows a damaged file
            if sum(member.file_size for member in archive.infolist()) > _MAX_CHECKPOINT_BYTES:
                raise ValueError(f"it has more than {_MAX_CHECKPOINT_BYTES:,} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            state = {name: arrays[name] for name in arrays.files}
        step = state.pop("step")
        if step.shape or step.dtype.kind not in "iu" or step < 0:
            raise ValueError(f"expected a step, found {step.dtype} {list(step.shape)}")
        for name, values in state.items():
            if not np.isfinite(values).all():
                raise ValueError(f"{name} has NaN or infinity")
        return int(step), state
    except OSError as error:
        # Damage can also point to a place outside the file, which is EINVAL.
        if error.errno not in (None, errno.EIO, errno.EINVAL):
            raise
        raise RunError(f"{path} is damaged ({reason(error)})") from error
    except Exception as error:  # the zip and array formats raise errors of many types
        raise RunError(f"{path} is damaged ({reason(error)})") from error


def _checksum(data, recipe):
    checksum = zlib.crc32(data.pixels)
    if recipe.conditional:
        checksum = zlib.crc32(data.file_labels, checksum)
    return f"crc32:{checksum:08x}"


def _class_name(gan):
    return gan.rpartition(":")[2]


def _text(value):
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value)) or "none"
    return "unset" if value is None else value


def _csv_line(row):
    step, *values = row
    return ",".join([str(int(step)), *(f"{value:.9g}" for value in values)])


def _parse_csv(line, width):
    """Returns a row's numbers, or None unless it has `width` finite ones."""
    step, *values = line.split(",")
    try:
        row = [int(step), *map(float, values)]
    except ValueError:
        return None
    return row if len(row) == width and all(map(math.isfinite, row)) else None
