"""Classes of article 003's shape, written for TensorFlow 1; no compat mode."""

import tensorflow as tf


class Gan:
    """Dense layers with given and with default names."""

    def __init__(self, ndims=784, nlatent=2):
        self._ndims = ndims
        self.x_placeholder = tf.placeholder(tf.float32, [None, ndims])
        self.z_placeholder = tf.placeholder(tf.float32, [None, nlatent])
        self.x_hat = self._generator(self.z_placeholder)
        y_hat = self._discriminator(self.x_hat)
        y = self._discriminator(self.x_placeholder, reuse=True)
        self.d_loss = self._discriminator_loss(y, y_hat)
        self.g_loss = self._generator_loss(y_hat)
        self.learning_rate_placeholder = tf.placeholder(tf.float32)
        self.d_optimizer = self._minimize(self.d_loss, "discriminator")
        self.g_optimizer = self._minimize(self.g_loss, "generator")
        self.session = tf.InteractiveSession()
        self.session.run(tf.global_variables_initializer())

    def _minimize(self, loss, scope):
        variables = tf.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES, scope)
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS, scope)
        with tf.control_dependencies(updates):
            return tf.train.AdamOptimizer(learning_rate=self.learning_rate_placeholder).minimize(
                loss, var_list=variables
            )

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

    def _discriminator_loss(self, y, y_hat):
        real = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.ones_like(y), logits=y)
        fake = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.zeros_like(y_hat), logits=y_hat)
        return tf.reduce_mean(real + fake)

    def _generator_loss(self, y_hat):
        ce = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.ones_like(y_hat), logits=y_hat)
        return tf.reduce_mean(ce)

    def generate_samples(self, z_np):
        return self.x_hat.eval(session=self.session, feed_dict={self.z_placeholder: z_np})


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
