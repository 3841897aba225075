"""The classifier, its files, the reference scores, and how all of them are made."""

import numpy as np
import pytest

import input_data
from evaluation import classifier_training, metrics, reference
from evaluation.classifier import Classifier
from input_data import DataSet


@pytest.fixture(scope="module")
def standard(mnist):
    return reference.get(mnist, input_data.known("mnist"))


@pytest.fixture(scope="module")
def predictions(standard, mnist):
    """Predictions of all test images."""
    return standard.classifier(mnist.test.images)


def test_predictions_are_right_and_do_not_depend_on_batch_and_shape(standard, mnist, predictions):
    found = predictions.probabilities.argmax(axis=1)
    assert np.mean(found == mnist.test.labels) >= 0.993
    again = standard.classifier(mnist.test.images[:1000])
    assert np.array_equal(again.features, predictions.features[:1000])
    rows = [0, 499, 500, 707]
    actual = standard.classifier(mnist.test.images[rows].reshape(-1, 28, 28))
    assert np.allclose(actual.features, predictions.features[rows], atol=1e-3)
    assert np.allclose(actual.probabilities, predictions.probabilities[rows], atol=1e-4)


def test_invalid_images_are_rejected(standard):
    for shape in [(784,), (0, 784), (2, 783), (2, 28, 28, 1)]:
        with pytest.raises(ValueError, match=r"shape \[n, 784\] or \[n, 28, 28\], got"):
            standard.classifier(np.zeros(shape))
    for value in (np.nan, np.inf, -0.01, 1.01):
        with pytest.raises(ValueError, match="pixels must be from 0 to 1"):
            standard.classifier(np.full((2, 784), value))


@pytest.mark.parametrize("name", reference.SHIPPED.values())
def test_shipped_files_match(mnist, name):
    shipped = reference.load(reference.SHIPPED_FOLDER / name, mnist)
    real, without, noise = (scores.frechet_distance for scores in shipped.scores.values())
    assert real < without < noise and shipped.test_accuracy > 0.92


def test_reference_describes_the_training_images(mnist, standard):
    images = mnist.train.images[reference.reference_rows(60_000)[:500]]
    features = standard.classifier(images).features
    assert np.allclose(standard.reference.features[:500], features, rtol=1e-3, atol=1e-2)
    assert np.array_equal(standard.reference.histogram, np.bincount(mnist.train.labels) / 60_000)
    copies = mnist.train.images[:50], mnist.train.labels[:50]
    assert metrics.memorised_share(*copies, standard.reference) == 1
    new = mnist.test.images[:100], mnist.test.labels[:100]
    assert metrics.memorised_share(*new, standard.reference) < 0.2


def test_reference_scores_are_those_of_the_test_images(predictions, standard):
    real, without_nine, noise = standard.scores.values()
    distance = metrics.frechet_distance(
        *metrics.statistics(predictions.features), *standard.reference[:2]
    )
    assert distance == pytest.approx(real.frechet_distance, rel=1e-3)
    score = metrics.classifier_score(predictions.probabilities)
    assert score == pytest.approx(real.classifier_score, rel=1e-4)
    for name in ("classifier_score", "classes_covered", "recall", "coverage"):
        assert getattr(real, name) > getattr(without_nine, name) > getattr(noise, name), name


def test_shifts_reach_every_place_within_two_pixels():
    images = np.zeros((500, 28, 28), np.float32)
    images[:, 10, 20] = 1
    shifted = classifier_training.random_shift(images, np.random.default_rng(0))
    shifted = shifted.reshape(-1, 28, 28)
    assert (shifted.sum(axis=(1, 2)) == 1).all()
    rows, columns = np.nonzero(shifted.any(axis=0))
    assert {*rows} == {*range(8, 13)} and {*columns} == {*range(18, 23)} and len(rows) == 25


def test_training_is_repeatable_and_learns(tmp_path, small):
    made = reference.make(small, tmp_path, 20)
    weights = classifier_training.train(small.train, 20)
    with np.load(tmp_path / "classifier.npz") as saved:
        assert all(np.array_equal(values, weights[name]) for name, values in saved.items())
    accuracy = Classifier(weights).accuracy(small.test)
    assert accuracy > 0.3 and made.test_accuracy == accuracy


def test_an_unknown_data_set_has_its_own_classifier(small, cache):
    lines = []
    made = reference.get(small, input_data.known(None), lines.append)
    assert lines[0].startswith("Training a classifier on") and len(lines) == 2
    again = reference.get(small, input_data.known(None), lines.append)
    assert lines[2:] == lines[1:2]  # not trained again
    assert again.scores == made.scores
    mean, _ = metrics.statistics(made.classifier(small.train.images).features)
    assert np.allclose(made.reference.mean, mean, atol=1e-3)
    assert [scores.num_samples for scores in made.scores.values()] == [200, 179, 200]


def test_unusual_sets(mnist, tmp_path, small):
    """MNIST's images with other labels are none of the shipped sets."""
    assert reference.checksum(mnist) in reference.SHIPPED
    ones = [DataSet(part.pixels, np.ones_like(part.file_labels)) for part in (*small, *mnist)]
    small_ones, mnist_ones = input_data.Datasets(*ones[:3]), input_data.Datasets(*ones[3:])
    assert reference.checksum(mnist_ones) not in reference.SHIPPED
    made = reference.make(small_ones, tmp_path, 5)
    assert list(made.scores) == ["real test images", "uniform noise"]
    scores, (distance, *others) = made.scores["real test images"], made.reference.copy_distances
    assert scores.classes_covered is None and scores.memorised_share == 0.05
    assert distance > 0 and others == [distance] * 9
    with pytest.raises(ValueError, match=r"at least 128 .* got 600 and 9"):
        reference.get(small._replace(test=small.test[:9]), input_data.known(None))
