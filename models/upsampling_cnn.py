"""The GAN of article 002: convolutions, with batch normalisation and dropout in both nets."""

import tensorflow.compat.v1 as tf

from models import layers
from models.gan import Gan

_KERNEL, _SLOPE, _DROPOUT, _MOMENTUM = 5, 0.2, 0.25, 0.9


class UpsamplingCnn(Gan):
    """Article 002, Yet Another Generative Adversarial Network (GAN) Guide in Keras.

    The article leaves numbers out: kernels of 5 x 5 pixels and a slope of 0.2 are those of
    Radford et al. 2016; a momentum of 0.9, a dropout of 0.25, batches of 64 and 20,000 steps are
    usual. Its pictures are of one digit: `--digit=5`. It speaks of 32 latents and builds 64, as
    here. It draws each batch from all images anew; ours run through shuffled epochs.
    """

    samples_mix = True

    def _generator(self, z, reuse=False, training=None):
        """[batch, nlatent] -> [batch, 784] in [0, 1] by way of 7 x 7 and 14 x 14 pixels."""
        with self._generator_scope(reuse):
            x = layers.dense(z, 7 * 7 * 128, name="dense")
            x = tf.reshape(_activated(x, training, "dense"), [-1, 7, 7, 128])
            for number, filters in enumerate([64, 32], 1):
                x = layers.upsample_conv2d(x, filters, _KERNEL, name=f"conv{number}")
                x = _activated(x, training, f"conv{number}")
            x = layers.conv2d(x, 1, _KERNEL, name="pixels")  # from [batch, 28, 28, 32]
            return layers.flat(layers.unsigned(tf.nn.tanh(x)))

    def _discriminator(self, x, reuse=False, training=None):
        """[batch, 784] in [0, 1] -> logits [batch, 1] by way of 14 x 14, 7 x 7 and 4 x 4 pixels."""
        with self._discriminator_scope(reuse, training):
            x = layers.pictures(layers.signed(x))
            for number, filters in enumerate([64, 128, 256], 1):
                x = layers.conv2d(x, filters, _KERNEL, name=f"conv{number}", strides=2)
                x = _activated(x, training, f"conv{number}")
            return self._head(layers.flat(x), training)  # from [batch, 4, 4, 256]


def _activated(x, training, name):
    """Batch normalisation, LeakyReLU and dropout, after the layer of that name."""
    x = layers.batch_norm(x, training, name=f"{name}_norm", momentum=_MOMENTUM)
    return layers.dropout(tf.nn.leaky_relu(x, _SLOPE), _DROPOUT, training)
