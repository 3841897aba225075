"""Article 003's networks with other widths, for `benchmarks.losses`."""

import tensorflow.compat.v1 as tf

from models import layers
from models.gan import Gan


class WideGenerator(Gan):
    """G has 512 hidden units, as many as D, instead of 64."""

    def _generator(self, z, reuse=False):
        with tf.variable_scope(self._generator_scope, reuse=reuse):
            hidden = tf.nn.relu(layers.dense(z, 512, name="hidden"))
            return tf.nn.sigmoid(layers.dense(hidden, self._ndims, name="pixels"))


class NarrowDiscriminator(Gan):
    """D has 64 hidden units, as many as G, instead of 512."""

    def _discriminator(self, x, reuse=False):
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            hidden = tf.nn.relu(layers.dense(x, 64, name="hidden"))
            return layers.dense(hidden, 1, name="logit")
