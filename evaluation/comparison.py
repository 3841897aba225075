"""Runs side by side: a table of what they are and how they did, and a row of samples of each."""

import json
import shlex
import textwrap
from typing import NamedTuple

import generation
from evaluation import metrics
from models import custom_class
from support import pictures
from support.errors import one_line
from training.run import RunFolder

_SAMPLES = 16
_SCORES = ("frechet_distance", "classes_covered", "precision", "recall")


class Run(NamedTuple):
    """folder: RunFolder; facts: {label: text}; unscored: why there are no scores, or None."""

    folder: RunFolder
    facts: dict
    unscored: str | None


def compare(run_dirs, out, seed=0, gans=(), log=print):
    """Logs a table of run folders, then writes one picture with a row of samples each to `out`.

    gans: `FILE.py:CLASS` of the runs that were trained with classes of one's own.
    """
    rows, runs = [], []
    for run_dir in run_dirs:
        generator = generation.load(run_dir, gan=_gan_of(RunFolder(run_dir), gans))
        samples, _ = generator.sample(_SAMPLES, seed)
        rows.append((str(run_dir), samples.reshape(_SAMPLES, -1)))
        runs.append(_run(RunFolder(run_dir), generator))
        generator.close()
    facts = [run.facts for run in runs]
    log("\n".join([_side_by_side(facts), *_notes(runs), *_of_different(facts)]))
    pictures.compare(out, rows)


def _gan_of(folder, gans):
    """-> the one of `gans` that a run was trained with, or of that name now, or None."""
    configuration = folder.configuration()
    if not configuration.gan:
        return None
    wanted = (configuration.gan.rpartition(":")[2], configuration.gan_sha256)
    same = [gan for gan in gans if custom_class.parse(gan)[1:] == wanted]
    named = [gan for gan in gans if gan == configuration.gan]
    return next(iter([*same, *named]), None)


def _run(folder, generator):
    """-> the Run as of the weights that a Generator has; `-` for what was not measured."""
    configuration = folder.configuration()
    d_loss, g_loss = _last_losses(folder)
    scores, unscored = _scores(folder, generator)
    facts = {
        "run": one_line(folder),
        "recipe": configuration.recipe,
        "seed": str(configuration.seed),
        "steps": f"{generator.step:,}",
        "d_loss": d_loss,
        "g_loss": g_loss,
        "classifier": scores["classifier"] if scores else "-",
        "scored samples": f"{scores['num_samples']:,}" if scores else "-",
        **{metrics.LABELS[name]: f"{scores[name]:.4g}" if scores else "-" for name in _SCORES},
    }
    return Run(folder, facts, unscored)


def _last_losses(folder):
    """-> D's and G's mean loss over the last hundredth of the run, as text."""
    rows = folder.losses()
    if not rows:
        return "-", "-"
    tail = rows[-max(1, len(rows) // 100) :]
    return tuple(f"{sum(row[i] for row in tail) / len(tail):.3f}" for i in (1, 2))


def _scores(folder, generator):
    """-> {score: number}, the start of the classifier's SHA-256 and the samples' number, None.

    Or None, why not.
    """
    try:
        with open(folder.file("metrics.json"), encoding="utf-8") as file:
            content = json.load(file)
        classifier = int(content["classifier_sha256"], 16)
        scores = {name: float(content[name]) for name in _SCORES}
        count = int(content["num_samples"])
        current = generator.is_scored_by(content)
    except FileNotFoundError:
        return None, "is not scored yet"
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None, "has a metrics.json without all scores"
    if not current:
        return None, "has scores of other weights"
    return {**scores, "classifier": f"{classifier:064x}"[:8], "num_samples": count}, None


def _of_different(facts):
    """-> lines where the scores do not compare: by other classifiers, of more or fewer samples."""
    reasons = {
        "classifier": "each data set's are by a classifier of its own",
        "scored samples": "those of fewer samples are worse for that alone",
    }
    return [
        f"Their scores do not compare: {reason}."
        for name, reason in reasons.items()
        if len({column[name] for column in facts} - {"-"}) > 1
    ]


def _notes(runs):
    """-> lines: what overrides each run's recipe, and how to score those that are not."""
    lines = []
    for folder, _, unscored in runs:
        values = folder.configuration().overrides.items()
        overrides = ", ".join(f"{k}={v}" for k, v in values if k != "num_steps") or "nothing"
        name = one_line(folder)
        lines += textwrap.wrap(f"{name} overrides {overrides}.", 100, subsequent_indent="    ")
        if unscored:
            lines.append(f"{name} {unscored}: {_evaluation_of(folder)}")
    return ["", *lines]


def _evaluation_of(folder):
    """-> the command that scores a run, with what says where its class and its images are."""
    configuration = folder.configuration()
    flags = ["--mode=evaluate", f"--run_dir={folder}"]
    if configuration.gan:
        flags.append(f"--gan={configuration.gan}")
    if configuration.dataset is None:
        flags.append("--data_dir=FOLDER")
    elif configuration.dataset != "mnist":
        flags.append(f"--dataset={configuration.dataset}")
    return one_line(shlex.join(["python", "main.py", *flags]))


def _side_by_side(facts):
    widths = [max(len(value) for value in column.values()) for column in facts]
    width = max(map(len, facts[0]))
    return "\n".join(
        f"{label:<{width}}  "
        + "  ".join(f"{column[label]:>{w}}" for column, w in zip(facts, widths, strict=True))
        for label in facts[0]
    )
