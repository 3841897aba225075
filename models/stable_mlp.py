"""A dense GAN that keeps all ten digits: this project's own recipe."""

import tensorflow.compat.v1 as tf

from models import layers
from models.gan import Gan

_SLOPE = 0.2


class StableMlp(Gan):
    """Two hidden layers in each net, of which the article has one; LeakyReLU throughout.

    Both nets meet the pixels by way of windows, so that a stroke is made and judged alike wherever
    it is. What keeps it stable is R1 (Mescheder et al. 2018);
    `python -m benchmarks.quality --table=ablation` takes one part out at a time.
    """

    def _generator(self, z, reuse=False, training=None):
        """[batch, nlatent] -> 256 -> 256 -> windows, if any -> [batch, ndims] in [0, 1]."""
        with self._generator_scope(reuse):
            hidden = layers.leaky_relu(layers.dense(z, 256, name="hidden_1"), _SLOPE)
            hidden = layers.leaky_relu(layers.dense(hidden, 256, name="hidden_2"), _SLOPE)
            return tf.nn.sigmoid(self._pixels(hidden))

    def _discriminator(self, x, reuse=False, training=None):
        """[batch, ndims] in [0, 1] -> windows, or else 512 -> 256 -> logits [batch, 1]."""
        with self._discriminator_scope(reuse, training):
            hidden = self._seen(x)
            if not self.objective.windows:
                hidden = layers.leaky_relu(layers.dense(hidden, 512, name="hidden_1"), _SLOPE)
            hidden = layers.leaky_relu(layers.dense(hidden, 256, name="hidden_2"), _SLOPE)
            return self._head(hidden, training)
