"""The same GANs in Keras 3 on TensorFlow.

They are trained with `train_on_batch`, as in articles 004 and 001.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
from keras import layers

from benchmarks.peers.job import DENSE, Job


def _dense(widths, slope, *last):
    inputs, hidden, outputs = widths
    return keras.Sequential(
        [
            layers.Input([inputs]),
            layers.Dense(hidden),
            layers.LeakyReLU(slope) if slope else layers.Activation("relu"),
            layers.Dense(outputs),
            *last,
        ]
    )


def _dcgan():
    def norm_relu():
        return layers.BatchNormalization(momentum=0.9), layers.Activation("relu")

    def convolution(filters):
        return layers.Conv2D(filters, 5, padding="same", kernel_initializer="glorot_normal")

    def up(filters):
        return layers.UpSampling2D(), convolution(filters), *norm_relu()

    def down(filters, stride):
        convolution = layers.Conv2D(filters, 5, stride, padding="same")
        return convolution, layers.LeakyReLU(0.2), layers.Dropout(0.2)

    generator = keras.Sequential([
        layers.Input([100]),
        layers.Dense(12544, kernel_initializer="glorot_normal"), *norm_relu(),
        layers.Reshape([7, 7, 256]), *up(128), *up(64), convolution(32), *norm_relu(),
        convolution(1), layers.Activation("sigmoid"), layers.Flatten(),
    ])  # fmt: skip
    discriminator = keras.Sequential([
        layers.Input([784]), layers.Reshape([28, 28, 1]),
        *down(64, 2), *down(128, 2), *down(256, 2), *down(512, 1), layers.Flatten(),
        layers.Dense(1),
    ])  # fmt: skip
    return generator, discriminator


class Peer:
    """Two compiled models: D, and G followed by a frozen D."""

    block = 1

    def __init__(self, job: Job):
        keras.utils.set_random_seed(0)
        self._job = job
        if job.name == "dcgan":
            self._g, self._d = _dcgan()
        else:
            g_widths, d_widths, slope = DENSE[job.name]
            pixels = layers.Activation("tanh" if job.scale[1] else "sigmoid")
            self._g, self._d = _dense(g_widths, slope, pixels), _dense(d_widths, slope)
        self.parameters = [
            sum(int(np.prod(weight.shape)) for weight in net.trainable_weights)
            for net in (self._g, self._d)
        ]
        self._gan = keras.Sequential([self._g, self._d])
        for net, rate in zip((self._d, self._gan), job.rates, strict=True):
            net.compile(
                keras.optimizers.Adam(
                    rate, beta_1=job.recipe.beta1, beta_2=job.recipe.beta2, epsilon=1e-8
                ),
                keras.losses.BinaryCrossentropy(from_logits=True),
            )
        for net in (self._g, self._d, self._gan):
            # XLA, the default of Keras, is many times slower with convolutions on a CPU.
            net.jit_compile = job.name != "dcgan"

    def train(self, steps):
        """Trains; yields the losses of D and G of each step."""
        job = self._job
        a, b = np.float32(job.scale)
        ones = np.ones([job.batch, 1], np.float32)
        for _ in range(steps):
            x = job.images(job.batch).astype(np.float32) * a + b
            z, g_z = job.latents(job.batch)
            x_hat = self._g.predict_on_batch(z)
            if job.recipe.separate_updates:
                d_batches = zip((x, x_hat), np.split(job.labels, 2), strict=True)
            else:
                d_batches = [(np.concatenate([x, x_hat]), job.labels)]
            self._d.trainable = True
            d_losses = [self._d.train_on_batch(*batch) for batch in d_batches]
            self._d.trainable = False
            # Keras averages over real and generated images; a GAN's loss is the sum of two means.
            yield 2 * np.mean(d_losses), self._gan.train_on_batch(g_z, ones)
