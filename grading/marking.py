"""Asks one submission all questions of the kit, whatever it does."""

import time

from grading.checks import NOT_REACHED, grade
from grading.contract import CHECKS
from grading.marks import Mark
from grading.messages import printable
from grading.process import Process


def mark(student, limits):
    """-> the `Mark` of a `Submission`, whatever it does."""
    began = time.monotonic()
    process = Process(limits)
    parameters = None
    try:
        with student.opened() as path:
            book = grade(process, path, student.class_name, CHECKS)
            verdicts = book.verdicts
            if not any(verdicts.values()):
                parameters = book.num_parameters()
    except OSError as error:
        verdicts = {check.name: NOT_REACHED for check in CHECKS}
        verdicts[CHECKS[0].name] = f"The file cannot be read ({error.strerror})."
    finally:
        process.end()
    seconds = time.monotonic() - began
    return Mark(student.name, printable(student.path.name), verdicts, seconds, parameters)
