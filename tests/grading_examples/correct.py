"""A correct Gan, written apart from models/, from which the mutants start.

Without the hidden layers of the article, because every mutant is built anew and most of that time
goes into the variables.
"""

import tensorflow as tf

tf1 = tf.compat.v1
tf1.disable_eager_execution()


def dense(inputs, units, name):
    """Applies an affine map to `[batch, n]`, with weights of its own under `name`."""
    with tf1.variable_scope(name):
        weights = tf1.get_variable("weights", [inputs.shape[1], units], use_resource=True)
        biases = tf1.get_variable(
            "biases", [units], initializer=tf1.zeros_initializer(), use_resource=True
        )
    return tf.matmul(inputs, weights) + biases


def cross_entropy(label, logits):
    """Returns `[batch, 1]`, the cross-entropy of each logit with the same label."""
    labels = tf.fill(tf.shape(logits), label)
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)


class Gan:
    """The article's class with one layer in each net."""

    def __init__(self, ndims=784, nlatent=2):
        self._ndims = ndims
        self._nlatent = nlatent
        self.x_placeholder = tf1.placeholder(tf.float32, [None, ndims])
        self.z_placeholder = tf1.placeholder(tf.float32, [None, nlatent])
        self.learning_rate_placeholder = tf1.placeholder(tf.float32, [])
        self.x_hat = self._generator(self.z_placeholder)
        y_hat = self._discriminator(self.x_hat)
        y = self._discriminator(self.x_placeholder, reuse=True)
        self.d_loss = self._discriminator_loss(y, y_hat)
        self.g_loss = self._generator_loss(y_hat)
        self.d_optimizer = self._update(self.d_loss, "discriminator")
        self.g_optimizer = self._update(self.g_loss, "generator")
        self.session = tf1.InteractiveSession()
        self.session.run(tf1.global_variables_initializer())

    def _update(self, loss, scope):
        adam = tf1.train.AdamOptimizer(self.learning_rate_placeholder)
        return adam.minimize(loss, var_list=tf1.trainable_variables(scope))

    def _generator(self, z, reuse=False):
        with tf1.variable_scope("generator", reuse=reuse):
            return tf.sigmoid(dense(z, self._ndims, "pixels"))

    def _discriminator(self, x, reuse=False):
        with tf1.variable_scope("discriminator", reuse=reuse):
            return dense(x, 1, "logit")

    def _discriminator_loss(self, y, y_hat):
        return tf.reduce_mean(cross_entropy(1.0, y) + cross_entropy(0.0, y_hat))

    def _generator_loss(self, y_hat):
        return tf.reduce_mean(cross_entropy(1.0, y_hat))

    def generate_samples(self, z_np):
        return self.session.run(self.x_hat, {self.z_placeholder: z_np})
