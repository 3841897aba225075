"""Article 003's own class and training loop: a `session.run` per update."""

import numpy as np
import tensorflow.compat.v1 as tf

import input_data
from benchmarks.peers.job import Job, graph_parameters
from models import losses, recipes


class Peer:
    """A recipe's class with its own train ops; two updates of D if the recipe has two."""

    block = 1

    def __init__(self, job: Job):
        tf.disable_v2_behavior()
        self._job = job
        self._data = input_data.DataSet(job.pixels, np.zeros(len(job.pixels), np.uint8))
        self._gan = gan = recipes.build_gan(job.recipe)
        self.parameters = graph_parameters()
        self._d_updates = [(gan.d_optimizer, gan.d_loss)]
        if job.recipe.separate_updates:
            y = gan._discriminator(gan.x_placeholder, reuse=True)
            y_hat = gan._discriminator(gan.x_hat, reuse=True)
            adam = tf.train.AdamOptimizer(gan.learning_rate_placeholder)
            variables = tf.trainable_variables("discriminator/")
            self._d_updates = []
            for label, logits in ((1 - job.recipe.label_smoothing, y), (0.0, y_hat)):
                loss = tf.reduce_mean(losses.cross_entropy(label, logits))
                self._d_updates.append((adam.minimize(loss, var_list=variables), loss))
            gan.session.run(tf.variables_initializer(adam.variables()))

    def train(self, steps):
        """Trains; yields the losses of D and G of each step."""
        gan, (d_rate, g_rate) = self._gan, self._job.rates
        x, z, rate = gan.x_placeholder, gan.z_placeholder, gan.learning_rate_placeholder
        for _ in range(steps):
            images, _ = self._data.next_batch(self._job.batch)
            d_latents, g_latents = self._job.latents(self._job.batch)
            feed = {x: images, z: d_latents, rate: d_rate}
            d_loss = sum(gan.session.run(update, feed)[1] for update in self._d_updates)
            feed = {z: g_latents, rate: g_rate}
            yield d_loss, gan.session.run([gan.g_optimizer, gan.g_loss], feed)[1]
