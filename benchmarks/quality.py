"""Trains sets of flags over several seeds, and compares their scores.

python -m benchmarks.quality --runs="a: --recipe=stable_cnn" --runs="b: --r1_gamma=1" --seeds=3
python -m benchmarks.quality --table=ablation     one of the published tables, see tables.ini
python -m benchmarks.quality --table=seconds      distance after 5, 15, ... seconds of training

The runs are kept in the --out folder: the same command resumes a comparison that was stopped.
"""

import argparse
import configparser
import contextlib
import itertools
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from benchmarks import report
from evaluation import metrics
from models import recipes
from support import terminal
from support.errors import UserError, reason
from support.files import atomic_write, write_json, write_text
from training.options import processor_cores

ROOT = Path(__file__).resolve().parent.parent
TABLES = configparser.ConfigParser(delimiters=":", interpolation=None)
TABLES.optionxform = str  # type: ignore  # names keep their capitals
TABLES.read(Path(__file__).with_name("tables.ini"), encoding="utf-8")

_NAME = re.compile(r"\w[\w .'-]*")
# Flags of main.py that this command sets, or that would make it do something else than train.
_RESERVED = {"seed", "run_dir", "new", "mode", "summary", "help", "helpfull", "flagfile"}
# Flags that open a run again if it was trained with them.
_LOADING = ("--gan=", "--data_dir=", "--dataset=")
_SECONDS = [5, 15, 30, 60, 120]  # of --table=seconds
# Scores that the verdict compares, and whether more is better.
_VERDICT = {"frechet_distance": False, "precision": True, "recall": True}
# Rows of the table that are in percent.
_PERCENT = (
    "rarest class",
    "most frequent class",
    "taken for the label asked for",
    "the worst label",
    "accuracy after training on samples alone",
)


class Run(NamedTuple):
    """A run to train: flags of main.py, the length and the folder.

    Attributes:
      name: Name of its column.
      flags: Flags of main.py.
      steps: Number of steps, None for as many as the flags say.
      seconds: Seconds of training to fit into instead, or None.
      seed: The run's seed.
      folder: The run's folder; its outcome is kept in a JSON file next to it.
    """

    name: str
    flags: tuple
    steps: int | None
    seconds: int | None
    seed: int
    folder: Path

    @property
    def record(self) -> Path:
        """The file of the outcome."""
        return self.folder.with_name(f"{self.folder.name}.json")

    @property
    def made_by(self) -> dict:
        """The flags and the length that an outcome must have been made by to be kept."""
        return {"flags": list(self.flags), "steps": self.steps, "seconds": self.seconds}


class Outcome(NamedTuple):
    """A trained and scored run.

    Attributes:
      scores: Content of its metrics.json.
      steps: Number of training steps.
      training_seconds: None if the training was stopped and resumed.
      command_seconds: Seconds of the whole command; None if it was stopped and resumed.
    """

    scores: dict
    steps: int | None = None
    training_seconds: float | None = None
    command_seconds: float | None = None


def parse_runs(texts: list[str]) -> dict[str, tuple]:
    """Parses ["name: --flag=1 --flag=2", ...] to {name: flags}.

    Raises:
      UserError: If a text has another form.
    """
    runs = {}
    for text in texts:
        name, colon, flags = (part.strip() for part in text.partition(":"))
        if not colon or not _NAME.fullmatch(name) or name in runs:
            raise UserError(f"--runs must be 'NAME: --FLAG=VALUE ...', each NAME once, got {text}")
        try:
            runs[name] = tuple(shlex.split(flags))
        except ValueError as error:
            raise UserError(f"--runs={text}: {error}") from None
        for flag in runs[name]:
            word = flag.removeprefix("--").partition("=")[0]
            if not flag.startswith("--") or not word:
                raise UserError(f"--runs={text}: expected --FLAG=VALUE or --FLAG, found {flag}")
            if _RESERVED & {word, word.removeprefix("no")}:
                raise UserError(f"--runs={text}: this command sets {flag} itself; omit it")
    return runs


def kept(run: Run) -> Outcome | None:
    """Returns the outcome of a run that an earlier command has finished.

    Raises:
      UserError: If that command had other flags or another length.
    """
    if not run.record.exists():
        return None
    content = json.loads(run.record.read_text(encoding="utf-8"))
    for key, value in run.made_by.items():
        if content[key] != value:
            raise UserError(
                f"{run.folder} contains a run with other {key}: {content[key]}, now {value}; "
                "choose another name or --out"
            )
    return Outcome(**content["outcome"])


