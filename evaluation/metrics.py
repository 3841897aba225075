"""Metrics of samples beside real images: NumPy functions of features, probabilities and pixels.

All sums are float64; only the pairwise distances are float32, in blocks, which is what takes the
time. A squared distance then has an error of about 1e-6 of the points' squared norms.
"""

from typing import NamedTuple

import numpy as np

BLOCK_ELEMENTS = 2**22
# A tenth of what each class would have if all were equally frequent.
COVERED_SHARE = 0.01
# All training images times all samples would take longer than everything else together.
MEMORISATION_SAMPLES = 1000
COPY_PERCENTILE = 5


class Reference(NamedTuple):
    """The real side of every comparison.

    mean `[F]`, covariance `[F, F]`: of the features of all training images.
    histogram: `[10]`, shares of the classes among them.
    features: `[m, F]`, of 10,000 drawn from them, for neighbours and the kernel distance.
    copy_distances: `[10]`, see copy_distances.
    training_pixels: uint8 `[n, 784]`.
    """

    mean: np.ndarray
    covariance: np.ndarray
    histogram: np.ndarray
    features: np.ndarray
    copy_distances: np.ndarray
    training_pixels: np.ndarray


class Scores(NamedTuple):
    """All metrics of one set of samples; the functions of the same names say what they are.

    histogram is a list of 10 shares, total_variation its distance from the training images'.
    """

    num_samples: int
    frechet_distance: float
    kernel_distance: float
    classifier_score: float
    mean_confidence: float
    histogram: list
    total_variation: float
    classes_covered: int
    precision: float
    recall: float
    density: float
    coverage: float
    memorised_share: float


# What tables call the scores.
LABELS = {
    "frechet_distance": "Fréchet distance",
    "kernel_distance": "kernel distance",
    "classifier_score": "classifier score",
    "mean_confidence": "mean confidence",
    "classes_covered": "classes covered",
    "total_variation": "total variation of classes",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "memorised_share": "memorised share",
}


def score(features, probabilities, images, reference):
    """`[n, F]`, `[n, 10]`, images in [0, 1] of 784 pixels, Reference -> Scores; n >= 4.

    The kernel distance is that of features in units of the training images' deviation; the
    memorised share is that of the first 1,000. Raises ValueError for unequal numbers.
    """
    if not len(features) == len(probabilities) == len(images):
        lengths = f"{len(features)}, {len(probabilities)} and {len(images)}"
        raise ValueError(f"{lengths} features, probabilities and images, wanted equal numbers")
    # The kernel has a scale of its own: with features in the twenties it is their cube alone.
    unit = np.sqrt(np.diag(reference.covariance).mean())
    histogram = class_histogram(probabilities)
    precision, recall = precision_recall(reference.features, features)
    density, coverage = density_coverage(reference.features, features)
    return Scores(
        num_samples=len(features),
        frechet_distance=frechet_distance(
            *statistics(features), reference.mean, reference.covariance
        ),
        kernel_distance=kernel_distance(features / unit, reference.features / unit),
        classifier_score=classifier_score(probabilities),
        mean_confidence=mean_confidence(probabilities),
        histogram=histogram.tolist(),
        total_variation=total_variation(histogram, reference.histogram),
        classes_covered=classes_covered(histogram),
        precision=precision,
        recall=recall,
        density=density,
        coverage=coverage,
        memorised_share=memorised_share(
            images[:MEMORISATION_SAMPLES],
            np.argmax(probabilities[:MEMORISATION_SAMPLES], axis=1),
            reference,
        ),
    )


def statistics(features):
    """`[n, F]` -> mean `[F]` and unbiased covariance `[F, F]`; n >= 2."""
    features = _matrix(features, at_least=2)
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))


def frechet_distance(mean1, covariance1, mean2, covariance2):
    """Squared Fréchet (Wasserstein-2) distance of two Gaussians: 0 if they are equal.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2), Heusel et al. 2017, whose root is
    symmetric here, so that eigenvalues do. It falls with the number of samples: compare equal ones.
    """
    root = _square_root(covariance1)
    eigenvalues = np.linalg.eigvalsh(root @ covariance2 @ root)
    cross = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    shift = np.subtract(mean1, mean2)
    distance = shift @ shift + np.trace(covariance1) + np.trace(covariance2) - 2 * cross
    return max(float(distance), 0.0)


