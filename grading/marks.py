"""The marks of one student or of a class: table, marks.csv, a page and a results.json for each."""

import csv
import textwrap
from dataclasses import dataclass

from grading.checks import NOT_REACHED, failures, summary
from support.files import atomic_write, write_json, write_text

WIDTH = 88
COLUMNS = ("student", "file", "passed", "checks", "not_reached", "seconds", "failed")


@dataclass(frozen=True)
class Mark:
    """A student's verdicts: name of a check -> None (passed), a sentence, or `NOT_REACHED`."""

    name: str
    file: str
    verdicts: dict
    seconds: float
    parameters: dict | None = None

    @property
    def passed(self):
        return list(self.verdicts.values()).count(None)

    @property
    def all_passed(self):
        return self.passed == len(self.verdicts)

    @property
    def unreached(self):
        return [name for name, verdict in self.verdicts.items() if verdict == NOT_REACHED]

    @property
    def failures(self):
        """Name -> sentence of the checks that failed."""
        return failures(self.verdicts)

    def __str__(self):
        return page(self)


def table(marks):
    """-> a line for each student: name, checks passed, and what to look at first."""
    width = max(len(mark.name) for mark in marks)
    return "\n".join(
        f"{mark.name:<{width}}  {mark.passed:>3} of {len(mark.verdicts)}  {_first(mark)}"
        for mark in marks
    )


def _first(mark):
    names = list(mark.failures)
    return textwrap.shorten(", ".join(names), WIDTH, placeholder=" ...")


def page(mark):
    """-> the student's page of feedback, plain text."""
    parts = [f"{mark.name}: {summary(mark.verdicts)}"]
    if mark.failures:
        parts.append("What to look at, from the top: the first things may explain the rest.")
    parts += [_point(i, *point) for i, point in enumerate(mark.failures.items(), 1)]
    if mark.unreached:
        count = len(mark.unreached)
        parts.append(f"Checks not reached, since something above comes first: {count}.")
    passed = [name for name, verdict in mark.verdicts.items() if verdict is None]
    if passed:
        parts.append(_wrapped(f"Passed: {', '.join(passed)}."))
    return "\n\n".join(parts) + "\n"


def _point(number, name, sentence):
    return f"{number}. {name}\n{_wrapped(sentence, indent='   ')}"


def _wrapped(text, indent=""):
    return textwrap.fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False
    )


def gradescope(mark):
    """-> what Gradescope's autograder reads from results.json: a point for each check."""
    return {
        "output": summary(mark.verdicts),
        "execution_time": round(mark.seconds),
        "stdout_visibility": "hidden",
        "tests": [_gradescope_test(*verdict) for verdict in mark.verdicts.items()],
    }


def _gradescope_test(name, verdict):
    output = {None: "", NOT_REACHED: "Not reached: another check comes first."}
    return {
        "name": name,
        "score": 0 if verdict else 1,
        "max_score": 1,
        "status": "failed" if verdict else "passed",
        "output": output.get(verdict, verdict),
        "visibility": "visible",
    }


def write_student(folder, mark):
    """Writes feedback.txt and results.json into the folder, made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "feedback.txt", page(mark))
    write_json(folder / "results.json", gradescope(mark))


def write_csv(path, marks):
    """Writes a row for each student."""
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(map(_row, marks))


def _row(mark):
    counts = [mark.passed, len(mark.verdicts), len(mark.unreached), round(mark.seconds, 1)]
    return [_no_formula(mark.name), _no_formula(mark.file), *counts, " ".join(mark.failures)]


def _no_formula(text):
    """Spreadsheets run a cell that begins like a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text
