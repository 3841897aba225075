"""The GAN of article 000, "MNIST Generative Adversarial Model in Keras" (O'Shea).

A wide convolutional D that is trained first, before G ever is.
"""

import tensorflow.compat.v1 as tf

from models import layers
from models.gan import Gan

_SLOPE, _DROPOUT = 0.2, 0.25


class PretrainedCnn(Gan):
    """Article 000, MNIST Generative Adversarial Model in Keras.

    The rates, the steps at each, the dropout and the batches of the pre-training (128 images, half
    of them real) are those of the script that it links to. D keeps the lead that its pre-training
    gives it for some 1,500 steps, here as in the script's own plot of the losses: digits come
    after that (docs/recipes.md).

    D ends in two classes. Their softmax cross-entropy is the sigmoid one on the difference of the
    two logits, which is what D returns. Batch normalisation goes by the batch's own statistics
    always, as the article asks (`mode=2`): an image also depends on the latents beside it, and
    one latent alone gives the same image whatever it is.

    Not reproduced: the text swaps the two classes of its script; its layers, with features first,
    normalise each column of a picture where each feature is meant; the LeakyReLU behind the ReLU
    of a convolution is left out, for it has nothing left to do; and D stands still while G learns,
    as the text says, where the script comments that out and G's update moves D too.
    """

    def _generator(self, z, reuse=False):
        """[batch, nlatent] -> [batch, 784] in [0, 1] by way of 14 x 14 pixels."""

        def norm_relu(x, name):
            return tf.nn.relu(layers.batch_norm(x, name=f"{name}_norm", momentum=None))

        with tf.variable_scope(self._generator_scope, reuse=reuse):
            normal = tf.glorot_normal_initializer()
            x = layers.dense(z, 14 * 14 * 200, name="dense", initializer=normal)
            x = tf.reshape(norm_relu(x, "dense"), [-1, 14, 14, 200])
            x = norm_relu(layers.upsample_conv2d(x, 100, 3, name="conv1"), "conv1")
            x = norm_relu(layers.conv2d(x, 50, 3, name="conv2"), "conv2")
            x = layers.conv2d(x, 1, 1, name="pixels")  # from [batch, 28, 28, 50]
            return layers.flat(tf.nn.sigmoid(x))

    def _discriminator(self, x, reuse=False):
        """[batch, 784] in [0, 1] -> logits [batch, 1]: that of real images less the other."""
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            x = layers.pictures(x)
            for number, filters in enumerate([256, 512], 1):
                x = tf.nn.relu(layers.conv2d(x, filters, 5, name=f"conv{number}", strides=2))
                x = layers.dropout(x, _DROPOUT)
            x = layers.dense(layers.flat(x), 256, name="dense")  # from [batch, 7, 7, 512]
            x = layers.dropout(tf.nn.leaky_relu(x, _SLOPE), _DROPOUT)
            fake, real = tf.split(layers.dense(x, 2, name="logit"), 2, axis=1)
            return real - fake
