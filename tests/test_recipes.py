"""The articles' GANs: their networks, and what each brings to training, on the real engines."""

import contextlib
import csv
import dataclasses
import functools
import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from assembly import PIXELS, assembled, feed, progress, trained
from training.run_folder import RunFolder, read_checkpoint

from input_data import DataSet, Datasets
from models import recipes, summary
from models.gan import Gan
from support.errors import UserError
from training import pretraining, trainer
from training.batches import Batches

SEED, BATCH = 3, 4
NETWORKS = ("generator", "discriminator")
RNG = np.random.default_rng(0)
ARTICLES = ["leaky_mlp", "dcgan", "upsampling_cnn", "pretrained_cnn"]
WITH_AVERAGES = ["dcgan", "upsampling_cnn"]
WITH_DROPOUT = ["dcgan", "upsampling_cnn", "pretrained_cnn"]


def small(name, **values):
    return recipes.override(recipes.get(name), batch_size=BATCH, **values)


@functools.cache
def beginning(name):
    """A recipe's model in a graph of its own, its step engine, and the state they begin with."""
    engine = contextlib.ExitStack().enter_context(assembled(small(name), seed=SEED))
    return engine, engine.state()


@pytest.fixture
def engine(name):
    engine, state = beginning(name)
    engine.load(state)
    return engine


def inputs(engine, batch=BATCH, rate=1e-3):
    """A feed of images, latents and a rate."""
    nlatent = engine.gan.z_placeholder.shape[1]
    latents = np.random.default_rng(5).normal(size=[batch, nlatent])
    return feed(engine, PIXELS[:batch] / 255, latents, rate)


def steps(name, start, stop):
    """Steps of the recipe's model -> progress."""
    engine, _ = beginning(name)
    return progress(engine, (start, stop))


def changed(before, after):
    """-> names of the variables in which two states differ, but for the optimizers'."""
    return {
        name
        for name in before
        if not np.array_equal(before[name], after[name]) and "_adam" not in name
    }


# Parameters, as the articles print them.

TABLES = {
    "leaky_mlp": ([12_928, 101_136], [100_480, 129]),
    "dcgan": (
        [1_266_944, 50_176, 819_328, 512, 204_864, 256, 51_232, 128, 801],
        [1_664, 204_928, 819_456, 3_277_312, 8_193],
    ),
}
# In all, not trainable.
TOTALS = {
    "minimal": ((51_664, 0), (402_433, 0)),
    "leaky_mlp": ((114_064, 0), (100_609, 0)),
    "dcgan": ((2_394_241, 25_536), (4_311_553, 0)),
    "pretrained_cnn": ((4_263_101, 0), (9_707_266, 0)),
}


@pytest.mark.parametrize("name", TABLES)
def test_layers_have_the_articles_parameters(engine, name):
    for network, numbers in zip(NETWORKS, TABLES[name], strict=True):
        rows = summary.layers_of(engine.gan, network)
        assert [row.parameters for row in rows] == numbers


@pytest.mark.parametrize("name", TOTALS)
def test_nets_have_the_articles_parameters(engine, name):
    for network, (total, fixed) in zip(NETWORKS, TOTALS[name], strict=True):
        rows = summary.layers_of(engine.gan, network)
        assert summary.totals(rows) == (total, total - fixed, fixed)
        trained = engine.session.graph.get_collection("trainable_variables", f"{network}/")
        assert sum(v.shape.num_elements() for v in trained) == total - fixed


@pytest.mark.parametrize("name", ["dcgan"])
def test_output_shapes_are_the_articles(engine, name):
    generator, discriminator = (summary.layers_of(engine.gan, network) for network in NETWORKS)
    assert [row.shape[1:] for row in generator if not row.name.endswith("norm")] == [
        [12544], [14, 14, 128], [28, 28, 64], [28, 28, 32], [28, 28, 1],
    ]  # fmt: skip
    assert [row.shape[1:] for row in discriminator] == [
        [14, 14, 64], [7, 7, 128], [4, 4, 256], [4, 4, 512], [1],
    ]  # fmt: skip


def test_the_summary_shows_both_networks():
    generator, discriminator = summary.of_recipe(small("minimal", nlatent=2)).split("\n\n")
    rows = [line.split() for line in generator.splitlines()]
    assert rows[1:] == [
        ["hidden", "[batch,", "64]", "192"],
        ["pixels", "[batch,", "784]", "50,960"],
        ["total", "51,152"],
        ["trainable", "51,152"],
        ["not", "trainable", "0"],
    ]
    assert discriminator.splitlines()[-3].split() == ["total", "402,433"]


