"""Samples of a run -> classifier -> metrics -> a table, metrics.json and a picture."""

import importlib.metadata
import re
from typing import NamedTuple

import numpy as np

import generation
from evaluation import conditional, metrics, reference
from evaluation.classifier import NUM_FEATURES
from support import pictures
from support.errors import UserError
from support.files import write_json

# Fewer than twice the features, and a covariance says nothing.
_FEWEST = 2 * NUM_FEATURES
# All are compared with each other, which takes minutes for so many.
_MOST = 100_000
# The share of a class above which it is over-represented.
_DOMINANT = 0.25


class Samples(NamedTuple):
    """What is scored. images: float32 [n, 784]; labels: those asked for, of a conditional GAN;
    about: where they come from, for metrics.json.
    """

    images: np.ndarray
    labels: np.ndarray | None
    about: dict


def evaluate(folder, images, info, num_samples, seed=0, *, log=print, **loading):
    """Scores a run on samples and logs the scores; writes metrics.json and report.png.

    folder: RunFolder; images: the Datasets that it learnt from, whole; info: their DataSetInfo;
    seed: of the latents; loading: options of `generation.load`.
    """
    if not _FEWEST <= num_samples <= _MOST:
        raise UserError(f"--num_samples={num_samples}: a score wants {_FEWEST} to {_MOST:,}")
    if True:
        generator = generation.load(folder.path, **loading)
        samples = _draw(generator, folder, num_samples, seed)
        generator.close()
        standard = reference.of(images, info, log)
        predictions = standard.classifier(samples.images)
        scores = metrics.score(*predictions, samples.images, standard.reference)
        histogram, found = np.array(scores.histogram), predictions.probabilities.argmax(axis=1)
        log(f"{num_samples:,} samples of --seed={seed} after step {generator.step:,}:")
        log(table({"samples": scores, **standard.scores}))
        real = np.array(standard.reference.histogram)
        log(f"\n{describe(histogram, generator.recipe.digit, info, real)}")
        by_label = conditional.scores(samples, predictions, standard, info)
        if by_label:
            log(conditional.describe(by_label, info))
        about = {**samples.about, "classifier_sha256": standard.classifier.sha256}
        _write(folder.file("metrics.json"), {**about, **by_label}, scores, standard.scores)
        picture = folder.file("report.png")
        pictures.report(picture, samples.images, found, histogram, real, info.class_names)


def _draw(generator, folder, count, seed):
    """-> Samples of a Generator, all labels in turn where it learnt labels."""
    images, _ = generator.sample(count, seed)
    labels = generator.labels_in_turn(count) if generator.recipe.conditional else None
    configuration = folder.configuration()
    about = {
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
    }
    return Samples(images.reshape(count, -1), labels, about)


def table(columns):
    """{heading: metrics.Scores} -> a text table, one row a metric, one column each."""
    width = max(map(len, metrics.LABELS.values()))
    headings = [f"{_short(name):>12}" for name in columns]
    lines = [" " * width + "".join(f"  {heading}" for heading in headings)]
    for name, label in metrics.LABELS.items():
        values = [f"{getattr(scores, name):.4g}" for scores in columns.values()]
        cells = (f"  {v:>{len(heading)}}" for v, heading in zip(values, headings, strict=True))
        lines.append(f"{label:<{width}}" + "".join(cells))
    return "\n".join(lines)


def describe(histogram, digit, info, real):
    """[10] shares of the classes -> a sentence: collapsed or not, and by which classes.

    digit: the one that the run was trained on, if it was one alone; real: [10], shares among the
    training images, where a class may be rare, frequent or not there.
    """
    names, noun = info.class_names, info.noun
    if digit is not None:
        return (
            f"Trained on {info.label(digit)} alone: {histogram[digit]:.1%} of the samples "
            f"are it. All other figures compare them with all ten {_plural(noun)}."
        )
    there = np.flatnonzero(real)
    if len(there) == 1:
        return (
            f"All images have one label, {names[there[0]]}: their classifier had nothing to tell "
            "apart, and its features, so these figures too, say little."
        )
    missing = [names[k] for k in metrics.lost_classes(histogram, real)]
    dominant = [k for k in range(10) if histogram[k] > max(_DOMINANT, 2 * real[k])]
    if missing or dominant:
        top = sorted(range(10), key=lambda k: -histogram[k])[:3]
        shares = ", ".join(f"{names[k]} ({histogram[k]:.1%})" for k in top)
        lost = f" Hardly there: {', '.join(missing)}." if missing else ""
        return f"Mode collapse: the most frequent {_plural(noun)} are {shares}.{lost}"
    rarest = min(there, key=lambda k: histogram[k])
    return (
        f"No {noun} is lost: the rarest, {names[rarest]}, has {histogram[rarest]:.1%}, the most "
        f"frequent, {names[np.argmax(histogram)]}, {np.max(histogram):.1%}."
    )


def _plural(noun):
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def _write(path, about, scores, reference_scores):
    content = {
        **about,
        **scores._asdict(),
        "reference_scores": {name: scores._asdict() for name, scores in reference_scores.items()},
    }
    write_json(path, content)


def _short(name):
    return re.sub(r"without( the \w+)?", "w/o", name.replace("real test images", "real"))
