"""Losses: functions of logits `[batch, 1]` that return scalars, in nats.

A class trains another loss by overriding `_discriminator_loss` and `_generator_loss`.
"""

import tensorflow.compat.v1 as tf


def cross_entropy(label, logits):
    """Returns the sigmoid cross-entropy `[batch, 1]` of a label in [0, 1] and logits."""
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


def r1_penalty(logits, images):
    """Returns half the mean squared norm of D's gradient at real images.

    Times gamma, it is the R1 penalty of Mescheder et al. 2018.

    Args:
      logits: `[batch, 1]`.
      images: `[batch, ndims]`.
    """
    (gradient,) = tf.gradients(logits, images)
    return tf.reduce_mean(tf.reduce_sum(tf.square(gradient), axis=1)) / 2
