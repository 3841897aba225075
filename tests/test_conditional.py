"""Conditional GANs: logits by hand, R1 at fixed labels, and rejected classes."""

import functools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from assembly import assembled

import training
from models import layers, passes, recipes
from models.conditional import Conditional, ConditionalGan, ConditionalStableCnn
from models.gan import Gan
from models.inference import one_hot
from support.errors import UserError

RECIPE = recipes.override(recipes.get("minimal"), conditional=True, batch_size=4)
LABELS = np.array([3, 0, 7])
OTHERS = LABELS[::-1]
X = np.random.default_rng(0).random([3, 784], np.float32)


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default():
        yield


def weights(gan, name):
    variables = {v.op.name.removeprefix("discriminator/"): v for v in tf.global_variables()}
    return [gan.session.run(variables[f"{name}/{part}"]) for part in ("kernel", "bias")]


def feed(gan, to_generate=OTHERS):
    """Returns a feed of real images with LABELS, and of latents with those to generate."""
    return {
        gan.x_placeholder: X,
        gan.z_placeholder: np.ones([3, 4]),
        gan.x_labels_placeholder: one_hot(LABELS),
        gan.labels_placeholder: one_hot(to_generate),
    }


@pytest.mark.parametrize("conditioning", ["projection", "concat"])
def test_logits_by_hand(conditioning):
    gan = ConditionalGan(nlatent=4, conditioning=conditioning)
    (kernel, bias), (logit, offset) = weights(gan, "hidden"), weights(gan, "logit")
    x = np.hstack([X, one_hot(LABELS)]) if conditioning == "concat" else X
    features = np.maximum(x @ kernel + bias, 0)
    expected = features @ logit[:, 0] + offset
    if conditioning == "projection":
        embedding, shift = weights(gan, "embedding")
        expected += (features * (embedding[LABELS] + shift)).sum(axis=1)
    y = gan.session.run(gan._discriminator(gan.x_placeholder, reuse=True), feed(gan))
    np.testing.assert_allclose(y[:, 0], expected, atol=1e-4)


def test_convolutions_have_an_image_for_each_label():
    gan = ConditionalStableCnn(nlatent=4, conditioning="concat", d_channels=2, g_channels=2)
    appended = gan.session.run(gan._append(tf.constant(X), tf.constant(one_hot(LABELS))))
    channels = appended.reshape(3, 11, 784)
    np.testing.assert_array_equal(channels[:, 0], X)
    np.testing.assert_array_equal(channels[:, 1:], np.repeat(one_hot(LABELS)[..., None], 784, 2))


def test_mixin_needs_only_features():
    class Small(Conditional, Gan):
        def _features(self, x):
            return tf.nn.relu(layers.dense(x, 8, name="hidden"))

    with assembled(RECIPE, gan_class=Small, engine="fused without XLA") as engine:
        (block,) = engine.train(0, 2)
        assert all(np.isfinite([p.d_loss, p.g_loss]).all() for p in block)


@pytest.mark.parametrize(
    "build", [ConditionalGan, functools.partial(training.build, "minimal", conditional=True)]
)
def test_losses_have_real_and_generated_images_with_their_own_labels(build):
    gan = build(nlatent=4)
    y = gan._discriminator(tf.constant(X), reuse=True, labels=tf.constant(one_hot(LABELS)))
    y_hat = gan._discriminator(gan.x_hat, reuse=True, labels=tf.constant(one_hot(OTHERS)))
    expected = [gan._discriminator_loss(y, y_hat), gan._generator_loss(y_hat)]
    expected, actual = gan.session.run([expected, [gan.d_loss, gan.g_loss]], feed(gan))
    assert actual == pytest.approx(expected, rel=1e-5)


def test_both_images_of_a_pair_have_one_label():
    gan = training.build("minimal", conditional=True, nlatent=4, loss="relativistic")
    found = [
        gan.session.run([gan.d_loss, gan.g_loss], feed(gan, to_generate))
        for to_generate in (LABELS, OTHERS)
    ]
    assert found[0] == found[1]


class OthersLabels(ConditionalGan):
    """Its D sees real images with the labels to generate."""

    def _discriminator(self, x, reuse=False, labels=None):
        labels = self.labels_placeholder if labels is None else labels
        return super()._discriminator(x, reuse, labels)


class NoPlaceholders(Gan):
    """Its networks take labels."""

    def _generator(self, z, reuse=False, labels=None):
        return super()._generator(z, reuse)

    def _discriminator(self, x, reuse=False, labels=None):
        return super()._discriminator(x, reuse)


@pytest.mark.parametrize(
    "gan_class, words",
    [
        (NoPlaceholders, "NoPlaceholders.labels_placeholder must be .* --conditional .* nothing"),
        (OthersLabels, "OthersLabels.d_loss does not depend on x_labels_placeholder"),
    ],
)
def test_class_that_cannot_learn_labels_is_rejected(gan_class, words):
    with pytest.raises(UserError, match=words):
        assembled(RECIPE, gan_class=gan_class).__enter__()


def test_deviation_within_labels_by_hand():
    rng = np.random.default_rng(1)
    x, labels = rng.random([2, 6, 5], np.float32), rng.integers(0, 3, [2, 6])
    spreads = []
    for features, own in zip(x, labels, strict=True):
        means = np.stack([features[own == label].mean(axis=0) for label in own])
        spreads.append(np.sqrt(np.var(features - means, axis=0) + 1e-8).mean())
    with passes.training(tf.constant([0, 0]), batches=2):
        y = layers.minibatch_stddev(tf.constant(x.reshape(12, 5)), tf.one_hot(labels.ravel(), 10))
    with tf.Session() as session:
        found = session.run(y)
    np.testing.assert_array_equal(found[:, :5], x.reshape(12, 5))
    np.testing.assert_allclose(found[:, 5], np.repeat(spreads, 6), rtol=1e-5)
