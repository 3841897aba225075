"""Article 003's own program on `tf.compat.v1`: placeholders, and a fed `session.run` an update.

What `tf.layers.dense` did there is done by `get_variable` here, for it is gone from TensorFlow.
"""

import functools

import numpy as np
import tensorflow.compat.v1 as tf

import input_data

_DRAW = {
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
    "normal": lambda rng, shape: rng.normal(0, 1, shape),
}
# Recipe -> hidden units of G and of D, activation, activation of the pixels.
_NETS = {
    "minimal": (64, 512, tf.nn.relu, tf.nn.sigmoid),
    "leaky_mlp": (128, 128, lambda x: tf.nn.leaky_relu(x, 0.01), tf.nn.tanh),
}


class LiteralTf1:
    """The article's model and training loop; two updates of D where the recipe has two."""

    block = 1

    def __init__(self, job):
        tf.disable_v2_behavior()
        self._job = job
        self._draw = functools.partial(_DRAW[job.recipe.prior], np.random.default_rng())
        self._data = input_data.DataSet(job.pixels, np.zeros(len(job.pixels), np.uint8))
        self._x = tf.placeholder(tf.float32, [None, 784])
        self._z = tf.placeholder(tf.float32, [None, job.recipe.nlatent])
        self._rate = tf.placeholder(tf.float32)
        self._build()
        self._session = tf.InteractiveSession()
        self._session.run(tf.global_variables_initializer())

    @property
    def parameters(self):
        """Trainable parameters (G's, D's)."""
        return tuple(
            sum(variable.shape.num_elements() for variable in tf.trainable_variables(scope))
            for scope in ("generator", "discriminator")
        )

    def run(self, steps):
        """Trains; -> the mean losses (D's, G's)."""
        return np.mean([self._step() for _ in range(steps)], axis=0)

    def _build(self):
        g_units, d_units, hidden, pixels = _NETS[self._job.name]
        with tf.variable_scope("generator"):
            self._x_hat = pixels(_dense(hidden(_dense(self._z, g_units, "hidden")), 784, "pixels"))

        def discriminator(x, reuse):
            with tf.variable_scope("discriminator", reuse=reuse):
                return _dense(hidden(_dense(x, d_units, "hidden")), 1, "logit")

        a, b = self._job.scale
        y_hat = discriminator(self._x_hat, reuse=False)
        y = discriminator(self._x * (255 * a) + b if b else self._x, reuse=True)
        smoothing = self._job.recipe.label_smoothing
        self._real_loss, self._fake_loss = _loss(1 - smoothing, y), _loss(0, y_hat)
        self._d_loss, self._g_loss = self._real_loss + self._fake_loss, _loss(1, y_hat)
        d_adam, g_adam = self._adam("d_optimizer"), self._adam("g_optimizer")
        d_losses = [self._d_loss]
        if self._job.recipe.separate_updates:
            d_losses = [self._real_loss, self._fake_loss]
        d_variables = tf.trainable_variables("discriminator")
        self._d_updates = [(loss, d_adam.minimize(loss, None, d_variables)) for loss in d_losses]
        self._g_update = g_adam.minimize(self._g_loss, None, tf.trainable_variables("generator"))

    def _adam(self, name):
        return tf.train.AdamOptimizer(self._rate, name=name)

    def _step(self):
        batch = self._job.batch
        d_rate, g_rate = self._job.rates
        batch_x, _ = self._data.next_batch(batch)
        batch_z = self._draw([batch, self._job.recipe.nlatent])
        d_loss = 0
        for loss, update in self._d_updates:
            feed = {self._x: batch_x, self._z: batch_z, self._rate: d_rate}
            d_loss += self._session.run([update, loss], feed)[1]
        if not self._job.recipe.reuse_latents:
            batch_z = self._draw([batch, self._job.recipe.nlatent])
        feed = {self._z: batch_z, self._rate: g_rate}
        return d_loss, self._session.run([self._g_update, self._g_loss], feed)[1]


def _dense(x, units, name):
    with tf.variable_scope(name):
        kernel = tf.get_variable("kernel", [x.shape[-1], units])
        bias = tf.get_variable("bias", [units], initializer=tf.zeros_initializer())
        return tf.matmul(x, kernel) + bias


def _loss(label, y):
    labels = label * tf.ones_like(y)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=y))
