"""Trains sets of flags over several seeds, and compares their scores.

python -m benchmarks.quality                      minimal, stabilised minimal and stable_cnn
python -m benchmarks.quality --runs="a: --recipe=stable_cnn" --runs="b: --r1_gamma=1" --seeds=3
python -m benchmarks.quality --table=ablation     one of the published tables, see tables.ini
python -m benchmarks.quality --seconds=60         after a minute of training each

The runs are kept in the --out folder: the same command resumes a comparison that was stopped.
"""

import argparse
import configparser
import hashlib
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
from typing import NamedTuple

import generation
from benchmarks import report
from evaluation import metrics
from support import pictures
from support.errors import UserError, reason
from support.files import write_json, write_text

ROOT = Path(__file__).resolve().parent.parent
TABLES = configparser.ConfigParser(delimiters=":", interpolation=None)
TABLES.optionxform = str  # type: ignore  # names keep their capitals
TABLES.read(Path(__file__).with_name("tables.ini"), encoding="utf-8")

_NAME = re.compile(r"\w[\w .'-]*")
# Flags that open a run again if it was trained with them.
_LOADING = ("--gan=", "--data_dir=")
# Scores of the summary and, with whether more is better, of the verdict.
_SUMMARY = ("classes_covered", "frechet_distance", "precision", "recall")
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
    """A run to train: flags of main.py, the length and where to keep it.

    Attributes:
      name: Name of its set of flags.
      flags: Flags of main.py.
      steps: Number of steps, None for as many as the flags say.
      seconds: Seconds of training to fit into instead, or None.
      seed: The run's seed.
      out: Folder of the runs, and of a JSON file with the scores of each.
    """

    name: str
    flags: tuple
    steps: int | None
    seconds: int | None
    seed: int
    out: Path

    @property
    def folder(self) -> Path:
        """The run's folder, another one for other flags or another length."""
        made_by = repr([self.flags, self.steps, self.seconds]).encode()
        return self.out / f"{self.name}-{self.seed}-{hashlib.sha256(made_by).hexdigest()[:8]}"

    @property
    def record(self) -> Path:
        """The file of the scores."""
        return self.folder.with_name(f"{self.folder.name}.json")

    def measure(self, rate: float) -> dict:
        """Trains and scores the run with main.py, unless that was done before.

        Args:
          rate: Steps per second, if the run has a number of seconds.

        Returns:
          The content of metrics.json with `steps`, `training_seconds` and `command_seconds`. The
          seconds are None if the training was stopped and resumed.
        """
        if self.record.exists():
            return json.loads(self.record.read_text(encoding="utf-8"))
        steps = max(1, int(self.seconds * rate)) if self.seconds else self.steps
        length = [f"--num_steps={steps}"] if steps else []
        is_new, began = not self.folder.exists(), time.monotonic()
        _main(self.name, *self.flags, *length, f"--seed={self.seed}", f"--run_dir={self.folder}")
        command_seconds = time.monotonic() - began if is_new else None
        summary = json.loads((self.folder / "summary.json").read_text())
        is_unbroken = summary["steps_this_time"] == summary["steps"]
        loading = [flag for flag in self.flags if flag.startswith(_LOADING)]
        _main(self.name, "--mode=evaluate", f"--run_dir={self.folder}", *loading)
        scores = json.loads((self.folder / "metrics.json").read_text())
        scores["steps"] = summary["steps"]
        scores["training_seconds"] = summary["seconds"] if is_unbroken else None
        scores["command_seconds"] = command_seconds
        write_json(self.record, scores)
        return scores


def _main(name, *flags):
    """Runs main.py for the run of that name.

    Raises:
      UserError: If it fails, with its last line.
    """
    command = [sys.executable, ROOT / "main.py", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"{name}: {lines[-1].removeprefix('main.py: ')}")


