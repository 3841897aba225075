"""The child process in which a student's class runs.

It measures, and judges nothing.

The parent, process.py, runs `python worker.py MEMORY_GB`, writes questions to stdin and reads
answers from stdout. Both become private descriptors before the student's code runs.
"""

import contextlib
import faulthandler
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LARGEST_FILE = 2**28  # bytes
MOST_SECONDS = 3600  # of processor time, in case the parent was killed


def main(memory_gb):
    """Answers the parent's questions until the parent ends.

    A question is `[operation, arguments, seconds]`.
    """
    sys.path[0] = str(ROOT)
    from grading.measurements import Bench, describe_error

    questions, answers, stack = (os.dup(number) for number in range(3))
    null_device = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null_device, number)
    forget_project()
    limit(memory_gb)
    bench = Bench()
    with open(questions, "rb") as lines, open(answers, "w") as output:
        for line in lines:
            operation, arguments, seconds = json.loads(line)
            # The parent reads the stack if this process has to be ended.
            faulthandler.dump_traceback_later(0.9 * seconds, file=stack)
            try:
                value = getattr(bench, operation)(**arguments)
                answer = json.dumps({"value": value}, default=plain)
            # A class may raise anything, and may try to end the program: that is a finding.
            except BaseException as error:
                message = describe_error(error, bench.source["folder"])
                answer = json.dumps({"error": message})
            print(answer, file=output, flush=True)
            faulthandler.cancel_dump_traceback_later()
    # The class may have left threads and exit handlers.
    os._exit(0)


def forget_project():
    """Makes this project impossible to import.

    `import models` must not find the solution.
    """
    sys.path[:] = [each for each in sys.path if each and Path(each).resolve() != ROOT]
    own = {path.stem for path in ROOT.iterdir()}
    for name in list(sys.modules):
        if name.partition(".")[0] in own:
            del sys.modules[name]


def limit(memory_gb):
    """Limits this process's memory, processor time and the files it writes.

    Systems without such limits are skipped.
    """
    try:
        import resource
    except ImportError:
        return
    limits = {
        resource.RLIMIT_AS: int(memory_gb * 2**30),
        resource.RLIMIT_FSIZE: LARGEST_FILE,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: MOST_SECONDS,
    }
    for name, most in limits.items():
        # macOS has no limit of addresses, and there may be a lower one already.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(name, (most, most))


def plain(value):
    """Returns an array or a number of NumPy's as lists and numbers of Python's."""
    if getattr(value, "dtype", None) is None or value.dtype.kind not in "fiub":
        raise TypeError(f"{type(value).__name__} is not a number or an array of numbers")
    return value.tolist()


if __name__ == "__main__":
    main(float(sys.argv[1]))