def measure(run: Run, rate: float = 0.0) -> Outcome:
    """Trains and scores a run with main.py, unless its outcome is kept.

    Args:
      run: `Run`.
      rate: Steps per second, if the run has a number of seconds.
    """
    outcome = kept(run)
    if outcome:
        return outcome
    steps = max(1, int(run.seconds * rate)) if run.seconds else run.steps
    length = [f"--num_steps={steps}"] if steps else []
    is_new, began = not run.folder.exists(), time.monotonic()
    _main(*run.flags, *length, f"--seed={run.seed}", f"--run_dir={run.folder}")
    command_seconds = time.monotonic() - began if is_new else None
    summary = json.loads((run.folder / "summary.json").read_text())
    is_unbroken = summary["steps_this_time"] == summary["steps"]
    _main("--mode=evaluate", f"--run_dir={run.folder}", *_loading_flags(run))
    scores = json.loads((run.folder / "metrics.json").read_text())
    seconds = summary["seconds"] if is_unbroken else None
    outcome = Outcome(scores, summary["steps"], seconds, command_seconds)
    write_json(run.record, {**run.made_by, "outcome": outcome._asdict()})
    return outcome


def steps_per_second(flags: tuple) -> float:
    """Trains two short runs and returns the rate of their difference.

    The difference excludes the time of compilation.
    """
    names = [flag.partition("=")[2] for flag in flags if flag.startswith("--recipe=")]
    few = 4 if recipes.get([*names, "minimal"][0]).convolutional else 2000
    seconds = []
    with tempfile.TemporaryDirectory() as scratch:
        for steps in (few, 2 * few):
            folder = Path(scratch, str(steps))
            _main(*flags, f"--num_steps={steps}", f"--run_dir={folder}")
            seconds.append(json.loads((folder / "summary.json").read_text())["seconds"])
    return few / max(seconds[1] - seconds[0], 1e-3)


def _main(*flags, cwd=ROOT):
    """Runs main.py.

    Raises:
      UserError: If it fails, with its last line.
    """
    command = [sys.executable, ROOT / "main.py", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"main.py {shlex.join(flags)}: {lines[-1]}")


def _loading_flags(run):
    """Returns the flags that open a run again, the file of a class with its full path."""
    return [
        f"--gan={ROOT / flag.removeprefix('--gan=')}" if flag.startswith("--gan=") else flag
        for flag in run.flags
        if flag.startswith(_LOADING)
    ]


def compare(options: argparse.Namespace) -> None:
    """Trains and scores all columns.

    The results are written after each run, an image at the end.
    """
    folder = options.out.resolve() / "runs"
    # The first seed of all columns before the second: a table of every column exists early.
    columns = list(itertools.product(options.columns.items(), options.seconds or [None]))
    runs = []
    for seed, ((name, flags), seconds) in itertools.product(range(options.seeds), columns):
        path = folder / f"seed-{seed}" / (f"{name} {seconds} s" if seconds else name)
        runs.append(Run(name, flags, options.steps, seconds, seed, path))
    unfinished = {run.name: run.flags for run in runs if not kept(run)}
    outcomes: dict = {name: {} for name in options.columns}
    rates: dict = {}
    pool = _pool(options.jobs)
    with contextlib.closing(terminal.Bar(len(runs), unit="run")) as bar:
        try:
            if options.seconds:  # before any run is timed
                measured = pool.map(steps_per_second, unfinished.values())
                rates = dict(zip(unfinished, measured, strict=True))
            futures = [pool.submit(measure, run, rates.get(run.name, 0.0)) for run in runs]
            for run, future in zip(runs, futures, strict=True):
                outcomes[run.name].setdefault(run.seconds, []).append(future.result())
                text = _write(options, outcomes)
                bar.advance(1, run.folder.name)
        finally:
            pool.shutdown(cancel_futures=True)
    first = [run for run in runs if run.seed == 0]
    names = ",".join(run.folder.name for run in first)
    gans = {flag for run in first for flag in _loading_flags(run) if flag.startswith("--gan=")}
    picture = options.out.resolve() / f"quality-{options.name}.png"
    flags = [f"--run_dirs={names}", f"--out={picture}", *sorted(gans)]
    _main("--mode=compare", *flags, cwd=folder / "seed-0")
    print(f"{text}\nSaved {options.out}; the runs are in {folder}.")


def _pool(jobs):
    """Returns threads for that many runs at a time.

    Each has a core of its own if possible.
    """
    if jobs == 1 or not hasattr(os, "sched_setaffinity"):
        return ThreadPoolExecutor(jobs)
    cores = SimpleQueue()
    for core in os.sched_getaffinity(0):
        cores.put(core)
    # The processes that a thread starts inherit its core.
    return ThreadPoolExecutor(jobs, initializer=lambda: os.sched_setaffinity(0, {cores.get()}))


