"""A prior, a recipe, a loss, a trick and a network from outside: each in one place, then used."""

import dataclasses
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from assembly import trained
from test_resume import write_data
from training.configuration import Configuration
from training.run_folder import RunFolder

import generation
import input_data
from generation.export import export
from models import layers, passes, priors, randomness, recipes
from models.gan import Gan
from training import trainer


@dataclasses.dataclass(frozen=True)
class Triangle(priors.Prior):
    """Sum of two uniform draws."""

    def sample(self, rng, shape):
        return rng.random(shape, np.float32) + rng.random(shape, np.float32) - 1


class Noisy:
    """A trick for any class: D sees images with noise while it trains (Arjovsky & Bottou 2017)."""

    def _discriminator(self, x, reuse=False):
        training = passes.current()
        if training is not None:
            bits = randomness.random_bits(tf.size(x), training.next_seed())
            noise = tf.cast(bits, tf.float32) / 2**32 - 0.5
            x += 0.2 * tf.reshape(noise, tf.shape(x))
        return super()._discriminator(x, reuse)


class Hinge(Gan):
    """One more layer, and the hinge loss."""

    def _generator(self, z, reuse=False):
        with tf.variable_scope(self._generator_scope, reuse=reuse):
            x = tf.nn.relu(layers.dense(z, 8, name="first"))
            return tf.nn.sigmoid(layers.dense(x, self._ndims, name="pixels"))

    def _discriminator_loss(self, y, y_hat):
        return tf.reduce_mean(tf.nn.relu(1 - y)) + tf.reduce_mean(tf.nn.relu(1 + y_hat))

    def _generator_loss(self, y_hat):
        return -tf.reduce_mean(y_hat)


class NoisyHinge(Noisy, Hinge):
    """Both."""


@pytest.fixture
def extended(monkeypatch):
    """One entry in each of two tables."""
    monkeypatch.setitem(priors.PRIORS, "triangle", Triangle("triangle", low=-1.0, high=1.0))
    recipe = recipes.Recipe(
        gan="test_extending:NoisyHinge", source="this test", prior="triangle", nlatent=3,
        num_steps=2, batch_size=4, r1_gamma=1.0, ema_decay=0.9,
    )  # fmt: skip
    monkeypatch.setitem(recipes.RECIPES, "hinge", recipe)
    monkeypatch.setitem(sys.modules, "test_extending", sys.modules[__name__])
    return recipe


def test_one_of_each_from_outside_trains_samples_and_exports(extended, tmp_path):
    write_data(tmp_path / "data")
    data = input_data.read_data_sets(str(tmp_path / "data"), validation_size=0)
    configuration = Configuration.of("hinge", extended, 0, "auto", "float32", data.train)
    folder = RunFolder(tmp_path / "run")
    with folder.prepared(configuration, new=False, log=print):
        assert trainer.train(extended, data, folder, RunOptions()) is None
    images, latents = generation.load(folder.path).sample(50)
    assert images.shape == (50, 28, 28)
    assert np.abs(latents).max() <= 1
    names = export(folder.path, tmp_path / "out")
    assert {"generator.npz", "generator.onnx", "saved_model"} <= set(names)
    from generation import numpy_generator

    again = numpy_generator.generate(str(tmp_path / "out" / "generator.npz"), latents)
    np.testing.assert_allclose(again, images, atol=1e-5)
    drawn = numpy_generator.sample(str(tmp_path / "out" / "generator.npz"), 5000)[1]
    # The triangle's variance is 1/6.
    assert drawn.var() == pytest.approx(1 / 6, rel=0.1)


def test_the_trick_takes_part_in_both_engines_as_the_seed_has_it(extended):
    plain = dataclasses.replace(extended, gan="test_extending:Hinge")
    (stepped, _), (fused, _), (without, _) = (
        trained(recipe, 2, engine)
        for recipe, engine in [(extended, "step"), (extended, "fused"), (plain, "step")]
    )
    np.testing.assert_allclose(stepped, fused, rtol=1e-4)
    assert not np.allclose(stepped, without, rtol=1e-3)
