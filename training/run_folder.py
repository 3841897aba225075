"""Run folders: who holds one, what is in it, and which of its checkpoints counts."""

import errno
import fcntl
import hashlib
import json
import os
import re
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from pathlib import Path

import numpy as np

from support.errors import RunError, reason
from support.files import FULL, LEFTOVERS, remove_stale_files, write_text
from training.checkpoint_files import read_checkpoint, write_checkpoint
from training.configuration import Configuration
from training.tables import LOSSES, Table

_KEPT = 3
_LONGEST_CONFIGURATION = 10**6  # bytes; ours have about 2,000
_FOLDERS = ("checkpoints", "events", "progress")
_FILES = (
    "config.json", "losses.csv", "losses.png", "samples.png", "latent_grid.png", "training.gif",
    "held_out.csv", "held_out.png", "metrics.csv",
)  # fmt: skip
_NOT_THE_FOLDER = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_NAME = re.compile(r"step-([0-9]{9}|[1-9][0-9]{9,18})\.npz")
_FULL_OF = {errno.EFBIG: ("file too large", "raise `ulimit -f`")}
_NONE_YET = "there is no checkpoint yet"


class RunFolder:
    """The files of one run; nothing is created before `prepared` or a writer is called."""

    def __init__(self, path):
        self.path = Path(path)

    def __str__(self):
        return str(self.path)

    def file(self, name):
        """-> the path of a file or folder in the run folder."""
        return self.path / name

    # Opening.

    @contextmanager
    def prepared(self, configuration, *, new, log):
        """Holds the folder for a run of that configuration, made if it is not there.

        new: set an old run aside first, whatever it is. log: takes lines for the user.
        RunError, with the folder untouched, if it is another configuration's run, something
        else's folder, in another process's hands, or no folder to write in. RunError as well
        for a disk that fills up in the body.
        """
        with ExitStack() as held:
            with self._user_errors():
                if new and self.path.exists():
                    self._set_aside(log)
                if not self.path.exists():
                    self.path.mkdir(parents=True, exist_ok=True)
                held.enter_context(self.lock())
                self._begin(configuration, log)
            with self._user_errors(FULL):
                yield

    def configuration(self):
        """-> the Configuration in config.json; RunError if there is none or it is not readable."""
        try:
            with open(self.file("config.json"), "rb") as file:
                return Configuration.from_json(file.read(_LONGEST_CONFIGURATION).decode())
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(
                f"--run_dir={self.path}: no readable config.json ({reason(error)}); "
                "wanted the folder of a run that `python main.py` made"
            ) from error

    @contextmanager
    def lock(self):
        """Holds the folder for this process to train in; RunError if another one has it."""
        if not self.path.is_dir() and self.path.exists():
            self._refuse_foreign()
        with self._locked(self.path, fcntl.LOCK_EX):
            yield

    @contextmanager
    def held(self):
        """Keeps the folder in its place while it is read: `--new` is refused, training goes on.

        Yields a function to call before something is written there: RunError if another folder
        has the name all the same. RunError if there is nothing to read, or it is being set aside.
        """
        checkpoints = self.file("checkpoints")
        if not checkpoints.is_dir():
            raise RunError(f"--run_dir={self.path}: {_NONE_YET}; train it first")
        with self._locked(checkpoints, fcntl.LOCK_SH) as handle:
            yield lambda: self._check_is(checkpoints, handle)

    @contextmanager
    def _locked(self, path, kind):
        """Holds a lock on one of the run's folders; RunError if another process has it.

        One that is gone has just been set aside by another process.
        """
        try:
            handle = _locked_handle(path, kind)
        except (BlockingIOError, FileNotFoundError) as error:
            raise RunError(
                f"--run_dir={self.path} is in use by another process: wait for it or stop it, "
                "or name another folder"
            ) from error
        try:
            yield handle
        finally:
            os.close(handle)

    def _check_is(self, path, handle):
        if not (path.exists() and os.path.samestat(os.fstat(handle), os.stat(path))):
            raise RunError(
                f"--run_dir={self.path} was moved while it was read: nothing is written there; "
                "name the folder where the run is now"
            )

    def _begin(self, configuration, log):
        if self._holds_run():
            there = self.configuration()
            # Before there are results, as after a refusal by the trainer, nothing can be mixed up.
            if self._checkpoints() or self.file("losses.csv").exists():
                there.check_continued_by(configuration, self.path, log)
                configuration = there.extended_to(configuration)
        self._check_kinds()
        remove_stale_files(self.path)
        write_text(self.file("config.json"), configuration.to_json())
        self.file("checkpoints").mkdir(exist_ok=True)

    def _holds_run(self):
        """Whether there is a run in the locked folder; RunError if there is something else."""
        if self.file("config.json").is_file():
            return True
        # What a run killed at birth left there does not count.
        if not all(path.match(LEFTOVERS) for path in self.path.iterdir()):
            self._refuse_foreign()
        return False

    def _refuse_foreign(self):
        raise RunError(
            f"--run_dir={self.path} exists but is no run folder (it has no config.json): "
            "name another one"
        )

    def _check_kinds(self):
        """RunError where training would find a file in the place of a folder, or the reverse.

        It would otherwise only find out when it ends.
        """
        for path in map(self.file, _FOLDERS):
            if path.exists() and not path.is_dir():
                raise RunError(f"{path} is no folder: move it elsewhere")
        for path in [*map(self.file, _FILES), *(path for _, path in self._checkpoints())]:
            if path.exists() and not path.is_file():
                raise RunError(f"{path} is no ordinary file: move it elsewhere")

    @contextmanager
    def _user_errors(self, numbers=None):
        """Turns OSErrors, or those of the given numbers alone, into RunErrors."""
        try:
            yield
        except OSError as error:
            if error.errno in _NOT_THE_FOLDER or (numbers and error.errno not in numbers):
                raise
            raise RunError(self._explanation(error)) from error

    def _explanation(self, error):
        if error.errno in FULL:
            what, way_out = _FULL_OF.get(error.errno, ("disk full", "free some space"))
            return (
                f"{what}: --run_dir={self.path} cannot grow ({error.strerror}); "
                f"{self.last_checkpoint()}; {way_out} and run the same command"
            )
        return (
            f"--run_dir={self.path}: cannot use {error.filename or 'it'} ({error.strerror}); "
            "name a folder that can be made and written to"
        )

    def _set_aside(self, log):
        """Renames the folder of a run to the first free `<name>.old-N`."""
        if self.path.name in ("", ".."):
            raise RunError(f"--run_dir={self.path}: give the folder's own name, to keep it by")
        with ExitStack() as held:
            held.enter_context(self.lock())
            if not self._holds_run():
                return
            if self.file("checkpoints").is_dir():  # which is locked while they are read
                held.enter_context(self._locked(self.file("checkpoints"), fcntl.LOCK_EX))
            number = 1
            while (aside := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
                number += 1
            log(f"The old run is kept as {self.path.rename(aside)}.")

    # Checkpoints.

    def save_checkpoint(self, step, state, name=None):
        """Writes {variable's name: ndarray} as of a step, then deletes all but the newest few."""
        name = name or f"step-{step:09d}"
        write_checkpoint(self.file("checkpoints") / f"{name}.npz", step, state)
        # Later ones can only be damaged, or the run would have gone on from there.
        done = [path for number, path in self._checkpoints() if number <= step and path.is_file()]
        for old in done[:-_KEPT]:
            old.unlink()

    def last_checkpoint(self):
        """-> words for an error message: where the newest checkpoint stands."""
        found = self._checkpoints()
        return f"the last good checkpoint is at step {found[-1][0]:,}" if found else _NONE_YET

    def load_checkpoint(self, warn):
        """-> (step, state) of the newest whole checkpoint, or None if none was ever written.

        warn: called with a line for each damaged one. RunError if none is whole.
        """
        found = self._checkpoints()
        for number, path in reversed(found):
            try:
                step, state = read_checkpoint(path)
                if step == number:
                    return step, state
                warn(f"{path} is of step {step:,}, not what its name says: trying the one before.")
            except RunError as error:
                warn(f"{error}: trying the one before.")
        if found:
            raise RunError(
                f"--run_dir={self.path}: none of its checkpoints is whole; start afresh with --new "
                "(the folder is kept under another name)"
            )
        return None

    def is_finished(self, steps):
        """Whether the newest whole checkpoint is of so many steps."""
        if not any(number >= steps for number, _ in self._checkpoints()):
            return False
        return self.load_checkpoint(lambda damaged: None)[0] >= steps

    def load_named_checkpoint(self, name):
        """-> (step, state) of `checkpoints/<name>.npz`; RunError if it is missing or damaged."""
        folder = self.file("checkpoints")
        if Path(name).name != name:
            raise RunError(f"--checkpoint={name}: wanted the name of a file in {folder}")
        try:
            return read_checkpoint(folder / f"{name}.npz")
        except FileNotFoundError as error:
            there = ", ".join(sorted(path.stem for path in folder.glob("*.npz"))) or "none yet"
            raise RunError(f"--checkpoint={name}: {folder} has no such one, but {there}") from error
        except RunError as error:
            raise RunError(f"--checkpoint={name}: {error}") from error

    def note_networks(self, networks):
        """Writes down what a new run's networks compute, as `models.fingerprint` describes it."""
        write_text(self.file("networks.json"), json.dumps(networks, indent=1) + "\n")

    def check_networks(self, networks):
        """RunError that names the first difference where they computed something else then."""
        path = self.file("networks.json")
        if not path.exists():
            return
        try:
            with open(path, "rb") as file:
                there = json.load(file)
            differing = [(name, _difference(there[name], here)) for name, here in networks.items()]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(
                f"{path}: not readable ({reason(error)}), wanted what the run's networks computed; "
                "move it elsewhere to use the run as it is"
            ) from error
        for name, difference in differing:
            if difference:
                raise RunError(
                    f"--run_dir={self.path}: its {name} computed something else when it was "
                    f"trained, in the same shapes: {difference}; bring that version of the class "
                    "back, or train again in another --run_dir"
                )

    def losses(self):
        """-> the rows (step, d_loss, g_loss) of losses.csv, none if it is not there yet."""
        return Table(self.file("losses.csv"), LOSSES, every=1).read()

    def _checkpoints(self):
        """-> (step, path) of each one that its name says is of a step, in their order."""
        named = [(_NAME.fullmatch(p.name), p) for p in self.file("checkpoints").glob("step-*.npz")]
        return sorted((int(match[1]), path) for match, path in named if match)


def digest(state):
    """{name: ndarray} -> a SHA-256 of names, shapes, types and values: which weights these are."""
    total = hashlib.sha256()
    for name, values in sorted(state.items()):
        values = np.ascontiguousarray(values)
        total.update(f"{name!r} {np.shape(values)} {values.dtype.str}\n".encode())
        total.update(values.tobytes())
    return total.hexdigest()


def _difference(there, here):
    """Lines of a network as it was and as it is -> the first difference in words, or None."""
    for number, (was, now) in enumerate(zip_longest(there, here, fillvalue="nothing")):
        if was != now:
            return f"operation {number} was {was!r} and is {now!r} now"
    return None


def _locked_handle(path, kind):
    """-> a handle with that lock on a folder, without waiting: BlockingIOError if it is not free.

    Until the lock is there the folder may be renamed: it is the one that now has this name.
    """
    while True:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
