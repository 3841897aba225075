"""The GAN of article 004: dense layers, LeakyReLU, images in [-1, 1] inside."""

import tensorflow.compat.v1 as tf

from models import layers
from models.gan import Gan

_SLOPE = 0.01


class LeakyMlp(Gan):
    """Article 004, Using GAN for Generating Hand-written Digit Images.

    All hyperparameters are the article's. Not reproduced: it maps tanh's [-1, 1] back to pixels by
    x / 2 + 1 instead of x / 2 + 1 / 2, so that all images are too bright; and its batches have the
    same order in every epoch, whereas ours are shuffled.
    """

    def _generator(self, z, reuse=False):
        """Maps `[batch, nlatent]` to `[batch, ndims]` in [0, 1] by 128 LeakyReLU units."""
        with tf.variable_scope(self._generator_scope, reuse=reuse):
            hidden = layers.leaky_relu(layers.dense(z, 128, name="hidden"), _SLOPE)
            return layers.unsigned(tf.nn.tanh(layers.dense(hidden, self._ndims, name="pixels")))

    def _discriminator(self, x, reuse=False):
        """Maps `[batch, ndims]` in [0, 1] to logits `[batch, 1]` by 128 LeakyReLU units."""
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            hidden = layers.dense(layers.signed(x), 128, name="hidden")
            return layers.dense(layers.leaky_relu(hidden, _SLOPE), 1, name="logit")
