"""One contestant in a process of its own: `python -m benchmarks.worker NAME RECIPE BATCH`.

It builds its networks, trains the first steps and answers; then every line on standard input is
a number of steps to train. Each answer is one line of JSON:

generator, discriminator: trainable parameters; block: wants multiples of so many steps;
d_loss, g_loss: means over the steps; seconds: for the steps alone; idle: seconds of CPU time used
while waiting for the line; peak: most bytes of memory that the process has held, 0 where the
system does not tell. The last answer of one that fails is absent: what went wrong.
"""

import importlib
import json
import os
import re
import sys
import time
from pathlib import Path

_STATUS = Path("/proc/self/status")


def main(*arguments):
    """Serves one contestant until standard input ends, or until it fails."""
    answers = _own_stdout()
    try:
        _serve(answers, *arguments)
    except Exception as error:
        first_line = next(iter(str(error).strip().splitlines()), "")
        print(json.dumps({"absent": f"{type(error).__name__}: {first_line}"}), file=answers)
        raise


def _serve(answers, name, recipe, batch):
    from benchmarks.contestants import CONTESTANTS
    from benchmarks.jobs import Job, first_steps

    module, function = CONTESTANTS[name].where.split(":")
    contestant = getattr(importlib.import_module(module), function)(Job.of(recipe, int(batch)))
    _answer(answers, contestant, first_steps(recipe, int(batch)), idle=0.0)
    waiting_since = time.process_time()
    for line in sys.stdin:
        idle = time.process_time() - waiting_since
        _answer(answers, contestant, int(line), idle)
        waiting_since = time.process_time()


def _own_stdout():
    """-> a file on standard output, which from now on is standard error to everybody else."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def _answer(answers, contestant, steps, idle):
    began = time.perf_counter()
    d_loss, g_loss = contestant.run(steps)
    seconds = time.perf_counter() - began
    generator, discriminator = contestant.parameters
    answer = {
        "generator": generator, "discriminator": discriminator, "block": contestant.block,
        "d_loss": float(d_loss), "g_loss": float(g_loss),
        "seconds": seconds, "idle": idle, "peak": _peak_bytes(),
    }  # fmt: skip
    print(json.dumps(answer), file=answers)


def _peak_bytes():
    if not _STATUS.exists():
        return 0
    return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text()).group(1))


if __name__ == "__main__":
    main(*sys.argv[1:])
