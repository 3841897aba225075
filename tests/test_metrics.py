"""Metrics compared with closed forms and straightforward implementations."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from evaluation import metrics

RNG = np.random.default_rng(7)
BLACK = np.zeros((1, 784), np.uint8)


def random_covariance(size):
    factor = RNG.normal(size=(size, size + 2))
    return factor @ factor.T


def one_hot(labels):
    return np.eye(10)[np.asarray(labels)]


def test_statistics_of_two_points():
    mean, covariance = metrics.statistics([[0, 0], [2, 4]])
    assert mean.tolist() == [1, 2] and covariance.tolist() == [[2, 4], [4, 8]]
    assert metrics.statistics([[1.0], [3.0]])[1].tolist() == [[2.0]]


def test_frechet_distance_by_hand_and_with_scipy():
    # (1 - 4)^2 + (sqrt 9 - sqrt 4)^2
    assert metrics.frechet_distance([1], [[9]], [4], [[4]]) == pytest.approx(10)
    first, second = random_covariance(12), random_covariance(12)
    assert metrics.frechet_distance(np.ones(12), first, np.ones(12), first) < 1e-9
    expected = 12 + np.trace(first + second - 2 * sqrtm(first @ second).real)
    distance = metrics.frechet_distance(np.zeros(12), first, np.ones(12), second)
    assert distance == pytest.approx(expected)


@pytest.mark.parametrize("sizes", [(23, 17), (1203, 600)], ids=["one block", "several blocks"])
def test_kernel_distance_agrees_with_matrices_of_all_pairs(sizes):
    first, second = (RNG.normal(0.5, 2, size=(size, 6)) for size in sizes)

    def kernel(a, b):
        return (a @ b.T / 6 + 1) ** 3

    def within(points):
        pairs, n = kernel(points, points), len(points)
        return (pairs.sum() - np.trace(pairs)) / (n * (n - 1))

    expected = within(first) + within(second) - 2 * kernel(first, second).mean()
    assert metrics.kernel_distance(first, second) == pytest.approx(expected, rel=1e-8)


UNIFORM = np.full(10, 0.1)
UNCERTAIN = np.array([[0.75, 0.25] + [0] * 8, [0.25, 0.75] + [0] * 8])
# KL((3/4, 1/4) || (1/2, 1/2))
DIVERGENCE = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)


@pytest.mark.parametrize(
    ("metric", "arguments", "expected"),
    [
        (metrics.classifier_score, [one_hot(range(10))], 10),
        (metrics.classifier_score, [one_hot([0, 1, 1, 0])], 2),
        (metrics.classifier_score, [one_hot([3] * 5)], 1),
        (metrics.classifier_score, [np.full((6, 10), 0.1)], 1),
        (metrics.classifier_score, [UNCERTAIN], np.exp(DIVERGENCE)),
        (metrics.class_histogram, [[0, 1, 1, 9]], [0.25, 0.5, *[0] * 7, 0.25]),
        (metrics.classes_covered, [UNIFORM], 10),
        (metrics.classes_covered, [[0.99, 0.01] + [0] * 8], 2),
        (metrics.classes_covered, [[0.991, 0.009] + [0] * 8], 1),
        (metrics.lost_classes, [[0.001, 0.5, 0.009, 0.49], [0.004, 0, 0.5, 0.496]], [0, 2]),
        (metrics.lost_classes, [[0.003, 0, 0.5, 0.497], [0.004, 0, 0.5, 0.496]], []),
    ],
)
def test_metrics_of_predictions(metric, arguments, expected):
    assert list(np.ravel(metric(*arguments))) == pytest.approx(list(np.ravel(expected)))


@pytest.mark.parametrize(("block_elements", "shift"), [(1, 0.7), (1000, 0.7), (2**22, 100)])
def test_neighbours_agree_with_matrices_for_any_block_size(monkeypatch, block_elements, shift):
    monkeypatch.setattr(metrics, "BLOCK_ELEMENTS", block_elements)
    real, fake = RNG.normal(size=(90, 3)), RNG.normal(shift, 0.8, size=(70, 3))

    def distances(first, second):
        return np.linalg.norm(first[:, None] - second[None], axis=-1)

    between = distances(real, fake)
    real_radii, fake_radii = (np.sort(distances(s, s)).T for s in (real, fake))
    radii, wider = real_radii[[3, 5]]
    in_real, in_wider = between <= radii[:, None], between <= wider[:, None]
    expected = {
        "precision": in_real.any(axis=0).mean(),
        "recall": (between <= fake_radii[3]).any(axis=1).mean(),
        "density": in_wider.sum() / (5 * len(fake)),
        "coverage": in_wider.any(axis=1).mean(),
        "typical_precision": in_real[np.argsort(radii)[:63]].any(axis=0).mean(),
    }
    assert metrics.neighbour_scores(real, fake) == pytest.approx(expected)


def images_with_first_pixel(values):
    images = np.zeros((len(values), 784), np.float32)
    images[:, 0] = values
    return images


def test_nearest_distances():
    training = np.concatenate([BLACK, BLACK + 255])
    images = np.zeros((2, 784), np.float32)
    images[0, :4], images[1, 9:] = 0.5, 1
    assert metrics.nearest_distances(images, training) == pytest.approx([1, 3], rel=1e-4)
    copies = training.reshape(-1, 28, 28) / np.float32(255)
    assert metrics.nearest_distances(copies, training).max() < 0.02


def test_copy_distances_are_fifth_percentiles_of_each_class():
    values = np.concatenate([np.linspace(0, 1, 21), np.full(8, 0.5)])
    labels = np.array([0] * 21 + list(range(1, 9)))
    distances = metrics.copy_distances(images_with_first_pixel(values), labels, BLACK)
    assert distances == pytest.approx([0.05] + [0.5] * 8 + [0])  # there is no 9


def test_memorised_share_compares_each_class_with_its_own_distance():
    reference = metrics.Reference(*[None] * 4, np.array([0.2, 0.6] + [0] * 8), BLACK)
    images = images_with_first_pixel([0.1, 0.4, 0.4, 0.8])
    assert metrics.memorised_share(images, np.array([0, 0, 1, 1]), reference) == 0.5


def test_scores_of_the_training_images():
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(60, 5)), np.arange(60) % 10
    pixels = rng.integers(0, 256, (60, 784), np.uint8)
    statistics = *metrics.statistics(features), metrics.class_histogram(labels)
    reference = metrics.Reference(*statistics, features, np.ones(10), pixels)
    images, probabilities = pixels / np.float32(255), one_hot(labels)
    scores = metrics.score(features, probabilities, images, reference)._asdict()
    assert scores.pop("kernel_distance") < 0 and scores.pop("density") > 1
    assert 0.7 < scores.pop("typical_precision") < 1  # the others are in no ball of a typical image
    assert scores.pop("histogram") == [0.1] * 10
    expected = dict.fromkeys(scores, 1) | dict.fromkeys(["classifier_score", "classes_covered"], 10)
    expected |= {"num_samples": 60, "frechet_distance": 0, "total_variation": 0}
    assert scores == pytest.approx(expected, abs=1e-9)
    few = metrics.score(features[:6], probabilities[:6], images[:6], reference)
    assert few.recall < few.precision == 1 and few.coverage < few.density
    uneven = metrics.score(features, 0.5 * one_hot(labels // 5) + 0.05, images, reference)
    assert uneven.total_variation == pytest.approx((0.4 + 0.4 + 8 * 0.1) / 2)
    assert uneven.mean_confidence == pytest.approx(0.55)
