"""A correct Gan in the manner of ported TensorFlow 1 code: v2 behaviour off, reference variables.

Deeper nets, names of its own inside the scopes, a rate placeholder of unknown shape as in the
article, losses written out with softplus, and samples evaluated on the default session.
"""

import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()


def stack(x, sizes, kernel_name):
    """Layers of those sizes, LeakyReLU between them, the last one linear and 0 at first."""
    for i, size in enumerate(sizes):
        x = tf.nn.leaky_relu(x, 0.2) if i else x
        fan_in = int(x.shape[-1])
        normal = tf.random_normal_initializer(stddev=(2 / fan_in) ** 0.5)
        last = i == len(sizes) - 1
        initializer = tf.zeros_initializer if last else normal
        kernel = tf.get_variable(f"{kernel_name}{i}", [fan_in, size], initializer=initializer)
        offset = tf.get_variable(f"b{i}", [size], initializer=tf.zeros_initializer)
        x = tf.nn.xw_plus_b(x, kernel, offset)
    return x


class Adversaries:
    """Another class name; tanh samples brought to [0, 1]."""

    def __init__(self, ndims=784, nlatent=2):
        self._ndims = ndims
        self.x_placeholder = tf.placeholder(tf.float32, shape=(None, ndims), name="images")
        self.z_placeholder = tf.placeholder(tf.float32, shape=(None, nlatent), name="noise")
        self.learning_rate_placeholder = tf.placeholder(tf.float32)
        y = self._discriminator(self.x_placeholder)
        self.x_hat = self._generator(self.z_placeholder)
        y_hat = self._discriminator(self.x_hat, reuse=True)
        self.d_loss = self._discriminator_loss(y, y_hat)
        self.g_loss = self._generator_loss(y_hat)
        for scope, loss in (("discriminator", self.d_loss), ("generator", self.g_loss)):
            adam = tf.train.AdamOptimizer(self.learning_rate_placeholder, beta1=0.5)
            own = tf.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES, scope)
            setattr(self, f"{scope[0]}_optimizer", adam.minimize(loss, var_list=own))
        self.session = tf.InteractiveSession()
        tf.global_variables_initializer().run()

    def _generator(self, z, reuse=False):
        with tf.variable_scope("generator", reuse=reuse):
            return tf.nn.tanh(stack(z, [48, 32, self._ndims], "W")) * 0.5 + 0.5

    def _discriminator(self, x, reuse=False):
        with tf.variable_scope("discriminator", reuse=reuse):
            return stack(x, [40, 20, 10, 1], "kernel")

    def _discriminator_loss(self, y, y_hat):
        return tf.reduce_mean(tf.nn.softplus(-y)) + tf.reduce_mean(tf.nn.softplus(y_hat))

    def _generator_loss(self, y_hat):
        return tf.losses.sigmoid_cross_entropy(tf.ones_like(y_hat), y_hat)

    def generate_samples(self, z_np):
        return self.x_hat.eval({self.z_placeholder: z_np})
