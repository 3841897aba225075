"""The classifier itself, its files, its reference scores, and how they are made."""

import gzip
import hashlib
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import input_data
from evaluation import classifier as classifying
from evaluation import classifier_training, metrics, reference

DATA_DIR = Path(__file__).resolve().parent.parent / "MNIST_data"


@pytest.fixture(scope="module")
def data():
    return input_data.read_data_sets(DATA_DIR, validation_size=0)


@pytest.fixture(scope="module")
def classifier():
    return classifying.Classifier()


@pytest.fixture(scope="module")
def standard(data):
    return reference.of(data, input_data.identify(data.train.pixels))


@pytest.fixture(scope="module")
def predictions(classifier, data):
    """Of all test images."""
    return classifier(data.test.images)


def test_at_least_99_3_percent_of_the_test_images_are_right(predictions, data):
    assert np.mean(predictions.probabilities.argmax(axis=1) == data.test.labels) >= 0.993


def test_predictions_have_their_shapes_and_sums(predictions):
    assert predictions.features.shape == (10_000, classifying.NUM_FEATURES)
    assert predictions.features.dtype == predictions.probabilities.dtype == np.float32
    assert np.allclose(predictions.probabilities.sum(axis=1), 1, atol=1e-5)


def test_the_same_images_have_the_same_bytes(classifier, data, predictions):
    again = classifying.Classifier()(data.test.images[:1000])
    assert np.array_equal(again.features, predictions.features[:1000])
    assert np.array_equal(again.probabilities, predictions.probabilities[:1000])


def test_an_image_is_classified_alike_in_any_batch_and_shape(classifier, data, predictions):
    rows = [0, 499, 500, 707]
    alone = classifier(data.test.images[rows].reshape(-1, 28, 28))
    assert np.allclose(alone.features, predictions.features[rows], atol=1e-3)
    assert np.allclose(alone.probabilities, predictions.probabilities[rows], atol=1e-4)
    assert np.array_equal(classifier.features(data.test.images[rows]), alone.features)
    assert np.array_equal(classifier.probabilities(data.test.images[rows]), alone.probabilities)