# The contract.


@pytest.mark.parametrize("name", ARTICLES)
def test_images_are_in_the_unit_interval_for_any_number_of_latents(engine, name):
    for count in (0, 1, 3):
        z = 100 * RNG.normal(size=[count, engine.gan.z_placeholder.shape[1]])
        images = generate(engine, z)
        assert images.shape == (count, 784)
        assert ((images >= 0) & (images <= 1)).all()
    # Black and white are within reach, whatever the range inside.
    state = engine.state()
    for bias, pixel in [(-1e4, 0), (1e4, 1)]:
        state["generator/pixels/bias"][:] = bias
        engine.load(state)
        np.testing.assert_allclose(generate(engine, z), pixel, atol=1e-6)


def dense(w, name, x):
    return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def leaky_images(w, z):
    """Article 004's generator in NumPy, its tanh brought to [0, 1]."""
    return (np.tanh(dense(w, "generator/pixels", leaky(dense(w, "generator/hidden", z)))) + 1) / 2


def leaky_logits(w, images):
    """Article 004's discriminator in NumPy, on [-1, 1]."""
    hidden = leaky(dense(w, "discriminator/hidden", 2 * images - 1))
    return dense(w, "discriminator/logit", hidden)


@pytest.mark.parametrize("name", ["leaky_mlp"])
def test_leaky_mlp_by_hand(engine, name):
    """tanh inside, [0, 1] outside, in both networks; D's loss with 0.9 for real images."""
    w, feed = engine.state(), inputs(engine)
    x, z = feed[engine.gan.x_placeholder], feed[engine.gan.z_placeholder]
    images = leaky_images(w, z)
    np.testing.assert_allclose(generate(engine, z), images, atol=1e-6)
    y, y_hat = leaky_logits(w, x), leaky_logits(w, images)
    for seen, wanted in zip(model.discriminate(x, z), (y, y_hat), strict=True):
        np.testing.assert_allclose(seen, wanted, rtol=1e-4, atol=1e-5)
    real = 0.9 * np.logaddexp(0, -y) + 0.1 * np.logaddexp(0, y)
    wanted = (real + np.logaddexp(0, y_hat)).mean()
    assert engine.session.run(engine.gan.d_loss, feed) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", ["pretrained_cnn"])
def test_two_way_softmax_is_the_sigmoid_of_the_difference(engine, name):
    """Article 000's categorical cross-entropy, of D's two logits, is the loss that G has here."""
    # The first is of generated images, the second of real ones.
    _, split, *_ = (op for op in engine.session.graph.get_operations() if op.type == "Split")
    logits = split.inputs[1]
    x, z = PIXELS[:BATCH] / 255, RNG.random([BATCH, 100])
    logits = engine.session.run(logits, {engine.gan.x_placeholder: x})
    assert logits.shape == (BATCH, 2)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y, _ = model.discriminate(x, z)
    np.testing.assert_allclose(-np.log(softmax[:, 1:]), np.logaddexp(0, -y), rtol=1e-4)


# Training.


@pytest.mark.parametrize("name", ARTICLES)
def test_each_update_moves_its_own_net_alone(engine, name):
    for network, update, loss in [
        ("discriminator", engine.gan.d_optimizer, engine.gan.d_loss),
        ("generator", engine.gan.g_optimizer, engine.gan.g_loss),
    ]:
        before = engine.state()
        assert np.isfinite(engine.session.run([loss, update], inputs(engine))[0])
        moved = changed(before, engine.state())
        own = {v for v in before if v.startswith(f"{network}/") and "_adam" not in v}
        # A bias before batch normalisation has no effect, and all but no gradient.
        assert moved <= own
        assert all(v in moved or (v.endswith("bias") and name != "leaky_mlp") for v in own)
        assert all(np.isfinite(values).all() for values in engine.state().values())


@pytest.mark.parametrize("name", ARTICLES)
def test_a_step_goes_on_from_a_state_as_if_nothing_had_been(engine, name):
    """Moving averages, the optimizers' moments and the place among the dropout masks included."""
    steps(name, 0, 1)
    middle = engine.state()
    straight, end = steps(name, 1, 2), engine.state()
    engine.load(beginning(name)[2])
    engine.load(middle)
    assert steps(name, 1, 2) == straight
    again = engine.state()
    assert all(np.array_equal(again[variable], end[variable]) for variable in end)


