"""Conditional GANs: both networks also see the label.

G gets it as a one-hot row after the latents (Mirza & Osindero 2014). D adds the product of its last
features and an embedding of the label to its logit (projection, Miyato & Koyama 2018), or gets the
label after the pixels (concat).
"""

import tensorflow.compat.v1 as tf

from models import layers
from models.dcgan import DcGan
from models.gan import Gan
from models.stable_cnn import StableCnn
from support.data_sets import NUM_CLASSES, NUM_PIXELS


class Conditional:
    """Mixin that makes a Gan conditional: `class C(Conditional, DcGan)`.

    The Gan needs a method `_features(x)` that maps images `[batch, n]` to the input of its last
    layer, `[batch, m]`, in the current scope.

    Attributes:
      labels_placeholder: The labels to generate, one-hot float32 `[None, 10]`.
      x_labels_placeholder: The labels of the real images, one-hot float32 `[None, 10]`.
    """

    def __init__(self, ndims=784, nlatent=2, *, conditioning="projection", **networks):
        """Builds the graph like the Gan, with labels.

        Args:
          conditioning: `projection` or `concat`.
          networks: Further arguments of the Gan's constructor.
        """
        self._conditioning = conditioning
        self.labels_placeholder = tf.placeholder(tf.float32, [None, NUM_CLASSES], "labels")
        self.x_labels_placeholder = tf.placeholder(tf.float32, [None, NUM_CLASSES], "x_labels")
        super().__init__(ndims, nlatent, **networks)

    def _generator(self, z, reuse=False, labels=None):
        """Maps latents and one-hot `[batch, 10]` to images `[batch, ndims]` in [0, 1]."""
        labels = self.labels_placeholder if labels is None else labels
        return super()._generator(tf.concat([z, labels], axis=1), reuse)

    def _discriminator(self, x, reuse=False, labels=None):
        """Maps images `[batch, ndims]` and one-hot `[batch, 10]` to logits `[batch, 1]`."""
        if labels is None:
            is_real = x is self.x_placeholder
            labels = self.x_labels_placeholder if is_real else self.labels_placeholder
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            if self._conditioning == "concat":
                features = self._last_features(self._append(x, labels), labels)
                return layers.dense(features, 1, name="logit")
            features = self._last_features(x, labels)
            embedding = layers.dense(labels, features.shape[1], name="embedding")
            product = tf.reduce_sum(features * embedding, axis=1, keepdims=True)
            return layers.dense(features, 1, name="logit") + product

    def _last_features(self, x, labels):
        """Returns the input of D's last layer, `[batch, m]`."""
        return self._features(x)

    def _append(self, x, labels):
        """Appends the labels to the pixels; returns `[batch, ndims + 10]`."""
        return tf.concat([x, labels], axis=1)


class _ConditionalCnn(Conditional):
    def _append(self, x, labels):
        """Appends an image of ones or zeros for each label; returns `[batch, 11 * 784]`."""
        return tf.concat([x, tf.repeat(labels, NUM_PIXELS, axis=1)], axis=1)


class ConditionalGan(Conditional, Gan):
    """Article 003's networks with labels."""

    def _features(self, x):
        """Maps `[batch, n]` to `[batch, 512]`."""
        return tf.nn.relu(layers.dense(x, 512, name="hidden"))


class ConditionalDcGan(_ConditionalCnn, DcGan):
    """Article 001's networks with labels."""


class ConditionalStableCnn(_ConditionalCnn, StableCnn):
    """`stable_cnn` with labels.

    D sees how much its features vary within a label instead of over all labels: G cannot gain by
    dropping labels, but may draw all images of a label equal.
    """

    def _last_features(self, x, labels):
        return self._with_deviation(self._features(x), labels)