def _write(options, outcomes):
    """Writes the results so far, Markdown and a figure, and returns the text.

    The text is the table and the verdict.

    Args:
      options: Result of `parse`.
      outcomes: {name: {seconds, or None: [Outcome]}}.
    """
    out, name = options.out, f"quality-{options.name}"
    outcomes = {column: by_seconds for column, by_seconds in outcomes.items() if by_seconds}
    # Of each column, the runs of the most seconds.
    final = {column: list(by_seconds.values())[-1] for column, by_seconds in outcomes.items()}
    heading = (
        f"Written by `python -m benchmarks.quality {options.words}`: means over {options.seeds} "
        f"seeds, in brackets the range. {report.machine()}"
    )
    text = seconds_table(outcomes) if options.seconds else table(final)
    text = f"{text}\n\n{verdict(final)}\n"
    write_text(out / f"{name}.md", f"{heading}\n\n{text}")
    _plot(out / f"{name}-distances.png", outcomes)
    return text


def table(outcomes: dict) -> str:
    """Returns a Markdown table with a row for each score.

    Args:
      outcomes: {name: [Outcome]}.

    Returns:
      Means, and in brackets the ranges over the seeds; the reference scores at the right.
    """
    columns = {**outcomes, **_references(outcomes)}
    values = [[_values(run) for run in runs] for runs in columns.values()]
    rows = [["", *columns]]
    for label in values[0][0]:
        unit, suffix = (0.01, " %") if label in _PERCENT else (1, "")
        cells = []
        for runs in values:
            known = [run[label] / unit for run in runs if run[label] is not None]
            cells.append(f"{report.spread(known)}{suffix}" if known else "")
        if any(cells):
            rows.append([label, *cells])
    return report.table(rows)


def _references(outcomes):
    """Returns {name: [Outcome]} of the reference scores.

    Those of labels are of real test images.
    """
    scores = [run.scores for runs in outcomes.values() for run in runs]
    references = {name: dict(each) for name, each in scores[0]["reference_scores"].items()}
    for each in scores:
        if each.get("real_label_accuracy"):
            real = next(iter(references.values()))
            real["label_accuracy"] = each["real_label_accuracy"]
            real["label_frechet_distances"] = each["real_label_frechet_distances"]
    return {name: [Outcome(each)] for name, each in references.items()}


def _values(run):
    """Returns {label of a row: value}, None if the run has none."""
    scores = run.scores
    accuracies = scores.get("label_accuracies", {}).values()
    distances = scores.get("label_frechet_distances", {}).values()
    return {
        **{label: scores[key] for key, label in metrics.LABELS.items()},
        "rarest class": min(scores["histogram"]),
        "most frequent class": max(scores["histogram"]),
        "taken for the label asked for": scores.get("label_accuracy"),
        "the worst label": min(accuracies, default=None),
        "greatest Fréchet distance within a label": max(distances, default=None),
        "accuracy after training on samples alone": scores.get("trained_on_samples_accuracy"),
        "steps": run.steps,
        "seconds of training": run.training_seconds,
        "seconds of the whole command": run.command_seconds,
    }


def seconds_table(outcomes: dict) -> str:
    """Returns a Markdown table of Fréchet distances by seconds of training.

    Args:
      outcomes: {name: {seconds: [Outcome]}}.
    """
    budgets = sorted({seconds for by_seconds in outcomes.values() for seconds in by_seconds})
    rows = [["", *(f"{seconds} s" for seconds in budgets)]]
    for name, by_seconds in outcomes.items():
        runs = [by_seconds.get(seconds) for seconds in budgets]
        rows.append([name, *(report.spread(_distances(each)) if each else "" for each in runs)])
    for name, (reference,) in _references(next(iter(outcomes.values()))).items():
        rows.append([name, *[report.number(reference.scores["frechet_distance"])] * len(budgets)])
    return report.table(rows)


