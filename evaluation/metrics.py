"""Metrics that compare samples with real images, as NumPy functions.

They take features, probabilities and pixels. Sums are float64; only the pairwise distances, which
take most of the time, are computed in blocks of float32. A squared distance then has an error of
about 1e-6 of the points' squared norms.
"""

from typing import NamedTuple

import numpy as np

BLOCK_ELEMENTS = 2**22
# A tenth of the fraction that each of ten equally frequent classes has.
COVERED_FRACTION = 0.01
# Comparing all samples with all training images would take longer than everything else together.
MEMORISATION_SAMPLES = 1000
COPY_PERCENTILE = 5
# Balls around the rarest real images are so large that they contain grey images and noise.
TYPICAL_FRACTION = 0.7


class Reference(NamedTuple):
    """The real images that samples are compared with.

    Attributes:
      mean: `[F]`, of the features of all training images.
      covariance: `[F, F]`, of the same features.
      histogram: `[10]`, fraction of each class among the training images.
      features: `[m, F]`, of 10,000 random training images, for the metrics based on neighbours and
        the kernel distance.
      copy_distances: `[10]`, see `copy_distances`.
      training_pixels: uint8 `[n, 784]`.
    """

    mean: np.ndarray
    covariance: np.ndarray
    histogram: np.ndarray
    features: np.ndarray
    copy_distances: np.ndarray
    training_pixels: np.ndarray

    @property
    def has_classes(self) -> bool:
        """True if the images have labels that differ."""
        return bool(np.count_nonzero(self.histogram) > 1)


class Scores(NamedTuple):
    """All metrics of samples; most are described by the functions of the same names.

    Those of classes are None if the real images have no labels that differ.

    Attributes:
      mean_confidence: Mean probability of the most probable class, from 0.1 to 1. A classifier is
        also confident about images that belong to no class: see the score of uniform noise.
      histogram: Fractions of the ten classes, a list.
      precision, recall, density, coverage, typical_precision: See `neighbour_scores`. Older
        reference scores, also the included ones of Fashion-MNIST, have no typical precision.
      total_variation: Half the sum of the differences of `histogram` from that of the training
        images: 0 if equal, 1 if they share no class.
    """

    num_samples: int
    frechet_distance: float
    kernel_distance: float
    classifier_score: float | None
    mean_confidence: float | None
    histogram: list | None
    total_variation: float | None
    classes_covered: int | None
    precision: float
    recall: float
    density: float
    coverage: float
    memorised_share: float
    typical_precision: float | None = None


# Scores that compare classes.
OF_CLASSES = (
    "classifier_score", "mean_confidence", "histogram", "total_variation", "classes_covered",
)  # fmt: skip
# Names of the scores in tables.
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


def score(
    features: np.ndarray, probabilities: np.ndarray, images: np.ndarray, reference: Reference
) -> Scores:
    """Computes all metrics of a set of samples.

    The kernel distance is computed on features divided by the standard deviation of the training
    images' features; the memorised share on the first 1,000 samples.

    Args:
      features: `[n, F]`, finite, n >= 6.
      probabilities: `[n, 10]`.
      images: `[n, 784]` or `[n, 28, 28]` in [0, 1].
      reference: The real images to compare with.
    """
    # The cubic kernel has a fixed scale: with features around 20, only their cubes would count.
    unit = np.sqrt(np.diag(reference.covariance).mean())
    mean, covariance = statistics(features)
    labels = np.argmax(probabilities, axis=1)
    histogram = class_histogram(labels)
    first = slice(MEMORISATION_SAMPLES)
    scores = Scores(
        num_samples=len(features),
        frechet_distance=frechet_distance(mean, covariance, reference.mean, reference.covariance),
        kernel_distance=kernel_distance(features / unit, reference.features / unit),
        classifier_score=classifier_score(probabilities),
        mean_confidence=float(np.max(probabilities, axis=1).mean(dtype=np.float64)),
        histogram=histogram.tolist(),
        total_variation=float(np.abs(histogram - reference.histogram).sum() / 2),
        classes_covered=classes_covered(histogram),
        memorised_share=memorised_share(images[first], labels[first], reference),
        **neighbour_scores(reference.features, features),
    )
    unknown: dict = {} if reference.has_classes else dict.fromkeys(OF_CLASSES)
    return scores._replace(**unknown)


def statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean `[F]` and the unbiased covariance `[F, F]` of `[n, F]`; n >= 2."""
    features = np.asarray(features, np.float64)
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))


def frechet_distance(
    mean1: np.ndarray, covariance1: np.ndarray, mean2: np.ndarray, covariance2: np.ndarray
) -> float:
    """Returns the squared Fréchet (Wasserstein-2) distance between two Gaussians.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2), Heusel et al. 2017, written with a
    symmetric root so that eigenvalues suffice. Its estimate decreases as the number of samples
    grows; only compare estimates from equal numbers.
    """
    # Rounding turns some eigenvalues that are 0 into small negative ones.
    eigenvalues, vectors = np.linalg.eigh(covariance1)
    root = vectors * np.sqrt(np.maximum(eigenvalues, 0)) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ covariance2 @ root)
    cross = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    shift = np.subtract(mean1, mean2)
    distance = shift @ shift + np.trace(covariance1) + np.trace(covariance2) - 2 * cross
    return max(float(distance), 0.0)


def kernel_distance(features1: np.ndarray, features2: np.ndarray) -> float:
    """Returns the unbiased squared MMD of `[n, F]` and `[m, F]`; n, m >= 2.

    The kernel is (x.y/F + 1)^3, Bińkowski et al. 2018. The mean is 0 for samples of the same
    distribution, so the estimate can be negative. The paper averages over random subsets; this
    estimate uses all pairs. It needs no matrix of pairs, because the kernel is the inner product
    of the third moments of [x/sqrt(F), 1].
    """
    moments1, within1 = _third_moments(features1)
    moments2, within2 = _third_moments(features2)
    return float(within1 + within2 - 2 * np.vdot(moments1, moments2))


def _third_moments(features):
    """Returns the mean of x ⊗ x ⊗ x and the mean kernel of two different rows."""
    features = np.asarray(features, np.float64)
    n, width = features.shape
    rows = np.hstack([features / np.sqrt(width), np.ones((n, 1))])
    total = 0
    for start in range(0, n, 500):
        block = rows[start : start + 500]
        total += (block[:, :, None] * block[:, None, :]).reshape(len(block), -1).T @ block
    same = np.sum(np.einsum("ij,ij->i", rows, rows) ** 3)
    return total / n, (np.vdot(total, total) - same) / (n * (n - 1))


def classifier_score(probabilities: np.ndarray) -> float:
    """Returns exp(mean KL(p(y|x) || p(y))) of `[n, 10]`, from 1 to 10.

    The inception score (Salimans et al. 2016) with this project's classifier, on all samples at
    once. It is 10 if every prediction is certain and all classes are equally frequent.
    """
    rows = np.asarray(probabilities, np.float64)
    rows = np.vstack([rows.mean(axis=0), rows])
    entropies = -np.sum(rows * np.log(np.where(rows > 0, rows, 1)), axis=1)
    return float(np.exp(entropies[0] - entropies[1:].mean()))


def class_histogram(labels: np.ndarray) -> np.ndarray:
    """Returns the fraction of each class, `[10]`, among labels `[n]`."""
    return np.bincount(labels, minlength=10) / len(labels)


def classes_covered(histogram: np.ndarray) -> int:
    """Returns the number of classes with at least 1 % of the samples, 0 to 10."""
    return int(np.sum(np.asarray(histogram) >= COVERED_FRACTION))


def lost_classes(histogram: np.ndarray, real: np.ndarray) -> list:
    """Returns the classes that the generator has almost lost.

    A class is lost if it has less than 1 % of the samples, or, if it is rare among the training
    images, less than half of its fraction there.

    Args:
      histogram: `[10]`, fractions among the samples.
      real: `[10]`, fractions among the training images.
    """
    return [k for k in np.flatnonzero(real) if histogram[k] < min(COVERED_FRACTION, real[k] / 2)]


def neighbour_scores(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """Returns the scores that compare points by the balls around them.

    The ball around each point reaches its k-th nearest neighbour in its own set.

    Args:
      real: `[m, F]`, m >= 6.
      fake: `[n, F]`, n >= 4.

    Returns:
      Values by name. `precision` and `recall` (Kynkäänniemi et al. 2019, k = 3): the fraction of
      fake points in any ball around a real one, and of real points in any ball around a fake one.
      `density` and `coverage` (Naeem et al. 2020, k = 5): the mean number of real points' balls
      that a fake point is in, divided by k, which is near 1 for a perfect model, above 1 if samples
      cluster; and the fraction of these balls that contain a fake point. `typical_precision`: the
      precision with only the 70 % of the balls that have the smallest radii. About 60 % of real
      images are in one, but hardly any noise, grey image or blob.
    """
    radii, wider_radii = _squared_radii(real, 3, 5)
    (fake_radii,) = _squared_radii(fake, 3)
    is_typical = radii <= np.quantile(radii, TYPICAL_FRACTION)
    precise = np.zeros([2, len(fake)], bool)  # in any ball, in a typical one
    recalled, covered, balls = np.zeros(len(real), bool), np.zeros(len(real), bool), 0
    for rows, block in _squared_distances(fake, real):
        inside = block <= radii
        precise[:, rows] = inside.any(axis=1), inside[:, is_typical].any(axis=1)
        recalled |= (block <= fake_radii[rows, None]).any(axis=0)
        inside = block <= wider_radii
        covered |= inside.any(axis=0)
        balls += int(np.count_nonzero(inside))
    return {
        "precision": float(precise[0].mean()),
        "recall": float(recalled.mean()),
        "density": float(balls / (5 * len(fake))),
        "coverage": float(covered.mean()),
        "typical_precision": float(precise[1].mean()),
    }


def _squared_radii(points, *ks):
    """Returns the squared distance of each point to its k-th neighbour, for each k.

    The shape is `[number of ks, n]`.
    """
    # The smallest distance of each row is 0, to the point itself, so its k-th neighbour is at k.
    blocks = (block for _, block in _squared_distances(points, points))
    return np.concatenate([np.partition(block, ks, axis=1)[:, ks] for block in blocks]).T


def _squared_distances(points, others):
    """Yields rows as slices, and their squared distances `[rows, m]`, float32.

    Rounding may make some values negative.
    """
    others = np.asarray(others, np.float32)
    norms = np.einsum("ij,ij->i", others, others)[:, None]
    # |x|^2 + |y|^2 - 2 x.y as one product of longer rows saves two passes over each block.
    others = np.hstack([-2 * others, np.ones_like(norms), norms]).T
    size = max(1, BLOCK_ELEMENTS // others.shape[1])
    for start in range(0, len(points), size):
        rows = slice(start, start + size)
        block = np.asarray(points[rows], np.float32)
        norms = np.einsum("ij,ij->i", block, block)[:, None]
        yield rows, np.hstack([block, norms, np.ones_like(norms)]) @ others


def nearest_distances(images: np.ndarray, training_pixels: np.ndarray) -> np.ndarray:
    """Returns the Euclidean distance of each image to the nearest training image.

    The shape is `[n]`.

    Args:
      images: `[n, 784]` or `[n, 28, 28]` in [0, 1]; distances are from 0 to 28 in that range.
      training_pixels: uint8 `[m, 784]`.
    """
    pixels = np.float32(images).reshape(len(images), -1) * 255
    blocks = _squared_distances(training_pixels, pixels)
    squared = np.minimum.reduce([block.min(axis=0) for _, block in blocks])
    return np.sqrt(np.maximum(squared, 0)) / 255


def copy_distances(
    images: np.ndarray, labels: np.ndarray, training_pixels: np.ndarray
) -> np.ndarray:
    """Returns each class's distance below which an image counts as a copy, `[10]`.

    It is the 5th percentile of the distances of the class's images to their nearest training
    images. Classes differ: any 1 is close to some other 1. For a class without images it is 0, so
    that nothing counts as a copy.

    Args:
      images: Real images that were not trained on, `[n, 784]`.
      labels: `[n]`.
      training_pixels: uint8 `[m, 784]`.
    """
    distances = nearest_distances(images, training_pixels)
    by_class = [distances[labels == label] for label in range(10)]
    return np.array([np.percentile(d, COPY_PERCENTILE) if len(d) else 0.0 for d in by_class])


def memorised_share(images: np.ndarray, labels: np.ndarray, reference: Reference) -> float:
    """Returns the fraction of images nearer to a training image than `copy_distances`.

    It is about 0.05 for real images that were not trained on, and 1 for copies. Blurred samples are
    close to many images: a value above 0.05 is a reason to inspect the neighbours, not a proof.

    Args:
      images: `[n, 784]` or `[n, 28, 28]` in [0, 1].
      labels: `[n]`.
      reference: The training images and their copy distances.
    """
    distances = nearest_distances(images, reference.training_pixels)
    return float(np.mean(distances < reference.copy_distances[labels]))
