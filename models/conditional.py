"""Conditional GANs: both networks also see the label.

G has it as a one-hot row beside the latents (Mirza & Osindero 2014). D's logit grows by the product
of its last features and an embedding of the label: the projection of Miyato & Koyama 2018; or D
has the label beside the pixels.
"""

import tensorflow.compat.v1 as tf

from input_data import NUM_CLASSES, NUM_PIXELS
from models import layers
from models.dcgan import DcGan
from models.gan import Gan
from models.stable_cnn import StableCnn


class Conditional:
    """What makes a Gan conditional, to be put before it: `class C(Conditional, DcGan)`.

    The Gan has a method `_features`, images [batch, n] -> what its last layer sees [batch, m], in
    the current scope. labels_placeholder, x_labels_placeholder: one-hot float32 [None, 10], of what
    to generate and of the real images.
    """

    def __init__(self, ndims=784, nlatent=2, *, conditioning="projection", **networks):
        """conditioning: `projection` or `concat`; networks: as the Gan's constructor takes them."""
        self._conditioning = conditioning
        self.labels_placeholder = tf.placeholder(tf.float32, [None, NUM_CLASSES], "labels")
        self.x_labels_placeholder = tf.placeholder(tf.float32, [None, NUM_CLASSES], "x_labels")
        super().__init__(ndims, nlatent, **networks)

    def _generator(self, z, reuse=False, labels=None):
        """[batch, nlatent], one-hot [batch, 10] -> [batch, ndims] in [0, 1]."""
        labels = self.labels_placeholder if labels is None else labels
        return super()._generator(tf.concat([z, labels], axis=1), reuse)

    def _discriminator(self, x, reuse=False, labels=None):
        """[batch, ndims] in [0, 1], one-hot [batch, 10] -> logits [batch, 1]."""
        labels = self._labels_of(x) if labels is None else labels
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            if self._conditioning == "concat":
                features = self._last_features(self._beside(x, labels), labels)
                return layers.dense(features, 1, name="logit")
            features = self._last_features(x, labels)
            embedding = layers.dense(labels, features.shape[1], name="embedding")
            product = tf.reduce_sum(features * embedding, axis=1, keepdims=True)
            return layers.dense(features, 1, name="logit") + product

    def _labels_of(self, x):
        """-> the placeholder of the real images' labels, or of those that G was asked for."""
        return self.x_labels_placeholder if x is self.x_placeholder else self.labels_placeholder

    def _last_features(self, x, labels):
        """-> what D's last layer sees [batch, m]."""
        return self._features(x)

    def _beside(self, x, labels):
        """-> [batch, ndims + 10]."""
        return tf.concat([x, labels], axis=1)


class _ConditionalCnn(Conditional):
    def _beside(self, x, labels):
        """-> [batch, 11 * 784]: a picture of ones or zeros for each label."""
        return tf.concat([x, tf.repeat(labels, NUM_PIXELS, axis=1)], axis=1)


class ConditionalGan(Conditional, Gan):
    """Article 003's networks with labels."""

    def _features(self, x):
        """[batch, n] -> [batch, 512]."""
        return tf.nn.relu(layers.dense(x, 512, name="hidden"))


class ConditionalDcGan(_ConditionalCnn, DcGan):
    """Article 001's networks with labels."""


class ConditionalStableCnn(_ConditionalCnn, StableCnn):
    """`stable_cnn` with labels.

    D sees how much its features vary within a label, not over all of them: with labels, G has
    nothing to gain from leaving some out, but may draw one of them always alike.
    """

    def _last_features(self, x, labels):
        return self._with_deviation(self._features(x), labels)
