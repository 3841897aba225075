"""The articles' GANs: their networks, and what each adds to training."""

import contextlib
import functools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import twin
from assembly import PIXELS, assembled, changed, generate, progress, update

from models import recipes
from models.inference import Inference
from support.errors import UserError

BATCH = 4
NETWORKS = ("generator", "discriminator")
DCGAN = pytest.param("dcgan", marks=pytest.mark.slow)
ARTICLES = ["leaky_mlp", DCGAN, "upsampling_cnn", "pretrained_cnn"]


@functools.cache
def beginning(name):
    """Returns the step engine of a recipe and the state that it begins with."""
    recipe = recipes.override(recipes.get(name), batch_size=BATCH)
    engine = contextlib.ExitStack().enter_context(assembled(recipe))
    return engine, engine.state()


@pytest.fixture
def engine(name):
    engine, state = beginning(name)
    engine.load(state)
    return engine


def inputs(engine):
    """Returns images and latents."""
    latents = np.random.default_rng(5).normal(size=[BATCH, engine.gan.z_placeholder.shape[1]])
    return PIXELS[:BATCH] / 255, latents


# Networks.

# All parameters, and those that are not trained.
TOTALS = {
    "minimal": ((51_664, 0), (402_433, 0)),
    "leaky_mlp": ((114_064, 0), (100_609, 0)),
    "dcgan": ((2_394_241, 25_536), (4_311_553, 0)),
    "pretrained_cnn": ((4_263_101, 0), (9_707_266, 0)),
}


@pytest.mark.parametrize("name", ["minimal", "leaky_mlp", DCGAN, "pretrained_cnn"])
def test_networks_have_the_parameters_of_the_articles_tables(engine, name):
    inference = Inference(engine.gan)
    inference.session.close()
    tables = inference.summary().split("\n\n")
    for (total, fixed), table in zip(TOTALS[name], tables, strict=True):
        numbers = [line.split()[-1] for line in table.splitlines()[-3:]]
        assert numbers == [f"{total:,}", f"{total - fixed:,}", f"{fixed:,}"]


@pytest.mark.parametrize("name", ["leaky_mlp"])
def test_leaky_mlp_by_hand(engine, name):
    """D's loss has 0.9 for real images."""
    w, (x, z) = engine.state(), inputs(engine)
    np.testing.assert_allclose(generate(engine, z), twin.leaky_generate(w, z), atol=1e-6)
    y, y_hat = twin.leaky_logits(w, x), twin.leaky_logits(w, twin.leaky_generate(w, z))
    expected = (twin.cross_entropy(0.9, y) + twin.cross_entropy(0, y_hat)).mean()
    # At this rate the update on real images does not change the loss of the one that follows.
    loss = update(engine, "discriminator", x, z, rate=0)
    assert loss == pytest.approx(expected, rel=1e-5)


# Training.


@pytest.mark.parametrize("name", ARTICLES)
def test_each_update_changes_only_its_own_network(engine, name):
    for network in NETWORKS:
        before = engine.state()
        assert np.isfinite(update(engine, network, *inputs(engine)))
        moved = {name for name in changed(before, engine.state()) if "_adam" not in name}
        own = {v for v in before if v.startswith(f"{network}/") and "_adam" not in v}
        assert moved <= own
        # A bias before batch normalisation has no effect, and almost no gradient.
        assert all(v in moved or (v.endswith("bias") and name != "leaky_mlp") for v in own)
        assert all(np.isfinite(values).all() for values in engine.state().values())


@pytest.mark.parametrize("name", ARTICLES)
def test_step_continues_from_a_state_to_the_same_bytes(engine, name):
    """Moving averages, Adam's moments and the place among the dropout masks included."""
    progress(engine, (0, 1))
    middle = engine.state()
    straight, end = progress(engine, (1, 2)), engine.state()
    engine.load(beginning(name)[1])
    engine.load(middle)
    assert progress(engine, (1, 2)) == straight
    assert not changed(engine.state(), end)


@pytest.mark.parametrize("name", [DCGAN, "upsampling_cnn"])
def test_samples_use_the_averages_that_training_updates(engine, name):
    before, (x, z) = engine.state(), inputs(engine)
    update(engine, "generator", x, z)
    after = engine.state()
    averages = [v for v in before if v.startswith("generator/") and "/moving_" in v]
    assert len(averages) == {"dcgan": 8, "upsampling_cnn": 6}[name]
    assert all(not np.array_equal(before[v], after[v]) for v in averages)
    images = generate(engine, z)
    # An image does not depend on the others of its batch ...
    np.testing.assert_allclose(generate(engine, z[:1]), images[:1], atol=1e-5)
    # ... but on the averages.
    engine.load({v: before[v] if v in averages else after[v] for v in after})
    assert np.abs(generate(engine, z) - images).max() > 1e-3


@pytest.mark.parametrize("name", [DCGAN, "upsampling_cnn", "pretrained_cnn"])
def test_dropout_is_a_function_of_the_seed_and_the_number_of_updates(engine, name):
    before = engine.state()
    # At a rate of 0 only the masks differ between updates.
    losses = [update(engine, "discriminator", *inputs(engine), rate=0) for _ in range(2)]
    assert losses[0] != losses[1]
    engine.load(before)
    assert update(engine, "discriminator", *inputs(engine), rate=0) == losses[0]


# Hyperparameters.


def test_values_out_of_bounds_are_refused_by_name():
    minimal = recipes.get("minimal")
    for field in recipes.hyperparameters():
        kind, is_tuple = recipes.value_type(field)
        wrong = [object(), "x" if kind is not str else 3, float("nan"), [True] if is_tuple else ()]
        if field.metadata["bounds"]:
            low, high = field.metadata["bounds"]
            beyond = [high + 1, float("inf"), low - 1]
            wrong += [(value,) for value in beyond] if is_tuple else [*beyond, True]
            wrong += [0.5] if kind is int else []
        for value in wrong:
            with pytest.raises(UserError, match=rf"^--{field.name} must be .*, got ") as error:
                recipes.override(minimal, **{field.name: value})
            assert "\n" not in str(error.value)
    assert recipes.override(minimal, lr_milestones=[3, 5]).lr_milestones == (3, 5)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"momentum": 1}, "momentum is neither a hyperparameter nor an option of a run"),
        ({"conditioning": "guess"}, "--conditioning must be one of projection, concat, got guess"),
        ({"conditional": True, "digit": 3}, "--conditional is not valid with --digit=3"),
        ({"conditional": True, "held_out": 9}, "--conditional is not valid with --held_out"),
        ({"half_batches": True, "batch_size": 15}, "--batch_size must be even .*, got 15"),
        ({"half_batches": True, "reuse_latents": True}, "--half_batches is not valid with --reuse"),
        ({"pretraining": 63}, "--pretraining must be 0 or at least one batch, 64, got 63"),
        (
            {"d_channels": 4},
            "class Gan: TypeError: .*'d_channels' .its networks have no such option",
        ),
    ],
    ids=str,
)
def test_values_that_cannot_be_used_are_refused(values, message):
    with tf.Graph().as_default(), pytest.raises(UserError, match=message):
        recipes.build_gan(recipes.override(recipes.get("minimal"), **values))
