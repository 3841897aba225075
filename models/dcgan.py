"""The GAN of article 001: convolutions, batch normalisation in G, dropout in D."""

import tensorflow.compat.v1 as tf

from models import layers
from models.gan import Gan

_SLOPE, _DROPOUT, _MOMENTUM = 0.2, 0.2, 0.9


class DcGan(Gan):
    """Article 001, Generative Adversarial Networks.

    All hyperparameters are the article's. G's transposed convolutions of stride 1 are plain ones
    here: the same functions, with each kernel rotated by 180 degrees. Not reproduced: the article
    saves its generator at every step, and draws each batch from all images, whereas ours run
    through shuffled epochs.
    """

    def _generator(self, z, reuse=False):
        """Maps latents `[batch, nlatent]` to images `[batch, 784]` in [0, 1]."""
        normal = tf.glorot_normal_initializer()

        def norm_relu(x, name):
            x = layers.batch_norm(x, name=f"{name}_norm", momentum=_MOMENTUM)
            return tf.nn.relu(x)

        with tf.variable_scope(self._generator_scope, reuse=reuse):
            x = layers.dense(z, 7 * 7 * 256, name="dense", initializer=normal)
            x = tf.reshape(norm_relu(x, "dense"), [-1, 7, 7, 256])
            x = layers.upsample_conv2d(x, 128, 5, name="conv1", initializer=normal)
            x = norm_relu(x, "conv1")  # [batch, 14, 14, 128]
            x = layers.upsample_conv2d(x, 64, 5, name="conv2", initializer=normal)
            x = norm_relu(x, "conv2")  # [batch, 28, 28, 64]
            x = layers.conv2d(x, 32, 5, name="conv3", initializer=normal)
            x = norm_relu(x, "conv3")  # [batch, 28, 28, 32]
            x = layers.conv2d(x, 1, 5, name="pixels", initializer=normal)
            return layers.flat(tf.nn.sigmoid(x))

    def _discriminator(self, x, reuse=False):
        """Maps images `[batch, 784]` in [0, 1] to logits `[batch, 1]`."""
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            return layers.dense(self._features(x), 1, name="logit")

    def _features(self, x):
        """Maps `[batch, n * 784]`, n images as n channels, to `[batch, 4 * 4 * 512]`."""
        x = layers.images(x)
        for number, (filters, strides) in enumerate([(64, 2), (128, 2), (256, 2), (512, 1)], 1):
            x = layers.conv2d(x, filters, 5, name=f"conv{number}", strides=strides)
            x = layers.dropout(tf.nn.leaky_relu(x, _SLOPE), _DROPOUT)
        return layers.flat(x)
