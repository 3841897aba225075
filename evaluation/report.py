"""Samples of a run -> judge -> metrics -> a table, metrics.json and a picture, all with floors."""

import json

import numpy as np

import images
import trained
from atomic import replacing
from errors import UserError
from evaluation import judge as judges
from evaluation import metrics

# Fewer than twice the features, and a covariance says nothing.
_FEWEST = 2 * judges.NUM_FEATURES
# All are compared with each other, which takes minutes for so many.
_MOST = 100_000
# Shares of a digit: missing below the first, over-represented above the second.
_MISSING, _DOMINANT = metrics.COVERED_SHARE, 0.25


def evaluate(folder, training_pixels, num_samples, seed=0, *, checkpoint=None, raw=False):
    """Scores a run on samples; writes metrics.json and report.png in its RunFolder; -> the text.

    training_pixels: uint8 [60000, 784], MNIST's training images.
    """
    if not _FEWEST <= num_samples <= _MOST:
        raise UserError(f"--num_samples={num_samples}: a score wants {_FEWEST} to {_MOST:,}")
    generator = trained.load(folder.path, checkpoint=checkpoint, raw=raw)
    samples, _ = generator.sample(num_samples, seed)
    generator.close()
    judge = judges.Judge()
    reference = judges.load_reference(judge, training_pixels)
    verdicts = judge(samples)
    pixels = samples.reshape(len(samples), -1)
    scores = metrics.score(*verdicts, pixels, reference)
    floors = judges.load_floors(judge)
    about = {"step": generator.step, "seed": seed, "raw": raw}
    _write(folder.file("metrics.json"), about, scores, floors)
    labels = np.argmax(verdicts.probabilities, axis=1)
    histogram = np.array(scores.histogram)
    images.report(folder.file("report.png"), pixels, labels, histogram, reference.histogram)
    words = in_words(histogram, generator.recipe.digit)
    return "\n".join([table({"samples": scores, **floors}), "", words])


def table(columns):
    """{heading: metrics.Scores} -> a text table, one row a metric, one column each."""
    width = max(map(len, metrics.LABELS.values()))
    lines = [" " * width + "".join(f"  {_short(name):>12}" for name in columns)]
    for name, label in metrics.LABELS.items():
        values = [getattr(scores, name) for scores in columns.values()]
        lines.append(f"{label:<{width}}" + "".join(f"  {value:12.4g}" for value in values))
    return "\n".join(lines)


def in_words(histogram, digit=None):
    """[10] shares of the digits -> a sentence: collapsed or not, and by which digits.

    digit: the one that the run was trained on, if it was one alone.
    """
    if digit is not None:
        return (
            f"Trained on the digit {digit} alone: {histogram[digit]:.1%} of the samples are it. "
            "All other figures compare them with all ten digits."
        )
    missing = [digit for digit in range(10) if histogram[digit] < _MISSING]
    dominant = [digit for digit in range(10) if histogram[digit] > _DOMINANT]
    if missing or dominant:
        top = sorted(range(10), key=lambda digit: -histogram[digit])[:3]
        shares = ", ".join(f"{digit} ({histogram[digit]:.1%})" for digit in top)
        lost = f" Hardly there (under 1 %): {_listed(missing)}." if missing else ""
        return f"Mode collapse: the most frequent digits are {shares}.{lost}"
    return (
        f"No digit is lost: the rarest, {np.argmin(histogram)}, has {np.min(histogram):.1%}, the "
        f"most frequent, {np.argmax(histogram)}, {np.max(histogram):.1%}."
    )


def _write(path, about, scores, floors):
    content = {
        **about,
        **scores._asdict(),
        "floors": {name: floor._asdict() for name, floor in floors.items()},
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def _short(name):
    return name.replace("real test images", "real").replace("without the digit", "w/o")


def _listed(digits):
    return ", ".join(map(str, digits))
