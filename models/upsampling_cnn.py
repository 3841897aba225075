"""The GAN of article 002: convolutions, batch normalisation, dropout."""

import tensorflow.compat.v1 as tf

from models import layers
from models.gan import Gan

_KERNEL, _SLOPE, _DROPOUT, _MOMENTUM = 5, 0.2, 0.25, 0.9


class UpsamplingCnn(Gan):
    """Article 002, Yet Another Generative Adversarial Network (GAN) Guide in Keras.

    The article omits some hyperparameters: kernels of 5 x 5 pixels and a slope of 0.2 are those of
    Radford et al. 2016; a momentum of 0.9, a dropout of 0.25, batches of 64 and 20,000 steps are
    usual. Its figures show one digit: `--digit=5`. Its text has 32 latents; its code builds 64,
    like this one. It draws each batch from all images; ours run through shuffled epochs.
    """

    def _generator(self, z, reuse=False):
        """Maps latents `[batch, nlatent]` to images `[batch, 784]` in [0, 1]."""
        with tf.variable_scope(self._generator_scope, reuse=reuse):
            x = layers.dense(z, 7 * 7 * 128, name="dense")
            x = tf.reshape(_activated(x, "dense"), [-1, 7, 7, 128])
            for number, filters in enumerate([64, 32], 1):
                x = layers.upsample_conv2d(x, filters, _KERNEL, name=f"conv{number}")
                x = _activated(x, f"conv{number}")
            x = layers.conv2d(x, 1, _KERNEL, name="pixels")  # from [batch, 28, 28, 32]
            return layers.flat(layers.unsigned(tf.nn.tanh(x)))

    def _discriminator(self, x, reuse=False):
        """Maps images `[batch, 784]` in [0, 1] to logits `[batch, 1]`."""
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            x = layers.images(layers.signed(x))
            for number, filters in enumerate([64, 128, 256], 1):
                x = layers.conv2d(x, filters, _KERNEL, name=f"conv{number}", strides=2)
                x = _activated(x, f"conv{number}")
            return layers.dense(layers.flat(x), 1, name="logit")  # from [batch, 4, 4, 256]


def _activated(x, name):
    """Applies batch normalisation, LeakyReLU and dropout after the layer of that name."""
    x = layers.batch_norm(x, name=f"{name}_norm", momentum=_MOMENTUM)
    return layers.dropout(tf.nn.leaky_relu(x, _SLOPE), _DROPOUT)
