"""A small convolutional classifier, frozen, that the metrics see images through.

Its weights are constants read from a file; it shares nothing with any discriminator.
"""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from support.errors import UserError

MNIST = Path(__file__).resolve().parent / "shipped" / "mnist"
WEIGHTS = MNIST / "classifier.npz"
WEIGHTS_SHA256 = "86e2c74b63d5c351f375eb91893f92b590a10701a3a198977742e69030946a26"

NUM_FEATURES = 64
# Small, so that what one batch takes between the layers stays below 100 MB.
IMAGES_AT_ONCE = 500


class Predictions(NamedTuple):
    """features: float32 `[n, 64]`; probabilities: float32 `[n, 10]`, rows that sum to 1."""

    features: np.ndarray
    probabilities: np.ndarray


class Classifier:
    """Images -> Predictions, eager execution on or off; the same bytes for the same images.

    Raises UserError if the file at `path` is missing or its SHA-256 is not `sha256`.
    """

    def __init__(self, path=WEIGHTS, sha256=WEIGHTS_SHA256):
        weights = unpack(read_checked(path, sha256), path)
        self.sha256 = sha256
        with tf.Graph().as_default() as graph:
            self._images = tf.compat.v1.placeholder(tf.float32, [None, 784])
            features, logits = network(weights, self._images)
            self._predictions = Predictions(features, tf.nn.softmax(logits))
        self._session = tf.compat.v1.Session(graph=graph)

    def __call__(self, images):
        """`[n, 784]` or `[n, 28, 28]` in [0, 1] -> Predictions; else ValueError."""
        images = checked_images(images)
        starts = range(0, len(images), IMAGES_AT_ONCE)
        batches = [self._predict(images[start : start + IMAGES_AT_ONCE]) for start in starts]
        return Predictions(*map(np.concatenate, zip(*batches, strict=True)))

    def features(self, images):
        """`[n, 784]` or `[n, 28, 28]` in [0, 1] -> float32 `[n, 64]`."""
        return self(images).features

    def probabilities(self, images):
        """`[n, 784]` or `[n, 28, 28]` in [0, 1] -> float32 `[n, 10]`."""
        return self(images).probabilities

    def _predict(self, images):
        return self._session.run(self._predictions, {self._images: images})


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


def network(weights, images):
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


def read(path):
    """Path -> bytes; UserError for a file that cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}, wanted what python -m evaluation.classifier_training makes"
        ) from error


def read_checked(path, sha256):
    """Path -> bytes; UserError unless their SHA-256 is `sha256`."""
    content = read(path)
    seen = hashlib.sha256(content).hexdigest()
    if seen != sha256:
        raise UserError(f"{path}: SHA-256 {seen}, wanted {sha256}")
    return content


def unpack(content, path):
    """Bytes of an `.npz` file -> arrays by name; UserError that names `path` if it is damaged."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: {error}, wanted a whole .npz file") from error
