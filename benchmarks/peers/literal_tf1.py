"""Article 003's own program on `tf.compat.v1`.

It has placeholders, and a fed `session.run` per update.

`_dense` replaces the article's `tf.layers.dense`, which TensorFlow has removed.
"""

import numpy as np
import tensorflow.compat.v1 as tf

import input_data
from benchmarks.peers.job import DENSE, Job, graph_parameters


class Peer:
    """The article's model and training loop; two updates of D if the recipe has two."""

    block = 1

    def __init__(self, job: Job):
        tf.disable_v2_behavior()
        self._job = job
        self._data = input_data.DataSet(job.pixels, np.zeros(len(job.pixels), np.uint8))
        self._x = tf.placeholder(tf.float32, [None, 784])
        self._z = tf.placeholder(tf.float32, [None, job.recipe.nlatent])
        self._rate = tf.placeholder(tf.float32)
        self._build()
        self._session = tf.InteractiveSession()
        self._session.run(tf.global_variables_initializer())
        self.parameters = graph_parameters()

    def _build(self):
        (_, g_units, _), (_, d_units, _), slope = DENSE[self._job.name]
        a, b = self._job.scale

        def hidden(x):
            return tf.nn.leaky_relu(x, slope) if slope else tf.nn.relu(x)

        def discriminator(x, reuse):
            with tf.variable_scope("discriminator", reuse=reuse):
                return _dense(hidden(_dense(x, d_units, "hidden")), 1, "logit")

        with tf.variable_scope("generator"):
            pixels = _dense(hidden(_dense(self._z, g_units, "hidden")), 784, "pixels")
            x_hat = tf.nn.tanh(pixels) if b else tf.nn.sigmoid(pixels)
        y_hat = discriminator(x_hat, reuse=False)
        y = discriminator(self._x * (255 * a) + b if b else self._x, reuse=True)
        real_loss = _cross_entropy(1 - self._job.recipe.label_smoothing, y)
        fake_loss = _cross_entropy(0, y_hat)
        self._g_loss = _cross_entropy(1, y_hat)
        d_adam = tf.train.AdamOptimizer(self._rate, name="d_optimizer")
        g_adam = tf.train.AdamOptimizer(self._rate, name="g_optimizer")
        d_losses = [real_loss + fake_loss]
        if self._job.recipe.separate_updates:
            d_losses = [real_loss, fake_loss]
        d_variables = tf.trainable_variables("discriminator")
        self._d_updates = [(d_adam.minimize(loss, None, d_variables), loss) for loss in d_losses]
        self._g_update = g_adam.minimize(self._g_loss, None, tf.trainable_variables("generator"))

    def train(self, steps):
        """Trains; yields the losses of D and G of each step."""
        batch = self._job.batch
        d_rate, g_rate = self._job.rates
        for _ in range(steps):
            batch_x, _ = self._data.next_batch(batch)
            batch_z, g_batch_z = self._job.latents(batch)
            feed = {self._x: batch_x, self._z: batch_z, self._rate: d_rate}
            d_loss = 0
            for update in self._d_updates:
                d_loss += self._session.run(update, feed)[1]
            feed = {self._z: g_batch_z, self._rate: g_rate}
            _, g_loss = self._session.run([self._g_update, self._g_loss], feed)
            yield d_loss, g_loss


def _dense(x, units, name):
    with tf.variable_scope(name):
        kernel = tf.get_variable("kernel", [x.shape[-1], units])
        bias = tf.get_variable("bias", [units], initializer=tf.zeros_initializer())
        return tf.matmul(x, kernel) + bias


def _cross_entropy(label, y):
    labels = label * tf.ones_like(y)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=y))
