"""The judge itself, its files, its floors, and the commands that make them."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import input_data
from evaluation import judge as judging
from evaluation import metrics

DATA_DIR = Path(__file__).resolve().parent.parent / "MNIST_data"


@pytest.fixture(scope="module")
def data():
    return input_data.read_data_sets(DATA_DIR, validation_size=0)


@pytest.fixture(scope="module")
def judge():
    return judging.Judge()


@pytest.fixture(scope="module")
def verdicts(judge, data):
    """Of all test images."""
    return judge(data.test.images)


def test_at_least_99_3_percent_of_the_test_images_are_right(verdicts, data):
    assert np.mean(verdicts.probabilities.argmax(axis=1) == data.test.labels) >= 0.993


def test_verdicts_have_their_shapes_and_sums(verdicts):
    assert verdicts.features.shape == (10_000, judging.NUM_FEATURES)
    assert verdicts.features.dtype == verdicts.probabilities.dtype == np.float32
    assert np.allclose(verdicts.probabilities.sum(axis=1), 1, atol=1e-5)


def test_the_same_images_have_the_same_bytes(judge, data, verdicts):
    again = judging.Judge()(data.test.images[:1000])
    assert np.array_equal(again.features, verdicts.features[:1000])
    assert np.array_equal(again.probabilities, verdicts.probabilities[:1000])


def test_an_image_is_judged_alike_in_any_batch_and_shape(judge, data, verdicts):
    rows = [0, 499, 500, 707]
    alone = judge(data.test.images[rows].reshape(-1, 28, 28))
    assert np.allclose(alone.features, verdicts.features[rows], atol=1e-3)
    assert np.allclose(alone.probabilities, verdicts.probabilities[rows], atol=1e-4)
    assert np.array_equal(judge.features(data.test.images[rows]), alone.features)
    assert np.array_equal(judge.probabilities(data.test.images[rows]), alone.probabilities)


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


def test_the_network_agrees_with_numpy(data, verdicts):
    features, logits = numpy_network(np.load(judging.WEIGHTS), data.test.images[:20])
    odds = np.exp(logits)
    assert np.allclose(verdicts.features[:20], features, atol=1e-3)
    wanted = odds / odds.sum(axis=1, keepdims=True)
    assert np.allclose(verdicts.probabilities[:20], wanted, atol=1e-4)


def test_the_judge_leaves_the_callers_graph_alone():
    with tf.Graph().as_default() as graph:
        probabilities = judging.Judge().probabilities(np.zeros((1, 784)))
    assert probabilities.shape == (1, 10)
    assert graph.get_operations() == []


@pytest.mark.parametrize("shape", [(784,), (2, 783), (2, 28, 27), (2, 28, 28, 1), (0, 784), ()])
def test_other_shapes_are_refused(judge, shape):
    with pytest.raises(ValueError, match=r"wanted \[n, 784\] or \[n, 28, 28\]") as error:
        judge(np.zeros(shape))
    assert str(list(shape)) in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01, 255])
def test_pixels_outside_the_range_are_refused(judge, value):
    images = np.zeros((3, 784))
    images[1, 5] = value
    with pytest.raises(ValueError, match="wanted from 0 to 1"):
        judge(images)


def test_files_are_small():
    assert judging.WEIGHTS.stat().st_size <= 2**20
    assert judging.STATISTICS.stat().st_size <= 3 * 2**20


def test_damaged_and_missing_weights_are_refused_in_one_line(tmp_path):
    content = bytearray(judging.WEIGHTS.read_bytes())
    content[1000] ^= 1
    copy = tmp_path / "judge.npz"
    copy.write_bytes(content)
    with pytest.raises(ValueError, match=r"judge.npz: SHA-256 [0-9a-f]{64}, wanted") as error:
        judging.Judge(copy)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="No such file"):
        judging.Judge(tmp_path / "none.npz")


@pytest.mark.parametrize("content", [b"", b"nonsense", judging.WEIGHTS.read_bytes()[:5000]])
def test_what_is_no_npz_file_is_refused(tmp_path, content):
    path = tmp_path / "judge.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"judge.npz: .* wanted a whole .npz file"):
        judging.Judge(path, hashlib.sha256(content).hexdigest())


def test_reference_belongs_to_the_training_images(judge, data):
    reference = judging.load_reference(judge, data.train.pixels)
    features = judge.features(data.train.images[judging.reference_rows(60_000)[:500]])
    assert reference.features.shape == (10_000, judging.NUM_FEATURES)
    assert np.allclose(reference.features[:500], features, rtol=1e-3, atol=1e-2)
    assert reference.mean == pytest.approx(reference.features.mean(axis=0, dtype=float), abs=0.2)
    assert np.array_equal(reference.histogram, np.bincount(data.train.labels) / 60_000)


def test_floors_are_those_of_the_test_images(judge, data, verdicts):
    reference = judging.load_reference(judge, data.train.pixels)
    floor = judging.load_floors(judge)["real test images"]
    distance = metrics.frechet_distance(
        *metrics.statistics(verdicts.features), reference.mean, reference.covariance
    )
    assert distance == pytest.approx(floor.frechet_distance, rel=1e-3)
    score = metrics.classifier_score(verdicts.probabilities)
    assert score == pytest.approx(floor.classifier_score, rel=1e-4)
    share = metrics.memorised_share(data.test.images[:100], data.test.labels[:100], reference)
    assert share < 0.2


def test_copies_of_training_images_are_memorised(judge, data):
    reference = judging.load_reference(judge, data.train.pixels)
    share = metrics.memorised_share(data.train.images[:50], data.train.labels[:50], reference)
    assert share == 1


def test_floors_are_ordered(judge):
    real, without_nine, noise = judging.load_floors(judge).values()
    assert real.num_samples == noise.num_samples == 10_000
    assert without_nine.num_samples == 10_000 - 1009
    for name in ("frechet_distance", "kernel_distance", "total_variation"):
        values = [getattr(floor, name) for floor in (real, without_nine, noise)]
        assert values == sorted(values), name
    for name in ("classifier_score", "digits_covered", "recall", "coverage"):
        values = [getattr(floor, name) for floor in (noise, without_nine, real)]
        assert values == sorted(values), name
    assert (real.digits_covered, without_nine.digits_covered) == (10, 9)
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
    shifted = judging._shifted(images, np.random.default_rng(0)).reshape(-1, 28, 28)
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


def run(command, folder, data_dir):
    folder.mkdir()
    judging.main([command, "--num_steps=20", f"--data_dir={data_dir}", f"--out={folder}"])


def test_training_is_repeatable_and_learns(tmp_path, small_data_dir, data, capsys):
    run("--train", tmp_path / "first", small_data_dir)
    printed = capsys.readouterr().out
    run("--train", tmp_path / "second", small_data_dir)
    assert capsys.readouterr().out == printed
    path = tmp_path / "first" / "judge.npz"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f'WEIGHTS_SHA256 = "{sha256}"' in printed
    judge = judging.Judge(path, sha256)
    digits = judge.probabilities(data.test.images[:200]).argmax(axis=1)
    right = np.mean(digits == data.test.labels[:200])
    assert right > 0.3
    assert f"test accuracy {right:.2%}" in printed
    with pytest.raises(ValueError, match=f"belongs to judge {judging.WEIGHTS_SHA256}, wanted"):
        judging.load_reference(judge, data.train.pixels)
    with pytest.raises(ValueError, match=f"belongs to judge {judging.WEIGHTS_SHA256}, wanted"):
        judging.load_floors(judge)


def test_statistics_command_makes_what_can_be_loaded(tmp_path, small_data_dir, judge, data):
    out = tmp_path / "out"
    run("--statistics", out, small_data_dir)
    assert sorted(path.name for path in out.iterdir()) == ["floors.json", "train_statistics.npz"]
    reference = judging.load_reference(
        judge, data.train.pixels[:600], out / judging.STATISTICS.name
    )
    mean, covariance = metrics.statistics(judge.features(data.train.images[:600]))
    assert np.allclose(reference.mean, mean, atol=1e-3)
    assert np.allclose(reference.covariance, covariance, atol=1e-2)
    floors = judging.load_floors(judge, out / judging.FLOORS.name)
    assert [floor.num_samples for floor in floors.values()] == [200, 179, 200]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"floors": {"noise": {"recall": 1}}}'])
def test_damaged_floors_are_refused(tmp_path, judge, text):
    path = tmp_path / "floors.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"floors.json: .*wanted what --statistics writes"):
        judging.load_floors(judge, path)


def test_a_wrong_folder_ends_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"evaluation.judge: .*none"):
        judging.main(["--train", f"--data_dir={DATA_DIR}", f"--out={tmp_path / 'none'}"])
