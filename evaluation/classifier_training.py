"""Trains the classifier of a data set."""

import math

import numpy as np
import tensorflow.compat.v1 as tf
from tqdm import trange

import input_data
from evaluation.classifier import NUM_FEATURES, network

SHAPES = {
    "conv1": (5, 5, 1, 24),
    "conv2": (3, 3, 24, 48),
    "dense1": (7 * 7 * 48, NUM_FEATURES),
    "dense2": (NUM_FEATURES, 10),
}
BATCH_SIZE = 128
NUM_STEPS = 10_000
LEARNING_RATE = 2e-3
MAX_SHIFT = 2


def train(data_set, num_steps: int, seed: int = 0) -> dict:
    """Trains on a DataSet with Adam and a progress bar.

    The learning rate falls linearly to 0, which replaces an average of the weights.

    Returns:
      Arrays by name.
    """
    rng = np.random.default_rng(seed)
    # A new one, so that the order of batches follows from the images and the seed.
    data_set = input_data.DataSet(data_set.pixels, data_set.file_labels, seed=seed)
    with tf.Graph().as_default():
        variables = {}
        for name, shape in SHAPES.items():
            deviation = math.sqrt(2 / math.prod(shape[:-1]))  # He et al. 2015
            kernel = np.float32(rng.normal(0, deviation, shape))
            bias = np.zeros(shape[-1], np.float32)
            for part, value in (("kernel", kernel), ("bias", bias)):
                key = f"{name}_{part}"
                variables[key] = tf.get_variable(key, initializer=value, use_resource=True)
        images = tf.placeholder(tf.float32, [None, 784])
        labels = tf.placeholder(tf.int32, [None])
        _, logits = network(variables, images)
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        )
        step = tf.train.get_or_create_global_step()
        rate = tf.train.polynomial_decay(LEARNING_RATE, step, num_steps, 0.0)
        update = tf.train.AdamOptimizer(rate).minimize(loss, global_step=step)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            for _ in trange(num_steps, desc="classifier", unit="step", disable=None):
                batch, batch_labels = data_set.next_batch(BATCH_SIZE)
                session.run(update, {images: random_shift(batch, rng), labels: batch_labels})
            return session.run(variables)


def random_shift(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shifts each of `[n, 784]` by up to 2 pixels in both directions, filling with 0."""
    padding = ((0, 0), (MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT))
    padded = np.pad(images.reshape(-1, 28, 28), padding)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (28, 28), axis=(1, 2))
    down, right = rng.integers(0, 2 * MAX_SHIFT + 1, (2, len(images)))
    return windows[np.arange(len(images)), down, right].reshape(-1, 784)
