"""Losses as pure functions of logits [batch, 1] -> scalars, in nats."""

import tensorflow.compat.v1 as tf


def cross_entropy(label, logits):
    """A label in [0, 1] and logits [batch, 1] -> [batch, 1] sigmoid cross-entropy, in nats."""
    return tf.nn.sigmoid_cross_entropy_with_logits(
        labels=label * tf.ones_like(logits), logits=logits
    )


def discriminator_cross_entropy(y, y_hat, label_smoothing=0.0):
    """Logits of real and of generated images -> mean(ce(1 - smoothing, y)) + mean(ce(0, y_hat)).

    Goodfellow et al. 2014; one-sided label smoothing after Salimans et al. 2016.
    """
    real = tf.reduce_mean(cross_entropy(1.0 - label_smoothing, y))
    return real + tf.reduce_mean(cross_entropy(0.0, y_hat))


def generator_cross_entropy(y_hat):
    """Logits of generated images -> mean(ce(1, y_hat)), the loss that does not saturate.

    Goodfellow et al. 2014, section 3.
    """
    return tf.reduce_mean(cross_entropy(1.0, y_hat))


def squared_gradient(logits, images):
    """D's logits at images [batch, ndims] -> the batch's mean squared gradient norm.

    With the factor gamma / 2 on real images this is the R1 penalty of Mescheder et al. 2018.
    """
    (gradient,) = tf.gradients(logits, images)
    return tf.reduce_mean(tf.reduce_sum(tf.square(gradient), axis=1))
