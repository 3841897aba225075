"""The judge: a small convolutional digit classifier, frozen, that the metrics see images through.

Its weights are constants read from judge.npz; it shares nothing with any discriminator.

    python -m evaluation.judge --train --seed=0   trains it again, prints the SHA-256 to record here
    python -m evaluation.judge --statistics       makes train_statistics.npz and floors.json again
"""

import argparse
import hashlib
import io
import json
import math
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import trange

import input_data
from atomic import replacing
from errors import UserError
from evaluation import metrics

FOLDER = Path(__file__).resolve().parent
WEIGHTS = FOLDER / "judge.npz"
STATISTICS = FOLDER / "train_statistics.npz"
FLOORS = FOLDER / "floors.json"
WEIGHTS_SHA256 = "86e2c74b63d5c351f375eb91893f92b590a10701a3a198977742e69030946a26"

NUM_FEATURES = 64
SHAPES = {
    "conv1": (5, 5, 1, 24),
    "conv2": (3, 3, 24, 48),
    "dense1": (7 * 7 * 48, NUM_FEATURES),
    "dense2": (NUM_FEATURES, 10),
}
BATCH = 128
# Small, so that what one batch takes between the layers stays below 100 MB.
JUDGED_AT_ONCE = 500
LEARNING_RATE = 2e-3
MAX_SHIFT = 2
# Of the 60,000 training images: enough for neighbours, small enough for a repository.
NUM_REFERENCE_FEATURES = 10_000


class Verdicts(NamedTuple):
    """features: float32 `[n, 64]`; probabilities: float32 `[n, 10]`, rows that sum to 1."""

    features: np.ndarray
    probabilities: np.ndarray


class Judge:
    """Images -> Verdicts, whether eager execution is on or off; the same bytes for the same images.

    Raises UserError if the file at `path` is missing or its SHA-256 is not `sha256`.
    """

    def __init__(self, path=WEIGHTS, sha256=WEIGHTS_SHA256):
        weights = _unpack(_read_checked(path, sha256), path)
        self.sha256 = sha256
        with tf.Graph().as_default() as graph:
            self._images = tf.compat.v1.placeholder(tf.float32, [None, 784])
            features, logits = _network(weights, self._images)
            self._verdicts = Verdicts(features, tf.nn.softmax(logits))
        self._session = tf.compat.v1.Session(graph=graph)

    def __call__(self, images):
        """`[n, 784]` or `[n, 28, 28]` in [0, 1] -> Verdicts; else ValueError."""
        images = checked_images(images)
        starts = range(0, len(images), JUDGED_AT_ONCE)
        batches = [self._judge(images[start : start + JUDGED_AT_ONCE]) for start in starts]
        return Verdicts(*map(np.concatenate, zip(*batches, strict=True)))

    def features(self, images):
        """`[n, 784]` or `[n, 28, 28]` in [0, 1] -> float32 `[n, 64]`."""
        return self(images).features

    def probabilities(self, images):
        """`[n, 784]` or `[n, 28, 28]` in [0, 1] -> float32 `[n, 10]`."""
        return self(images).probabilities

    def _judge(self, images):
        return self._session.run(self._verdicts, {self._images: images})


def checked_images(images):
    """Images -> float32 `[n, 784]`; ValueError unless they are n > 0 of 784 pixels in [0, 1]."""
    images = np.asarray(images, np.float32)
    if images.shape[1:] not in ((784,), (28, 28)) or len(images) == 0:
        raise ValueError(f"images of shape {list(images.shape)}, wanted [n, 784] or [n, 28, 28]")
    low, high = images.min(), images.max()
    # Written so that NaN, which compares false with everything, is refused as well.
    if not (low >= 0 and high <= 1):
        raise ValueError(f"images with pixels from {low} to {high}, wanted from 0 to 1")
    return images.reshape(-1, 784)


def accuracy(judge, data_set):
    """Share of a DataSet's images whose most probable digit is the label."""
    return float(np.mean(judge.probabilities(data_set.images).argmax(axis=1) == data_set.labels))


def _network(weights, images):
    """`[n, 784]` -> features `[n, 64]`, logits `[n, 10]`.

    The features are linear: a ReLU's would have a mass at 0, far from the Gaussian that the
    Fréchet distance assumes, and could leave the covariance singular.
    """
    x = tf.reshape(images, [-1, 28, 28, 1])
    x = _conv_pool(weights, "conv1", x)  # [n, 14, 14, 24]
    x = _conv_pool(weights, "conv2", x)  # [n, 7, 7, 48]
    features = _dense(weights, "dense1", tf.reshape(x, [-1, 7 * 7 * 48]))
    return features, _dense(weights, "dense2", tf.nn.relu(features))


