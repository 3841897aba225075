"""Two engines that run a model's own D and G updates: a step, or a block of steps, at a time.

Both see the same draws and so train the same model; `blocks` yields lists of Progress, and
whenever it yields, the model's variables are those after the list's last step.
"""

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from training.draws import Block, block_steps


class Progress(NamedTuple):
    """Steps done so far, and the last step's losses before its updates, in nats."""

    step: int
    d_loss: float
    g_loss: float


class StepEngine:
    """The article's loop: one `session.run` an update, with the batch in its feed."""

    name = "step"

    def __init__(self, model, draws):
        self._model = model
        self._draws = draws

    def blocks(self, start, stop):
        """Trains steps start + 1 ... stop; yields lists of one Progress each."""
        for step in range(start, stop):
            yield [Progress(step + 1, *self._step(self._draws.block(step, step + 1)))]

    def _step(self, block):
        d_rate, g_rate = block.rates[0]
        for images, z in zip(block.images[0], block.d_latents[0], strict=True):
            x = images.astype(np.float32) / np.float32(255)
            d_loss = self._run(self._model.d_optimizer, self._model.d_loss, x, z, d_rate)
        for z in block.g_latents[0]:
            g_loss = self._run(self._model.g_optimizer, self._model.g_loss, x, z, g_rate)
        return float(d_loss), float(g_loss)

    def _run(self, optimizer, loss, x, z, rate):
        model = self._model
        feed = {
            model.x_placeholder: x,
            model.z_placeholder: z,
            model.learning_rate_placeholder: rate,
        }
        return model.session.run([loss, optimizer], feed)[0]


class FusedEngine:
    """A block of steps in one `session.run`: a loop in the graph, compiled by XLA if `jit`.

    The loop's shapes are fixed and its number of turns is fed, so a short last block costs no
    second compilation. The next block is drawn while the running one computes.
    """

    def __init__(self, model, draws, *, jit):
        self.name = "fused" if jit else "fused without XLA"
        self._model = model
        self._draws = draws
        sample = draws.block(0, 1)
        self._length = block_steps(draws.recipe)
        with model.graph.as_default():
            self._inputs = Block(*(self._placeholder(array) for array in sample))
            self._count = tf.placeholder(tf.int32, [])
            loop = tf.function(self._loop, autograph=False, jit_compile=jit)
            self._losses = loop(*self._inputs, self._count)

    def blocks(self, start, stop):
        """Trains steps start + 1 ... stop; yields a list of Progress for each block."""
        starts = range(start, stop, self._length)
        spans = [(first, min(first + self._length, stop)) for first in starts]
        with ThreadPoolExecutor(1) as pool:
            for (first, last), block in zip(spans, _ahead(pool, self._padded, spans), strict=True):
                feed = dict(zip(self._inputs, block, strict=True))
                losses = self._model.session.run(self._losses, {**feed, self._count: last - first})
                rows = losses[: last - first].tolist()
                yield [Progress(first + i + 1, *row) for i, row in enumerate(rows)]

    def _placeholder(self, array):
        return tf.placeholder(array.dtype, [self._length, *array.shape[1:]])

    def _padded(self, span):
        block = self._draws.block(*span)
        missing = self._length - len(block.images)
        if not missing:
            return block
        return Block(*(np.concatenate([a, np.zeros_like(a[:1]).repeat(missing, 0)]) for a in block))

    def _loop(self, *inputs_and_count):
        *inputs, count = inputs_and_count

        def body(i, losses):
            step = Block(*(array[i] for array in inputs))
            return i + 1, losses.write(i, tf.stack(self._step(step)))

        losses = tf.TensorArray(tf.float32, self._length, element_shape=[2])
        _, losses = tf.while_loop(lambda i, _: i < count, body, [tf.constant(0), losses])
        return losses.stack()

    def _step(self, step):
        """Block of one step (tensors without their first axis) -> its two losses."""
        model, done = self._model, []
        for images, z in zip(tf.unstack(step.images), tf.unstack(step.d_latents), strict=True):
            with tf.control_dependencies(done):
                x = tf.cast(images, tf.float32) / 255
                x_hat = model.sample_images(z)
                d_loss, operation = model.d_update(x, x_hat, step.rates[0])
                done = [operation]
        for z in tf.unstack(step.g_latents):
            with tf.control_dependencies(done):
                g_loss, operation = model.g_update(x, z, step.rates[1])
                done = [operation]
        with tf.control_dependencies(done):
            return tf.identity(d_loss), tf.identity(g_loss)


def _ahead(pool, function, arguments):
    """Yields function(a) for each argument, the next one already under way."""
    waiting = None
    for argument in arguments:
        upcoming = pool.submit(function, argument)
        if waiting is not None:
            yield waiting.result()
        waiting = upcoming
    if waiting is not None:
        yield waiting.result()


def make_engine(choice, model, draws):
    """`auto`, `fused` or `step` -> the engine.

    XLA is many times slower than TensorFlow's own kernels for convolutions on a CPU, so there
    such a model's blocks run without it, and `auto` takes the step engine.
    """
    jit = not draws.recipe.convolutional or bool(tf.config.list_physical_devices("GPU"))
    if choice == "step" or (choice == "auto" and not jit):
        return StepEngine(model, draws)
    return FusedEngine(model, draws, jit=jit)


def session_opener(precision):
    """`float32` or `bfloat16` -> () -> the session to train in.

    A plain one, for an interactive one leaves the graph as it is: no operations fused, no rewrite.
    bfloat16 is TensorFlow's own rewrite of convolutions and products for oneDNN, which keeps the
    weights in float32.
    """
    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True
    if precision == "bfloat16":
        rewrites = config.graph_options.rewrite_options
        rewrites.auto_mixed_precision_onednn_bfloat16 = rewrites.ON
    return functools.partial(tf.Session, config=config)