@pytest.mark.slow
def test_the_fused_engine_without_xla_trains_convolutions_alike():
    """Separate updates, batch normalisation in both networks and dropout, all in one loop."""
    recipe = small("upsampling_cnn")
    (fused_done, fused_end), (done, end) = (
        trained(recipe, 2, engine) for engine in ("fused", "step")
    )
    np.testing.assert_allclose(fused_done, done, rtol=1e-3)
    for name in [name for name in end if "moving" in name or name.endswith("gamma")]:
        np.testing.assert_allclose(fused_end[name], end[name], rtol=1e-3, atol=1e-3, err_msg=name)


@pytest.mark.slow
def test_every_trick_goes_with_convolutions_and_batch_normalisation():
    recipe = small("upsampling_cnn", separate_updates=False, r1_gamma=1.0, ema_decay=0.9)
    done, state = trained(recipe, 1)
    assert np.isfinite(done).all()
    assert all(np.isfinite(values).all() for values in state.values())


# Batch normalisation.


@pytest.mark.parametrize("name", WITH_AVERAGES)
def test_samples_go_by_the_averages_that_training_updates(engine, name):
    before = engine.state()
    engine.session.run(engine.gan.g_optimizer, inputs(engine))
    after = engine.state()
    averages = [v for v in before if v.startswith("generator/") and "/moving_" in v]
    assert len(averages) == 2 * (4 if name == "dcgan" else 3)
    assert all(not np.array_equal(before[v], after[v]) for v in averages)
    z = inputs(engine)[engine.gan.z_placeholder]
    images = generate(engine, z)
    # An image does not depend on those beside it ...
    np.testing.assert_allclose(generate(engine, z[:1]), images[:1], atol=1e-5)
    # ... but on the averages.
    engine.load({v: before[v] if v in averages else after[v] for v in after})
    assert np.abs(generate(engine, z) - images).max() > 1e-3


@pytest.mark.parametrize("name", ["pretrained_cnn"])
def test_samples_of_article_000_go_by_their_own_batch(engine, name):
    assert not [variable for variable in engine.state() if "moving" in variable]
    z = RNG.random([BATCH, 100])
    images = generate(engine, z)
    beside_others = generate(engine, np.concatenate([z[:1], RNG.random([3, 100])]))
    assert np.abs(beside_others[0] - images[0]).max() > 1e-3
    # One latent alone is its own mean, which leaves nothing of it.
    one, other = (generate(engine, z[i : i + 1]) for i in range(2))
    np.testing.assert_allclose(one, other, atol=1e-5)


# Dropout.


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_dropout_is_a_function_of_the_seed_and_the_number_of_updates(engine, name):
    feed = inputs(engine, rate=0)
    before = engine.state()
    losses = [
        engine.session.run([engine.gan.d_loss, engine.gan.d_optimizer], feed)[0] for _ in range(2)
    ]
    # With a rate of 0, only the masks differ from one update to the next.
    assert losses[0] != losses[1]
    engine.load(before)
    assert engine.session.run(engine.gan.d_loss, feed) == losses[0]
    # Without dropout there is one answer.
    x, z = feed[engine.gan.x_placeholder], feed[engine.gan.z_placeholder]
    assert np.array_equal(model.discriminate(x, z), model.discriminate(x, z))


# Rates and batches.


def test_the_rates_of_the_articles():
    """D's and G's at a step: two time scales, decay with each step, and in stages."""
    expected = {
        ("leaky_mlp", 90_000): (1e-3, 1e-4),
        ("dcgan", 40_000): (2e-4, 2e-4),
        ("upsampling_cnn", 0): (2e-4, 1e-4),
        ("upsampling_cnn", 10_000): (2e-4 / 1.01, 1e-4 / 1.01),
        ("pretrained_cnn", 5_999): (1e-3, 1e-4),
        ("pretrained_cnn", 6_000): (1e-4, 1e-5),
        ("pretrained_cnn", 8_000): (1e-5, 1e-6),
    }
    for (name, step), rates in expected.items():
        assert recipes.get(name).rates(step) == pytest.approx(rates), (name, step)