def _square_root(covariance):
    """Symmetric positive semidefinite `[F, F]` -> its symmetric root."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    # Rounding makes small negative eigenvalues of those that are 0.
    return vectors * np.sqrt(np.maximum(eigenvalues, 0)) @ vectors.T


def kernel_distance(features1, features2):
    """`[n, F]`, `[m, F]` -> unbiased squared MMD with kernel (x.y/F + 1)^3; n, m >= 2.

    Binkowski et al. 2018. Its mean is 0 for samples of one distribution, so it can be negative.
    They average over random subsets; this is the estimate from all pairs at once, which needs no
    matrix of pairs: the kernel is the inner product of the third moments of [x/sqrt(F), 1].
    """
    moments1, within1 = _third_moments(features1)
    moments2, within2 = _third_moments(features2)
    return float(within1 + within2 - 2 * np.vdot(moments1, moments2))


def _third_moments(features):
    """`[n, F]` -> mean of a x a x a as `[(F+1)^2, F+1]`, mean kernel of two different rows."""
    features = _matrix(features, at_least=2)
    n, width = features.shape
    rows = np.hstack([features / np.sqrt(width), np.ones((n, 1))])
    total = 0
    for start in range(0, n, 500):
        block = rows[start : start + 500]
        total += (block[:, :, None] * block[:, None, :]).reshape(len(block), -1).T @ block
    same = np.sum(np.einsum("ij,ij->i", rows, rows) ** 3)
    return total / n, (np.vdot(total, total) - same) / (n * (n - 1))


def classifier_score(probabilities):
    """`[n, 10]` -> from 1 to 10: exp(mean KL(p(y|x) || p(y))), inception score by our classifier.

    Salimans et al. 2016, on all samples at once. 10: each surely of one class, all alike often.
    """
    probabilities = _matrix(probabilities)
    return float(np.exp(_entropy(probabilities.mean(axis=0)) - _entropy(probabilities).mean()))


def _entropy(probabilities):
    """`[..., 10]` -> `[...]` in nats."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1))
    return -np.sum(probabilities * logs, axis=-1)


def mean_confidence(probabilities):
    """`[n, 10]` -> mean probability of the most probable class, from 0.1 to 1.

    A classifier is also sure of what is of no class at all: see the score of uniform noise.
    """
    return float(_matrix(probabilities).max(axis=1).mean())


def class_histogram(predictions):
    """Labels `[n]`, or probabilities `[n, 10]` of which the greatest counts -> shares `[10]`."""
    predictions = np.asarray(predictions)
    labels = predictions.argmax(axis=1) if predictions.ndim == 2 else predictions
    return np.bincount(labels, minlength=10) / len(labels)


def total_variation(histogram1, histogram2):
    """Shares `[10]`, `[10]` -> from 0, equal, to 1, no class in common: half the sum of |p - q|."""
    return float(np.abs(np.subtract(histogram1, histogram2)).sum() / 2)


def classes_covered(histogram):
    """Shares `[10]` -> number of classes with at least 1 % of the samples, 0 to 10."""
    return int(np.sum(np.asarray(histogram) >= COVERED_SHARE))


def lost_classes(histogram, real):
    """Shares `[10]` of samples and of training images -> classes there that samples hardly are.

    Below 1 %, or below half of what it is among training images where a class is rare there.
    """
    return [k for k in np.flatnonzero(real) if histogram[k] < min(COVERED_SHARE, real[k] / 2)]


def precision_recall(real, fake, k=3):
    """`[m, F]`, `[n, F]` -> improved precision and recall, Kynkaanniemi et al. 2019.

    Each point has a ball that reaches its k-th nearest neighbour in its own set. Precision: share
    of fake points in the ball of any real one. Recall: share of real ones in that of any fake one.
    """
    real_radii, fake_radii = _squared_radii(real, k), _squared_radii(fake, k)
    precision = np.mean(_balls_around(fake, real, real_radii) > 0)
    recall = np.mean(_balls_around(real, fake, fake_radii) > 0)
    return float(precision), float(recall)


