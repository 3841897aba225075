"""Whether a class learns from shares of a batch, averaged, what it learns from the whole of it.

It does where a loss is a mean over the batch, and where an image's result depends on the others of
its batch through `Shard.mean` alone, as this project's layers have it.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from models import passes
from models.passes import Shard
from support.errors import UserError

_ROWS = 4
_TOLERANCE = 1e-4


def check(gan, call, d_loss):
    """UserError that names the loss or network of a Gan that several processes cannot train.

    call: function of (network, inputs) that adds labels where the Gan takes some; d_loss: the loss
    that trains D.
    """
    name = type(gan).__name__
    for method, loss in {"discriminator": d_loss, "generator": gan._generator_loss}.items():
        if not _is_mean(gan.session, loss, 2 if method == "discriminator" else 1):
            raise UserError(
                f"{name}._{method}_loss is no mean over the batch, which several workers share: "
                "take the mean, or train in one process"
            )
    inputs = {gan._generator: gan.z_placeholder, gan._discriminator: gan.x_placeholder}
    for network, placeholder in inputs.items():
        x = example(placeholder)
        with passes.sharding(Shard(0, 2, tf.stop_gradient)), passes.training(tf.constant([0, 0])):
            y = call(network, x)
        if crosses(gan.session, y, x):
            raise UserError(
                f"{name}.{network.__name__} mixes the images of a batch, of which each of several "
                "workers has a share: use layers.batch_norm, or train in one process"
            )


def example(placeholder):
    """A placeholder [None, n] -> float32 [4, n], any numbers."""
    width = placeholder.shape[1]
    return tf.constant(np.random.default_rng(0).random([_ROWS, width], np.float32))


def crosses(session, y, x):
    """Whether the first half of y's rows depends on the second half of x's."""
    (gradient,) = tf.gradients(y[: _ROWS // 2], x)
    return gradient is not None and session.run(gradient)[_ROWS // 2 :].any()


def _is_mean(session, loss, arguments):
    logits = 3 * np.random.default_rng(0).standard_normal([arguments, _ROWS, 1], np.float32)
    halves = np.split(logits, 2, axis=1)
    whole, *parts = session.run([loss(*map(tf.constant, each)) for each in (logits, *halves)])
    return np.allclose(whole, np.mean(parts), rtol=_TOLERANCE, atol=_TOLERANCE)