def test_epochs_and_batches_of_the_articles():
    images = np.zeros([60_000, 784], np.uint8)
    leaky = Batches(recipes.get("leaky_mlp"), images, SEED)
    assert leaky.steps_per_epoch == 937
    assert leaky.recipe.num_steps == 100 * 937
    block = leaky.block(0, 1)
    assert np.array_equal(block.d_latents, block.g_latents)
    block = Batches(recipes.get("upsampling_cnn"), images, SEED).block(0, 1)
    assert block.images.shape == (1, 1, 32, 784) and block.g_latents.shape == (1, 1, 64, 64)
    assert np.abs(block.g_latents).max() <= 1


# Pre-training.

DIGITS = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 784, axis=1)  # plain greys


def pretrain(engine, recipe):
    """-> the states before and after, and what was said."""
    before, said = engine.state(), []
    pretraining.pretrain(engine, Batches(recipe, DIGITS, SEED), DIGITS, said.append)
    return before, engine.state(), said


@pytest.mark.parametrize("name", ["leaky_mlp"])
def test_pretraining_teaches_d_alone(engine, name):
    recipe = small(name, pretraining=256)
    before, after, said = pretrain(engine, recipe)
    assert all(variable.startswith("discriminator") for variable in changed(before, after))
    assert after["d_adam/updates"] == 256 // 64 * 2  # separate: two updates a batch
    (line,) = said
    right, seen = (int(word) for word in line.split() if word.isdigit())
    assert seen == 2 * 256 and right > 0.9 * seen
    engine.load(before)
    _, again, _ = pretrain(engine, recipe)
    assert all(np.array_equal(again[variable], after[variable]) for variable in after)


@pytest.mark.parametrize("name", ["leaky_mlp"])
def test_pretraining_is_evaluated_on_the_images_there_are(engine, name):
    said = []
    recipe = small(name, pretraining=64)
    pretraining.pretrain(engine, Batches(recipe, DIGITS, SEED), DIGITS[:20], said.append)
    assert said[0].endswith("of 40 other images right.")


@pytest.mark.parametrize("name", ["leaky_mlp"])
def test_without_pretraining_nothing_happens(engine, name):
    before, after, said = pretrain(engine, small(name))
    assert not changed(before, after) and not said


@pytest.mark.parametrize("name", ["pretrained_cnn"])
def test_article_000_pretrains(engine, name):
    recipe = small(name, pretraining=64)
    pretraining.pretrain(engine, Batches(recipe, DIGITS, SEED), DIGITS[:64], [].append)
    assert all(v.startswith("discriminator") for v in changed(beginning(name)[2], engine.state()))
    assert recipes.get(name).pretraining == 10_000


# Losses on held-out images.

TEST = RNG.integers(0, 256, (40, 784), np.uint8)
# 64 images in batches of 4: an epoch of 16 steps, and two and a half of them.
EPOCH, STEPS = 16, 40


def train(path, recipe, num_steps, **settings):
    """The real trainer on small data -> what it said."""
    labels = np.zeros(64, np.uint8)
    data = Datasets(DataSet(PIXELS, labels), None, DataSet(TEST, labels[: len(TEST)]))
    folder, said = RunFolder(path), []
    folder.file("checkpoints").mkdir(parents=True, exist_ok=True)
    recipe = dataclasses.replace(recipe, num_steps=num_steps)
    trainer.train(recipe, data, folder, RunOptions(**settings), log=said.append)
    return said


def held_out(path):
    with open(path / "held_out.csv") as file:
        _, *rows = csv.reader(file)
    return [[float(cell) for cell in row] for row in rows]


@pytest.fixture(scope="module")
def epochs(tmp_path_factory):
    """A run of two and a half epochs of leaky_mlp."""
    path = tmp_path_factory.mktemp("runs") / "leaky"
    said = train(path, small("leaky_mlp"), STEPS, engine="step")
    return path, said


def test_losses_on_held_out_images_after_each_epoch(epochs):
    path, said = epochs
    assert re.search(r"^generator .*^total +114,064$.*^total +100,609$", said[0], re.M | re.S)
    assert [row[0] for row in held_out(path)] == [EPOCH, 2 * EPOCH]
    assert (path / "held_out.png").stat().st_size > 1000