def density_coverage(real, fake, k=5):
    """`[m, F]`, `[n, F]` -> density and coverage, Naeem et al. 2020, with balls around real points.

    Density: mean number of balls that a fake point is in, over k; near 1 for a perfect model, and
    above it where samples crowd. Coverage: share of balls with any fake point in them.
    """
    radii, fake = _squared_radii(real, k), _matrix(fake)
    density = np.mean(_balls_around(fake, real, radii)) / k
    nearest = np.concatenate([block.min(axis=1) for block in _squared_distances(real, fake)])
    return float(density), float(np.mean(nearest <= radii))


def _squared_radii(points, k):
    """`[n, F]` -> `[n]`, squared distance of each point to its k-th nearest other; n > k."""
    points = _matrix(points, at_least=k + 1)
    # Of each row's distances the 0 to the point itself comes first, so its k-th other is at k.
    # A column that is not copied would keep its whole block in memory.
    blocks = _squared_distances(points, points)
    return np.concatenate([np.partition(block, k, axis=1)[:, k].copy() for block in blocks])


def _balls_around(points, centres, squared_radii):
    """`[n, F]`, `[m, F]`, `[m]` -> `[n]`, the number of balls that each point is in."""
    blocks = _squared_distances(points, centres)
    return np.concatenate([np.count_nonzero(block <= squared_radii, axis=1) for block in blocks])


def _squared_distances(points, others):
    """`[n, F]`, `[m, F]` -> float32 blocks of rows of `[n, m]`; rounding may leave some below 0."""
    others = np.asarray(others, np.float32)
    # |x|^2 + |y|^2 - 2 x.y is one product of longer rows: that saves two passes over each block.
    others = np.hstack([-2 * others, np.ones((len(others), 1), np.float32), _norms(others)]).T
    rows = max(1, BLOCK_ELEMENTS // others.shape[1])
    for start in range(0, len(points), rows):
        block = np.asarray(points[start : start + rows], np.float32)
        yield np.hstack([block, _norms(block), np.ones((len(block), 1), np.float32)]) @ others


def _norms(points):
    """`[n, F]` -> `[n, 1]`, squared."""
    return np.einsum("ij,ij->i", points, points)[:, None]


def nearest_distances(images, training_pixels):
    """`[n, 784]` or `[n, 28, 28]` in [0, 1], uint8 `[m, 784]` -> `[n]`, distance to the nearest.

    Euclidean, in units of a pixel's full scale, so from 0 to 28.
    """
    pixels = np.float32(images).reshape(len(images), -1) * 255
    blocks = _squared_distances(training_pixels, pixels)
    squared = np.minimum.reduce([block.min(axis=0) for block in blocks])
    return np.sqrt(np.maximum(squared, 0)) / 255


def copy_distances(images, labels, training_pixels):
    """Real images not trained on, `[n, 784]` -> `[10]`: nearer than this, an image is like a copy.

    For each class the 5th percentile of its images' distances to the nearest training image: a 1
    is near to others by nature. 0, which nothing is below, for a class that is missing.
    """
    distances = nearest_distances(images, training_pixels)
    by_class = (distances[labels == label] for label in range(10))
    return np.array([np.percentile(own, COPY_PERCENTILE) if len(own) else 0.0 for own in by_class])


def memorised_share(images, labels, reference):
    """`[n, 784]`, labels `[n]`, Reference -> share nearer to a training image than copy_distances.

    Near 0.05 for real images that were not trained on, 1 for copies. Blurred samples are near to
    everything: above 0.05 it is a reason to look at the neighbours, not a proof.
    """
    distances = nearest_distances(images, reference.training_pixels)
    return float(np.mean(distances < reference.copy_distances[labels]))


def _matrix(values, at_least=1):
    """`[n, d]` of any numbers -> float64; ValueError unless finite with n >= at_least."""
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or len(values) < at_least:
        raise ValueError(f"shape {list(values.shape)}, wanted [n, d] with n >= {at_least}")
    if not np.isfinite(values).all():
        raise ValueError("features or probabilities with NaN or infinity, wanted finite ones")
    return values
