"""What trained and scored runs came to, and the tables that tell it."""

import statistics
from typing import NamedTuple

from benchmarks import report
from evaluation import metrics

_ASKED_FOR = "taken for the label asked for"
_WITHIN = "greatest Fréchet distance within a label"


class Outcome(NamedTuple):
    """One trained and scored run: its metrics.json, steps, and seconds.

    None in the place of seconds of which a run that was stopped and went on has only a part.
    """

    scores: dict
    steps: int
    training_seconds: float | None
    command_seconds: float | None


class Column(NamedTuple):
    """A set of flags under a name, and the seconds of training to fit into, None for none."""

    base: str
    flags: tuple
    seconds: int | None


def table(outcomes):
    """{name: [Outcome]} -> Markdown: means, in brackets ranges over the seeds; reference scores."""
    columns = {name: _column(runs) for name, runs in outcomes.items() if runs}
    labels = next(iter(columns.values()))
    (first, *_), *_ = filter(None, outcomes.values())
    bounds = first.scores["reference_scores"]
    columns |= {name: _scores([scores]) for name, scores in bounds.items()}
    columns[next(iter(bounds))] |= _labels_of_real_images(outcomes)
    rows = [[label, *(cells.get(label, "") for cells in columns.values())] for label in labels]
    return report.plain_table(["", *columns], [row for row in rows if any(row[1:])])


def seconds_table(columns, outcomes):
    """{name: Column}, {name: [Outcome]} -> Markdown: Fréchet distances by seconds of training."""
    budgets = sorted({column.seconds for column in columns.values()})
    cells = {column.base: {} for column in columns.values()}
    for name, runs in outcomes.items():
        base, _, seconds = columns[name]
        cells[base][seconds] = _spread(distances(runs))
    (first, *_), *_ = filter(None, outcomes.values())
    for name, scores in first.scores["reference_scores"].items():
        cells[name] = dict.fromkeys(budgets, _digits(scores["frechet_distance"]))
    rows = [[name, *(row.get(each, "") for each in budgets)] for name, row in cells.items()]
    return report.plain_table(["", *(f"{seconds} s" for seconds in budgets)], rows)


def distances(runs):
    """[Outcome] -> the Fréchet distance of each."""
    return [run.scores["frechet_distance"] for run in runs]


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
    ends = {"rarest class": min, "most frequent class": max}
    return {
        **{label: _spread([each[key] for each in scores]) for key, label in metrics.LABELS.items()},
        **{
            label: _percent([end(each["histogram"]) for each in scores])
            for label, end in ends.items()
        },
        **_label_scores([each for each in scores if "label_accuracy" in each]),
    }


def _label_scores(scores):
    """What each of several metrics.json of conditional runs holds -> {label: text}."""
    distances = [each["label_frechet_distances"].values() for each in scores]
    return {
        _ASKED_FOR: _percent([each["label_accuracy"] for each in scores]),
        "the worst label": _percent([min(each["label_accuracies"].values()) for each in scores]),
        _WITHIN: _spread([max(each) for each in distances if each]),
        "accuracy after training on samples alone": _percent(
            [each["trained_on_samples_accuracy"] for each in scores]
        ),
    }


def _labels_of_real_images(outcomes):
    """{name: [Outcome]} -> {label: text}: what bounds the labels' scores, where they are known."""
    scores = [run.scores for runs in outcomes.values() for run in runs]
    scores = [each for each in scores if each.get("real_label_accuracy")]
    distances = [each["real_label_frechet_distances"].values() for each in scores]
    return {
        _ASKED_FOR: _percent([each["real_label_accuracy"] for each in scores]),
        _WITHIN: _spread([max(each) for each in distances if each]),
    }


def _percent(shares):
    text = _spread([100 * share for share in shares])
    return f"{text} %" if text else ""


def _spread(values):
    """Numbers, None where one is not known -> `mean [least, most]`, empty if none is known."""
    values = [value for value in values if value is not None]
    if not values:
        return ""
    mean, low, high = map(_digits, (statistics.mean(values), min(values), max(values)))
    return mean if low == high else f"{mean} [{low}, {high}]"


def _digits(value):
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
