"""Scores of samples: metrics of features that a fixed classifier computes.

scores = evaluation.evaluate("runs/minimal")    # what `--mode=evaluate` writes to metrics.json
"""

import importlib.metadata
import json
from pathlib import Path

import numpy as np

import input_data
from support import pictures, terminal
from support.errors import UserError
from support.files import write_json
from training.run import RunFolder

# Twice the classifier's features, fewer have no meaningful covariance; and minutes of comparing
# all pairs.
_FEWEST, _MOST = 128, 100_000
_ROW = 16  # images in a row of a report without classes


def evaluate(
    run_dir: str | Path,
    *,
    num_samples: int = 10_000,
    seed: int = 0,
    truncation: float | None = None,
    dataset: str | None = None,
    data_dir: str | None = None,
    log=print,
    **loading,
) -> dict:
    """Scores a run and writes metrics.json and report.png into its folder.

    Args:
      run_dir: The run's folder.
      num_samples: Number of samples, 128 to 100,000.
      seed: Seed of the latents.
      truncation: The greatest absolute value of a latent, only for a normal prior.
      dataset: Name of the run's data set; None for the one in its configuration.
      data_dir: Folder of the images; None for the data set's own.
      log: Called with a table and sentences.
      **loading: Options of `generation.load`.

    Returns:
      The content of metrics.json.

    Raises:
      UserError: If the run or its images are missing, or a value is out of range.
    """
    if not _FEWEST <= num_samples <= _MOST:
        raise UserError(
            f"--num_samples must be from {_FEWEST} to {_MOST:,} for scores, got {num_samples}"
        )
    folder = RunFolder(run_dir)
    configuration = folder.configuration()
    dataset, recipe = dataset or configuration.dataset, configuration.full_recipe()
    images, info = input_data.load(dataset, data_dir, invert=configuration.invert, log=log)
    trained_on = input_data.select(images, recipe.validation_size, recipe.digit).train
    configuration.check_data(trained_on, input_data.data_folder(dataset, data_dir))
    terminal.import_tensorflow()
    pictures.import_matplotlib()
    from evaluation import conditional, metrics, reference, report
    from generation.generator import load

    generator = load(run_dir, log=log, **loading)
    samples, _ = generator.sample(num_samples, seed, truncation=truncation)
    samples = samples.reshape(num_samples, -1)
    generator.close()
    standard = reference.get(images, info, log)
    predictions = standard.classifier(samples)
    scores = metrics.score(*predictions, samples, standard.reference)
    truncated = "" if truncation is None else f" with --truncation={truncation:g}"
    log(f"{num_samples:,} samples of --seed={seed}{truncated} after step {generator.step:,}:")
    log(report.table({"samples": scores, **standard.scores}))
    if standard.reference.has_classes:
        real = standard.reference.histogram
        confidence = next(iter(standard.scores.values())).mean_confidence
        verdict = report.describe(scores, confidence, recipe, info, real)
        log(f"\n{verdict}")
    by_label = {}
    if recipe.conditional:
        labels = generator.labels_in_turn(num_samples)
        by_label = conditional.score(samples, labels, predictions, standard, info)
        log(conditional.describe(by_label, info))
    content = {
        "step": generator.step,
        "seed": seed,
        "truncation": truncation,
        "raw": generator.raw,
        "recipe": configuration.recipe,
        "run_seed": configuration.seed,
        "hyperparameters": configuration.hyperparameters,
        "gan": configuration.gan,
        "gan_sha256": configuration.gan_sha256,
        "data": configuration.data,
        "versions": {name: importlib.metadata.version(name) for name in ("tensorflow", "numpy")},
        "checkpoint_sha256": generator.digest,
        "classifier_sha256": standard.classifier.sha256,
        **by_label,
        **scores._asdict(),
        "reference_scores": {name: each._asdict() for name, each in standard.scores.items()},
    }
    write_json(folder.file("metrics.json"), content)
    path = folder.file("report.png")
    if standard.reference.has_classes:
        histogram = np.array(scores.histogram)
        found = predictions.probabilities.argmax(axis=1)
        names = info.class_names[: 1 + np.flatnonzero(histogram + real).max()]
        pictures.report(path, samples, found, histogram, real, names)
    else:
        real = images.test.images[:_ROW]
        pictures.compare(path, [("generated", samples[:_ROW]), ("real", real)])
    return json.loads(json.dumps(content))


def scores_every(steps: int):
    """Returns a function that makes a callback, which scores during training.

    Pass it to training in a list: `training.train(..., extra=[...])`.

    Args:
      steps: Steps from one score to the next.
    """

    def make_monitor(run):
        from evaluation import reference
        from evaluation.monitor import Monitor

        data = {name: getattr(run.options, name) for name in ("dataset", "data_dir", "invert")}
        images, info = input_data.load(**data, log=lambda line: None)
        return Monitor(run, steps, reference.get(images, info), info)

    return make_monitor
