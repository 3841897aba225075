"""Trains sets of flags over several seeds and prints what each is worth, by every metric.

python -m benchmarks.quality --runs="a: --recipe=stable_cnn" --runs="b: --r1_gamma=1" --seeds=3
python -m benchmarks.quality --table=ablation     one of the published tables
python -m benchmarks.quality --table=seconds      distance after 5, 15, ... seconds of training

A comparison that was stopped goes on where it stood: its runs are kept in the --out folder.
"""

import argparse
import csv
import json
import os
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from benchmarks import plot, report
from benchmarks.outcomes import Column, Outcome, distances, seconds_table, table
from benchmarks.tables import SECONDS, TABLES
from evaluation import metrics
from models import recipes
from support import terminal
from support.errors import UserError
from support.files import atomic_write, write_json, write_text
from training.options import check_precision
from training.run import processor_cores

ROOT = Path(__file__).resolve().parent.parent
_NAME = re.compile(r"\w[\w .'-]*")
_OURS_ALONE = ("seed", "run_dir", "new", "mode", "summary", "help", "helpfull", "flagfile")
# What a finished run is to be opened with again, if it was trained with it.
_LOADING = ("--gan=", "--data_dir=", "--dataset=")


def measure(flags, seed, folder):
    """Trains and scores with the real program in a folder of its own, unless done; -> Outcome."""
    done = Path(folder) / "outcome.json"
    if done.exists():
        return Outcome(**json.loads(done.read_text()))
    new, began = not Path(folder).exists(), time.monotonic()
    _main(*flags, f"--seed={seed}", f"--run_dir={folder}")
    command_seconds = time.monotonic() - began if new else None
    summary = _read(folder, "summary.json")
    whole = summary["steps_this_time"] == summary["steps"]
    _main("--mode=evaluate", f"--run_dir={folder}", *_loading(flags))
    scores, seconds = _read(folder, "metrics.json"), summary["seconds"] if whole else None
    outcome = Outcome(scores, summary["steps"], seconds, command_seconds)
    write_json(done, outcome._asdict())
    return outcome


def _loading(flags):
    """-> those flags that open a trained run again, a class's file wherever one stands."""
    return [
        f"--gan={ROOT / flag.removeprefix('--gan=')}" if flag.startswith("--gan=") else flag
        for flag in flags
        if flag.startswith(_LOADING)
    ]


def step_rate(flags, folder, few):
    """Steps a second of training, by runs of a few steps and of twice as many; kept for next time.

    Their difference is what steps cost once all is compiled.
    """
    kept = Path(f"{folder}.json")
    known = json.loads(kept.read_text()) if kept.exists() else {}
    if known.get("flags") != list(flags):
        once, twice = (_training_seconds(flags, folder, steps) for steps in (few, 2 * few))
        known = {"flags": list(flags), "steps_a_second": few / max(twice - once, 1e-3)}
        write_json(kept, known)
    return known["steps_a_second"]


def _training_seconds(flags, folder, steps):
    _main(*flags, f"--num_steps={steps}", f"--run_dir={folder}", "--new")
    return _read(folder, "summary.json")["seconds"]


def _read(folder, name):
    return json.loads((Path(folder) / name).read_text())


