"""A small convolutional GAN that keeps all ten digits: this project's own recipe."""

import tensorflow.compat.v1 as tf

from models import layers
from models.gan import Gan

_SLOPE = 0.2


class StableCnn(Gan):
    """Convolutions of 8 x 8 pixels next to the images, dense layers, LeakyReLU.

    R1 keeps it stable (Mescheder et al. 2018); `python -m benchmarks.quality --table=ablation`
    removes one part at a time. D also sees how much its last features vary over the batch (Karras
    et al. 2018).
    """

    def __init__(
        self, ndims=784, nlatent=16, *, g_channels=48, d_channels=32, minibatch_stddev=True
    ):
        """Builds the graph like `Gan`.

        Args:
          g_channels, d_channels: Channels of the convolutions next to the images; 0 replaces them
            by dense layers.
          minibatch_stddev: Whether D sees its features' deviation over the batch.
        """
        self._g_channels = g_channels
        self._d_channels = d_channels
        self._minibatch_stddev = minibatch_stddev
        super().__init__(ndims, nlatent)

    def _generator(self, z, reuse=False):
        """Maps latents `[batch, nlatent]` to images `[batch, 784]` in [0, 1].

        The layers between are 256, 128 and 7 x 7 x g_channels. Each of them sees z (Brock et al.
        2019), and the first two are normalised (Karras et al. 2018).
        """
        with tf.variable_scope(self._generator_scope, reuse=reuse):
            x = layers.pixel_norm(_dense(z, 256, "dense1"))
            x = layers.pixel_norm(_dense(tf.concat([x, z], axis=1), 128, "dense2"))
            x = tf.concat([x, z], axis=1)
            if not self._g_channels:
                return tf.nn.sigmoid(layers.dense(x, self._ndims, name="pixels"))
            x = _dense(x, 7 * 7 * self._g_channels, "dense3")
            x = tf.reshape(x, [-1, 7, 7, self._g_channels])
            x = layers.conv2d_transpose_8x8_stride_4(x, name="pixels")  # [batch, 28, 28]
            return tf.nn.sigmoid(layers.flat(x))

    def _discriminator(self, x, reuse=False):
        """Maps `[batch, 784]` in [0, 1] to logits `[batch, 1]`.

        The layers between are 7 x 7 x d_channels, 3 x 3 x 2 d_channels and 256.
        """
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            return layers.dense(self._with_deviation(self._features(x)), 1, name="logit")

    def _features(self, x):
        """Maps `[batch, n * 784]`, n images as n channels, to `[batch, 256]`."""
        if not self._d_channels:
            return _dense(_dense(x, 512, "dense1"), 256, "dense2")
        x = layers.conv2d_8x8_stride_4(layers.images(x), self._d_channels, name="conv1")
        x = layers.leaky_relu(x, _SLOPE)  # [batch, 7, 7, d_channels]
        x = layers.conv2d_valid(x, 2 * self._d_channels, 3, name="conv2", strides=2)
        x = layers.leaky_relu(x, _SLOPE)  # [batch, 3, 3, 2 d_channels]
        return _dense(layers.flat(x), 256, "dense2")

    def _with_deviation(self, features, labels=None):
        """Appends the minibatch deviation to `[batch, 256]`, unless it is turned off."""
        return layers.minibatch_stddev(features, labels) if self._minibatch_stddev else features


def _dense(x, units, name):
    return layers.leaky_relu(layers.dense(x, units, name=name), _SLOPE)
