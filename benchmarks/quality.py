"""Trains recipes over several seeds and prints what each is worth, by every metric of the judge.

python -m benchmarks.quality                 the README's first table
python -m benchmarks.quality --table=ablation   the stable recipe, one trick out at a time
python -m benchmarks.quality --table=budget     every recipe for the same seconds of training
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import terminal
from atomic import replacing
from models import recipes

ROOT = Path(__file__).resolve().parent.parent
_DONE = re.compile(r"Done: ([\d,]+) steps in ([\d.,]+) s")
RESULTS = Path(__file__).resolve().parent / "results"
_STABILISED = (
    "--recipe=minimal", "--r1_gamma=1", "--penalty_every=4", "--ema_decay=0.999", "--beta1=0",
    "--beta2=0.99", "--learning_rate=0.002", "--batch_size=32", "--prior=normal",
    "--num_steps=20000",
)  # fmt: skip
# A plain one of Mescheder et al. 2018 on dense nets, from which the recipe was developed.
_STARTING_POINT = (
    "--recipe=stable_mlp", "--windows=0", "--penalty_every=1", "--batch_size=32", "--decay=0",
    "--learning_rate=0.002", "--num_steps=25000",
)  # fmt: skip
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
            ("without windows", "--windows=0"),
            ("without decay of the rates", "--decay=0"),
            ("Adam's usual betas", "--beta1=0.9", "--beta2=0.999"),
        ]
    },
    "budget": {
        **{name: (f"--recipe={name}",) for name in ("minimal", "leaky_mlp", "stable_mlp")},
        "dcgan": ("--recipe=dcgan", "--batch_size=32"),
        "dcgan in bfloat16": ("--recipe=dcgan", "--batch_size=32", "--precision=bfloat16"),
        "upsampling_cnn": ("--recipe=upsampling_cnn",),
        "pretrained_cnn": ("--recipe=pretrained_cnn", "--pretraining=500"),
    },
}
# Key in metrics.json -> label.
_METRICS = {
    "frechet_distance": "Fréchet distance",
    "kernel_distance": "kernel distance",
    "classifier_score": "classifier score",
    "mean_confidence": "mean confidence",
    "digits_covered": "digits covered",
    "total_variation": "total variation of digits",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "memorised_share": "memorised share",
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
        **{label: _spread([each[key] for each in scores]) for key, label in _METRICS.items()},
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
    parser.add_argument("--seeds", type=_count, default=3, help="seeds 0, 1, ... (default: 3)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=_count, help="of each run (default: the recipe's)")
    length.add_argument(
        "--seconds", type=_count, default=60, help="of training, for --table=budget (default: 60)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    return parser


def _count(text):
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _extra(arguments, flags, folder):
    """The flags that fit a run into the budget, if there is one."""
    if arguments.steps:
        return (f"--num_steps={arguments.steps}",)
    if arguments.table != "budget":
        return ()
    (recipe,) = re.findall(r"--recipe=(\w+)", flags[0])
    few = 4 if recipes.get(recipe).convolutional else 2000
    return (f"--num_steps={steps_for(flags, arguments.seconds, folder, few)}",)


def main():
    """Trains and scores all, and writes the table so far after each run, at last a picture."""
    arguments = _parser().parse_args()
    contestants = TABLES[arguments.table]
    outcomes = {name: [] for name in contestants}
    bar = terminal.Bar(len(contestants) * arguments.seeds, unit="run")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name, flags in contestants.items():
            extra = _extra(arguments, flags, Path(scratch) / "trial")
            for seed in range(arguments.seeds):
                folder = Path(scratch) / f"seed-{seed}" / name
                outcomes[name].append(measure(flags, seed, folder, extra))
                _write(arguments, outcomes)
                bar.advance(1, name)
        picture = arguments.out.resolve() / f"quality-{arguments.table}.png"
        runs = ",".join(contestants)
        _main("--mode=compare", f"--run_dirs={runs}", f"--out={picture}", cwd=f"{scratch}/seed-0")
    bar.close()
    print(table(outcomes))


def _write(arguments, outcomes):
    with replacing(arguments.out / f"quality-{arguments.table}.md") as temporary:
        temporary.write_text(table(outcomes) + "\n")


if __name__ == "__main__":
    main()
