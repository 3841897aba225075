"""Several processes beside one of as many threads: `python -m benchmarks.workers [--recipes=A,B]`.

Each process is pinned to a core of its own, or shares one where there are fewer cores. A step's
time is the difference of two runs of the whole program, a short and a long one, which leaves out
its start. On paper: what the same steps would take on many machines like this one, by the time
that is computed and the time that a ring needs for the gradients.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import plain_table
from models import recipes
from support.errors import UserError
from support.files import write_text
from support.terminal import Bar
from training.cluster import environment_of
from training.launch import free_addresses

_MAIN = Path(__file__).resolve().parents[1] / "main.py"
_SIZES = (1, 2, 4)
_MACHINES = (2, 4, 8, 16, 32, 64)
_NETWORKS = {"1 Gbit/s": 125e6, "10 Gbit/s": 1.25e9}  # bytes a second
_HOP = 5e-5  # seconds from one machine to the next, within a building


class Case(NamedTuple):
    """flags: of main.py; short, long: steps of the two runs."""

    flags: tuple
    short: int
    long: int


CASES = {
    "dcgan": Case(("--batch_size=64",), 3, 15),
    "stable_cnn": Case(("--batch_size=64",), 100, 700),
    "minimal": Case(("--batch_size=16",), 500, 5500),
}


class Measured(NamedTuple):
    """Seconds a step of n processes of a core each, and of one process on as many cores."""

    processes: float
    threads: float


def main(arguments):
    """Measures, and prints and writes the tables."""
    options = _options(arguments)
    names = options.recipes.split(",")
    for name in names:
        if name not in CASES:
            raise UserError(f"--recipes={name}: wanted some of {', '.join(CASES)}")
    measured = measure({name: CASES[name] for name in names}, options.rounds)
    text = "\n\n".join(_tables(measured)) + "\n"
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "workers.md", text)
    print(text)


def measure(cases, rounds, sizes=_SIZES):
    """{recipe: Case} -> {recipe: {processes: Measured}}, medians over rounds."""
    shapes = {shape for n in sizes for shape in ((n, 1), (1, n))}
    turns = [(name, *shape) for name in cases for shape in sorted(shapes)] * rounds
    took = {turn: [] for turn in turns}
    with contextlib.closing(Bar(2 * len(turns), unit="run")) as bar:
        for name, processes, cores in turns:
            seconds = _seconds_a_step(name, cases[name], processes, cores, bar)
            took[name, processes, cores].append(seconds)
    median = {turn: statistics.median(seconds) for turn, seconds in took.items()}
    return {
        name: {n: Measured(median[name, n, 1], median[name, 1, n]) for n in sizes} for name in cases
    }


def _seconds_a_step(name, case, processes, cores, bar):
    """processes: how many, each on so many cores."""
    took = []
    for steps in (case.short, case.long):
        took.append(_seconds(name, case, processes, cores, steps))
        bar.advance(1, f"{name}, {processes} x {cores}")
    return (took[1] - took[0]) / (case.long - case.short)


def _seconds(name, case, processes, cores, steps):
    """Trains in a folder that is thrown away; -> the seconds that the chief says it took."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [f"--recipe={name}", *case.flags, f"--num_steps={steps}", "--noevents"]
        addresses = free_addresses(processes)
        running = [
            _start([*flags, f"--run_dir={folder}/run"], addresses, index, cores)
            for index in range(processes)
        ]
        ended = [process.communicate()[1] for process in running]
        for process, said in zip(running, ended, strict=True):
            if process.returncode:
                raise UserError(f"{name} on {processes} processes: {said.strip()}")
        return json.loads(Path(folder, "run", "summary.json").read_text())["seconds"]


def _start(flags, addresses, index, cores):
    with _pinned(index, cores):
        return subprocess.Popen(
            [sys.executable, str(_MAIN), *flags],
            env={**os.environ, **environment_of(addresses, index)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )


@contextlib.contextmanager
def _pinned(index, cores):
    """Within it new processes get the `index`-th so many of the cores, round and round."""
    there = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {there[(index * cores + i) % len(there)] for i in range(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, there)


def _tables(measured):
    cores = len(os.sched_getaffinity(0))
    yield f"Steps a second on {cores} cores; more processes than cores share them."
    yield _table(measured)
    yield (
        "On paper: how many times as fast as one machine with a process, by the time of a step "
        f"there and a ring with {1e6 * _HOP:.0f} us from each machine to the next."
    )
    yield _paper(measured)


def _table(measured):
    heading = ["", "processes", "a core each", "one process, as many cores", "efficiency", "sent"]
    rows = []
    for name, by_size in measured.items():
        for n, found in by_size.items():
            efficiency = by_size[1].processes / (n * found.processes)
            rows.append(
                [name, str(n), f"{1 / found.processes:,.1f}", f"{1 / found.threads:,.1f}",
                 f"{100 * efficiency:.0f} %", f"{_sent(name, n) / 1e6:.1f} MB"]
            )  # fmt: skip
    return plain_table(heading, rows)


def _paper(measured):
    heading = ["", "network", *(f"{n} machines" for n in _MACHINES)]
    rows = [
        [name, network, *(f"{_times(name, by_size[1].processes, n, rate):.1f}" for n in _MACHINES)]
        for name, by_size in measured.items()
        for network, rate in _NETWORKS.items()
    ]
    return plain_table(heading, rows)


def _times(name, seconds, n, rate):
    """-> how many times as fast n machines are as one that takes so many seconds a step."""
    ring = _sent(name, n) / rate + 2 * (n - 1) * _HOP * 2  # D's gradients, then G's
    return seconds / (seconds / n + ring)


def _sent(name, n):
    """-> bytes that each of n processes sends in a step, in rings: gradients and losses."""
    from benchmarks.roofline import parameters

    return 4 * 2 * (n - 1) / n * (sum(parameters(recipes.get(name))) + 2)


def _options(arguments):
    parser = argparse.ArgumentParser("python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--recipes", default=",".join(CASES), help="comma-separated; default: all")
    parser.add_argument("--rounds", type=int, default=1, help="of each, for a median; default: 1")
    parser.add_argument(
        "--out", type=Path, default=Path("speed"), help="folder for the tables; default: speed"
    )
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        raise UserError(f"--rounds={options.rounds}: wanted at least 1")
    return options


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"benchmarks: {error}")
