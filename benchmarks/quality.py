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
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import terminal
from atomic import replacing
from models import recipes

ROOT = Path(__file__).resolve().parent.parent
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
        "stable_mlp": (),
        "without R1": ("--r1_gamma=0",),
        "without the average": ("--ema_decay=0",),
        "without minibatch deviation": ("--nominibatch_stddev",),
        "without windows": ("--windows=0",),
        "without decay of the rates": ("--decay=0",),
        "Adam's usual betas": ("--beta1=0.9", "--beta2=0.999"),
    },
    "budget": {
        **{name: (f"--recipe={name}",) for name in ("minimal", "leaky_mlp", "stable_mlp")},
        "dcgan": ("--recipe=dcgan", "--batch_size=32"),
        "dcgan in bfloat16": ("--recipe=dcgan", "--batch_size=32", "--precision=bfloat16"),
        "upsampling_cnn": ("--recipe=upsampling_cnn",),
        "pretrained_cnn": ("--recipe=pretrained_cnn", "--pretraining=500"),
    },
}
_METRICS = (
    "frechet_distance", "kernel_distance", "classifier_score", "digits_covered",
    "total_variation", "precision", "recall", "density", "coverage", "memorised_share",
)  # fmt: skip
_HEADINGS = ("Fréchet distance", "kernel distance", "classifier score", "digits covered",
             "total variation", "precision", "recall", "density", "coverage",
             "memorised")  # fmt: skip


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
    steps, training = re.search(r"Done: ([\d,]+) steps in ([\d.,]+) s", said).groups()
    _main("--mode=evaluate", f"--run_dir={folder}")
    scores = json.loads((Path(folder) / "metrics.json").read_text())
    return Outcome(scores, _number(steps), _number(training), seconds)


def steps_for(flags, seconds, folder, few):
    """How many steps of a recipe fit into so many seconds of training, by a run of a few."""
    said = _main(*flags, f"--num_steps={few}", f"--run_dir={folder}", "--new")
    taken = _number(re.search(r"steps in ([\d.,]+) s", said).group(1))
    return max(1, int(few * seconds / taken))


def table(outcomes):
    """{name: [Outcome]} -> Markdown: mean and, in brackets, the range over the seeds."""
    headings = [
        "",
        *_HEADINGS,
        "rarest digit",
        "most frequent",
        "steps",
        "training, s",
        "command, s",
    ]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for name, runs in filter(itemgetter(1), outcomes.items()):
        cells = [_spread([run.scores[key] for run in runs]) for key in _METRICS]
        shares = [run.scores["histogram"] for run in runs]
        cells += [_spread([100 * pick(share) for share in shares]) + " %" for pick in (min, max)]
        cells += [_spread([getattr(run, key) for run in runs]) for key in Outcome._fields[1:]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values):
    mean = (
        f"{statistics.mean(values):,.3g}"
        if max(values) < 1000
        else f"{statistics.mean(values):,.0f}"
    )
    if max(values) - min(values) < 1e-9:
        return mean
    low, high = (f"{v:,.3g}" if v < 1000 else f"{v:,.0f}" for v in (min(values), max(values)))
    return f"{mean} [{low}, {high}]"


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
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... (default: 3)")
    parser.add_argument("--steps", type=int, help="of each run (default: the recipe's)")
    parser.add_argument("--seconds", type=float, default=60, help="of training, --table=budget")
    return parser


def _extra(arguments, flags, folder):
    """The flags that fit a run into the budget, if there is one."""
    if arguments.table != "budget":
        return (f"--num_steps={arguments.steps}",) if arguments.steps else ()
    (recipe,) = re.findall(r"--recipe=(\w+)", flags[0])
    few = 4 if recipes.get(recipe).convolutional else 2000
    return (f"--num_steps={steps_for(flags, arguments.seconds, folder, few)}",)


def main():
    """Trains and scores all, and writes the table so far after each run, at last a picture."""
    arguments = _parser().parse_args()
    contestants = TABLES[arguments.table]
    stable = ("--recipe=stable_mlp",) if arguments.table == "ablation" else ()
    outcomes = {name: [] for name in contestants}
    bar = terminal.Bar(len(contestants) * arguments.seeds, unit="run")
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name, own in contestants.items():
            flags = (*stable, *own)
            extra = _extra(arguments, flags, Path(scratch) / "trial")
            for seed in range(arguments.seeds):
                folder = Path(scratch) / f"seed-{seed}" / name
                outcomes[name].append(measure(flags, seed, folder, extra))
                _write(arguments.table, outcomes)
                bar.advance(1, name)
        picture = RESULTS / f"quality-{arguments.table}.png"
        runs = ",".join(contestants)
        _main("--mode=compare", f"--run_dirs={runs}", f"--out={picture}", cwd=f"{scratch}/seed-0")
    bar.close()
    print(table(outcomes))


def _write(name, outcomes):
    with replacing(RESULTS / f"quality-{name}.md") as temporary:
        temporary.write_text(table(outcomes) + "\n")


if __name__ == "__main__":
    main()
