"""A prior, a recipe, a loss, a trick and a network, added in one place each."""

import dataclasses
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from assembly import trained
from small_sets import write_set

import generation
import training
from generation import numpy_generator
from generation.export import export
from models import layers, passes, priors, randomness, recipes
from models.gan import Gan


@dataclasses.dataclass(frozen=True)
class Triangle(priors.Prior):
    """Sum of two uniform draws."""

    def sample(self, rng, shape):
        return rng.random(shape, np.float32) + rng.random(shape, np.float32) - 1


class Noisy:
    """A trick for any class: noise on D's images (Arjovsky & Bottou 2017)."""

    def _discriminator(self, x, reuse=False):
        training = passes.current()
        if training is not None:
            bits = randomness.random_bits(tf.size(x), training.next_seed())
            noise = tf.cast(bits, tf.float32) / 2**32 - 0.5
            x += 0.2 * tf.reshape(noise, tf.shape(x))
        return super()._discriminator(x, reuse)


class Hinge(Gan):
    """A generator of its own, and the hinge loss."""

    def _generator(self, z, reuse=False):
        with tf.variable_scope(self._generator_scope, reuse=reuse):
            x = tf.nn.relu(layers.dense(z, 8, name="first"))
            return tf.nn.sigmoid(layers.dense(x, self._ndims, name="pixels"))

    def _discriminator_loss(self, y, y_hat):
        return tf.reduce_mean(tf.nn.relu(1 - y)) + tf.reduce_mean(tf.nn.relu(1 + y_hat))

    def _generator_loss(self, y_hat):
        return -tf.reduce_mean(y_hat)


class NoisyHinge(Noisy, Hinge):
    """A class with the trick."""


@pytest.fixture
def extended(monkeypatch):
    """Adds an entry to PRIORS and one to RECIPES; returns the recipe."""
    monkeypatch.setitem(priors.PRIORS, "triangle", Triangle("triangle", low=-1.0, high=1.0))
    recipe = recipes.Recipe(
        gan="test_extending:NoisyHinge", source="this test", prior="triangle", nlatent=3,
        num_steps=2, batch_size=4, r1_gamma=1.0, ema_decay=0.9,
    )  # fmt: skip
    monkeypatch.setitem(recipes.RECIPES, "hinge", recipe)
    monkeypatch.setitem(sys.modules, "test_extending", sys.modules[__name__])
    return recipe


def test_extensions_train_sample_and_export(extended, tmp_path):
    write_set(tmp_path / "data")
    folder = training.train(
        "hinge", data_dir=str(tmp_path / "data"), run_dir=str(tmp_path / "run"), events=False
    )
    images, latents = generation.load(folder).sample(50)
    assert images.shape == (50, 28, 28)
    assert np.abs(latents).max() <= 1
    assert {"generator.npz", "saved_model"} <= set(export(folder, tmp_path / "out"))
    again = numpy_generator.generate(str(tmp_path / "out" / "generator.npz"), latents)
    np.testing.assert_allclose(again, images, atol=1e-5)


def test_trick_draws_the_same_in_both_engines(extended):
    plain = dataclasses.replace(extended, gan="test_extending:Hinge")
    stepped, _ = trained(extended, 2)
    fused, _ = trained(extended, 2, "fused without XLA")
    without, _ = trained(plain, 2)
    np.testing.assert_allclose(stepped, fused, rtol=1e-4)
    assert not np.allclose(stepped, without, rtol=1e-3)