def _conv_pool(weights, name, x):
    """`[n, h, w, c]` -> `[n, h/2, w/2, filters]`: convolution, ReLU, maximum of 2 x 2."""
    x = tf.nn.conv2d(x, weights[f"{name}_kernel"], strides=1, padding="SAME")
    x = tf.nn.max_pool2d(x + weights[f"{name}_bias"], ksize=2, strides=2, padding="VALID")
    return tf.nn.relu(x)


def _dense(weights, name, x):
    return tf.matmul(x, weights[f"{name}_kernel"]) + weights[f"{name}_bias"]


def train(data_set, num_steps, seed):
    """DataSet -> weights as arrays by name, after `num_steps` of Adam, with a progress bar.

    The rate falls linearly to 0, which does what an average of the weights would do.
    """
    rng = np.random.default_rng(seed)
    with tf.Graph().as_default():
        variables = {
            name: tf.compat.v1.get_variable(name, initializer=value, use_resource=True)
            for name, value in _initial_weights(rng).items()
        }
        images, labels, update = _update(variables, num_steps)
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            for _ in trange(num_steps, desc="judge", unit="step", disable=None):
                batch, batch_labels = data_set.next_batch(BATCH)
                session.run(update, {images: _shifted(batch, rng), labels: batch_labels})
            return session.run(variables)


def _initial_weights(rng):
    """Generator -> float32 arrays by name: He-normal kernels, biases of 0."""
    weights = {}
    for name, shape in SHAPES.items():
        deviation = math.sqrt(2 / math.prod(shape[:-1]))
        weights[f"{name}_kernel"] = np.float32(rng.normal(0, deviation, shape))
        weights[f"{name}_bias"] = np.zeros(shape[-1], np.float32)
    return weights


def _update(variables, num_steps):
    """Variables by name -> placeholders of images and labels, and the op of one step."""
    images = tf.compat.v1.placeholder(tf.float32, [None, 784])
    labels = tf.compat.v1.placeholder(tf.int32, [None])
    _, logits = _network(variables, images)
    loss = tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    )
    step = tf.compat.v1.train.get_or_create_global_step()
    rate = tf.compat.v1.train.polynomial_decay(LEARNING_RATE, step, num_steps, 0.0)
    optimizer = tf.compat.v1.train.AdamOptimizer(rate)
    return images, labels, optimizer.minimize(loss, global_step=step)


def _shifted(images, rng):
    """`[n, 784]` -> each moved by up to 2 pixels down or up and right or left, 0 where it left."""
    padding = ((0, 0), (MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT))
    padded = np.pad(images.reshape(-1, 28, 28), padding)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (28, 28), axis=(1, 2))
    down, right = rng.integers(0, 2 * MAX_SHIFT + 1, (2, len(images)))
    return windows[np.arange(len(images)), down, right].reshape(-1, 784)


def make_reference(judge, data):
    """Datasets -> metrics.Reference of the training images; the test images set what a copy is."""
    features = judge.features(data.train.images)
    mean, covariance = metrics.statistics(features)
    return metrics.Reference(
        mean=mean,
        covariance=covariance,
        histogram=metrics.digit_histogram(data.train.labels),
        features=np.float16(features[reference_rows(len(features))]),
        copy_distances=metrics.copy_distances(
            data.test.images, data.test.labels, data.train.pixels
        ),
        training_pixels=data.train.pixels,
    )


def reference_rows(num_images):
    """Number of training images -> rows of the 10,000 that lend their features, or of all if fewer.

    Drawn, since MNIST's order repeats: every second image counts 0 to 9 again and again.
    """
    return np.random.default_rng(0).permutation(num_images)[:NUM_REFERENCE_FEATURES]


def save_reference(reference, judge, path=STATISTICS):
    """Writes all of a Reference but the training images, with the SHA-256 of its judge."""
    arrays = reference._asdict()
    del arrays["training_pixels"]
    with replacing(path) as temporary:
        np.savez(temporary, judge_sha256=np.array(judge.sha256), **arrays)


def load_reference(judge, training_pixels, path=STATISTICS):
    """Uint8 `[60000, 784]` -> metrics.Reference with the cached statistics at `path`.

    Raises UserError for a file that is missing, damaged, or belongs to another judge.
    """
    return metrics.Reference(**load_statistics(judge, path), training_pixels=training_pixels)


