"""Losses and penalties: functions of logits `[batch, 1]` that return scalars.

To add a loss, add an entry to `LOSSES`; the flag, its help and `config.json` follow from it. A
class trains a loss of its own by overriding `_discriminator_loss` and `_generator_loss`.
"""

import dataclasses
from collections.abc import Callable

from support.tf import tf


@dataclasses.dataclass(frozen=True)
class Loss:
    """What both networks minimise.

    Attributes:
      discriminator: Function of the logits of real images y and of generated images y_hat, and of
        `label_smoothing` if the loss has targets.
      generator: Function of y and y_hat.
      source: The paper.
      boundary: The logit for which D is undecided; None if only differences of logits count.
      has_targets: Whether real images have a target, which can be smoothed.
      compares_pairs: Whether D sees only the difference of each pair of a real and a generated
        image. Otherwise the discriminator's loss is the sum of one of y and one of y_hat, and the
        generator's is one of y_hat.
    """

    discriminator: Callable
    generator: Callable
    source: str
    boundary: float | None = 0.0
    has_targets: bool = False
    compares_pairs: bool = False


def cross_entropy(label, logits):
    """Returns the sigmoid cross-entropy `[batch, 1]`, in nats, of a label in [0, 1]."""
    return tf.nn.sigmoid_cross_entropy_with_logits(
        labels=label * tf.ones_like(logits), logits=logits
    )


def discriminator_cross_entropy(y, y_hat, label_smoothing=0.0):
    """Returns mean(ce(1 - label_smoothing, y)) + mean(ce(0, y_hat)).

    Goodfellow et al. 2014, with the one-sided label smoothing of Salimans et al. 2016.

    Args:
      y: Logits of real images, `[batch, 1]`.
      y_hat: Logits of generated images, `[batch, 1]`.
      label_smoothing: Amount of smoothing, in [0, 1).
    """
    real = tf.reduce_mean(cross_entropy(1.0 - label_smoothing, y))
    return real + tf.reduce_mean(cross_entropy(0.0, y_hat))


def generator_cross_entropy(y_hat):
    """Returns mean(ce(1, y_hat)), the non-saturating loss.

    Goodfellow et al. 2014, section 3.

    Args:
      y_hat: Logits of generated images, `[batch, 1]`.
    """
    return tf.reduce_mean(cross_entropy(1.0, y_hat))


def _least_squares(y, y_hat, label_smoothing=0.0):
    real = tf.reduce_mean(tf.square(y - (1.0 - label_smoothing)))
    return (real + tf.reduce_mean(tf.square(y_hat))) / 2


def _hinge(y, y_hat):
    return tf.reduce_mean(tf.nn.relu(1.0 - y)) + tf.reduce_mean(tf.nn.relu(1.0 + y_hat))


def _pairs(higher, lower):
    """Returns mean softplus(lower - higher), small if `higher` is higher in each row."""
    return tf.reduce_mean(tf.nn.softplus(lower - higher))


LOSSES = {
    "cross_entropy": Loss(
        discriminator_cross_entropy,
        lambda y, y_hat: generator_cross_entropy(y_hat),
        "non-saturating, Goodfellow et al. 2014",
        has_targets=True,
    ),
    "minimax": Loss(
        discriminator_cross_entropy,
        lambda y, y_hat: -tf.reduce_mean(cross_entropy(0.0, y_hat)),
        "saturating, Goodfellow et al. 2014",
        has_targets=True,
    ),
    "least_squares": Loss(
        _least_squares,
        lambda y, y_hat: tf.reduce_mean(tf.square(y_hat - 1.0)) / 2,
        "Mao et al. 2017",
        boundary=0.5,
        has_targets=True,
    ),
    "hinge": Loss(
        _hinge,
        lambda y, y_hat: -tf.reduce_mean(y_hat),
        "Lim & Ye 2017, Miyato et al. 2018",
    ),
    "wasserstein": Loss(
        lambda y, y_hat: tf.reduce_mean(y_hat) - tf.reduce_mean(y),
        lambda y, y_hat: -tf.reduce_mean(y_hat),
        "Arjovsky et al. 2017",
        boundary=None,
    ),
    "relativistic": Loss(
        lambda y, y_hat: _pairs(y, y_hat),
        lambda y, y_hat: _pairs(y_hat, y),
        "Jolicoeur-Martineau 2019",
        boundary=None,
        compares_pairs=True,
    ),
}


def squared_gradient_penalty(logits, images):
    """Returns half the mean squared norm of the gradient of D's logits at images.

    Times gamma, it is R1 at real images (Mescheder et al. 2018), and R2 at generated ones.

    Args:
      logits: `[batch, 1]`.
      images: `[batch, ndims]`.
    """
    return tf.reduce_mean(_squared_norms(logits, images)) / 2


def gradient_penalty(logits, images):
    """Returns mean((||gradient|| - 1)^2) of the gradient of D's logits at images.

    Gulrajani et al. 2017, for images between real and generated ones.

    Args:
      logits: `[batch, 1]`.
      images: `[batch, ndims]`.
    """
    # The gradient of a square root is infinite at 0.
    norms = tf.sqrt(_squared_norms(logits, images) + 1e-12)
    return tf.reduce_mean(tf.square(norms - 1.0))


def _squared_norms(logits, images):
    """Returns the squared norms `[batch]` of the gradients of logits at images."""
    (gradient,) = tf.gradients(logits, images)
    return tf.reduce_sum(tf.square(gradient), axis=1)