def numpy_network(weights, images):
    """`[n, 784]` -> features, logits, in float64."""

    def conv_pool(name, x):
        kernel, bias = weights[f"{name}_kernel"].astype(float), weights[f"{name}_bias"]
        size = kernel.shape[0]
        border = (size // 2, size // 2)
        padded = np.pad(x, ((0, 0), border, border, (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
        y = np.maximum(np.einsum("nhwcij,ijcf->nhwf", windows, kernel, optimize=True) + bias, 0)
        n, height, width, filters = y.shape
        return y.reshape(n, height // 2, 2, width // 2, 2, filters).max(axis=(2, 4))

    x = conv_pool("conv2", conv_pool("conv1", images.reshape(-1, 28, 28, 1).astype(float)))
    features = x.reshape(len(x), -1) @ weights["dense1_kernel"] + weights["dense1_bias"]
    logits = np.maximum(features, 0) @ weights["dense2_kernel"] + weights["dense2_bias"]
    return features, logits


def test_the_network_agrees_with_numpy(data, predictions):
    features, logits = numpy_network(np.load(classifying.WEIGHTS), data.test.images[:20])
    odds = np.exp(logits)
    assert np.allclose(predictions.features[:20], features, atol=1e-3)
    wanted = odds / odds.sum(axis=1, keepdims=True)
    assert np.allclose(predictions.probabilities[:20], wanted, atol=1e-4)


def test_the_classifier_leaves_the_callers_graph_alone():
    with tf.Graph().as_default() as graph:
        probabilities = classifying.Classifier().probabilities(np.zeros((1, 784)))
    assert probabilities.shape == (1, 10)
    assert graph.get_operations() == []


@pytest.mark.parametrize("shape", [(784,), (2, 783), (2, 28, 27), (2, 28, 28, 1), (0, 784), ()])
def test_other_shapes_are_refused(classifier, shape):
    with pytest.raises(ValueError, match=r"wanted \[n, 784\] or \[n, 28, 28\]") as error:
        classifier(np.zeros(shape))
    assert str(list(shape)) in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01, 255])
def test_pixels_outside_the_range_are_refused(classifier, value):
    images = np.zeros((3, 784))
    images[1, 5] = value
    with pytest.raises(ValueError, match="wanted from 0 to 1"):
        classifier(images)


@pytest.mark.parametrize(("name", "sha256"), list(reference._SHIPPED.values()))
def test_what_is_shipped_is_small_and_belongs_together(data, name, sha256):
    """The images lend nothing to what is read here but themselves."""
    folder = classifying.MNIST.parent / name
    assert (folder / "classifier.npz").stat().st_size <= 2**20
    assert (folder / "statistics.npz").stat().st_size <= 3 * 2**20
    standard = reference.load(folder, data, sha256)
    real, without, noise = (scores.frechet_distance for scores in standard.scores.values())
    assert real < without < noise and standard.test_accuracy > 0.92
    assert "digit" not in " ".join(standard.scores) or name == "mnist"


def test_fashion_mnist_is_scored_by_its_own_classifier():
    folder = Path(__file__).resolve().parent.parent / "data" / "fashion_mnist"
    if not folder.is_dir():
        pytest.skip(f"no Fashion-MNIST in {folder}")
    data = input_data.read_data_sets(folder, validation_size=0)
    standard = reference.of(data, input_data.identify(data.train.pixels))
    right = reference.accuracy(standard.classifier, data.test)
    assert right == pytest.approx(standard.test_accuracy) and right > 0.92


def test_damaged_and_missing_weights_are_refused_in_one_line(tmp_path):
    content = bytearray(classifying.WEIGHTS.read_bytes())
    content[1000] ^= 1
    copy = tmp_path / "classifier.npz"
    copy.write_bytes(content)
    with pytest.raises(ValueError, match=r"classifier.npz: SHA-256 [0-9a-f]{64}, wanted") as error:
        classifying.Classifier(copy)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="No such file"):
        classifying.Classifier(tmp_path / "none.npz")


@pytest.mark.parametrize("content", [b"", b"nonsense", classifying.WEIGHTS.read_bytes()[:5000]])
def test_what_is_no_npz_file_is_refused(tmp_path, content):
    path = tmp_path / "classifier.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"classifier.npz: .* wanted a whole .npz file"):
        classifying.Classifier(path, hashlib.sha256(content).hexdigest())


def test_reference_belongs_to_the_training_images(classifier, data, standard):
    of_training = standard.reference
    features = classifier.features(data.train.images[reference.reference_rows(60_000)[:500]])
    assert of_training.features.shape == (10_000, classifying.NUM_FEATURES)
    assert np.allclose(of_training.features[:500], features, rtol=1e-3, atol=1e-2)
    assert of_training.mean == pytest.approx(
        of_training.features.mean(axis=0, dtype=float), abs=0.2
    )
    assert np.array_equal(of_training.histogram, np.bincount(data.train.labels) / 60_000)


def test_reference_scores_are_those_of_the_test_images(data, predictions, standard):
    of_training = standard.reference
    floor = standard.scores["real test images"]
    distance = metrics.frechet_distance(
        *metrics.statistics(predictions.features), of_training.mean, of_training.covariance
    )
    assert distance == pytest.approx(floor.frechet_distance, rel=1e-3)
    score = metrics.classifier_score(predictions.probabilities)
    assert score == pytest.approx(floor.classifier_score, rel=1e-4)
    share = metrics.memorised_share(data.test.images[:100], data.test.labels[:100], of_training)
    assert share < 0.2


def test_copies_of_training_images_are_memorised(classifier, data, standard):
    of_training = standard.reference
    share = metrics.memorised_share(data.train.images[:50], data.train.labels[:50], of_training)
    assert share == 1


def test_reference_scores_are_ordered(standard):
    real, without_nine, noise = standard.scores.values()
    assert real.num_samples == noise.num_samples == 10_000
    assert without_nine.num_samples == 10_000 - 1009
    for name in ("frechet_distance", "kernel_distance", "total_variation"):
        values = [getattr(floor, name) for floor in (real, without_nine, noise)]
        assert values == sorted(values), name
    for name in ("classifier_score", "classes_covered", "recall", "coverage"):
        values = [getattr(floor, name) for floor in (noise, without_nine, real)]
        assert values == sorted(values), name
    assert (real.classes_covered, without_nine.classes_covered) == (10, 9)
    assert real.total_variation < 0.02
    assert real.classifier_score > 9.5
    assert real.precision > 0.8
    assert real.coverage > 0.8
    assert real.memorised_share < 0.1
    assert noise.memorised_share == 0
    assert max(noise.precision, noise.recall, noise.density, noise.coverage) < 0.01


def test_shifts_reach_every_place_within_two_pixels():
    image = np.zeros((1, 28, 28), np.float32)
    image[0, 10, 20] = 1
    images = np.repeat(image.reshape(1, 784), 500, axis=0)
    shifted = classifier_training._shifted(images, np.random.default_rng(0)).reshape(-1, 28, 28)
    assert (shifted.sum(axis=(1, 2)) == 1).all()
    rows, columns = np.nonzero(shifted.any(axis=0))
    assert set(zip(rows, columns, strict=True)) == {
        (row, column) for row in range(8, 13) for column in range(18, 23)
    }


def write_idx(path, array):
    header = struct.pack(f">{array.ndim + 1}I", 0x800 + array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), 1))


@pytest.fixture(scope="module")
def small_data_dir(data, tmp_path_factory):
    """600 training images and 200 test images."""
    folder = tmp_path_factory.mktemp("mnist")
    for prefix, data_set, count in (("train", data.train, 600), ("t10k", data.test, 200)):
        pixels = data_set.pixels[:count].reshape(-1, 28, 28)
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", pixels)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", data_set.labels[:count])
    return folder