def load_statistics(judge, path=STATISTICS):
    """-> {field: array} of a Reference but for the training images. UserError as above."""
    arrays = _unpack(_read(path), path)
    _check_owner(path, str(arrays.pop("judge_sha256", None)), judge)
    return arrays


def make_floors(judge, data, reference):
    """Datasets -> metrics.Scores by name, for what bounds every figure: real images, and noise.

    As good as it gets: the test images. One digit lost: those without the 9. As bad: noise.
    """
    test = data.test.images
    noise = np.random.default_rng(0).random(test.shape, np.float32)
    sets = {
        "real test images": test,
        "real test images without the digit 9": test[data.test.labels != 9],
        "uniform noise": noise,
    }
    return {name: metrics.score(*judge(images), images, reference) for name, images in sets.items()}


def save_floors(floors, judge, path=FLOORS):
    """Writes floors as JSON, with the SHA-256 of their judge."""
    scores = {name: floor._asdict() for name, floor in floors.items()}
    text = json.dumps({"judge_sha256": judge.sha256, "floors": scores}, indent=2)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n")


def load_floors(judge, path=FLOORS):
    """Cached floors: metrics.Scores by name. UserError as for load_reference."""
    try:
        content = json.loads(_read(path))
        floors = {name: metrics.Scores(**floor) for name, floor in content["floors"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: {error}, wanted what --statistics writes") from error
    _check_owner(path, content.get("judge_sha256"), judge)
    return floors


def _check_owner(path, seen, judge):
    if seen != judge.sha256:
        raise UserError(f"{path}: belongs to judge {seen}, wanted judge {judge.sha256}")


def _read(path):
    """Path -> bytes; UserError for a file that cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}, wanted what python -m evaluation.judge makes"
        ) from error


def _read_checked(path, sha256):
    """Path -> bytes; UserError unless their SHA-256 is `sha256`."""
    content = _read(path)
    seen = hashlib.sha256(content).hexdigest()
    if seen != sha256:
        raise UserError(f"{path}: SHA-256 {seen}, wanted {sha256}")
    return content


def _unpack(content, path):
    """Bytes of an `.npz` file -> arrays by name; UserError that names `path` if it is damaged."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: {error}, wanted a whole .npz file") from error


def _train_command(flags):
    data = input_data.read_data_sets(flags.data_dir, validation_size=0, seed=flags.seed)
    path = Path(flags.out) / WEIGHTS.name
    with replacing(path) as temporary:
        np.savez(temporary, **train(data.train, flags.num_steps, flags.seed))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    print(f"test accuracy {accuracy(Judge(path, sha256), data.test):.2%}")
    print(f'record in evaluation/judge.py: WEIGHTS_SHA256 = "{sha256}"')


def _statistics_command(flags):
    data = input_data.read_data_sets(flags.data_dir, validation_size=0)
    judge = Judge()
    save_reference(make_reference(judge, data), judge, Path(flags.out) / STATISTICS.name)
    # Read back, so that floors and later scores see the same rounded features.
    reference = load_reference(judge, data.train.pixels, Path(flags.out) / STATISTICS.name)
    floors = make_floors(judge, data, reference)
    save_floors(floors, judge, Path(flags.out) / FLOORS.name)
    for name, floor in floors.items():
        print(name, *(f"  {key} {value}" for key, value in floor._asdict().items()), sep="\n")


def _parser():
    parser = argparse.ArgumentParser(prog="python -m evaluation.judge")
    command = parser.add_mutually_exclusive_group(required=True)
    command.add_argument(
        "--train", dest="run", action="store_const", const=_train_command, help="judge.npz"
    )
    command.add_argument(
        "--statistics",
        dest="run",
        action="store_const",
        const=_statistics_command,
        help="train_statistics.npz and floors.json of the recorded judge",
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and shifts")
    parser.add_argument("--num_steps", type=int, default=10_000, help="of 128 images")
    parser.add_argument(
        "--data_dir", default=FOLDER.parent / "MNIST_data", help="folder of MNIST's four files"
    )
    parser.add_argument("--out", default=FOLDER, help="folder that the files are written to")
    return parser


def main(arguments=None):
    """Command line -> files in --out; what the user got wrong ends in one line."""
    flags = _parser().parse_args(arguments)
    try:
        flags.run(flags)
    except (UserError, OSError) as error:
        sys.exit(f"evaluation.judge: {error}")


if __name__ == "__main__":
    main()
