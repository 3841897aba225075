"""Scores as a table and in sentences."""

import re

import numpy as np

from evaluation import metrics

# A class above this fraction of the samples is over-represented.
_DOMINANT = 0.25


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
            f"classified as it. All other scores compare them with all {plural}."
        )
    present = np.flatnonzero(real)
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
