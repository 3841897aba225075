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

from models.inference import assign, check_shapes, one_hot, variables_behind
from support.data_sets import NUM_CLASSES
from support.errors import UserError
from training.batches import Inputs, block_steps
from training.run import RESERVED_NAMES


class Progress(NamedTuple):
    """Steps done so far, and the last step's losses before its updates, in nats."""

    step: int
    d_loss: float
    g_loss: float


class _Engine:
    """A session, the variables that training changes, and the batches to train on."""

    def __init__(self, gan, batches, train_ops, precision, jit=False):
        """Opens a session and initialises the variables.

        Args:
          gan: Instance in the current default graph.
          batches: `Batches`.
          train_ops: Operations that training runs.
          precision: `float32` or `bfloat16`.
          jit: Whether XLA compiles the train ops.
        """
        self.gan = gan
        self._batches = batches
        variables = variables_behind([*train_ops, gan.x_hat])
        self._variables = {variable.op.name: variable for variable in variables}
        for name in sorted(RESERVED_NAMES & self._variables.keys()):
            raise UserError(f"a variable must not be called {name}: checkpoints use that name")
        config = tf.ConfigProto()
        config.gpu_options.allow_growth = True
        rewrites = config.graph_options.rewrite_options
        # It would put TemporaryVariable, which XLA rejects, into loops of large batches.
        rewrites.memory_optimization = rewrites.NO_MEM_OPT
        if jit:
            # TensorFlow would fuse operations of one of two equal forward passes and not of the
            # other, which has a gradient, and XLA would then not merge the two.
            rewrites.remapping = rewrites.OFF
        if precision == "bfloat16":
            # Convolutions and products of oneDNN; the weights stay float32.
            rewrites.auto_mixed_precision_onednn_bfloat16 = rewrites.ON
        self.session = tf.Session(config=config)
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

    def __init__(self, gan, batches, precision="float32"):
        train_ops = [gan.d_optimizer, gan.d_loss, gan.g_optimizer, gan.g_loss]
        super().__init__(gan, batches, train_ops, precision)

    def train(self, start, stop):
        """Trains steps start + 1 to stop; yields lists of one Progress."""
        for step in range(start, stop):
            inputs = self._batches.block(step, step + 1)
            yield [Progress(step + 1, *self._step(Inputs(*(array[0] for array in inputs))))]

    def _step(self, inputs):
        """Runs one step; returns D's and G's loss before their last updates, as floats."""
        gan, session, feed = self.gan, self.session, {}
        conditional = self._batches.recipe.conditional
        d_rate, g_rate = inputs.rates
        for i in range(len(inputs.images)):
            feed[gan.x_placeholder] = inputs.images[i].astype(np.float32) / np.float32(255)
            feed[gan.z_placeholder] = inputs.d_latents[i]
            feed[gan.learning_rate_placeholder] = d_rate
            if conditional:
                feed[gan.x_labels_placeholder] = one_hot(inputs.labels[i])
                feed[gan.labels_placeholder] = one_hot(inputs.d_labels[i])
            d_loss, _ = session.run([gan.d_loss, gan.d_optimizer], feed)
        for i in range(len(inputs.g_latents)):  # G's update may read the last real images too
            feed[gan.z_placeholder] = inputs.g_latents[i]
            feed[gan.learning_rate_placeholder] = g_rate
            if conditional:
                feed[gan.labels_placeholder] = one_hot(inputs.g_labels[i])
            g_loss, _ = session.run([gan.g_loss, gan.g_optimizer], feed)
        return float(d_loss), float(g_loss)


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
        self._conditional = batches.recipe.conditional
        self._reuse_latents = batches.recipe.reuse_latents
        self._length = block_steps(batches.recipe)
        self._inputs = Inputs(
            *(
                tf.placeholder(array.dtype, [self._length, *array.shape[1:]])
                for array in batches.block(0, 1)
            )
        )
        self._count = tf.placeholder(tf.int32, [])
        loop = tf.function(self._loop, autograph=False, jit_compile=jit)
        self._losses = loop(self._inputs, self._count)
        train_ops = [self._losses, *other_ops]
        super().__init__(updates.gan, batches, train_ops, precision, jit)

    def train(self, start, stop):
        """Trains steps start + 1 to stop; yields a list of Progress for each block."""
        with ThreadPoolExecutor(1) as pool:
            upcoming = pool.submit(self._padded_block, start, stop)
            for first in range(start, stop, self._length):
                last = min(first + self._length, stop)
                feed = dict(zip(self._inputs, upcoming.result(), strict=True))
                if last < stop:
                    upcoming = pool.submit(self._padded_block, last, stop)
                try:
                    losses = self.session.run(self._losses, {**feed, self._count: last - first})
                except tf.errors.InvalidArgumentError as error:
                    unknown = re.search(r"unsupported operations .* on \w+: (\w+)", str(error))
                    if unknown is None:
                        raise
                    raise UserError(
                        f"--engine=fused: XLA cannot compile the operation {unknown[1]}; remove it "
                        "from the networks and losses, or train with --engine=step"
                    ) from error
                rows = losses[: last - first].tolist()
                yield [Progress(first + i, *row) for i, row in enumerate(rows, 1)]

    def _padded_block(self, start, stop):
        """Returns the inputs of a block; those of one that `stop` cuts short are repeated."""
        block = self._batches.block(start, min(start + self._length, stop))
        if len(block.images) < self._length:
            return [np.resize(array, [self._length, *array.shape[1:]]) for array in block]
        return block

    def _loop(self, inputs, count):
        def body(i, losses):
            step = Inputs(*(array[i] for array in inputs))
            return i + 1, losses.write(i, tf.stack(self._step(step)))

        losses = tf.TensorArray(tf.float32, self._length, element_shape=[2])
        _, losses = tf.while_loop(lambda i, _: i < count, body, [tf.constant(0), losses])
        return losses.stack()

    def _step(self, step):
        """Builds one step; returns both losses, ready once all its updates have run."""

        def one_hot_tensor(labels):
            if self._conditional:
                return tf.one_hot(tf.cast(labels, tf.int32), NUM_CLASSES)
            return None

        d_rate, g_rate = tf.unstack(step.rates)
        done = []
        for i in range(step.images.shape[0]):
            with tf.control_dependencies(done):
                x = tf.cast(step.images[i], tf.float32) / 255
                labels, z_labels = one_hot_tensor(step.labels[i]), one_hot_tensor(step.d_labels[i])
                d_loss, update = self._updates.d_update(
                    x, step.d_latents[i], d_rate, labels, z_labels
                )
                done = [update]
        for i in range(step.g_latents.shape[0]):
            with tf.control_dependencies(done):
                # The same tensor as D's, so that XLA computes G's images only once.
                z = step.d_latents[-1] if self._reuse_latents else step.g_latents[i]
                z_labels = one_hot_tensor(step.g_labels[i])
                g_loss, update = self._updates.g_update(z, g_rate, z_labels, x, labels)
                done = [update]
        with tf.control_dependencies(done):
            return tf.identity(d_loss), tf.identity(g_loss)


def has_convolutions(gan):
    """Returns whether a Gan's graph has TensorFlow's convolution operations.

    The convolutions of stable_cnn are matrix products.
    """
    return any(op.type.startswith("Conv") for op in gan.x_hat.graph.get_operations())
