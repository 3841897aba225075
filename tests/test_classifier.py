"""The classifier, its files, the reference scores, and how all of them are made."""

import gzip
import hashlib
import struct
import threading
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
import tensorflow as tf

import input_data
from evaluation import classifier_training, metrics, reference
from evaluation.classifier import WEIGHTS, Classifier
from support.errors import UserError

DATA_DIR = Path(__file__).resolve().parent.parent / "MNIST_data"


@pytest.fixture(scope="module")
def mnist():
    return input_data.read_data_sets(DATA_DIR, validation_size=0)


@pytest.fixture(scope="module")
def standard(mnist):
    return reference.get(mnist, input_data.known("mnist"))


@pytest.fixture(scope="module")
def predictions(standard, mnist):
    """Predictions of all test images."""
    return standard.classifier(mnist.test.images)


def test_accuracy_is_at_least_99_3_percent(predictions, mnist):
    found = predictions.probabilities.argmax(axis=1)
    assert np.mean(found == mnist.test.labels) >= 0.993


def test_predictions_are_reproducible(mnist, predictions):
    with tf.Graph().as_default() as graph:
        again = Classifier()(mnist.test.images[:1000])
    assert np.array_equal(again.features, predictions.features[:1000])
    assert np.array_equal(again.probabilities, predictions.probabilities[:1000])
    assert graph.get_operations() == []  # the caller's graph


def test_predictions_do_not_depend_on_batch_and_shape(standard, mnist, predictions):
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


@pytest.mark.parametrize(("name", "sha256"), list(reference.SHIPPED.values()))
def test_shipped_files_match(mnist, name, sha256):
    shipped = reference.load(WEIGHTS.parent.parent / name, mnist, sha256)
    real, without, noise = (scores.frechet_distance for scores in shipped.scores.values())
    assert real < without < noise and shipped.test_accuracy > 0.92


def test_missing_and_damaged_weights_are_rejected(tmp_path):
    (tmp_path / "damaged.npz").write_bytes(b"nonsense")
    for path in (tmp_path / "damaged.npz", tmp_path / "missing.npz"):
        with pytest.raises(UserError, match=f"^{path}: expected a valid .npz file .*"):
            Classifier(path)


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


@pytest.fixture(scope="module")
def small_data_dir(mnist, tmp_path_factory):
    """A folder with 600 training and 200 test images."""
    folder = tmp_path_factory.mktemp("mnist")
    for prefix, part, n in (("train", mnist.train, 600), ("t10k", mnist.test, 200)):
        images = struct.pack(">4I", 0x803, n, 28, 28) + part.pixels[:n].tobytes()
        labels = struct.pack(">2I", 0x801, n) + part.labels[:n].tobytes()
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return folder


@pytest.fixture
def small(small_data_dir):
    return input_data.read_data_sets(small_data_dir, validation_size=0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The folder of the user's classifiers, which are trained for 20 steps."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setattr(reference, "CACHED_STEPS", 20)
        yield folder / "small_gans"


def test_training_is_repeatable_and_learns(tmp_path, small_data_dir, small, capsys):
    reference.main([f"--out={tmp_path}", f"--data_dir={small_data_dir}", "--num_steps=20"])
    printed, path = capsys.readouterr().out, tmp_path / "classifier.npz"
    again = classifier_training.train(small.train, 20)
    assert all(np.array_equal(values, again[name]) for name, values in np.load(path).items())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    accuracy = Classifier(path, sha256).accuracy(small.test)
    assert accuracy > 0.3
    assert f"test accuracy {accuracy:.2%}" in printed and sha256 in printed


def test_an_unknown_data_set_has_its_own_classifier(small, cache):
    lines, folder = [], cache / reference.checksum(small)
    folder.mkdir(parents=True)
    arguments = [small, input_data.known(None), lines.append]
    with filelock.FileLock(folder / ".lock"):
        waiting = threading.Thread(target=reference.get, args=arguments)
        waiting.start()
        while not lines:
            time.sleep(0.01)
        assert lines == [f"Waiting for another process, which is making {folder}."]
        assert not (folder / "classifier.npz").exists()
    waiting.join(timeout=60)
    assert lines[1].startswith("Training a classifier of") and len(lines) == 3
    made = reference.get(*arguments)
    assert lines[3:] == lines[2:3]  # not trained again
    mean, _ = metrics.statistics(made.classifier(small.train.images).features)
    assert np.allclose(made.reference.mean, mean, atol=1e-3)
    assert [scores.num_samples for scores in made.scores.values()] == [200, 179, 200]
    (folder / "classifier.npz").write_bytes(WEIGHTS.read_bytes())
    with pytest.raises(ValueError, match=r"classifier.npz: expected SHA-256 .*; delete .*gans"):
        reference.get(*arguments)


def with_labels(data, label):
    """Returns the data set with other labels."""
    return data._replace(
        train=input_data.DataSet(data.train.pixels, label(data.train.labels)),
        test=input_data.DataSet(data.test.pixels, label(data.test.labels)),
    )


def test_known_images_with_other_labels_are_another_data_set(mnist):
    """MNIST as odd and even: the shipped classifier would score it as digits."""
    assert reference.checksum(mnist) in reference.SHIPPED
    assert reference.checksum(with_labels(mnist, lambda y: y % 2)) not in reference.SHIPPED


def test_a_single_class_is_scored(tmp_path, small):
    made = reference.make(with_labels(small, np.ones_like), tmp_path, 5)
    assert list(made.scores) == ["real test images", "uniform noise"]
    assert made.scores["real test images"].classes_covered == 1


def test_too_few_images_are_rejected(small):
    few = input_data.DataSet(small.test.pixels[:9], small.test.labels[:9])
    with pytest.raises(ValueError, match=r"at least 128 .* got 600 and 9"):
        reference.get(small._replace(test=few), input_data.known(None))


@pytest.mark.parametrize("text", ["", "[]", '{"reference_scores": {"noise": {"recall": 1}}}'])
def test_damaged_reference_scores_are_rejected(tmp_path, mnist, text):
    (tmp_path / "reference_scores.json").write_text(text)
    with pytest.raises(UserError, match=r"reference_scores.json: expected reference scores"):
        reference.load(tmp_path, mnist)


def test_a_missing_data_folder_ends_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"evaluation.reference: .*none"):
        reference.main([f"--data_dir={tmp_path / 'none'}", f"--out={tmp_path}"])
