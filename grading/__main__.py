"""Marks a student's `Gan`, or a class's.

  python -m grading path/to/gan.py              one file; its class Gan, or path/to/gan.py:CLASS
  python -m grading students/ --out=marks/      every file and folder in a folder
  python -m grading students/ --out=marks/ --train=60    and a leaderboard of those that pass

Exit code: 0 all checks of all students passed, 1 some did not, 4 the command is wrong.
"""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from grading import marks, submissions
from grading.marking import mark
from grading.process import ROOT, Limits, end_all, isolation
from support import terminal
from support.errors import UserError

ALL_PASSED, SOME_FAILED, WRONG_COMMAND = 0, 1, 4


class Parser(argparse.ArgumentParser):
    """argparse, with the exit code that the kit has for a wrong command."""

    def error(self, message):
        raise UserError(f"{message}. See python -m grading --help")


def parsed(argv):
    """-> the options; UserError for a wrong one."""
    parser = Parser(
        prog="python -m grading", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("what", help="FILE.py[:CLASS] or FOLDER[:CLASS]; the class is Gan if none is given")
    add("--out", type=Path, help="folder to write marks and feedback to (default: not written)")
    add("--jobs", type=_at_least(1, int), default=os.cpu_count(), metavar="N",
        help="students marked at a time (default: one a core)")  # fmt: skip
    add("--check_seconds", type=_at_least(1), default=30, metavar="S", help="for a check (30)")
    add("--file_seconds", type=_at_least(1), default=300, metavar="S", help="for a student (300)")
    add("--memory_gb", type=_at_least(2), default=4, metavar="GB", help="for a student (4)")
    add("--train", type=_at_least(1), metavar="S",
        help="train each class that passes for so many seconds, and rank them")  # fmt: skip
    add("--data_dir", type=Path, default=ROOT / "MNIST_data", help="MNIST, for --train")
    add("--seed", type=_at_least(0, int), help="of --train (default: drawn, and written down)")
    return parser.parse_args(argv)


def _at_least(least, kind=float):
    def checked(text):
        number = kind(text)
        if not least <= number < 2**31:
            raise argparse.ArgumentTypeError(f"{text}: wanted at least {least}")
        return number

    return checked


def main(argv):
    """-> exit code."""
    options = parsed(argv)
    if options.train and not options.out:
        raise UserError("--train wants --out, a folder for runs and leaderboard")
    students = submissions.find(options.what, leave_out=options.out)
    if not isolation():
        print("No network namespaces here: the classes can reach the network.", file=sys.stderr)
    found = _mark_all(students, options)
    print(_told(found))
    if options.train:
        from grading import leaderboard

        print(f"\n{leaderboard.make(students, found, options)}")
    return ALL_PASSED if all(mark.all_passed for mark in found) else SOME_FAILED


def _mark_all(students, options):
    """-> a `Mark` for each, by name; written as they come."""
    limits = Limits(options.check_seconds, options.file_seconds, options.memory_gb)
    found, bar = [], terminal.Bar(len(students), unit="student")
    bar.advance(0)
    try:
        for one in _in_parallel(options.jobs, mark, [(student, limits) for student in students]):
            found.append(one)
            bar.advance(1, one.name)
            if options.out:
                folder = options.out if students[0].in_place else options.out / one.name
                marks.write_student(folder, one)
    finally:
        bar.close()
        if options.out and found:
            found.sort(key=lambda mark: mark.name)
            marks.write_csv(options.out / "marks.csv", found)
    return found


def _in_parallel(jobs, function, arguments):
    """Yields what the calls return as they end; none goes on when the caller stops."""
    pool = ThreadPoolExecutor(jobs)
    try:
        for future in as_completed(pool.submit(function, *each) for each in arguments):
            yield future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        end_all()
        raise
    finally:
        pool.shutdown()


def _told(found):
    """What the terminal shows: all sentences of one student, or the table of several."""
    if len(found) > 1:
        return marks.table(found)
    return marks.page(found[0])


def run():
    """Runs the command; what the user got wrong ends in one line."""
    try:
        with terminal.stoppable():
            sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"grading: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(WRONG_COMMAND)


if __name__ == "__main__":
    run()
