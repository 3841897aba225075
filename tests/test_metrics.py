"""Metrics against sums by hand, closed forms, naive twins and limits."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from evaluation import metrics

RNG = np.random.default_rng(7)


def random_spd(size):
    factor = RNG.normal(size=(size, size + 2))
    return factor @ factor.T


def one_hot(labels):
    return np.eye(10)[np.asarray(labels)]


def test_statistics_of_two_points_by_hand():
    mean, covariance = metrics.statistics([[0, 0], [2, 4]])
    assert mean.tolist() == [1, 2]
    assert covariance.tolist() == [[2, 4], [4, 8]]


def test_statistics_of_one_feature_keep_two_dimensions():
    assert metrics.statistics([[1.0], [3.0]])[1].tolist() == [[2.0]]


def test_frechet_distance_of_one_dimensional_gaussians():
    # (1 - 4)^2 + (sqrt 9 - sqrt 4)^2
    assert metrics.frechet_distance([1], [[9]], [4], [[4]]) == pytest.approx(10)


def test_frechet_distance_of_diagonal_gaussians():
    first, second = np.array([1.0, 4, 9]), np.array([16.0, 4, 0])
    distance = metrics.frechet_distance([0, 0, 0], np.diag(first), [1, 2, 0], np.diag(second))
    assert distance == pytest.approx(1 + 4 + 9 + 0 + 9)


def test_frechet_distance_agrees_with_scipy():
    first, second = random_spd(12), random_spd(12)
    means = RNG.normal(size=(2, 12))
    twin = np.sum((means[0] - means[1]) ** 2)
    twin += np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert metrics.frechet_distance(means[0], first, means[1], second) == pytest.approx(twin)
    assert metrics.frechet_distance(means[1], second, means[0], first) == pytest.approx(twin)


def test_frechet_distance_of_equal_gaussians_is_zero():
    covariance = random_spd(8)
    assert metrics.frechet_distance([3] * 8, covariance, [3] * 8, covariance) < 1e-9


def test_frechet_distance_from_one_image_repeated():
    covariance = random_spd(5)
    distance = metrics.frechet_distance([2] * 5, np.zeros((5, 5)), [0] * 5, covariance)
    assert distance == pytest.approx(20 + np.trace(covariance))


def test_kernel_distance_by_hand():
    # Kernel of 0 and 1: 1; of 1 with itself: 8. Within: 1 and 1. Between: (1 + 1 + 1 + 8) / 4.
    points = [[0.0], [1.0]]
    assert metrics.kernel_distance(points, points) == pytest.approx(1 + 1 - 2 * 11 / 4)


def naive_kernel_distance(first, second):
    def kernel(x, y):
        return (x @ y / len(x) + 1) ** 3

    def within(points):
        pairs = [(i, j) for i in range(len(points)) for j in range(len(points)) if i != j]
        return np.mean([kernel(points[i], points[j]) for i, j in pairs])

    between = np.mean([kernel(x, y) for x in first for y in second])
    return within(first) + within(second) - 2 * between


def test_kernel_distance_agrees_with_a_double_loop():
    first, second = RNG.normal(size=(23, 6)), RNG.normal(0.5, 2, size=(17, 6))
    twin = naive_kernel_distance(first, second)
    assert metrics.kernel_distance(first, second) == pytest.approx(twin, rel=1e-10)


def test_kernel_distance_is_unbiased():
    draws = RNG.normal(size=(200, 2, 40, 4))
    distances = [metrics.kernel_distance(first, second) for first, second in draws]
    error = np.std(distances) / np.sqrt(len(distances))
    assert min(distances) < 0 < max(distances)
    assert abs(np.mean(distances)) < 4 * error


def test_kernel_distance_of_more_than_one_block():
    points = RNG.normal(size=(1203, 3))
    rows = np.hstack([points / np.sqrt(3), np.ones((1203, 1))])
    kernel = (rows @ rows.T) ** 3
    within = (kernel.sum() - np.trace(kernel)) / (1203 * 1202)
    twin = 2 * within - 2 * kernel.mean()
    assert metrics.kernel_distance(points, points) == pytest.approx(twin, rel=1e-8)


@pytest.mark.parametrize(
    ("labels", "score"), [(range(10), 10), (range(9), 9), ([0, 1], 2), ([3] * 5, 1)]
)
def test_classifier_score_of_sure_verdicts_is_the_number_of_digits(labels, score):
    assert metrics.classifier_score(one_hot(labels)) == pytest.approx(score)


def test_classifier_score_of_unsure_verdicts():
    assert metrics.classifier_score(np.full((6, 10), 0.1)) == pytest.approx(1)
    # Two predictions (3/4, 1/4) and (1/4, 3/4): the mean is (1/2, 1/2).
    predictions = np.zeros((2, 10))
    predictions[:, :2] = [[0.75, 0.25], [0.25, 0.75]]
    divergence = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    assert metrics.classifier_score(predictions) == pytest.approx(np.exp(divergence))


def test_mean_confidence_by_hand():
    predictions = [[0.5, 0.3, 0.2] + [0] * 7, [0, 0, 1] + [0] * 7]
    assert metrics.mean_confidence(predictions) == pytest.approx(0.75)


def test_histogram_of_labels_and_of_probabilities():
    labels = [0, 1, 1, 9]
    wanted = [0.25, 0.5, 0, 0, 0, 0, 0, 0, 0, 0.25]
    assert metrics.class_histogram(labels).tolist() == wanted
    assert metrics.class_histogram(one_hot(labels) * 0.9 + 0.01).tolist() == wanted


def test_total_variation_by_hand():
    uniform = np.full(10, 0.1)
    without_nine = np.array([1 / 9] * 9 + [0])
    assert metrics.total_variation(uniform, uniform) == 0
    assert metrics.total_variation(without_nine, uniform) == pytest.approx(0.1)
    assert metrics.total_variation(np.eye(10)[0], np.eye(10)[1]) == 1


def test_a_digit_with_one_percent_is_covered():
    assert metrics.classes_covered([0.1] * 10) == 10
    assert metrics.classes_covered([0.99, 0.01] + [0] * 8) == 2
    assert metrics.classes_covered([0.991, 0.009] + [0] * 8) == 1


# Distances to the nearest other: 1, 1 and 10.
REAL = np.array([[0.0, 0], [1, 0], [0, 10]])
# In the balls of the first two; of the third; of none. To the nearest other: 4.03, 4.03, 4.5.
FAKE = np.array([[0.5, 0], [0, 4], [5, 0]])


def test_precision_and_recall_in_the_plane_by_hand():
    # No fake ball has the third real point: it is 6 from the second.
    assert metrics.precision_recall(REAL, FAKE, k=1) == pytest.approx((2 / 3, 2 / 3))
    far = FAKE + 100
    assert metrics.precision_recall(REAL, far, k=1) == (0, 0)


def test_density_and_coverage_in_the_plane_by_hand():
    assert metrics.density_coverage(REAL, FAKE, k=1) == pytest.approx((3 / 3, 1))
    assert metrics.density_coverage(REAL, FAKE[[0, 2]], k=1) == pytest.approx((2 / 2, 2 / 3))
    assert metrics.density_coverage(REAL, FAKE[[0, 0]], k=1) == pytest.approx((4 / 2, 2 / 3))
    assert metrics.density_coverage(REAL, FAKE[[2]], k=1) == (0, 0)


def naive_neighbours(real, fake, k):
    """Precision, recall, density, coverage from whole float64 matrices."""

    def distances(first, second):
        return np.linalg.norm(first[:, None] - second[None], axis=-1)

    real_radii, fake_radii = (np.sort(distances(s, s), axis=1)[:, k] for s in (real, fake))
    between = distances(real, fake)
    in_real, in_fake = between <= real_radii[:, None], between <= fake_radii
    density = in_real.sum() / (k * len(fake))
    return in_real.any(axis=0).mean(), in_fake.any(axis=1).mean(), density, in_real.any(1).mean()


@pytest.mark.parametrize("block_elements", [1, 1000, 2**22])
def test_neighbours_agree_with_whole_matrices_whatever_the_blocks(monkeypatch, block_elements):
    monkeypatch.setattr(metrics, "BLOCK_ELEMENTS", block_elements)
    real, fake = RNG.normal(size=(90, 3)), RNG.normal(0.7, 0.8, size=(70, 3))
    seen = *metrics.precision_recall(real, fake, k=3), *metrics.density_coverage(real, fake, k=3)
    assert seen == pytest.approx(naive_neighbours(real, fake, 3))


def test_neighbours_of_identical_sets():
    points = RNG.normal(size=(300, 8))
    assert metrics.precision_recall(points, points) == (1, 1)
    density, coverage = metrics.density_coverage(points, points)
    # Each ball holds its centre and 5 others.
    assert (density, coverage) == (pytest.approx(6 / 5, abs=0.02), 1)


def test_one_image_repeated_is_precise_and_recalls_nothing():
    real = RNG.normal(size=(400, 4))
    precision, recall = metrics.precision_recall(real, np.tile(real.mean(axis=0), (50, 1)))
    assert (precision, recall) == (1, 0)


def test_neighbours_need_more_points_than_k():
    with pytest.raises(ValueError, match=r"shape \[3, 2\], wanted \[n, d\] with n >= 4"):
        metrics.precision_recall(np.zeros((9, 2)), FAKE)


def images_with_first_pixel(values):
    images = np.zeros((len(values), 784), np.float32)
    images[:, 0] = values
    return images


def test_nearest_distances_by_hand():
    training = np.zeros((2, 784), np.uint8)
    training[1] = 255
    image = np.zeros((2, 784), np.float32)
    image[0, :4] = 0.5
    image[1, 9:] = 1
    assert metrics.nearest_distances(image, training) == pytest.approx([1, 3], rel=1e-4)


def test_nearest_distances_of_copies_are_zero():
    training = RNG.integers(0, 256, (500, 784), np.uint8)
    copies = training[::50].reshape(-1, 28, 28) / np.float32(255)
    assert metrics.nearest_distances(copies, training).max() < 0.02


def test_copy_distances_are_fifth_percentiles_by_class():
    values = np.concatenate([np.linspace(0, 1, 21), np.full(9, 0.5)])
    labels = np.array([0] * 21 + list(range(1, 10)))
    distances = metrics.copy_distances(
        images_with_first_pixel(values), labels, np.zeros((1, 784), np.uint8)
    )
    assert distances == pytest.approx([0.05] + [0.5] * 9)


def test_nothing_is_a_copy_of_a_digit_that_is_missing():
    distances = metrics.copy_distances(
        np.ones((9, 784)), np.arange(9), np.zeros((1, 784), np.uint8)
    )
    assert distances.tolist() == [28.0] * 9 + [0.0]


def small_reference(features, labels, training_pixels, copy_distance=1.0):
    return metrics.Reference(
        *metrics.statistics(features),
        histogram=metrics.class_histogram(labels),
        features=features,
        copy_distances=np.full(10, copy_distance),
        training_pixels=training_pixels,
    )


def test_memorised_share_compares_each_digit_with_its_own_distance():
    reference = small_reference(REAL, [0, 1], np.zeros((1, 784), np.uint8))
    reference = reference._replace(copy_distances=np.array([0.2, 0.6] + [0] * 8))
    images = images_with_first_pixel([0.1, 0.4, 0.4, 0.8])
    assert metrics.memorised_share(images, np.array([0, 0, 1, 1]), reference) == 0.5


def test_score_of_the_training_images_themselves():
    features = RNG.normal(size=(60, 5))
    labels = np.arange(60) % 10
    pixels = RNG.integers(0, 256, (60, 784), np.uint8)
    reference = small_reference(features, labels, pixels)
    scores = metrics.score(features, one_hot(labels), pixels / np.float32(255), reference)
    assert scores.frechet_distance < 1e-9
    assert scores.kernel_distance < 0
    assert scores.classifier_score == pytest.approx(10)
    assert (scores.num_samples, scores.mean_confidence, scores.classes_covered) == (60, 1, 10)
    assert (scores.histogram, scores.total_variation) == ([0.1] * 10, 0)
    assert (scores.precision, scores.recall, scores.coverage) == (1, 1, 1)
    assert scores.memorised_share == 1


def test_score_refuses_unequal_numbers():
    reference = small_reference(REAL, [0], np.zeros((1, 784), np.uint8))
    with pytest.raises(ValueError, match="4, 5 and 6 features, probabilities and images"):
        metrics.score(np.zeros((4, 2)), np.zeros((5, 10)), np.zeros((6, 784)), reference)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(value):
    features = np.full((5, 2), value)
    for metric in (metrics.statistics, metrics.classifier_score):
        with pytest.raises(ValueError, match="NaN or infinity"):
            metric(features)
    for metric in (metrics.kernel_distance, metrics.precision_recall, metrics.density_coverage):
        with pytest.raises(ValueError, match="NaN or infinity"):
            metric(RNG.normal(size=(9, 2)), features)


def test_a_class_is_lost_below_one_percent_or_half_of_what_is_real():
    real = np.array([0.004, 0, 0.5, 0.496, *[0] * 6])
    assert metrics.lost_classes(real, real) == []
    assert metrics.lost_classes(np.array([0.001, 0.5, 0.009, 0.49, *[0] * 6]), real) == [0, 2]