def of_small(folder):
    return input_data.read_data_sets(folder, validation_size=0)


def test_training_is_repeatable_and_learns(tmp_path, small_data_dir, capsys):
    for name in ("first", "second"):
        words = [f"--out={tmp_path / name}", f"--data_dir={small_data_dir}", "--num_steps=20"]
        classifier_training.main(words)
        printed = capsys.readouterr().out
    paths = [tmp_path / name / "classifier.npz" for name in ("first", "second")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    sha256 = hashlib.sha256(paths[0].read_bytes()).hexdigest()
    right = reference.accuracy(
        classifying.Classifier(paths[0], sha256), of_small(small_data_dir).test
    )
    assert right > 0.3
    assert f"test accuracy {right:.2%}" in printed and sha256 in printed


def test_a_set_that_is_not_known_has_a_classifier_of_its_own(
    tmp_path, small_data_dir, classifier, monkeypatch, capsys
):
    """Made once, kept in the cache folder; another set's files are refused."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(reference, "_CACHED_STEPS", 20)
    data, lines = of_small(small_data_dir), []
    info = input_data.identify(data.train.pixels)
    assert info.name is None and info.class_names[3] == "class 3"
    first = reference.of(data, info, lines.append)
    assert len(lines) == 2 and "of the test images right" in lines[1]
    again = reference.of(data, info, lines.append)
    assert lines[2:] == lines[1:2]
    assert again.classifier.sha256 == first.classifier.sha256 != classifier.sha256
    mean, _ = metrics.statistics(first.classifier.features(data.train.images))
    assert np.allclose(again.reference.mean, mean, atol=1e-3)
    assert [scores.num_samples for scores in again.scores.values()] == [200, 179, 200]
    (folder,) = (tmp_path / "small_gans").iterdir()
    (folder / "classifier.npz").write_bytes(classifying.WEIGHTS.read_bytes())
    with pytest.raises(ValueError, match=r"classifier.npz: SHA-256 .*; delete .*small_gans"):
        reference.of(data, info)


def test_a_classifier_follows_from_images_and_seed_alone(small_data_dir):
    """Not from what NumPy's global generator, which shuffles, did before."""
    first, second = (classifier_training.train(of_small(small_data_dir).train, 2, 0) for _ in "ab")
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_known_images_with_other_labels_are_another_data_set(data, tmp_path, monkeypatch):
    """MNIST as odd and even: what is shipped would score it as digits."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(reference, "_CACHED_STEPS", 2)
    small = data.train.pixels[:300], data.train.labels[:300] % 2
    relabelled = data._replace(
        train=input_data.DataSet(*small), test=input_data.DataSet(*(part[:200] for part in small))
    )
    info = input_data.identify(data.train.pixels)
    assert info.name == "mnist"
    lines = []
    made = reference.of(relabelled, info, lines.append)
    assert lines[0].startswith("Training a classifier of MNIST, once")
    assert np.flatnonzero(made.reference.histogram).tolist() == [0, 1]


def test_a_process_that_waits_for_another_says_so(tmp_path, monkeypatch):
    lines, folder = [], tmp_path / "kept"
    with reference._locked(folder, lines.append):
        waiting = threading.Thread(target=_hold, args=[folder, lines])
        waiting.start()
        while not lines:
            time.sleep(0.01)
        assert lines == [f"Waiting for another process, which is making {folder}."]
    waiting.join(timeout=10)
    assert lines[1:] == ["held"]


def _hold(folder, lines):
    with reference._locked(folder, lines.append):
        lines.append("held")


def test_fewer_images_than_a_covariance_takes_are_refused(small_data_dir):
    data = of_small(small_data_dir)
    few = data._replace(test=input_data.DataSet(data.test.pixels[:9], data.test.labels[:9]))
    with pytest.raises(ValueError, match="600 training and 9 test images: scores want at least"):
        reference.of(few, input_data.identify(few.train.pixels))


def test_one_class_alone_is_scored(tmp_path, small_data_dir):
    data = of_small(small_data_dir)
    ones = data._replace(
        train=input_data.DataSet(data.train.pixels, np.ones(600, np.uint8)),
        test=input_data.DataSet(data.test.pixels, np.ones(200, np.uint8)),
    )
    made = reference.make(ones, tmp_path, 5)
    assert list(made.scores) == ["real test images", "uniform noise"]
    assert made.scores["real test images"].classes_covered == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"reference_scores": {"noise": {"recall": 1}}}'])
def test_damaged_reference_scores_are_refused(tmp_path, data, text):
    (tmp_path / "reference_scores.json").write_text(text)
    with pytest.raises(ValueError, match=r"reference_scores.json: .*wanted reference scores"):
        reference.load(tmp_path, data)


def test_a_wrong_folder_ends_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"evaluation.classifier_training: .*none"):
        classifier_training.main([f"--data_dir={tmp_path / 'none'}", f"--out={tmp_path}"])
