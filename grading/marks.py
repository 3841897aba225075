"""The marks of one student or of a class.

They are a table, marks.csv, and two files for each student.
"""

import csv
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grading.checks import NOT_REACHED, all_checks, failures, grade, summary
from grading.process import Process
from grading.submissions import Submission, Unmarkable
from support.errors import one_line
from support.files import atomic_write, write_json, write_text

WIDTH = 88
COLUMNS = ("student", "file", "passed", "checks", "not_reached", "seconds", "failed", "reason")


@dataclass(frozen=True)
class Mark:
    """A student's verdicts.

    Attributes:
      verdicts: `{name of a check: None (passed), a sentence, or NOT_REACHED}`.
      reason: Why a submission could not be marked; empty if it was.
    """

    name: str
    file: str
    verdicts: dict
    seconds: float
    reason: str = ""

    @property
    def passed(self) -> int:
        return list(self.verdicts.values()).count(None)

    @property
    def unreached(self) -> int:
        return list(self.verdicts.values()).count(NOT_REACHED)

    def __str__(self):
        return page(self)


def mark(submission: Submission, process: Process) -> Mark:
    """Runs all checks on one submission, whatever it does, and ends the process."""
    began = time.monotonic()
    checks, reason, file = all_checks(), "", submission.path.name
    try:
        with submission.opened() as source:
            if submission.path.is_dir():
                file = source.path.relative_to(source.folder).as_posix()
            verdicts = grade(process, source, checks)
    except Unmarkable as error:
        reason = one_line(error)
        verdicts = {check.name: NOT_REACHED for check in checks}
        verdicts[checks[0].name] = f"The submission cannot be marked ({reason})."
    finally:
        process.end()
    seconds = time.monotonic() - began
    return Mark(submission.name, one_line(file), verdicts, seconds, reason)


def table(marks: list[Mark]) -> str:
    """Returns a line for each student: name, checks passed, and the failures."""
    width = max(len(mark.name) for mark in marks)
    lines = []
    for mark in marks:
        first = ", ".join(failures(mark.verdicts))
        if mark.reason:
            first = f"cannot be marked: {mark.reason}"
        first = textwrap.shorten(first, WIDTH, placeholder=" ...")
        lines.append(f"{mark.name:<{width}}  {mark.passed:>3} of {len(mark.verdicts)}  {first}")
    return "\n".join(lines)


def page(mark: Mark) -> str:
    """Returns the student's page of feedback, plain text."""

    def wrap(text, indent=""):
        return textwrap.fill(
            text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False
        )

    parts = [f"{mark.name}: {summary(mark.verdicts)}"]
    failed = failures(mark.verdicts)
    if failed:
        parts.append("Start at the top: the first problem may cause the others.")
    for number, (name, sentence) in enumerate(failed.items(), 1):
        parts.append(f"{number}. {name}\n{wrap(sentence, indent='   ')}")
    if mark.unreached:
        count = "1 check was" if mark.unreached == 1 else f"{mark.unreached} checks were"
        parts.append(f"{count} skipped because of the failures above.")
    passed = [name for name, verdict in mark.verdicts.items() if verdict is None]
    if passed:
        parts.append(wrap(f"Passed: {', '.join(passed)}."))
    return "\n\n".join(parts) + "\n"


def write_student(folder: Path, mark: Mark):
    """Writes feedback.txt, and results.json with a point for each check."""
    outputs = {None: "", NOT_REACHED: "Skipped because of an earlier failure."}
    tests = [
        {
            "name": name,
            "score": 0 if verdict else 1,
            "max_score": 1,
            "status": "failed" if verdict else "passed",
            "output": outputs.get(verdict, verdict),
            "visibility": "visible",
        }
        for name, verdict in mark.verdicts.items()
    ]
    results = {
        "output": summary(mark.verdicts),
        "execution_time": round(mark.seconds),
        "stdout_visibility": "hidden",
        "tests": tests,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "feedback.txt", page(mark))
    write_json(folder / "results.json", results)


def write_csv(path: Path, marks: list[Mark]):
    """Writes a row for each student."""

    def cell(text):
        """Returns text that a spreadsheet does not run as a formula."""
        return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text

    rows: list[Sequence] = [COLUMNS]
    for mark in marks:
        counts = [mark.passed, len(mark.verdicts), mark.unreached, round(mark.seconds, 1)]
        failed = " ".join(failures(mark.verdicts))
        rows.append([cell(mark.name), cell(mark.file), *counts, failed, cell(mark.reason)])
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows(rows)
