"""The GAN of article 001, "Generative Adversarial Networks".

Convolutions, batch normalisation in G, dropout in D.
"""

import tensorflow.compat.v1 as tf

from models import layers
from models.gan import Gan

_SLOPE, _DROPOUT, _MOMENTUM = 0.2, 0.2, 0.9


class DcGan(Gan):
    """Article 001, Generative Adversarial Networks; all hyper-parameters are the article's.

    G's transposed convolutions of stride 1 are plain ones here: the same functions, with each
    kernel turned by 180 degrees. Not reproduced: the article writes its generator to the disk at
    every step, and draws each batch from all images anew, where ours run through shuffled epochs.
    """

    def _generator(self, z, reuse=False):
        """[batch, nlatent] -> [batch, 784] in [0, 1] by way of 7 x 7 and 14 x 14 pixels."""
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
        """[batch, 784] in [0, 1] -> logits [batch, 1] by way of 14 x 14, 7 x 7 and 4 x 4 pixels."""
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            return layers.dense(self._features(x), 1, name="logit")

    def _features(self, x):
        """[batch, n * 784], n images in a row as n channels -> [batch, 4 * 4 * 512]."""
        x = layers.pictures(x)
        for number, (filters, strides) in enumerate([(64, 2), (128, 2), (256, 2), (512, 1)], 1):
            x = layers.conv2d(x, filters, 5, name=f"conv{number}", strides=strides)
            x = layers.dropout(tf.nn.leaky_relu(x, _SLOPE), _DROPOUT)
        return layers.flat(x)
