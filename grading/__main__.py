"""Marks a student's `Gan`, or those of a whole class.

  python -m grading path/to/gan.py            one file; its class Gan, or path/to/gan.py:CLASS
  python -m grading students/ --out=marks/    every file and folder in a folder

Exit code: 0 if all students passed all checks, 1 if not, 4 if the command is wrong.
"""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from support.errors import UserError, imports_of, one_line

with imports_of("grading"):
    from tqdm import tqdm

    from grading import marks, submissions
    from grading.process import Process

ALL_PASSED, SOME_FAILED, WRONG_COMMAND, INTERRUPTED = 0, 1, 4, 130


class Parser(argparse.ArgumentParser):
    """Argument parser that raises UserError for a wrong command."""

    def error(self, message):
        raise UserError(f"{message}; see python -m grading --help")


def main(argv):
    """Marks the submissions and returns the exit code."""
    parser = Parser(
        prog="python -m grading",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("path", metavar="PATH", help="FILE.py[:CLASS] or FOLDER[:CLASS] (default class: Gan)")
    add("--out", type=Path, help="folder for marks and feedback (default: none)")
    add(
        "--jobs",
        type=int,
        default=os.cpu_count(),
        help="students marked in parallel (one per core)",
    )
    add("--check_seconds", type=float, default=30, help="time limit per check in seconds (30)")
    add("--memory_gb", type=float, default=4, help="memory limit per student in GB (4)")
    options = parser.parse_args(argv)
    for name in ("jobs", "check_seconds", "memory_gb"):
        value, least = getattr(options, name), 2 if name == "memory_gb" else 1
        if not least <= value < 2**31:
            raise UserError(f"--{name} must be at least {least}, got {value}")
    if options.out and options.out.is_file():
        raise UserError(f"--out must be a folder, got the file {options.out}")
    students = submissions.find(options.path, exclude=options.out)
    if sys.platform != "linux":
        print("Warning: memory is not limited on this system.", file=sys.stderr)
    found = []
    processes = [Process(options.check_seconds, options.memory_gb) for _ in students]
    pool = ThreadPoolExecutor(options.jobs)
    try:
        futures = [pool.submit(marks.mark, *each) for each in zip(students, processes, strict=True)]
        bar = tqdm(as_completed(futures), "marking", len(futures), leave=False, disable=None)
        for future in bar:
            mark = future.result()
            found.append(mark)
            if options.out:
                # An autograder looks for the results of its one file in the folder itself.
                folder = options.out if students[0].single else options.out / mark.name
                marks.write_student(folder, mark)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.end()
        pool.shutdown()
        found.sort(key=lambda mark: mark.name)
        if options.out and found:
            marks.write_csv(options.out / "marks.csv", found)
    print(marks.page(found[0]) if len(found) == 1 else marks.table(found))
    return SOME_FAILED if any(any(mark.verdicts.values()) for mark in found) else ALL_PASSED


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (UserError, OSError) as error:
        print(f"grading: {one_line(error)}", file=sys.stderr)
        sys.exit(WRONG_COMMAND)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(INTERRUPTED)
