"""Conditional GANs: what D makes of a label by hand, R1 at fixed labels, refusals in one line."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from assembly import assembled
from test_resume import write_data
from training.configuration import Configuration
from training.run_folder import RunFolder

import input_data
from models import hyperparameters, layers, losses, passes, recipes
from models.conditional import Conditional, ConditionalGan, ConditionalStableCnn
from models.gan import Gan
from support.errors import UserError
from training.batches import one_hot

LABELS = np.array([3, 0, 7])
X = np.random.default_rng(0).random([3, 784], np.float32)


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default():
        yield


def logits(gan, labels=LABELS):
    """Of X with these labels."""
    y = gan._discriminator(gan.x_placeholder, reuse=True)
    feed = {gan.x_placeholder: X, gan.x_labels_placeholder: one_hot(labels)}
    return gan.session.run(y, feed)[:, 0]


def weights(gan, name):
    variables = {v.op.name.removeprefix("discriminator/"): v for v in tf.global_variables()}
    return [gan.session.run(variables[f"{name}/{part}"]) for part in ("kernel", "bias")]


def test_projection_by_hand():
    gan = ConditionalGan(nlatent=4)
    kernel, bias = weights(gan, "hidden")
    features = np.maximum(X @ kernel + bias, 0)
    (embedding, shift), (logit, offset) = weights(gan, "embedding"), weights(gan, "logit")
    wanted = features @ logit[:, 0] + offset + (features * (embedding[LABELS] + shift)).sum(axis=1)
    np.testing.assert_allclose(logits(gan), wanted, atol=1e-4)


def test_concatenation_by_hand():
    gan = ConditionalGan(nlatent=4, conditioning="concat")
    kernel, bias = weights(gan, "hidden")
    features = np.maximum(np.hstack([X, one_hot(LABELS)]) @ kernel + bias, 0)
    logit, offset = weights(gan, "logit")
    np.testing.assert_allclose(logits(gan), features @ logit[:, 0] + offset, atol=1e-4)


def test_convolutions_have_a_picture_for_each_label():
    gan = ConditionalStableCnn(nlatent=4, conditioning="concat", d_channels=2, g_channels=2)
    beside = gan.session.run(gan._beside(tf.constant(X), tf.constant(one_hot(LABELS))))
    channels = beside.reshape(3, 11, 784)
    np.testing.assert_array_equal(channels[:, 0], X)
    np.testing.assert_array_equal(channels[:, 1:], np.repeat(one_hot(LABELS)[..., None], 784, 2))


def test_a_generators_image_and_ds_logit_depend_on_the_label():
    gan = ConditionalStableCnn(nlatent=4, d_channels=2, g_channels=2)
    z = np.zeros([3, 4], np.float32)
    images = gan.session.run(
        gan.x_hat, {gan.z_placeholder: z, gan.labels_placeholder: one_hot(LABELS)}
    )
    assert np.abs(images[0] - images[1]).max() > 1e-4
    assert np.abs(logits(gan) - logits(gan, LABELS[::-1]))[[0, 2]].min() > 1e-6


def test_r1_is_the_gradient_by_the_images_at_fixed_labels():
    gan = ConditionalGan(nlatent=4)
    y = gan._discriminator(gan.x_placeholder, reuse=True)
    penalty = losses.squared_gradient(y, gan.x_placeholder)
    feed = {gan.x_placeholder: X, gan.x_labels_placeholder: one_hot(LABELS)}
    kernel, bias = weights(gan, "hidden")
    (embedding, shift), (logit, _) = weights(gan, "embedding"), weights(gan, "logit")
    slope = (X @ kernel + bias > 0) * (logit[:, 0] + embedding[LABELS] + shift)
    by_hand = ((slope @ kernel.T) ** 2).sum(axis=1).mean()
    assert gan.session.run(penalty, feed) == pytest.approx(by_hand, rel=1e-4)


def test_a_class_of_ones_own_needs_its_features_alone():
    class Small(Conditional, Gan):
        def _features(self, x):
            return tf.nn.relu(layers.dense(x, 8, name="hidden"))

    recipe = recipes.override(recipes.get("minimal"), conditional=True, batch_size=4)
    with assembled(recipe, gan_class=Small, engine="fused without XLA") as engine:
        (block,) = engine.train(0, 2)
        assert all(np.isfinite([p.d_loss, p.g_loss]).all() for p in block)


def test_the_plain_loss_sees_real_and_generated_images_with_their_own_labels():
    gan = ConditionalGan(nlatent=4)
    others = LABELS[::-1]
    feed = {
        gan.x_placeholder: X,
        gan.z_placeholder: np.ones([3, 4]),
        gan.x_labels_placeholder: one_hot(LABELS),
        gan.labels_placeholder: one_hot(others),
    }
    y = gan._discriminator(tf.constant(X), reuse=True, labels=tf.constant(one_hot(LABELS)))
    y_hat = gan._discriminator(gan.x_hat, reuse=True, labels=tf.constant(one_hot(others)))
    wanted, seen = gan.session.run([gan._discriminator_loss(y, y_hat), gan.d_loss], feed)
    assert seen == pytest.approx(wanted, rel=1e-6)


class LabelsOfOthers(ConditionalGan):
    """Real images are seen with the labels that G was asked for."""

    def _labels_of(self, x):
        return self.labels_placeholder


def test_train_ops_that_never_see_the_real_images_labels_are_refused():
    recipe = recipes.override(recipes.get("minimal"), conditional=True, batch_size=4)
    words = "LabelsOfOthers.d_loss does not depend on x_labels_placeholder"
    with pytest.raises(UserError, match=words):
        assembled(recipe, gan_class=LabelsOfOthers).__enter__()


class NoLabels(Gan):
    pass


class NoPlaceholders(Gan):
    def _generator(self, z, reuse=False, labels=None):
        return super()._generator(z, reuse)

    def _discriminator(self, x, reuse=False, labels=None):
        return super()._discriminator(x, reuse)


@pytest.mark.parametrize(
    "gan, words",
    [
        (NoLabels, "NoLabels._generator takes no labels; give it the parameter labels=None"),
        (NoPlaceholders, "NoPlaceholders has no labels_placeholder; give it one"),
    ],
)
def test_classes_that_cannot_be_conditioned_are_refused(gan, words):
    recipe = recipes.override(recipes.get("minimal"), conditional=True)
    with pytest.raises(UserError, match=f"--conditional: {words}"):
        recipes.build_gan(recipe, gan)


@pytest.mark.parametrize("name", ["leaky_mlp", "upsampling_cnn"])
def test_recipes_that_cannot_be_conditioned_are_refused(name):
    recipe = recipes.override(recipes.get(name), conditional=True)
    with pytest.raises(UserError, match="take no labels; those of minimal, dcgan, stable_cnn do"):
        recipes.check_takes_labels(recipe)


def test_a_run_knows_its_labels(tmp_path):
    folder = write_data(tmp_path / "data", train=40)
    data = input_data.read_data_sets(folder, validation_size=0).train
    other = input_data.DataSet(data.pixels, (data.file_labels + 1) % 9)
    recipe = recipes.override(recipes.get("minimal"), conditional=True)

    def configuration(data):
        return Configuration.of("minimal", recipe, 0, "auto", "float32", data)

    made = Configuration.from_json(configuration(data).to_json())
    assert made.classes == tuple(range(10)) and configuration(other).classes == tuple(range(9))
    with pytest.raises(UserError, match=r"the checksum of the images \(--data_dir\) is crc32:"):
        made.check_continued_by(configuration(other), RunFolder(tmp_path), print)
    content = made.to_json().replace("    9\n", "    10\n")
    with pytest.raises(ValueError, match=r"classes .*10.*wanted some of 0 to 9"):
        Configuration.from_json(content)


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
