"""The same GANs in Keras 3 on TensorFlow, trained as articles 004 and 001 do: `train_on_batch`."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
from keras import layers

from benchmarks.jobs import Feed


def _mlp(widths, slope, *last):
    inputs, *units = widths
    hidden = [layers.Activation("relu") if not slope else layers.LeakyReLU(slope) for _ in units]
    stack = [layer for pair in zip(map(layers.Dense, units), hidden, strict=True) for layer in pair]
    return keras.Sequential([layers.Input([inputs]), *stack[:-1], *last])


def _minimal():
    return _mlp([10, 64, 784], 0, layers.Activation("sigmoid")), _mlp([784, 512, 1], 0)


def _leaky_mlp():
    return _mlp([100, 128, 784], 0.01, layers.Activation("tanh")), _mlp([784, 128, 1], 0.01)


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


_NETS = {"minimal": _minimal, "leaky_mlp": _leaky_mlp, "dcgan": _dcgan}


class KerasPeer:
    """Two compiled models: D, and G followed by a D that does not move."""

    block = 1

    def __init__(self, job):
        keras.utils.set_random_seed(0)
        self._job, self._feed = job, Feed(job)
        self._g, self._d = _NETS[job.name]()
        self._gan = keras.Sequential([self._g, self._d])
        d_rate, g_rate = job.rates
        self._compile(self._d, d_rate)
        self._compile(self._gan, g_rate)
        for net in (self._g, self._d, self._gan):
            # XLA, Keras's own choice, is many times slower with convolutions on a CPU.
            net.jit_compile = job.name != "dcgan"
        self._ones = np.ones([job.batch, 1], np.float32)

    @property
    def parameters(self):
        """Trainable parameters (G's, D's)."""
        self._d.trainable = True
        return tuple(
            sum(int(np.prod(weight.shape)) for weight in net.trainable_weights)
            for net in (self._g, self._d)
        )

    def run(self, steps):
        """Trains; -> the mean losses (D's, G's)."""
        return np.mean([self._step() for _ in range(steps)], axis=0)

    def _compile(self, net, rate):
        betas = {"beta_1": self._job.recipe.beta1, "beta_2": self._job.recipe.beta2}
        net.compile(
            keras.optimizers.Adam(rate, epsilon=1e-8, **betas),
            keras.losses.BinaryCrossentropy(from_logits=True),
        )

    def _step(self):
        a, b = self._job.scale
        x = self._feed.images(self._job.batch).astype(np.float32) * np.float32(a) + np.float32(b)
        z = self._feed.latents(self._job.batch)
        x_hat = self._g.predict_on_batch(z)
        self._d.trainable = True
        d_losses = [self._d.train_on_batch(*batch) for batch in self._d_batches(x, x_hat)]
        self._d.trainable = False
        if not self._job.recipe.reuse_latents:
            z = self._feed.latents(self._job.batch)
        # Keras has the mean over both kinds of images, a GAN's loss is the sum of two means.
        return 2 * np.mean(d_losses), self._gan.train_on_batch(z, self._ones)

    def _d_batches(self, x, x_hat):
        if self._job.recipe.separate_updates:
            return zip((x, x_hat), np.split(self._job.labels, 2), strict=True)
        return [(np.concatenate([x, x_hat]), self._job.labels)]