def steps_per_second(name: str, flags: tuple) -> float:
    """Trains ever longer runs until two differ by two seconds; returns that rate.

    The difference excludes the time of compilation, which varies by some tenths of a second. The
    longer run is repeated, because other work may have disturbed it.
    """
    steps, before = 4, math.inf
    while True:
        seconds = _seconds(name, flags, steps)
        if seconds - before > 2:
            seconds = min(seconds, _seconds(name, flags, steps))
        if seconds - before > 2:
            return (steps - steps // 8) / (seconds - before)
        steps, before = 8 * steps, seconds


def _seconds(name, flags, steps):
    """Returns the seconds of training of a run in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        _main(name, *flags, f"--num_steps={steps}", f"--run_dir={folder}")
        return json.loads(Path(folder, "summary.json").read_text())["seconds"]


def compare(
    sets: dict[str, tuple],
    out: Path | str,
    name: str,
    *,
    seeds: int = 3,
    steps: int | None = None,
    seconds: int | None = None,
    jobs: int = 1,
    command: str = "python -m benchmarks.quality",
) -> dict[str, list]:
    """Trains and scores sets of flags, and writes tables, a verdict and figures.

    Text and distances are written after each run, an image with samples at the end.

    Args:
      sets: {name: flags of main.py}.
      out: Folder for the results and the runs, made if needed.
      name: Name of the comparison, in the names of its files.
      seeds: Number of runs of each set, with the seeds 0, 1, ...
      steps: Number of steps of each run; None for as many as its flags say.
      seconds: Seconds of training of each run, instead of steps.
      jobs: Number of runs at a time, each on a core of its own if possible.
      command: The command to name in the text.

    Returns:
      {name: [scores of each seed]}, see `Run.measure`.
    """
    out = Path(out).resolve()
    # The first seed of all sets before the second: a table of every set exists early.
    runs = [
        Run(key, flags, steps, seconds, seed, out / "runs")
        for seed, (key, flags) in itertools.product(range(seeds), sets.items())
    ]
    heading = (
        f"Written by `{command}`: means over {seeds} seeds, in brackets the range. "
        f"{report.machine()}"
    )
    print(f"{len(sets)} sets of flags, {seeds} seeds each: {', '.join(sets)}.", flush=True)
    unfinished = {run.name: run.flags for run in runs if not run.record.exists()}
    outcomes: dict[str, list] = {}
    pin = None
    if jobs > 1 and hasattr(os, "sched_setaffinity"):
        cores = itertools.cycle(os.sched_getaffinity(0))

        def pin():  # the processes that a thread starts inherit its core
            os.sched_setaffinity(0, {next(cores)})

    pool = ThreadPoolExecutor(jobs, initializer=pin)
    try:
        rates = {}
        if seconds:  # before any run is timed, by as many processes at a time
            names = list(unfinished) * (1 if len(unfinished) >= jobs else jobs)
            measured = pool.map(steps_per_second, names, [unfinished[name] for name in names])
            rates = dict(zip(names, measured, strict=True))
        futures = [pool.submit(run.measure, rates.get(run.name, 0.0)) for run in runs]
        for number, (run, future) in enumerate(zip(runs, futures, strict=True), 1):
            scores = future.result()
            outcomes.setdefault(run.name, []).append(scores)
            text = f"{summary(outcomes)}\n\n{verdict(outcomes)}\n"
            page = f"{heading}\n\n{text}\nAll scores:\n\n{table(outcomes)}\n"
            write_text(out / f"quality-{name}.md", page)
            plot(out / f"quality-{name}-distances.png", outcomes)
            distance = report.number(scores["frechet_distance"])
            done = f"Run {number} of {len(runs)}, {run.name}, seed {run.seed}"
            print(f"{done}: Fréchet distance {distance}.", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)
    rows = []
    for run in runs[: len(sets)]:  # of the first seed
        gan = [flag.removeprefix("--gan=") for flag in run.flags if flag.startswith("--gan=")]
        generator = generation.load(run.folder, gan=str(ROOT / gan[0]) if gan else None)
        rows.append((run.name, generator.sample(16)[0].reshape(16, -1)))
        generator.close()
    pictures.compare(out / f"quality-{name}.png", rows)
    print(f"\n{text}\nSaved all scores in {out / f'quality-{name}.md'}; runs in {out / 'runs'}.")
    return outcomes


def summary(outcomes: dict[str, list]) -> str:
    """Returns a Markdown table of the sets, the best first, and of real images.

    Rows are sorted by the mean number of classes covered, then by the mean Fréchet distance.

    Args:
      outcomes: {name: [scores of each seed]}.
    """

    def rank(item):
        classes, distance = (statistics.mean(s[key] or 0 for s in item[1]) for key in _SUMMARY[:2])
        return -classes, distance

    references = next(iter(outcomes.values()))[0]["reference_scores"]
    real = next(iter(references))
    rows = [["", *(metrics.LABELS[key] for key in _SUMMARY)]]
    for name, runs in [*sorted(outcomes.items(), key=rank), (real, [references[real]])]:
        cells = [[scores[key] for scores in runs if scores[key] is not None] for key in _SUMMARY]
        rows.append([name, *(report.spread(known) if known else "" for known in cells)])
    return report.table(rows)


def table(outcomes: dict) -> str:
    """Returns a Markdown table with a row for each score.

    Args:
      outcomes: {name: [scores of each seed]}.

    Returns:
      Means, and in brackets the ranges over the seeds; the reference scores at the right.
    """
    runs = [scores for scores_of_seeds in outcomes.values() for scores in scores_of_seeds]
    references = {name: dict(each) for name, each in runs[0]["reference_scores"].items()}
    real = next(iter(references.values()))
    for scores in runs:
        if "real_label_accuracy" in scores:
            real["label_accuracy"] = scores["real_label_accuracy"]
            real["label_frechet_distances"] = scores["real_label_frechet_distances"]
    columns = {**outcomes, **{name: [each] for name, each in references.items()}}
    values = [[_values(scores) for scores in runs] for runs in columns.values()]
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


def _values(scores):
    """Returns {label of a row: value}, None if the scores have none."""
    accuracies = scores.get("label_accuracies", {}).values()
    distances = scores.get("label_frechet_distances", {}).values()
    return {
        **{label: scores[key] for key, label in metrics.LABELS.items()},
        "rarest class": min(scores["histogram"] or [], default=None),
        "most frequent class": max(scores["histogram"] or [], default=None),
        "taken for the label asked for": scores.get("label_accuracy"),
        "the worst label": min(accuracies, default=None),
        "greatest Fréchet distance within a label": max(distances, default=None),
        "accuracy after training on samples alone": scores.get("trained_on_samples_accuracy"),
        "steps": scores.get("steps"),
        "seconds of training": scores.get("training_seconds"),
        "seconds of the whole command": scores.get("command_seconds"),
    }


def verdict(outcomes: dict) -> str:
    """Describes which set is the best, and how each differs from the first.

    Sets differ if all values of one are above all of the other.

    Args:
      outcomes: {name: [scores of each seed]}.
    """
    (baseline, base_runs), *others = outcomes.items()
    seeds = min(len(runs) for runs in outcomes.values())
    if not others or seeds < 2:
        return "Verdict: none; it compares at least two sets over at least two seeds."
    distances = {name: [s["frechet_distance"] for s in runs] for name, runs in outcomes.items()}
    best, second = sorted(distances, key=lambda name: statistics.mean(distances[name]))[:2]
    gap, _ = _gap(distances[second], distances[best])
    lead = f"{report.number(gap)} beyond the range" if gap > 0 else "within the range"
    lines = [
        f"Verdict: {best} has the smallest Fréchet distance, {lead} of {second}. Compared with "
        f"{baseline} (ranges of {seeds} equal runs are apart in "
        f"{2 / math.comb(2 * seeds, seeds):.0%} of cases by chance):",
        "",
    ]
    for name, runs in others:
        found: dict[str, list] = {"better": [], "worse": [], "within the range of the seeds": []}
        for key, more_is_better in _VERDICT.items():
            label = metrics.LABELS[key]
            before, after = ([scores[key] for scores in each] for each in (base_runs, runs))
            gap, is_more = _gap(after, before)
            if gap <= 0:
                found["within the range of the seeds"].append(label)
                continue
            means = [report.number(statistics.mean(values)) for values in (after, before)]
            found["better" if is_more == more_is_better else "worse"].append(
                f"{label} ({means[0]} instead of {means[1]}, {report.number(gap)} beyond the range)"
            )
        texts = [f"{word}: {', '.join(labels)}" for word, labels in found.items() if labels]
        lines.append(f"- {name} is {'; '.join(texts)}.")
    return "\n".join(lines)


def _gap(values, others):
    """Returns the gap between two ranges, 0 or less if they meet, and which is higher."""
    more, less = min(values) - max(others), min(others) - max(values)
    return max(more, less), more > less


def plot(path: Path, outcomes: dict[str, list]) -> None:
    """Saves a figure of the Fréchet distance of each seed, a row for each set."""
    with pictures.figure(path, 8, 1.2 + 0.3 * len(outcomes)) as figure:
        from matplotlib.ticker import LogLocator

        axes = figure.add_subplot(xlabel="Fréchet distance, a point for each seed")
        distances = []
        for name, runs in outcomes.items():
            distances += [scores["frechet_distance"] for scores in runs]
            axes.plot(distances[-len(runs) :], [name] * len(runs), "o", color=pictures.BLUE)
        if max(distances) > 10 * min(distances):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_minor_formatter("")
        else:
            axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.set_ylim(len(outcomes) - 0.5, -0.5)
        axes.grid(alpha=0.3)


def count(text: str) -> int:
    """Parses a positive integer of the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text}")
    return int(text)


