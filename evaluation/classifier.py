"""A small convolutional classifier with fixed weights.

The metrics compare its features.

It shares nothing with any discriminator. `classifier_training` trains one.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

NUM_FEATURES = 64
# Keeps the activations of one batch below 100 MB.
_BATCH = 500


class Predictions(NamedTuple):
    """Features, float32 `[n, 64]`, and class probabilities, float32 `[n, 10]`."""

    features: np.ndarray
    probabilities: np.ndarray


class Classifier:
    """A classifier with given weights, for eager mode as for graph mode.

    The same images always give the same bytes.

    Args:
      weights: Arrays by name.
      sha256: SHA-256 of their file, if they have one.
    """

    def __init__(self, weights: dict, sha256: str = ""):
        self.sha256 = sha256
        with tf.Graph().as_default() as graph:
            self._images = tf.compat.v1.placeholder(tf.float32, [None, 784])
            features, logits = network(weights, self._images)
            self._predictions = Predictions(features, tf.nn.softmax(logits))
        self._session = tf.compat.v1.Session(graph=graph)

    def __call__(self, images: np.ndarray) -> Predictions:
        """Classifies images `[n, 784]` or `[n, 28, 28]` in [0, 1].

        Raises:
          ValueError: If there are no images, or they have another shape or range.
        """
        images = np.asarray(images, np.float32)
        if images.shape[1:] not in ((784,), (28, 28)) or len(images) == 0:
            raise ValueError(
                f"images must have shape [n, 784] or [n, 28, 28], got {list(images.shape)}"
            )
        low, high = images.min(), images.max()
        # Comparisons with NaN are false.
        if not (low >= 0 and high <= 1):
            raise ValueError(f"pixels must be from 0 to 1, got {low} to {high}")
        images = images.reshape(-1, 784)
        batches = [
            self._session.run(self._predictions, {self._images: images[start : start + _BATCH]})
            for start in range(0, len(images), _BATCH)
        ]
        return Predictions(*map(np.concatenate, zip(*batches, strict=True)))

    def accuracy(self, data_set) -> float:
        """Returns the fraction of a DataSet's images that are classified correctly.

        The predicted class is the most probable one.
        """
        found = self(data_set.images).probabilities.argmax(axis=1)
        return float(np.mean(found == data_set.labels))


def network(weights, images):
    """Builds the network on `[n, 784]`.

    The features are linear. Those of a ReLU would often be exactly 0, unlike the Gaussian that the
    Fréchet distance assumes, and could make the covariance singular.

    Args:
      weights: Arrays or variables by name.
      images: `[n, 784]` in [0, 1].

    Returns:
      Features `[n, 64]` and logits `[n, 10]`.
    """
    x = tf.reshape(images, [-1, 28, 28, 1])
    for name in ("conv1", "conv2"):  # [n, 14, 14, 24], [n, 7, 7, 48]
        x = tf.nn.conv2d(x, weights[f"{name}_kernel"], strides=1, padding="SAME")
        x = tf.nn.max_pool2d(x + weights[f"{name}_bias"], ksize=2, strides=2, padding="VALID")
        x = tf.nn.relu(x)
    x = tf.reshape(x, [-1, 7 * 7 * 48])
    features = tf.matmul(x, weights["dense1_kernel"]) + weights["dense1_bias"]
    logits = tf.matmul(tf.nn.relu(features), weights["dense2_kernel"]) + weights["dense2_bias"]
    return features, logits
