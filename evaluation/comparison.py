"""Compares runs: a table of options and scores, and an image with samples."""

import textwrap

import numpy as np

import generation
from evaluation import metrics
from models import custom_class
from support import pictures
from support.errors import one_line
from training.run import RunFolder

_SAMPLES = 16
_SCORES = ("frechet_distance", "classes_covered", "precision", "recall")
# Rows of the table that must be equal for scores to be comparable, and why.
_CONDITIONS = {
    "classifier": "each data set has its own classifier",
    "scored samples": "fewer samples give worse scores",
}


def compare(run_dirs, out, seed: int = 0, gans=(), log=print):
    """Logs a table of runs and writes an image with a row of samples of each.

    Args:
      run_dirs: Folders of the runs.
      out: File of the image.
      seed: Seed of the latents.
      gans: `FILE.py:CLASS` of the runs that were trained with custom classes.
      log: Called with the table.
    """
    pictures.import_matplotlib()
    rows, columns, notes = [], [], []
    folders = [RunFolder(path) for path in run_dirs]
    configurations = [each.configuration("--run_dirs") for each in folders]  # before loading any
    for folder, configuration in zip(folders, configurations, strict=True):
        name = one_line(folder)
        # Of the classes given, the one with the same code; else the one of the same path and name.
        trained_with = (str(configuration.gan).rpartition(":")[2], configuration.gan_sha256)
        same = [gan for gan in gans if custom_class.parse(gan)[1:] == trained_with]
        same += [gan for gan in gans if gan == configuration.gan]
        generator = generation.load(folder.path, gan=same[0] if same else None, log=log)
        samples, _ = generator.sample(_SAMPLES, seed)
        generator.close()
        rows.append((str(folder), samples.reshape(_SAMPLES, -1)))
        columns.append({"run": name, **_column(folder, generator)})
        overrides = [f"{k}={v}" for k, v in configuration.overrides.items() if k != "num_steps"]
        note = f"{name} overrides {', '.join(overrides) or 'nothing'}."
        notes += textwrap.wrap(note, 100, subsequent_indent="    ")
        if columns[-1]["classifier"] == "-":
            notes.append(f"{name} has no scores of these weights: run --mode=evaluate on it first.")
    for label, reason in _CONDITIONS.items():
        if len({column[label] for column in columns} - {"-"}) > 1:
            notes.append(f"Their scores are not comparable: {reason}.")
    label_width = max(map(len, columns[0]))
    widths = [max(map(len, column.values())) for column in columns]
    for label in columns[0]:
        cells = [column[label].rjust(w) for column, w in zip(columns, widths, strict=True)]
        log("  ".join([label.ljust(label_width), *cells]))
    log("\n".join(["", *notes]))
    pictures.compare(out, rows)


def _column(folder, generator):
    """Returns the cells of a run by the label of their row, `-` without a value."""
    losses, scores = ["-"] * 2, ["-"] * (2 + len(_SCORES))
    if table := folder.losses():  # means over the last hundredth of the run
        last = np.mean(table[-max(1, len(table) // 100) :], axis=0)
        losses = [f"{loss:.3f}" for loss in last[1:]]
    if content := generator.scores(folder.path):
        if content["histogram"] is None:  # without classes
            content["classes_covered"] = np.nan
        classifier, count = one_line(content["classifier_sha256"])[:8], content["num_samples"]
        scores = [classifier, f"{count:,}", *(f"{content[score]:.4g}" for score in _SCORES)]
    labels = "d_loss", "g_loss", *_CONDITIONS, *(metrics.LABELS[score] for score in _SCORES)
    return {
        "recipe": generator.configuration.recipe,
        "seed": str(generator.configuration.seed),
        "steps": f"{generator.step:,}",
        **dict(zip(labels, losses + scores, strict=True)),
    }
