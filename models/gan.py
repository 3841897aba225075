"""The GAN of article 003, "Minimal GAN modeling on MNIST" (Shukla 2018): its class, piece by piece.

Importing this module turns eager execution off: everything here is a TensorFlow 1 graph.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from models import layers, losses

tf.disable_eager_execution()


class Gan:
    """A generator z -> image and a discriminator image -> logit, trained against each other.

    A recipe is a subclass with a `_generator` and a `_discriminator` of its own, which keep images
    in [0, 1] outside whatever range they prefer inside. The two train ops here are the article's
    plain ones; what a recipe adds to them is in `training/updates.py`.
    """

    def __init__(self, ndims=784, nlatent=2):
        """Builds the graph in the default graph, opens a session, initialises the variables.

        ndims: pixels of an image; nlatent: dimensions of the latent space.
        """
        self._ndims = ndims
        self._nlatent = nlatent
        self._generator_scope = _unused_scope("generator")
        self._discriminator_scope = _unused_scope("discriminator")
        variables_before = tf.global_variables()

        # Images in [0, 1], latents, and the rate of whichever optimizer is run.
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
        before = {variable.name for variable in variables_before}
        ours = [variable for variable in tf.global_variables() if variable.name not in before]
        self.session.run(tf.variables_initializer(ours))

    def _generator(self, z, reuse=False):
        """[batch, nlatent] -> [batch, ndims] in [0, 1], by 64 ReLU units.

        reuse: use the variables there are instead of creating them.
        """
        with tf.variable_scope(self._generator_scope, reuse=reuse):
            hidden = tf.nn.relu(layers.dense(z, 64, name="hidden"))
            return tf.nn.sigmoid(layers.dense(hidden, self._ndims, name="pixels"))

    def _generator_loss(self, y_hat):
        """Logits [batch, 1] of generated images -> scalar mean(ce(1, y_hat)), in nats."""
        return losses.generator_cross_entropy(y_hat)

    def _discriminator(self, x, reuse=False):
        """[batch, ndims] in [0, 1] -> logits [batch, 1] that the image is real, by 512 ReLU units.

        reuse: as for `_generator`.
        """
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            hidden = tf.nn.relu(layers.dense(x, 512, name="hidden"))
            return layers.dense(hidden, 1, name="logit")

    def _discriminator_loss(self, y, y_hat):
        """Logits [batch, 1] of real and of generated images -> scalar, in nats.

        mean(ce(1, y) + ce(0, y_hat)).
        """
        return losses.discriminator_cross_entropy(y, y_hat)

    def generate_samples(self, z_np):
        """[n, nlatent] -> ndarray float32 [n, ndims] in [0, 1].

        Raises ValueError, naming both shapes, unless z_np has that shape.
        """
        shape = np.shape(z_np)
        if len(shape) != 2 or shape[1] != self._nlatent:
            raise ValueError(f"latents have shape {shape}, wanted (n, {self._nlatent})")
        if not shape[0]:  # TensorFlow's convolutions give an empty batch a wrong shape
            return np.empty([0, self._ndims], np.float32)
        return self.session.run(self.x_hat, {self.z_placeholder: z_np})

    def _minimize(self, loss, scope, name):
        """A scalar -> the op of one Adam step on the variables of that scope alone."""
        adam = tf.train.AdamOptimizer(self.learning_rate_placeholder, name=name)
        return adam.minimize(loss, var_list=tf.trainable_variables(f"{scope.name}/"))


def _unused_scope(name):
    """-> the scope `name`, or `name_1`, ... where the graph has another Gan already."""
    with tf.variable_scope(None, default_name=name) as scope:
        return scope