def parse_runs(texts: list[str]) -> dict[str, tuple]:
    """Parses ["name: --flag=1 --flag=2", ...] to {name: flags}.

    Raises:
      ValueError: If a text has another form, as a UserError or of `shlex`.
    """
    runs = {}
    for text in texts:
        name, colon, flags = (part.strip() for part in text.partition(":"))
        if not colon or not _NAME.fullmatch(name) or name in runs:
            raise UserError(f"--runs must be 'NAME: --FLAG=VALUE ...', each NAME once, got {text}")
        runs[name] = tuple(shlex.split(flags))
    return runs


def parse(words, module="quality", description=__doc__, table="recipes", steps=None) -> dict:
    """Parses the command line to the arguments of `compare`.

    Args:
      words: The command line.
      module, description: The module that is run, in `benchmarks`, and the text of its help.
      table, steps: Values of flags that are not given.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group()
    runs_help = "a set: flags of main.py"
    source.add_argument("--runs", action="append", metavar="'NAME: FLAGS'", help=runs_help)
    table_help = f"a published table (default: {table})"
    source.add_argument("--table", choices=TABLES.sections(), default=table, help=table_help)
    add("--only", help="comma-separated sets (default: all)")
    add("--seeds", type=count, default=3, help="seeds 0, 1, ... (default: 3)")
    length = parser.add_mutually_exclusive_group()
    usual = f"{steps:,}" if steps else "a set's own"
    length.add_argument("--steps", type=count, help=f"of each run (default: {usual})")
    length.add_argument("--seconds", type=count, help="of training of each run, instead of steps")
    pinned = "runs at a time, each on a core of its own if the system allows it (default: 1)"
    add("--jobs", type=count, default=1, help=pinned)
    add("--out", type=Path, help="folder for the results (default: quality/TABLE)")
    options = vars(parser.parse_args(words))
    texts, table_name, only = (options.pop(key) for key in ("runs", "table", "only"))
    name = "runs" if texts else table_name
    try:
        sets = parse_runs(texts or [f"{k}: {v}" for k, v in TABLES[table_name].items()])
    except ValueError as error:
        parser.error(str(error))
    if only:
        if not set(only.split(",")) <= sets.keys():
            parser.error(f"--only must be some of {', '.join(sets)}, got {only}")
        sets = {key: sets[key] for key in only.split(",")}
    if options["seconds"]:
        name += f"-{options['seconds']}s"
    else:
        options["steps"] = options["steps"] or steps
    options["out"] = options["out"] or Path("quality", name)
    command = shlex.join(["python", "-m", f"benchmarks.{module}", *words])
    return {"sets": sets, "name": name, "command": command, **options}


def main(words: list[str] | None = None, module: str = "quality", **of_module) -> None:
    """Runs the command; an error that the user can correct ends it with one line."""
    arguments = parse(sys.argv[1:] if words is None else words, module, **of_module)
    try:
        compare(**arguments)
    except (UserError, OSError) as error:
        sys.exit(f"python -m benchmarks.{module}: {reason(error)}")


if __name__ == "__main__":
    main()
