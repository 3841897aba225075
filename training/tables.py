"""The CSV tables of a run: one row a step, an epoch or a score."""

import math
import os
from pathlib import Path

from support.errors import RunError
from support.files import FULL, atomic_write

LOSSES = ("step", "d_loss", "g_loss")
_SHOWN = 60  # characters of a damaged line


class Table:
    """A CSV file with rows of growing steps, appended to, and cut back to where a run stands."""

    def __init__(self, path, columns, every=None):
        """every: steps from one row to the next, where it is always the same number."""
        self._path = Path(path)
        self._header = ",".join(columns)
        self._width = len(columns)
        self._every = every
        self._file = None

    def open(self, last):
        """Starts after the row of step `last`, or the one before it; -> the rows up to there.

        Later rows are dropped, as those of a run that was killed after its last checkpoint.
        RunError, with the file untouched, where a row up to there is damaged or missing.
        """
        kept = list(self._rows(last))
        if self._every and kept and kept[-1][0] + self._every <= last:
            raise RunError(
                f"{self._path} ends at step {kept[-1][0]:,}, but the run is at step {last:,}: "
                f"{self._ways_out()}"
            )
        with atomic_write(self._path) as temporary, open(temporary, "w") as file:
            file.writelines([f"{self._header}\n", *map(_line, kept)])
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
        """Ends the writing; what the disk does not take any more, no checkpoint stands for."""
        try:
            self._file.close()
        except OSError as error:
            if error.errno not in FULL:
                raise

    def read(self):
        """-> all whole rows; RunError where one is damaged, but for a last line cut short."""
        return list(self._rows(math.inf))

    def _rows(self, last):
        """Yields the rows up to a step; RunError at the first line that is none.

        What follows the row of that very step is not looked at.
        """
        header, *lines = self._lines() or [self._header]
        if header.strip() != self._header:
            self._refuse(1, header, f"wanted {self._header}")
        before = 0
        for number, line in enumerate(lines, 2):
            if before >= last:
                return
            row = _parsed(line, self._width)
            if row is None:
                self._refuse(number, line, f"wanted a step and {self._width - 1} finite numbers")
            if not self._follows(row[0], before):
                self._refuse(number, line, f"it comes after step {before}")
            before = row[0]
            if before <= last:
                yield row

    def _lines(self):
        """-> the file's lines, the header first, without a last one that has no end."""
        if not self._path.exists():
            return []
        with open(self._path, "rb") as file:
            return file.read().decode(errors="replace").split("\n")[:-1]

    def _follows(self, step, before):
        """before: the step of the row before it, 0 for none: a table may begin at any step."""
        return step == before + self._every if self._every and before else step > before

    def _refuse(self, number, line, fault):
        raise RunError(
            f"{self._path} is damaged in line {number}, {line[:_SHOWN]!r}: {fault}; "
            f"{self._ways_out()}"
        )

    def _ways_out(self):
        return (
            "correct it by hand, or move the file elsewhere: the same command then goes on with a "
            "new one that begins there"
        )


def _line(row):
    first, *rest = row
    return ",".join([str(int(first)), *(f"{value:.9g}" for value in rest)]) + "\n"


def _parsed(line, width):
    """-> a row's numbers, or None unless it has that many and all are finite."""
    first, *rest = line.split(",")
    try:
        row = [int(first), *map(float, rest)]
    except ValueError:
        return None
    return row if len(row) == width and all(map(math.isfinite, row[1:])) else None
