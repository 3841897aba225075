"""The GAN of article 004: one hidden layer each, LeakyReLU, images in [-1, 1] inside."""

import tensorflow.compat.v1 as tf

from models import layers
from models.gan import Gan

_SLOPE = 0.01


class LeakyMlp(Gan):
    """Article 004, Using GAN for Generating Hand-written Digit Images; all numbers are its own.

    Not reproduced: the article maps tanh's [-1, 1] back to pixels by x / 2 + 1 where x / 2 + 1 / 2
    is meant, so that all it draws is too bright; and its batches come in the same order in every
    epoch, where ours are shuffled.
    """

    def _generator(self, z, reuse=False, training=None):
        """[batch, nlatent] -> [batch, ndims] in [0, 1], 128 LeakyReLU units between."""
        with self._generator_scope(reuse):
            hidden = layers.leaky_relu(layers.dense(z, 128, name="hidden"), _SLOPE)
            return layers.unsigned(tf.nn.tanh(self._pixels(hidden)))

    def _discriminator(self, x, reuse=False, training=None):
        """[batch, ndims] in [0, 1] -> logits [batch, 1], 128 LeakyReLU units between."""
        with self._discriminator_scope(reuse, training):
            hidden = layers.dense(self._seen(layers.signed(x)), 128, name="hidden")
            return self._head(layers.leaky_relu(hidden, _SLOPE), training)
