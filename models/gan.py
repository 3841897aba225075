"""The GAN of article 003, "Minimal GAN modeling on MNIST" (Shukla 2018).

Importing this module turns eager execution off: everything here is a TensorFlow 1 graph.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from models import layers, losses

tf.disable_eager_execution()


class Gan:
    """A generator and a discriminator, trained against each other.

    A recipe is a subclass with its own `_generator` and `_discriminator`. Images are in [0, 1] at
    their interface, whatever range they use inside. The two train ops here are the article's plain
    ones; what a recipe adds to them is in `training/updates.py`.
    """

    def __init__(self, ndims=784, nlatent=2):
        """Builds the default graph, opens a session and initialises the variables.

        Args:
          ndims: Number of pixels of an image.
          nlatent: Number of dimensions of the latent space.
        """
        self._ndims = ndims
        self._nlatent = nlatent
        self._generator_scope = _unused_scope("generator")
        self._discriminator_scope = _unused_scope("discriminator")
        before = len(tf.global_variables())

        # Images in [0, 1], latents, and the learning rate of the optimizer that is run.
        self.x_placeholder = tf.placeholder(tf.float32, [None, ndims], "x")
        self.z_placeholder = tf.placeholder(tf.float32, [None, nlatent], "z")
        self.learning_rate_placeholder = tf.placeholder(tf.float32, [], "learning_rate")

        self.x_hat = self._generator(self.z_placeholder)
        y_hat = self._discriminator(self.x_hat)
        y = self._discriminator(self.x_placeholder, reuse=True)

        self.d_loss = self._discriminator_loss(y, y_hat)
        self.g_loss = self._generator_loss(y_hat)

        self.d_optimizer = self._minimize(self.d_loss, self._discriminator_scope, "d_optimizer")
        self.g_optimizer = self._minimize(self.g_loss, self._generator_scope, "g_optimizer")

        self.session = tf.InteractiveSession()
        self.session.run(tf.variables_initializer(tf.global_variables()[before:]))

    def _generator(self, z, reuse=False):
        """Builds G with one hidden layer of 64 ReLU units.

        Args:
          z: Latents `[batch, nlatent]`.
          reuse: Whether to use the existing variables instead of creating them.

        Returns:
          Images `[batch, ndims]` in [0, 1].
        """
        with tf.variable_scope(self._generator_scope, reuse=reuse):
            hidden = tf.nn.relu(layers.dense(z, 64, name="hidden"))
            return tf.nn.sigmoid(layers.dense(hidden, self._ndims, name="pixels"))

    def _generator_loss(self, y_hat):
        """Returns mean(ce(1, y_hat)) in nats, a scalar.

        Args:
          y_hat: Logits of generated images, `[batch, 1]`.
        """
        return losses.generator_cross_entropy(y_hat)

    def _discriminator(self, x, reuse=False):
        """Builds D with one hidden layer of 512 ReLU units.

        Args:
          x: Images `[batch, ndims]` in [0, 1].
          reuse: Whether to use the existing variables instead of creating them.

        Returns:
          Logits `[batch, 1]` of the probability that an image is real.
        """
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            hidden = tf.nn.relu(layers.dense(x, 512, name="hidden"))
            return layers.dense(hidden, 1, name="logit")

    def _discriminator_loss(self, y, y_hat):
        """Returns mean(ce(1, y) + ce(0, y_hat)) in nats, a scalar.

        Args:
          y: Logits of real images, `[batch, 1]`.
          y_hat: Logits of generated images, `[batch, 1]`.
        """
        return losses.discriminator_cross_entropy(y, y_hat)

    def generate_samples(self, z_np):
        """Generates float32 images `[n, ndims]` in [0, 1] from latents `[n, nlatent]`.

        Raises:
          ValueError: If z_np has another shape; the message names both.
        """
        shape = np.shape(z_np)
        if len(shape) != 2 or shape[1] != self._nlatent:
            raise ValueError(f"latents must have shape (n, {self._nlatent}), got {shape}")
        if not shape[0]:  # TensorFlow's convolutions give an empty batch a wrong shape
            return np.empty([0, self._ndims], np.float32)
        return self.session.run(self.x_hat, {self.z_placeholder: z_np})

    def _minimize(self, loss, scope, name):
        """Returns the op of one Adam step on the variables of only that scope."""
        adam = tf.train.AdamOptimizer(self.learning_rate_placeholder, name=name)
        return adam.minimize(loss, var_list=tf.trainable_variables(f"{scope.name}/"))


def _unused_scope(name):
    """Returns the scope `name`, or `name_1`, ... if the graph already has another Gan."""
    with tf.variable_scope(None, default_name=name) as scope:
        return scope
