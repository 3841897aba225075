"""Scores a run: draws samples, computes metrics, writes metrics.json and a figure."""

import importlib.metadata
import json
import re

import numpy as np

from evaluation import conditional, metrics, reference
from generation.generator import load
from support import pictures
from support.files import write_json

# A class above this fraction of the samples is over-represented.
_DOMINANT = 0.25


def evaluate(folder, images, info, num_samples, seed, *, log, **loading) -> dict:
    """Scores a run, logs the scores and writes metrics.json and report.png.

    Args:
      folder: The RunFolder.
      images: Datasets that the run was trained on, without a validation part.
      info: Their DataSetInfo.
      num_samples: Number of samples.
      seed: Seed of the latents.
      log: Called with a table and sentences.
      **loading: Options of `generation.load`.

    Returns:
      The content of metrics.json.
    """
    generator = load(folder.path, **loading)
    samples, _ = generator.sample(num_samples, seed)
    samples = samples.reshape(num_samples, -1)
    labels = generator.labels_in_turn(num_samples) if generator.recipe.conditional else None
    generator.close()
    standard = reference.get(images, info, log)
    predictions = standard.classifier(samples)
    scores = metrics.score(*predictions, samples, standard.reference)
    histogram, real = np.array(scores.histogram), np.array(standard.reference.histogram)
    log(f"{num_samples:,} samples of --seed={seed} after step {generator.step:,}:")
    log(table({"samples": scores, **standard.scores}))
    log(f"\n{describe(histogram, generator.recipe.digit, info, real)}")
    by_label = {}
    if labels is not None:
        by_label = conditional.score(samples, labels, predictions, standard, info)
        log(conditional.describe(by_label, info))
    configuration = folder.configuration()
    content = {
        "step": generator.step,
        "seed": seed,
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
    found = predictions.probabilities.argmax(axis=1)
    pictures.report(folder.file("report.png"), samples, found, histogram, real, info.class_names)
    return json.loads(json.dumps(content))


def table(columns: dict) -> str:
    """Returns a text table with a row for each metric.

    Args:
      columns: Scores by heading.
    """
    width = max(map(len, metrics.LABELS.values()))
    headings = []
    for name in columns:
        short = re.sub(r"without( the \w+)?", "w/o", name.replace("real test images", "real"))
        headings.append(f"{short:>12}")
    lines = [" " * width + "".join(f"  {heading}" for heading in headings)]
    for name, label in metrics.LABELS.items():
        line = f"{label:<{width}}"
        for heading, scores in zip(headings, columns.values(), strict=True):
            line += f"  {getattr(scores, name):>{len(heading)}.4g}"
        lines.append(line)
    return "\n".join(lines)


def describe(histogram: np.ndarray, digit: int | None, info, real: np.ndarray) -> str:
    """Describes whether the generator has collapsed, and to which classes.

    Args:
      histogram: `[10]`, fractions of the classes among the samples.
      digit: The only digit that the run was trained on, or None.
      info: DataSetInfo with the names of the classes.
      real: `[10]`, fractions among the training images, where a class may be rare or missing.
    """
    names, noun = info.class_names, info.noun
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    if digit is not None:
        return (
            f"Trained only on {info.label(digit)}: {histogram[digit]:.1%} of the samples are "
            f"classified as it. All other scores compare them with all ten {plural}."
        )
    present = np.flatnonzero(real)
    if len(present) == 1:
        return (
            f"All images have one label, {names[present[0]]}: the classifier had nothing to "
            "distinguish, so its features and these scores mean little."
        )
    missing = [names[k] for k in metrics.lost_classes(histogram, real)]
    dominant = [k for k in range(10) if histogram[k] > max(_DOMINANT, 2 * real[k])]
    if missing or dominant:
        top = np.argsort(-histogram, kind="stable")[:3]
        fractions = ", ".join(f"{names[k]} ({histogram[k]:.1%})" for k in top)
        lost = f" Almost missing: {', '.join(missing)}." if missing else ""
        return f"Mode collapse: the most frequent {plural} are {fractions}.{lost}"
    rarest = present[np.argmin(histogram[present])]
    return (
        f"No {noun} is lost: the rarest, {names[rarest]}, has {histogram[rarest]:.1%}, the most "
        f"frequent, {names[np.argmax(histogram)]}, {np.max(histogram):.1%}."
    )
