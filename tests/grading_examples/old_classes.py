"""Classes of article 003's shape with layers of TensorFlow 1; no compat mode."""

import tensorflow as tf
from correct import Gan as Correct


class Gan(Correct):
    """Dense layers with given and with default names."""

    def _update(self, loss, scope):
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS, scope)):
            return super()._update(loss, scope)

    def _generator(self, z, reuse=False):
        with tf.variable_scope("generator", reuse=reuse):
            hidden = tf.layers.dense(
                inputs=z, units=16, activation=tf.nn.relu, name="inputs-layer", reuse=reuse
            )
            hidden = self._regularise(hidden)
            assert hidden.get_shape()[1].value == 16
            return tf.layers.dense(inputs=hidden, units=self._ndims, activation=tf.nn.sigmoid)

    def _discriminator(self, x, reuse=False):
        with tf.variable_scope("discriminator", reuse=reuse):
            hidden = tf.layers.dense(inputs=x, units=16, activation=tf.nn.relu, reuse=reuse)
            hidden = self._regularise(hidden)
            return tf.layers.dense(inputs=hidden, units=1, activation=None)

    def _regularise(self, hidden):
        return hidden


class Normalised(Gan):
    def _regularise(self, hidden):
        return tf.layers.batch_normalization(hidden, training=True)


class Slim(Gan):
    """Layers of tf.contrib, one of them imported late, and variables of its own."""

    def _generator(self, z, reuse=False):
        import tensorflow as tf
        from tensorflow.contrib import layers

        with tf.variable_scope("generator", reuse=reuse):
            initializer = layers.xavier_initializer()
            w = tf.get_variable("w", [z.get_shape()[1].value, 16], initializer=initializer)
            hidden = tf.contrib.layers.batch_norm(tf.matmul(z, w), is_training=True)
            return tf.contrib.layers.fully_connected(
                hidden, self._ndims, activation_fn=tf.nn.sigmoid, scope="out"
            )
