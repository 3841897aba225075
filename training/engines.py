"""Two engines that train on the same batches.

One runs a step, the other a block of steps per session call.

`train` yields lists of Progress; whenever it yields, the variables are those after the list's last
step.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from input_data import NUM_CLASSES
from models.inference import assign, check_shapes, one_hot, variables_behind
from support.errors import UserError
from training.batches import block_steps
from training.run import check_names


class Progress(NamedTuple):
    """Steps done so far, and the last step's losses before its updates, in nats."""

    step: int
    d_loss: float
    g_loss: float


class _Engine:
    """A session, the variables that training changes, and the batches to train on."""

    def __init__(self, gan, batches, train_ops, averages, precision):
        """Opens a session and initialises the variables.

        Args:
          gan: Instance in the current default graph.
          batches: `Batches`.
          train_ops: Operations that training runs.
          averages: Variables of moving averages, which no train op may read.
          precision: `float32` or `bfloat16`.
        """
        self.gan = gan
        self._batches = batches
        variables = variables_behind([*train_ops, gan.x_hat], averages)
        self._variables = {variable.op.name: variable for variable in variables}
        check_names(self._variables)
        self.session = tf.Session(config=_session_config(precision))
        self.session.run([variable.initializer for variable in variables])

    def state(self):
        """Returns {variable name: ndarray} of everything that training continues from."""
        return self.session.run(self._variables)

    def load(self, state):
        """Sets all variables from `state`.

        Raises:
          UserError: If it is of other networks.
        """
        check_shapes(state, self._variables)
        assign(self.session, self._variables, state)


class StepEngine(_Engine):
    """The article's loop: one `session.run` per update, with a fed batch.

    It runs the Gan's train ops.
    """

    name = "step"

    def __init__(self, gan, batches, averages=(), precision="float32"):
        train_ops = [gan.d_optimizer, gan.d_loss, gan.g_optimizer, gan.g_loss]
        super().__init__(gan, batches, train_ops, averages, precision)

    def train(self, start, stop):
        """Trains steps start + 1 to stop; yields lists of one Progress."""
        for step in range(start, stop):
            inputs = self._batches.block(step, step + 1).map(lambda array: array[0])
            yield [Progress(step + 1, *run_step(self.session, self.gan, inputs))]


class FusedEngine(_Engine):
    """A block of steps in one `session.run`: a loop in the graph.

    XLA compiles it if `jit`.

    The loop has fixed shapes and a fed number of iterations, so that a short last block needs no
    second compilation. The next block is drawn while the current one runs.
    """

    def __init__(self, updates, batches, *, jit, precision="float32", other_ops=()):
        """Builds the loop.

        Args:
          updates: `Updates` of a Gan in the current default graph.
          jit: Whether to compile the loop with XLA.
          other_ops: Operations that will run in the same session, such as pre-training.
        """
        self.name = "fused" if jit else "fused without XLA"
        self._updates = updates
        self._length = block_steps(batches.recipe)
        self._inputs = batches.block(0, 1).map(
            lambda array: tf.placeholder(array.dtype, [self._length, *array.shape[1:]])
        )
        self._count = tf.placeholder(tf.int32, [])
        loop = tf.function(self._loop, autograph=False, jit_compile=jit)
        self._losses = loop(*_present(self._inputs), self._count)
        train_ops = [self._losses, *other_ops]
        super().__init__(updates.gan, batches, train_ops, updates.averages(), precision)

    def train(self, start, stop):
        """Trains steps start + 1 to stop; yields a list of Progress for each block."""
        starts = range(start, stop, self._length)
        spans = [(first, min(first + self._length, stop)) for first in starts]
        with ThreadPoolExecutor(1) as pool:
            blocks = _prefetch(pool, self._padded_block, spans)
            for (first, last), block in zip(spans, blocks, strict=True):
                feed = dict(zip(_present(self._inputs), _present(block), strict=True))
                losses = self._run({**feed, self._count: last - first})
                rows = losses[: last - first].tolist()
                yield [Progress(first + i, *row) for i, row in enumerate(rows, 1)]

    def _run(self, feed):
        try:
            return self.session.run(self._losses, feed)
        except tf.errors.InvalidArgumentError as error:
            unknown = re.search(r"unsupported operations .* on \w+: (\w+)", str(error))
            if unknown is None:
                raise
            raise UserError(
                f"--engine=fused: XLA cannot compile the operation {unknown[1]}; remove it from "
                "the networks and losses, or train with --engine=step"
            ) from error

    def _padded_block(self, span):
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
        """Builds one step; returns both losses, ready once all its updates have run."""
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
                g_loss, update = self._updates.g_update(
                    z, g_rate, _one_hot_tensor(z_labels), x, _one_hot_tensor(labels)
                )
                done = [update]
        with tf.control_dependencies(done):
            return tf.identity(d_loss), tf.identity(g_loss)


def run_step(session, gan, inputs):
    """Runs one step of a Gan's train ops.

    Args:
      inputs: `Inputs` of one step, without their first axis.

    Returns:
      D's and G's loss before their last updates, as floats.
    """
    d_rate, g_rate = inputs.rates
    for images, z, labels, z_labels in inputs.d_updates():
        feed = _feed(gan, images, z, labels, z_labels, d_rate)
        d_loss, _ = session.run([gan.d_loss, gan.d_optimizer], feed)
    for z, z_labels in inputs.g_updates():  # which may read the last real images too
        feed = _feed(gan, images, z, labels, z_labels, g_rate)
        g_loss, _ = session.run([gan.g_loss, gan.g_optimizer], feed)
    return float(d_loss), float(g_loss)


def has_convolutions(gan):
    """Returns whether a Gan's graph has convolutions."""
    return any(op.type.startswith("Conv") for op in gan.x_hat.graph.get_operations())


def _feed(gan, images, z, labels, z_labels, learning_rate):
    feed = {
        gan.x_placeholder: images.astype(np.float32) / np.float32(255),
        gan.z_placeholder: z,
        gan.learning_rate_placeholder: learning_rate,
    }
    if labels is not None:
        feed[gan.x_labels_placeholder] = one_hot(labels)
        feed[gan.labels_placeholder] = one_hot(z_labels)
    return feed


def _session_config(precision):
    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True
    rewrites = config.graph_options.rewrite_options
    # It would put TemporaryVariable, which XLA rejects, into loops of large batches.
    rewrites.memory_optimization = rewrites.NO_MEM_OPT
    if precision == "bfloat16":
        # TensorFlow's rewrite of convolutions and products for oneDNN; the weights stay float32.
        rewrites.auto_mixed_precision_onednn_bfloat16 = rewrites.ON
    return config


def _one_hot_tensor(labels):
    return None if labels is None else tf.one_hot(tf.cast(labels, tf.int32), NUM_CLASSES)


def _present(inputs):
    return [array for array in inputs if array is not None]


def _prefetch(pool, function, arguments):
    """Yields function(a) for each argument; computes the next in the background."""
    waiting = None
    for argument in arguments:
        upcoming = pool.submit(function, argument)
        if waiting is not None:
            yield waiting.result()
        waiting = upcoming
    if waiting is not None:
        yield waiting.result()
