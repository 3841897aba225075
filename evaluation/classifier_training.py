"""Trains the classifier of a data set.

python -m evaluation.classifier_training --out=FOLDER     MNIST's again: weights, statistics,
                                                          reference scores, and its SHA-256
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import trange

import input_data
from evaluation.classifier import NUM_FEATURES, network
from support.errors import UserError

SHAPES = {
    "conv1": (5, 5, 1, 24),
    "conv2": (3, 3, 24, 48),
    "dense1": (7 * 7 * 48, NUM_FEATURES),
    "dense2": (NUM_FEATURES, 10),
}
BATCH = 128
NUM_STEPS = 10_000
LEARNING_RATE = 2e-3
MAX_SHIFT = 2


def train(data_set, num_steps, seed):
    """DataSet -> weights as arrays by name, after `num_steps` of Adam, with a progress bar.

    The rate falls linearly to 0, which does what an average of the weights would do.
    """
    rng = np.random.default_rng(seed)
    # Whatever it was read with: the same images and seed give the same classifier everywhere.
    data_set = input_data.DataSet(data_set.pixels, data_set.file_labels, seed=seed)
    with tf.Graph().as_default():
        variables = {
            name: tf.compat.v1.get_variable(name, initializer=value, use_resource=True)
            for name, value in _initial_weights(rng).items()
        }
        images, labels, update = _update(variables, num_steps)
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            for _ in trange(num_steps, desc="classifier", unit="step", disable=None):
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
    _, logits = network(variables, images)
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


def main(arguments=None):
    """Command line -> the three files in --out; what the user got wrong ends in one line."""
    from evaluation import reference

    parser = argparse.ArgumentParser(prog="python -m evaluation.classifier_training")
    parser.add_argument("--data_dir", default="MNIST_data", help="folder of the four IDX files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--num_steps", type=int, default=NUM_STEPS, help=f"of {BATCH} images")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and shifts")
    flags = parser.parse_args(arguments)
    try:
        data = input_data.read_data_sets(flags.data_dir, validation_size=0, seed=flags.seed)
        standard = reference.make(data, flags.out, flags.num_steps, flags.seed)
    except (UserError, OSError) as error:
        sys.exit(f"evaluation.classifier_training: {error}")
    print(f"test accuracy {standard.test_accuracy:.2%}")
    print(f"SHA-256 of the weights {standard.classifier.sha256}")


if __name__ == "__main__":
    main()
