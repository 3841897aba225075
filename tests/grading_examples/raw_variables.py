"""A correct Gan on plain variables, each made once and kept; it never turns eager execution off.

Losses written out with softplus, last layers that begin at 0, a session that is not interactive.
"""

import tensorflow as tf

v1 = tf.compat.v1


class Layer:
    """A layer of `[batch, n]`, whose variables are created at the first call."""

    def __init__(self, units, deviation):
        self.units, self.deviation = units, deviation
        self.made = None

    def __call__(self, x):
        shape = [x.shape[-1], self.units]
        self.made = self.made or (
            v1.Variable(self.deviation * tf.random.normal(shape), use_resource=True),
            v1.Variable(tf.zeros([self.units]), use_resource=True),
        )
        return x @ self.made[0] + self.made[1]


class Gan:
    """The article's names around layers that are objects."""

    def __init__(self, ndims=784, nlatent=2):
        self.generator_layers = Layer(24, 0.5), Layer(ndims, 0.0)
        self.discriminator_layers = Layer(24, 0.05), Layer(1, 0.0)
        self.x_placeholder = v1.placeholder(tf.float32, [None, ndims])
        self.z_placeholder = v1.placeholder(tf.float32, [None, nlatent])
        self.learning_rate_placeholder = v1.placeholder(tf.float32, [])
        self.x_hat = self._generator(self.z_placeholder)
        y_hat = self._discriminator(self.x_hat)
        y = self._discriminator(self.x_placeholder, reuse=True)
        self.d_loss = self._discriminator_loss(y, y_hat)
        self.g_loss = self._generator_loss(y_hat)
        self.d_optimizer = self.update(self.d_loss, self.discriminator_layers)
        self.g_optimizer = self.update(self.g_loss, self.generator_layers)
        self.session = v1.Session()
        self.session.run(v1.global_variables_initializer())

    def update(self, loss, layers):
        own = [variable for layer in layers for variable in layer.made]
        adam = v1.train.AdamOptimizer(learning_rate=self.learning_rate_placeholder)
        return adam.apply_gradients(zip(tf.gradients(loss, own), own, strict=True))

    def _generator(self, z, reuse=False):
        hidden, last = self.generator_layers
        with v1.variable_scope("generator", reuse=reuse):
            return tf.sigmoid(last(tf.nn.elu(hidden(z))))

    def _discriminator(self, x, reuse=False):
        hidden, last = self.discriminator_layers
        with v1.variable_scope("discriminator", reuse=reuse):
            return last(tf.nn.relu(hidden(2 * x - 1)))

    def _discriminator_loss(self, y, y_hat):
        return tf.reduce_mean(tf.nn.softplus(-y)) + tf.reduce_mean(tf.nn.softplus(y_hat))

    def _generator_loss(self, y_hat):
        return tf.reduce_mean(tf.nn.softplus(-y_hat))

    def generate_samples(self, z_np):
        return self.session.run(self.x_hat, feed_dict={self.z_placeholder: z_np})