def test_losses_on_held_out_images_are_the_classs_own():
    class Mean(Gan):
        def _discriminator_loss(self, y, y_hat):
            return tf.reduce_mean(y_hat - y)

        def _generator_loss(self, y_hat):
            return -tf.reduce_mean(y_hat)

    with assembled(small("minimal"), gan_class=Mean, engine="fused without XLA") as engine:
        batch = PIXELS[:4] / np.float32(255), np.ones([4, engine.gan._nlatent], np.float32)
        (y, y_hat), seen = model.discriminate(*batch), model.losses(*batch)
    assert seen == pytest.approx(((y_hat - y).mean(), -y_hat.mean()), abs=1e-6)


def test_losses_on_held_out_images_by_hand_and_after_a_kill(epochs, tmp_path, capfd):
    """As if killed after step 24 with step 8 as the last checkpoint: a row to cut and rewrite."""
    recipe, steps = small("leaky_mlp"), tmp_path / "checkpoints"
    train(tmp_path, recipe, 24, engine="step", checkpoint_every=8)
    _, w = read_checkpoint(steps / "step-000000016.npz")
    pixels, latents = Batches(recipe, PIXELS, 0).held_out(TEST, 16, 1)
    y, y_hat = leaky_logits(w, pixels / 255), leaky_logits(w, leaky_images(w, latents))
    real, fake = 1 / (1 + np.exp(-y)), 1 / (1 + np.exp(-y_hat))
    wanted = [-(np.log(real) + np.log(1 - fake)).mean(), -np.log(fake).mean()]
    assert held_out(tmp_path) == [pytest.approx([16, *wanted], rel=1e-4)]
    _, d_loss, g_loss = held_out(tmp_path)[0]
    line = f"Epoch:   1/1 Discriminator Loss: {d_loss:.4f} Generator Loss: {g_loss:.4f}"
    assert line in capfd.readouterr().err.splitlines()
    for step in (16, 24):
        (steps / f"step-{step:09d}.npz").unlink()
    said = train(tmp_path, recipe, STEPS, engine="step")
    assert said[0] == f"Continuing {tmp_path} after step 8."
    for file in ("held_out.csv", "losses.csv"):
        assert (tmp_path / file).read_bytes() == (epochs[0] / file).read_bytes()


def test_milestones_are_whole_steps_and_come_from_lists_too():
    milestones = recipes.override(recipes.get("minimal"), lr_milestones=[3, 5])
    assert milestones.lr_milestones == (3, 5)
    for wrong in [(0,), (2.5,), 3, (True,)]:
        with pytest.raises(UserError, match="--lr_milestones="):
            recipes.override(recipes.get("minimal"), lr_milestones=wrong)


# Longer.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "batch", "num_steps", "share"),
    [
        ("leaky_mlp", 64, 4000, 0.6),
        ("dcgan", 16, 80, 0.6),
        ("upsampling_cnn", 32, 200, 0.7),
        ("pretrained_cnn", 8, 60, 0.9),
    ],
)
def test_training_gets_somewhere(name, batch, num_steps, share):
    """Within a share of the distance that samples begin with from what is easily learnt: pictures
    of one bright square at one of a few places."""
    pixels = np.zeros([512, 28, 28], np.uint8)
    for picture, place in zip(pixels, np.random.default_rng(1).integers(4, 14, 512), strict=True):
        picture[place : place + 10, 8:20] = 255
    pixels = pixels.reshape(-1, 784)
    recipe = recipes.override(recipes.get(name), batch_size=batch, pretraining=0)
    with assembled(recipe, seed=SEED, pixels=pixels) as engine:
        z = engine._batches.block(0, 1).g_latents[0, 0][:64]
        distances = [distance(generate(engine, z), pixels)]
        done = np.array(progress(engine, (0, num_steps)))
        distances.append(distance(generate(engine, z), pixels))
        state = engine.state()
    d_losses = done[:, 1]
    assert np.isfinite(done).all() and all(np.isfinite(v).all() for v in state.values())
    assert d_losses[-20:].mean() < d_losses[0]
    # Not stuck: both losses still move, however little D errs, and the samples have come nearer.
    assert d_losses[-20:].std() > 0
    assert done[-20:, 2].std() > 1e-4
    assert distances[1] < share * distances[0]


def distance(samples, pixels):
    """Between the mean pictures of samples and of data: root of the mean square."""
    return np.sqrt(np.mean((samples.mean(axis=0) - pixels.mean(axis=0) / 255) ** 2))
