"""Trains recipes over several seeds and prints what each is worth, by every metric of the judge.

python -m benchmarks.quality                 the README's first table
python -m benchmarks.quality --table=ablation   the stable recipe, one trick out at a time
python -m benchmarks.quality --table=budget     every recipe for the same seconds of training
python -m benchmarks.quality --table=precision  the same steps in float32 and in bfloat16
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import terminal
from atomic import replacing
from benchmarks import measuring, report
from errors import UserError
from evaluation import metrics
from models import recipes
from training.configuration import check_precision

ROOT = Path(__file__).resolve().parent.parent
_DONE = re.compile(r"Done: ([\d,]+) steps in ([\d.,]+) s")
RESULTS = Path(__file__).resolve().parent / "results"
_SECONDS = 60
_STABILISED = (
    "--recipe=minimal", "--r1_gamma=1", "--penalty_every=4", "--ema_decay=0.999", "--beta1=0",
    "--beta2=0.99", "--learning_rate=0.002", "--batch_size=32", "--prior=normal",
    "--num_steps=20000",
)  # fmt: skip
# A plain one of Mescheder et al. 2018 on dense nets, from which the recipe was developed.
_STARTING_POINT = (
    "--recipe=stable_mlp", "--windows=0", "--g_windows=0", "--penalty_every=1",
    "--batch_size=32", "--decay=0", "--learning_rate=0.002", "--num_steps=25000",
)  # fmt: skip
_DCGAN = ("--recipe=dcgan", "--batch_size=32")
_DCGAN_BFLOAT16 = (*_DCGAN, "--precision=bfloat16")
TABLES = {
    "recipes": {
        "minimal": ("--recipe=minimal",),
        "stabilised minimal": _STABILISED,
        "stable_mlp": ("--recipe=stable_mlp",),
        "its starting point": _STARTING_POINT,
    },
    "ablation": {
        name: ("--recipe=stable_mlp", *flags)
        for name, *flags in [
            ("stable_mlp",),
            ("without R1", "--r1_gamma=0"),
            ("without the average", "--ema_decay=0"),
            ("without minibatch deviation", "--nominibatch_stddev"),
            ("without windows in D", "--windows=0"),
            ("without windows in G", "--g_windows=0"),
            ("without decay of the rates", "--decay=0"),
            ("Adam's usual betas", "--beta1=0.9", "--beta2=0.999"),
        ]
    },
    "budget": {
        **{name: (f"--recipe={name}",) for name in ("minimal", "leaky_mlp", "stable_mlp")},
        "dcgan": _DCGAN,
        "dcgan in bfloat16": _DCGAN_BFLOAT16,
        "upsampling_cnn": ("--recipe=upsampling_cnn",),
        "pretrained_cnn": ("--recipe=pretrained_cnn", "--pretraining=512"),
    },
    "precision": {
        "dcgan": (*_DCGAN, "--num_steps=400"),
        "dcgan in bfloat16": (*_DCGAN_BFLOAT16, "--num_steps=400"),
    },
}


class Outcome(NamedTuple):
    """One trained and scored run: its metrics.json, steps, and seconds."""

    scores: dict
    steps: int
    training_seconds: float
    command_seconds: float


def measure(flags, seed, folder, extra=()):
    """Trains and scores with the real program in a folder of its own; -> Outcome."""
    began = time.monotonic()
    said = _main(*flags, *extra, f"--seed={seed}", f"--run_dir={folder}")
    seconds = time.monotonic() - began
    steps, training = _DONE.search(said).groups()
    _main("--mode=evaluate", f"--run_dir={folder}")
    scores = json.loads((Path(folder) / "metrics.json").read_text())
    return Outcome(scores, _number(steps), _number(training), seconds)


def steps_for(flags, seconds, folder, few):
    """How many steps of a recipe fit into so many seconds of training, by runs of a few and twice.

    Their difference is what steps cost once all is compiled.
    """
    once, twice = (_training_seconds(flags, folder, steps) for steps in (few, 2 * few))
    return max(1, int(few * seconds / max(twice - once, 1e-3)))


def _training_seconds(flags, folder, steps):
    said = _main(*flags, f"--num_steps={steps}", f"--run_dir={folder}", "--new")
    return _number(_DONE.search(said).group(2))


def table(outcomes):
    """{name: [Outcome]} -> Markdown: means and, in brackets, ranges over the seeds; the floors."""
    columns = {name: _column(runs) for name, runs in outcomes.items() if runs}
    labels = next(iter(columns.values()))
    (first, *_), *_ = filter(None, outcomes.values())
    columns |= {name: _scores([scores]) for name, scores in first.scores["floors"].items()}
    lines = [["", *columns], ["---"] * (len(columns) + 1)]
    lines += [[label, *(cells.get(label, "") for cells in columns.values())] for label in labels]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _column(runs):
    """[Outcome] -> {label: text}."""
    return {
        **_scores([run.scores for run in runs]),
        "steps": _spread([run.steps for run in runs]),
        "seconds of training": _spread([run.training_seconds for run in runs]),
        "seconds of the whole command": _spread([run.command_seconds for run in runs]),
    }


def _scores(scores):
    """What each of several metrics.json holds -> {label: text}."""
    ends = {"rarest digit": min, "most frequent digit": max}
    return {
        **{label: _spread([each[key] for each in scores]) for key, label in metrics.LABELS.items()},
        **{
            label: _spread([100 * end(each["histogram"]) for each in scores]) + " %"
            for label, end in ends.items()
        },
    }


def _spread(values):
    mean, low, high = map(_digits, (statistics.mean(values), min(values), max(values)))
    return mean if low == high else f"{mean} [{low}, {high}]"


def _digits(value):
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def _main(*flags, cwd=ROOT):
    """Runs main.py; -> what it said; its own error line ends this program too."""
    done = subprocess.run(
        [sys.executable, ROOT / "main.py", *flags], capture_output=True, text=True, cwd=cwd
    )
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def _number(text):
    value = float(text.replace(",", ""))
    return int(value) if value.is_integer() else value


def _parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", choices=TABLES, default="recipes")
    parser.add_argument("--only", help="comma-separated columns of the table (default: all)")
    parser.add_argument("--seeds", type=_count, default=3, help="seeds 0, 1, ... (default: 3)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--steps", type=_count, help="of each run (default: the recipe's, or the table's)"
    )
    length.add_argument(
        "--seconds",
        type=_count,
        help=f"of training, for --table=budget alone (default: {_SECONDS})",
    )
    parser.add_argument(
        "--jobs", type=_count, default=1,
        help="runs at a time, one a core if there are several: sooner done, but no longer the "
        "seconds that a run takes alone (default: 1)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    return parser


def _arguments():
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.jobs > measuring.cores():
        parser.error(f"--jobs={arguments.jobs}: wanted at most {measuring.cores()}, the cores")
    names = list(TABLES[arguments.table])
    arguments.only = arguments.only.split(",") if arguments.only else names
    if not set(arguments.only) <= set(names):
        parser.error(f"--only={','.join(arguments.only)}: wanted some of {', '.join(names)}")
    if arguments.seconds and arguments.table != "budget":
        parser.error("--seconds goes with --table=budget")
    arguments.seconds = arguments.seconds or _SECONDS
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out={arguments.out}: {error.strerror}")
    return arguments


def _count(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: wanted a whole number, 1 or more")
    return int(text)


def _length(arguments, flags, folder):
    """-> the flags that fit a run into the budget, if there is one."""
    if arguments.steps:
        return (f"--num_steps={arguments.steps}",)
    if arguments.table != "budget":
        return ()
    few = 4 if recipes.get(_recipe(flags)).convolutional else 2000
    return (f"--num_steps={steps_for(flags, arguments.seconds, folder, few)}",)


def main():
    """Trains and scores all, and writes the table so far after each run, at last a picture."""
    arguments = _arguments()
    contestants = _able({name: TABLES[arguments.table][name] for name in arguments.only})
    outcomes = {name: [] for name in contestants}
    bar = terminal.Bar(len(contestants) * arguments.seeds, unit="run")
    with tempfile.TemporaryDirectory() as scratch:
        for name, outcome in _measured(arguments, contestants, Path(scratch)):
            outcomes[name].append(outcome)
            _write(arguments, outcomes)
            bar.advance(1, name)
        picture = arguments.out.resolve() / f"quality-{arguments.table}.png"
        runs = ",".join(contestants)
        _main("--mode=compare", f"--run_dirs={runs}", f"--out={picture}", cwd=f"{scratch}/seed-0")
    bar.close()
    _partial(arguments).rename(arguments.out / f"quality-{arguments.table}.md")
    print(table(outcomes))


def _measured(arguments, contestants, scratch):
    """Yields (name, Outcome) for each run, in order."""
    pool = _pool(arguments.jobs)
    try:
        # All lengths first: runs wait for them, which must not keep them from being measured.
        lengths = {
            name: pool.submit(_length, arguments, flags, scratch / "trial" / name)
            for name, flags in contestants.items()
        }
        runs = [
            (name, pool.submit(_run, flags, seed, scratch / f"seed-{seed}" / name, lengths[name]))
            for name, flags in contestants.items()
            for seed in range(arguments.seeds)
        ]
        for name, run in runs:
            yield name, run.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _run(flags, seed, folder, length):
    return measure(flags, seed, folder, length.result())


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


def _able(contestants):
    """Those that this machine can train; a line for each other one."""
    able = {}
    for name, flags in contestants.items():
        precision = "bfloat16" if "--precision=bfloat16" in flags else "float32"
        try:
            check_precision(precision, recipes.get(_recipe(flags)))
            able[name] = flags
        except UserError as error:
            print(f"Left out: {name}. {error}")
    return able


def _recipe(flags):
    return flags[0].removeprefix("--recipe=")


def _write(arguments, outcomes):
    with replacing(_partial(arguments)) as temporary:
        temporary.write_text(f"{_heading(arguments)}\n\n{table(outcomes)}\n", encoding="utf-8")


def _partial(arguments):
    """What holds the table so far, until all is measured."""
    return arguments.out / f"quality-{arguments.table}.partial.md"


def _heading(arguments):
    length = "the steps in the row `steps`"
    if arguments.table == "budget":
        length = f"as many steps as take {arguments.seconds} s"
    if arguments.steps:
        length = f"{arguments.steps:,} steps"
    return (
        f"Written by `python -m benchmarks.quality --table={arguments.table}`: {length} each; "
        f"means over {arguments.seeds} seeds, in brackets the range; runs at a time: "
        f"{arguments.jobs}. {report.machine()}"
    )


if __name__ == "__main__":
    main()
