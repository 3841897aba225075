"""The GAN of article 000 (O'Shea): a wide convolutional D that is pre-trained."""

import tensorflow.compat.v1 as tf

from models import layers
from models.gan import Gan

_SLOPE, _DROPOUT = 0.2, 0.25


class PretrainedCnn(Gan):
    """Article 000, MNIST Generative Adversarial Model in Keras.

    The learning rates, the steps at each, the dropout and the batches of the pre-training (128
    images, half of them real) are those of the script that the article links to. D keeps the lead
    of its pre-training for some 1,500 steps, like in the script's plot of the losses; digits appear
    after that (docs/recipes.md).

    D has two classes. Their softmax cross-entropy is the sigmoid one of the difference of the two
    logits, which D returns. Batch normalisation always uses the batch's own statistics, like the
    article (`mode=2`): an image also depends on the other latents of its batch, and a batch of one
    latent has the same image for any latent.

    Not reproduced: the text swaps the two classes of its script; its layers, with features first,
    normalise each column of an image instead of each feature; the LeakyReLU after the ReLU of a
    convolution, which would change nothing, is omitted; and D is frozen while G learns, as in the
    text, whereas the script comments that out, so that G's update moves D too.
    """

    def _generator(self, z, reuse=False):
        """Maps latents `[batch, nlatent]` to images `[batch, 784]` in [0, 1]."""

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
        """Maps images `[batch, 784]` in [0, 1] to logits `[batch, 1]`, real minus fake."""
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            x = layers.images(x)
            for number, filters in enumerate([256, 512], 1):
                x = tf.nn.relu(layers.conv2d(x, filters, 5, name=f"conv{number}", strides=2))
                x = layers.dropout(x, _DROPOUT)
            x = layers.dense(layers.flat(x), 256, name="dense")  # from [batch, 7, 7, 512]
            x = layers.dropout(tf.nn.leaky_relu(x, _SLOPE), _DROPOUT)
            fake, real = tf.split(layers.dense(x, 2, name="logit"), 2, axis=1)
            return real - fake