def verdict(outcomes: dict) -> str:
    """Describes which differences from the first column exceed the seeds' spread.

    A difference does if all values of one column are above all of the other.

    Args:
      outcomes: {name: [Outcome]}.
    """
    (baseline, base_runs), *others = outcomes.items()
    seeds = min(len(runs) for runs in outcomes.values())
    if not others or seeds < 2:
        return "Verdict: none; it compares at least two columns over at least two seeds."
    chance = 2 / math.comb(2 * seeds, seeds)
    lines = [
        f"Verdict: differences from {baseline} that exceed the spread of the seeds, so that all "
        f"values of one are above all of the other (by chance in {chance:.0%} of equal columns):",
        "",
    ]
    for name, runs in others:
        clear, unclear = [], []
        for key, more_is_better in _VERDICT.items():
            label = metrics.LABELS[key]
            before = [run.scores[key] for run in base_runs]
            after = [run.scores[key] for run in runs]
            is_more, is_less = min(after) > max(before), max(after) < min(before)
            if is_more or is_less:
                word = "better" if is_more == more_is_better else "worse"
                means = [report.number(statistics.mean(values)) for values in (after, before)]
                clear.append(f"{label} {word}, {means[0]} instead of {means[1]}")
            else:
                unclear.append(label)
        within = f"; within the spread: {', '.join(unclear)}" if unclear else ""
        lines.append(f"- {name}: {'; '.join(clear) or 'none'}{within}.")
    return "\n".join(lines)


def _distances(runs):
    return [run.scores["frechet_distance"] for run in runs]


def _plot(path, outcomes):
    """Saves a figure of the Fréchet distances, by name or over seconds.

    It shows means and ranges.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    ticks = list(next(iter(outcomes.values())))
    axes = Figure(figsize=(7, 4.5), dpi=100, layout="constrained").add_subplot()
    axes.set(ylabel="Fréchet distance", yscale="log")
    if ticks != [None]:
        axes.set(xlabel="seconds of training", xscale="log")
        axes.set_xticks(ticks, [str(seconds) for seconds in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
    for name, by_seconds in outcomes.items():
        found = [_distances(runs) for runs in by_seconds.values()]
        means = [statistics.mean(values) for values in found]
        low = [mean - min(values) for mean, values in zip(means, found, strict=True)]
        high = [max(values) - mean for mean, values in zip(means, found, strict=True)]
        x = [name] if ticks == [None] else list(by_seconds)
        axes.errorbar(x, means, yerr=[low, high], marker="o", capsize=2, label=name)
    if ticks == [None]:
        axes.tick_params(axis="x", rotation=30)
    else:
        axes.legend(fontsize=8, frameon=False)
    axes.grid(alpha=0.3)
    with atomic_write(path) as temporary:
        axes.figure.savefig(temporary, format="png", metadata={"Software": None})


def _count(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text}")
    return int(text)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line; `columns` of the result are {name: flags}."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--runs", action="append", metavar="'NAME: FLAGS'", help="a column: flags of main.py")
    add("--table", choices=TABLES.sections(), default="recipes", help="a published table")
    add("--only", help="comma-separated columns (default: all)")
    add("--seeds", type=_count, default=3, help="seeds 0, 1, ... (default: 3)")
    add("--steps", type=_count, help="of each run (default: as its flags say)")
    add(
        "--seconds",
        type=lambda text: sorted({_count(part) for part in text.split(",")}),
        help="A,B,...: of training, each in a run of its own, instead of steps (default for "
        "--table=seconds: 5,15,30,60,120)",
    )
    add(
        "--jobs",
        type=_count,
        default=1,
        help="runs at a time, each on a core of its own where the system allows it; their seconds "
        "are not those of a single run (default: 1)",
    )
    add("--out", type=Path, help="folder for the results (default: quality/TABLE)")
    options = parser.parse_args(words)
    options.words = shlex.join(sys.argv[1:] if words is None else words)
    options.name = "runs" if options.runs else options.table
    try:
        texts = options.runs or [f"{k}: {v}" for k, v in TABLES[options.table].items()]
        options.columns = parse_runs(texts)
    except UserError as error:
        parser.error(str(error))
    if options.only:
        names = options.only.split(",")
        if not set(names) <= options.columns.keys():
            parser.error(f"--only must be some of {', '.join(options.columns)}, got {options.only}")
        options.columns = {name: options.columns[name] for name in names}
    if options.name == "seconds" and not options.seconds:
        options.seconds = _SECONDS
    if options.steps and options.seconds:
        parser.error("--steps is not valid with --seconds or --table=seconds; omit it")
    if options.jobs > processor_cores():
        parser.error(f"--jobs must be at most {processor_cores()}, the cores, got {options.jobs}")
    options.out = options.out or Path("quality", options.name)
    return options


def main(words: list[str] | None = None) -> None:
    """Runs the command; an error that the user can correct ends it with one line."""
    options = parse(words)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        compare(options)
    except (UserError, OSError) as error:
        sys.exit(f"python -m benchmarks.quality: {reason(error)}")


if __name__ == "__main__":
    main()
