"""Two engines that train a step, or a block of steps, at a time, on the same batches.

`blocks` yields lists of Progress, and whenever it yields, the model's variables are those after the
list's last step.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from input_data import NUM_CLASSES
from support.errors import UserError
from training.batches import block_steps, one_hot


class Progress(NamedTuple):
    """Steps done so far, and the last step's losses before its updates, in nats."""

    step: int
    d_loss: float
    g_loss: float


class StepEngine:
    """The article's loop: one `session.run` of the Gan's train ops an update, the batch fed."""

    name = "step"

    def __init__(self, gan, batches):
        """gan: with the train ops to run, its class's own or a recipe's."""
        self._gan = gan
        self._batches = batches
        self.train_ops = [gan.d_optimizer, gan.d_loss, gan.g_optimizer, gan.g_loss]

    def blocks(self, session, start, stop):
        """Trains steps start + 1 ... stop; yields lists of one Progress each."""
        for step in range(start, stop):
            yield [Progress(step + 1, *self._step(session, self._batches.block(step, step + 1)))]

    def _step(self, session, inputs):
        one = inputs.map(lambda array: array[0])
        d_rate, g_rate = one.rates
        for images, z, labels, z_labels in one.d_updates():
            x = images.astype(np.float32) / np.float32(255)
            feed = {**self._feed(x, z, z_labels, d_rate), **self._labels_of_images(labels)}
            d_loss, _ = session.run([self._gan.d_loss, self._gan.d_optimizer], feed)
        for z, z_labels in one.g_updates():
            feed = {**self._feed(x, z, z_labels, g_rate), **self._labels_of_images(labels)}
            g_loss, _ = session.run([self._gan.g_loss, self._gan.g_optimizer], feed)
        return float(d_loss), float(g_loss)

    def _feed(self, x, z, z_labels, rate):
        gan = self._gan
        feed = {gan.x_placeholder: x, gan.z_placeholder: z, gan.learning_rate_placeholder: rate}
        return feed if z_labels is None else {**feed, gan.labels_placeholder: one_hot(z_labels)}

    def _labels_of_images(self, labels):
        return {} if labels is None else {self._gan.x_labels_placeholder: one_hot(labels)}


class FusedEngine:
    """A block of steps in one `session.run`: a loop in the graph, compiled by XLA if `jit`.

    The loop's shapes are fixed and its number of turns is fed, so a short last block costs no
    second compilation. The next block is drawn while the running one computes.
    """

    def __init__(self, updates, batches, *, jit):
        """updates: the Updates of a Gan in the default graph."""
        self.name = "fused" if jit else "fused without XLA"
        self._updates = updates
        self._batches = batches
        self._length = block_steps(batches.recipe)
        self._inputs = batches.block(0, 1).map(self._placeholder)
        self._count = tf.placeholder(tf.int32, [])
        loop = tf.function(self._loop, autograph=False, jit_compile=jit)
        self._losses = loop(*_present(self._inputs), self._count)
        self.train_ops = [self._losses]

    def blocks(self, session, start, stop):
        """Trains steps start + 1 ... stop; yields a list of Progress for each block."""
        starts = range(start, stop, self._length)
        spans = [(first, min(first + self._length, stop)) for first in starts]
        with ThreadPoolExecutor(1) as pool:
            for (first, last), block in zip(
                spans, _prefetch(pool, self._padded, spans), strict=True
            ):
                feed = dict(zip(_present(self._inputs), _present(block), strict=True))
                losses = self._run(session, {**feed, self._count: last - first})
                rows = losses[: last - first].tolist()
                yield [Progress(first + i + 1, *row) for i, row in enumerate(rows)]

    def _run(self, session, feed):
        """-> losses [length, 2]; UserError where a class has an operation unknown to XLA."""
        try:
            return session.run(self._losses, feed)
        except tf.errors.InvalidArgumentError as error:
            unknown = re.search(r"unsupported operations .* on \w+: (\w+)", str(error))
            if unknown is None:
                raise
            raise UserError(
                f"the fused engine: XLA cannot compile the operation {unknown[1]}; "
                "leave it out of the networks and losses, or train with --engine=step"
            ) from error

    def _placeholder(self, array):
        return tf.placeholder(array.dtype, [self._length, *array.shape[1:]])

    def _padded(self, span):
        block = self._batches.block(*span)
        missing = self._length - len(block.images)
        if not missing:
            return block
        return block.map(lambda a: np.concatenate([a, np.zeros_like(a[:1]).repeat(missing, 0)]))

    def _loop(self, *arrays_and_count):
        *arrays, count = arrays_and_count
        arrays = iter(arrays)
        inputs = self._inputs.map(lambda _: next(arrays))

        def body(i, losses):
            step = inputs.map(lambda array: array[i])
            return i + 1, losses.write(i, tf.stack(self._step(step)))

        losses = tf.TensorArray(tf.float32, self._length, element_shape=[2])
        _, losses = tf.while_loop(lambda i, _: i < count, body, [tf.constant(0), losses])
        return losses.stack()

    def _step(self, step):
        """Inputs of one step (tensors without their first axis) -> its two losses."""
        d_rate, g_rate = tf.unstack(step.rates)
        done = []
        for images, z, labels, z_labels in step.d_updates():
            with tf.control_dependencies(done):
                x = tf.cast(images, tf.float32) / 255
                d_loss, update = self._updates.d_update(
                    x, z, d_rate, _one_hot_tensor(labels), _one_hot_tensor(z_labels)
                )
                done = [update]
        for z, z_labels in step.g_updates():
            with tf.control_dependencies(done):
                g_loss, update = self._updates.g_update(z, g_rate, _one_hot_tensor(z_labels))
                done = [update]
        with tf.control_dependencies(done):
            return tf.identity(d_loss), tf.identity(g_loss)


def _one_hot_tensor(labels):
    return None if labels is None else tf.one_hot(tf.cast(labels, tf.int32), NUM_CLASSES)


def _present(inputs):
    """Inputs -> the list of those that are not None."""
    return [array for array in inputs if array is not None]


def _prefetch(pool, function, arguments):
    """Yields function(a) for each argument, the next one already under way."""
    waiting = None
    for argument in arguments:
        upcoming = pool.submit(function, argument)
        if waiting is not None:
            yield waiting.result()
        waiting = upcoming
    if waiting is not None:
        yield waiting.result()
