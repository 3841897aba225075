"""The GAN of article 002, "Yet Another GAN Guide in Keras".

Convolutions, with batch normalisation and dropout in both networks.
"""

import tensorflow.compat.v1 as tf

from models import layers
from models.gan import Gan

_KERNEL, _SLOPE, _DROPOUT, _MOMENTUM = 5, 0.2, 0.25, 0.9


class UpsamplingCnn(Gan):
    """Article 002, Yet Another Generative Adversarial Network (GAN) Guide in Keras.

    The article leaves hyper-parameters out: kernels of 5 x 5 pixels and a slope of 0.2 are those
    of Radford et al. 2016; a momentum of 0.9, a dropout of 0.25, batches of 64 and 20,000 steps are
    usual. Its pictures are of one digit: `--digit=5`. It speaks of 32 latents and builds 64, as
    here. It draws each batch from all images anew; ours run through shuffled epochs.
    """

    def _generator(self, z, reuse=False):
        """[batch, nlatent] -> [batch, 784] in [0, 1] by way of 7 x 7 and 14 x 14 pixels."""
        with tf.variable_scope(self._generator_scope, reuse=reuse):
            x = layers.dense(z, 7 * 7 * 128, name="dense")
            x = tf.reshape(_activated(x, "dense"), [-1, 7, 7, 128])
            for number, filters in enumerate([64, 32], 1):
                x = layers.upsample_conv2d(x, filters, _KERNEL, name=f"conv{number}")
                x = _activated(x, f"conv{number}")
            x = layers.conv2d(x, 1, _KERNEL, name="pixels")  # from [batch, 28, 28, 32]
            return layers.flat(layers.unsigned(tf.nn.tanh(x)))

    def _discriminator(self, x, reuse=False):
        """[batch, 784] in [0, 1] -> logits [batch, 1] by way of 14 x 14, 7 x 7 and 4 x 4 pixels."""
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            x = layers.pictures(layers.signed(x))
            for number, filters in enumerate([64, 128, 256], 1):
                x = layers.conv2d(x, filters, _KERNEL, name=f"conv{number}", strides=2)
                x = _activated(x, f"conv{number}")
            return layers.dense(layers.flat(x), 1, name="logit")  # from [batch, 4, 4, 256]


def _activated(x, name):
    """Batch normalisation, LeakyReLU and dropout, after the layer of that name."""
    x = layers.batch_norm(x, name=f"{name}_norm", momentum=_MOMENTUM)
    return layers.dropout(tf.nn.leaky_relu(x, _SLOPE), _DROPOUT)
