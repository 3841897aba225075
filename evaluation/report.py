"""Scores as a table and in sentences."""

import re

import numpy as np

from evaluation import metrics

# A class above this fraction of the samples is over-represented.
_DOMINANT = 0.25
# Samples are not images of the data set if their `typical_precision` or mean confidence,
# as a fraction of that of real images, is below these. Measured: real images have at least 0.5,
# also those of one class, and 0.9; rough or blurred digits 0.005 and 0.73. Grey images, noise and
# blobs of the first 50 to 1,000 steps of all recipes have at most 0.0005 on MNIST and
# Fashion-MNIST, or a confidence of at most 0.53.
_TYPICAL, _CONFIDENT = 0.002, 0.6


def table(columns: dict) -> str:
    """Returns a text table with a row for each metric.

    Args:
      columns: Scores by heading.
    """
    width = max(map(len, metrics.LABELS.values()))
    headings = [
        re.sub(r"without( the \w+)?", "w/o", name.replace("real test images", "real")).rjust(12)
        for name in columns
    ]
    lines = ["  ".join([" " * width, *headings])]
    for name, label in metrics.LABELS.items():
        if any(getattr(scores, name) is None for scores in columns.values()):
            continue
        cells = [
            f"{getattr(scores, name):{len(heading)}.4g}"
            for heading, scores in zip(headings, columns.values(), strict=True)
        ]
        lines.append("  ".join([label.ljust(width), *cells]))
    return "\n".join(lines)


def describe(scores, real_confidence: float, recipe, info, real: np.ndarray) -> str:
    """Says whether the samples are digits and whether the generator has collapsed.

    Args:
      scores: `metrics.Scores` of the samples.
      real_confidence: Mean confidence of real images.
      recipe: The run's `Recipe`.
      info: DataSetInfo with the names of the classes.
      real: `[10]`, fractions among the training images, where a class may be rare or missing.
    """
    names, noun, histogram = info.class_names, info.noun, np.array(scores.histogram)
    digit = recipe.digit
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    top = np.argsort(-histogram, kind="stable")[:3]
    fractions = ", ".join(f"{names[k]} ({histogram[k]:.1%})" for k in top)
    if scores.typical_precision < _TYPICAL or scores.mean_confidence < _CONFIDENT * real_confidence:
        things = "like the training images" if noun == "class" else plural
        return (
            f"The samples are not {things}: {scores.typical_precision:.1%} of them resemble "
            "typical training images, and the classifier's mean confidence is "
            f"{scores.mean_confidence:.2f}, for real images {real_confidence:.2f}. What it takes "
            f"them for means little: {fractions}. "
            f"Train longer{'' if recipe.r1_gamma else ', or try --r1_gamma=1'}."
        )
    if digit is not None:
        return (
            f"Trained only on {info.label(digit)}: {histogram[digit]:.1%} of the samples are "
            f"classified as it. All other scores compare them with all {plural}."
        )
    present = np.flatnonzero(real)
    missing = [names[k] for k in metrics.lost_classes(histogram, real)]
    dominant = [k for k in range(10) if histogram[k] > max(_DOMINANT, 2 * real[k])]
    if missing or dominant:
        lost = f" Almost missing: {', '.join(missing)}." if missing else ""
        remedy = "See" if recipe.r1_gamma else "Try --r1_gamma=1; see"
        return (
            f"Mode collapse: the most frequent {plural} are {fractions}.{lost} {remedy} "
            "docs/collapse.md."
        )
    rarest = present[np.argmin(histogram[present])]
    return (
        f"No {noun} is lost: the rarest, {names[rarest]}, has {histogram[rarest]:.1%}, the most "
        f"frequent, {names[np.argmax(histogram)]}, {np.max(histogram):.1%}."
    )