def _main(*flags, cwd=ROOT):
    """Runs main.py; its own error line ends this program too."""
    command = [sys.executable, ROOT / "main.py", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        sys.exit(done.stderr)


def parse_runs(texts):
    """["name: --flag=1 --flag=2", ...] -> {name: flags}; UserError that names what is wrong."""
    runs = {}
    for text in texts:
        name, colon, flags = (part.strip() for part in text.partition(":"))
        if not colon or not _NAME.fullmatch(name) or name in runs:
            raise UserError(f"--runs={text}: wanted another NAME: --FLAG=VALUE ... for each")
        runs[name] = tuple(_flag(text, flag) for flag in _words(text, flags))
    return runs


def _words(text, flags):
    try:
        return shlex.split(flags)
    except ValueError as error:
        raise UserError(f"--runs={text}: {error}") from None


def _flag(text, flag):
    """-> the flag; UserError unless it is one of main.py's that is free to be set."""
    name = flag.removeprefix("--").split("=")[0]
    if not flag.startswith("--") or not name:
        raise UserError(f"--runs={text}: {flag} is no flag, wanted --FLAG=VALUE or --FLAG")
    if name in _OURS_ALONE or name.removeprefix("no") in _OURS_ALONE:
        raise UserError(f"--runs={text}: {flag} is this command's to set, leave it out")
    return flag


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--runs", action="append", metavar="'NAME: FLAGS'", help="a column: flags of main.py"
    )
    chosen.add_argument("--table", choices=TABLES, default="recipes", help="a published table")
    parser.add_argument("--only", help="comma-separated columns (default: all)")
    parser.add_argument("--seeds", type=_count, default=3, help="seeds 0, 1, ... (default: 3)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=_count, help="of each run (default: as its flags say)")
    length.add_argument(
        "--seconds",
        type=_counts,
        help="of training in the place of steps; of several, A,B,..., each is a run of its own "
        "(default for --table=seconds: 5,15,30,60,120)",
    )
    parser.add_argument(
        "--jobs", type=_count, default=1,
        help="runs at a time, one a core if there are several: sooner done, but no longer the "
        "seconds that a run takes alone (default: 1)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="folder to write to (default: quality/TABLE)")
    parser.add_argument("--publish", action="store_true", help=f"copy them to {report.PUBLISHED}")
    return parser


def _arguments(words):
    parser = _parser()
    arguments = parser.parse_args(words)
    if arguments.jobs > processor_cores():
        parser.error(f"--jobs={arguments.jobs}: wanted at most {processor_cores()}, the cores")
    try:
        arguments.columns = (
            parse_runs(arguments.runs) if arguments.runs else TABLES[arguments.table]
        )
    except UserError as error:
        parser.error(str(error))
    arguments.name = "runs" if arguments.runs else arguments.table
    names = arguments.only.split(",") if arguments.only else list(arguments.columns)
    if not set(names) <= arguments.columns.keys():
        parser.error(f"--only={arguments.only}: wanted some of {', '.join(arguments.columns)}")
    if arguments.steps and arguments.name == "seconds":
        parser.error(f"--steps={arguments.steps}: --table=seconds wants --seconds=A,B,...")
    if not arguments.steps:
        standard = SECONDS if arguments.name == "seconds" else ()
        arguments.seconds = arguments.seconds or standard
    arguments.columns = _columns(
        {name: arguments.columns[name] for name in names}, arguments.seconds
    )
    arguments.out = arguments.out or Path("quality") / arguments.name
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out={arguments.out}: {error.strerror}")
    return arguments


def _columns(flags, seconds):
    """{name: flags}, seconds of training -> {name: Column}, one for each of several seconds."""
    if len(seconds or ()) > 1:
        return {
            f"{name} {each} s": Column(name, flags[name], each)
            for name in flags
            for each in seconds
        }
    (budget,) = seconds or (None,)
    return {name: Column(name, flags[name], budget) for name in flags}


def _counts(text):
    """`5,15` -> (5, 15)."""
    counts = tuple(map(_count, text.split(",")))
    if len(set(counts)) < len(counts):
        raise argparse.ArgumentTypeError(f"{text}: wanted each number once")
    return counts


def _count(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: wanted a whole number, 1 or more")
    return int(text)


def check_kept(path, commands):
    """Notes in a file what each column is made by; UserError if a kept one was made by another.

    path: the file; commands: {name: what may be written as JSON}.
    """
    kept = json.loads(path.read_text()) if path.exists() else {}
    wanted = json.loads(json.dumps(commands))
    for name, command in wanted.items():
        there = kept.get(name, command)
        if there != command:
            differing = [key for key in command if command[key] != there.get(key)]
            raise UserError(
                f"{path.parent} holds runs of {name} with other {', '.join(differing)}: "
                + "; ".join(
                    f"{key} {there.get(key)} there, {command[key]} here" for key in differing
                )
                + "; take another name or another --out"
            )
    write_json(path, kept | wanted)


def _command(column, steps):
    """-> what makes a column: its flags and length, and what its recipe stands for today."""
    values = recipes.values_of(_recipe(column.flags))
    if steps or column.seconds:
        del values["num_steps"]
    return {"flags": column.flags, "steps": steps, "seconds": column.seconds, **values}


def main(words=None):
    """Trains and scores all, and writes the results so far after each run, at last a picture."""
    arguments = _arguments(words)
    arguments.columns = columns = _able(arguments.columns)
    check_kept(
        arguments.out / "columns.json",
        {name: _command(column, arguments.steps) for name, column in columns.items()},
    )
    outcomes = {name: [] for name in columns}
    runs = arguments.out.resolve() / "runs"
    bar = terminal.Bar(len(columns) * arguments.seeds, unit="run")
    for name, outcome in _measured(arguments, columns, runs):
        outcomes[name].append(outcome)
        _write(arguments, outcomes)
        bar.advance(1, name)
    bar.close()
    _compare(arguments, runs / "seed-0")
    if arguments.publish:
        report.publish(arguments.out.glob(f"quality-{arguments.name}*.*"))
    print(_tables(arguments, outcomes))
    print(f"\nWritten: {arguments.out}; the runs are in {runs}.")


def _compare(arguments, runs):
    """A picture with a row of samples of each column."""
    picture = arguments.out.resolve() / f"quality-{arguments.name}.png"
    columns = arguments.columns
    flags = {flag for column in columns.values() for flag in _loading(column.flags)}
    gans = sorted(flag for flag in flags if flag.startswith("--gan="))
    names = ",".join(columns)
    _main("--mode=compare", f"--run_dirs={names}", f"--out={picture}", *gans, cwd=runs)


def _measured(arguments, columns, runs):
    """Yields (name, Outcome) for each run, in order."""
    pool = _pool(arguments.jobs)
    try:
        # All rates first: runs wait for them, which must not keep them from being measured.
        timed = {column.base: column for column in columns.values() if column.seconds}
        rates = {
            base: pool.submit(_rate, column, runs / "trial" / base)
            for base, column in timed.items()
        }
        waiting = [
            (name, pool.submit(_run, arguments, column, seed, runs / f"seed-{seed}" / name, rates))
            for name, column in columns.items()
            for seed in range(arguments.seeds)
        ]
        for name, run in waiting:
            yield name, run.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _rate(column, folder):
    folder.parent.mkdir(parents=True, exist_ok=True)
    few = 4 if _recipe(column.flags).convolutional else 2000
    return step_rate(column.flags, folder, few)


def _run(arguments, column, seed, folder, rates):
    steps = arguments.steps
    if column.seconds:
        steps = max(1, int(column.seconds * rates[column.base].result()))
    length = [f"--num_steps={steps}"] if steps else []
    return measure([*column.flags, *length], seed, folder)


def _pool(jobs):
    """Threads for so many runs at a time; each has a core of its own where there are several."""
    if jobs == 1:
        return ThreadPoolExecutor(1)
    cores = SimpleQueue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)
    return ThreadPoolExecutor(jobs, initializer=_pin, initargs=[cores])


def _pin(cores):
    """Keeps this thread, and the processes that it starts, on a core of its own."""
    os.sched_setaffinity(0, {cores.get()})


def _able(columns):
    """Those that this machine can train; a line for each other one."""
    able = {}
    for name, column in columns.items():
        precision = "bfloat16" if "--precision=bfloat16" in column.flags else "float32"
        try:
            check_precision(precision, _recipe(column.flags))
            able[name] = column
        except UserError as error:
            print(f"Left out: {name}. {error}")
    return able


def _recipe(flags):
    named = [flag.removeprefix("--recipe=") for flag in flags if flag.startswith("--recipe=")]
    return recipes.get(named[-1] if named else "minimal")


def _write(arguments, outcomes):
    """The table so far as Markdown, every run as CSV, a plot of the distances."""
    out, name = arguments.out, arguments.name
    text = f"{_heading(arguments)}\n\n{_tables(arguments, outcomes)}\n"
    write_text(out / f"quality-{name}.md", text)
    with atomic_write(out / f"quality-{name}.csv") as temporary, open(temporary, "w") as file:
        _write_rows(csv.writer(file), outcomes)
    found = {name: distances(runs) for name, runs in outcomes.items() if runs}
    picture = out / f"quality-{name}-distances.png"
    if _over_time(arguments):
        plot.distances_over_time(picture, _curves(arguments.columns, found))
    else:
        plot.distances(picture, found)


def _over_time(arguments):
    return len(arguments.seconds or ()) > 1


def _tables(arguments, outcomes):
    """-> Markdown: every metric of every column, of several seconds the distances alone."""
    if _over_time(arguments):
        return seconds_table(arguments.columns, outcomes)
    return table(outcomes)


def _curves(columns, found):
    """{name: distances} -> {base: {seconds: distances}}."""
    curves = {}
    for name, values in found.items():
        curves.setdefault(columns[name].base, {})[columns[name].seconds] = values
    return curves


def _write_rows(rows, outcomes):
    keys = list(metrics.LABELS)
    rows.writerow(["name", "seed", *keys, "steps", "training_seconds", "command_seconds"])
    for name, runs in outcomes.items():
        for seed, run in enumerate(runs):
            scores = [run.scores[key] for key in keys]
            rows.writerow([name, seed, *scores, *run[1:]])


def _heading(arguments):
    length = "the steps in the row `steps`"
    if arguments.seconds:
        seconds = ", ".join(map(str, arguments.seconds))
        length = f"as many steps as take {seconds} s"
    if arguments.steps:
        length = f"{arguments.steps:,} steps"
    what = "--runs=..." if arguments.runs else f"--table={arguments.table}"
    return (
        f"Written by `python -m benchmarks.quality {what}`: {length} each; means over "
        f"{arguments.seeds} seeds, in brackets the range; runs at a time: {arguments.jobs}. "
        f"{report.machine()}"
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"python -m benchmarks.quality: {error}")
