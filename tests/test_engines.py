"""The two engines train the same model, in whatever pieces a run is cut."""

import dataclasses
import functools
import itertools

import assembly
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import twin
from assembly import assembled, frozen, progress

from models import recipes
from support.errors import UserError
from training import batches as batches_module
from training.options import RunOptions, check_precision

STEPS = 8
DENSE = [name for name, r in recipes.RECIPES.items() if not r.convolutional]


def small(name, **values):
    return recipes.override(recipes.get(name), batch_size=8, **values)


@functools.cache
def trained(recipe, engine, steps=STEPS):
    return assembly.trained(recipe, steps, engine)


def check_agreement(recipe, choice, steps=STEPS):
    """Losses to 1e-4; all but 1 variable in 10,000 to a tenth of a step, kernels to a thousandth.

    Adam divides by the gradient's own size: where that is all rounding, so is the step.
    """
    done, state = trained(recipe, choice, steps)
    step_done, step_state = trained(recipe, "step", steps)
    np.testing.assert_allclose(done, step_done, rtol=1e-4)
    assert state.keys() == step_state.keys()
    rate = min(recipe.rates(0))
    for name in state:
        difference = np.abs(state[name] - np.float64(step_state[name]))
        assert np.mean(difference > 0.1 * rate) < 1e-4, name
        assert difference.mean() < 1e-3 * rate or not name.endswith("kernel"), name


# The same training.


@pytest.mark.parametrize("choice", ["fused", "fused without XLA"])
def test_the_engines_train_alike(choice):
    check_agreement(small("minimal"), choice)


# A step of two updates each contains all that a step of one does. At these rates a rounding that
# takes a unit through zero grows a hundredfold in the next steps.
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "minimal")) for n in DENSE]
)
def test_every_dense_recipe_trains_alike_with_two_updates_a_step(name):
    check_agreement(small(name, d_iters=2, g_iters=2), "fused", steps=1)


def test_rates_and_half_batches_reach_both_engines():
    recipe = small("minimal", g_learning_rate=3e-4, lr_decay=0.1, g_iters=2)
    recipe = dataclasses.replace(recipe, lr_milestones=(3, 5), half_batches=True)
    check_agreement(recipe, "fused without XLA")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["step", "fused without XLA"])
def test_conditional_training_is_alike_and_labels_matter(engine):
    recipe = small("stable_cnn", conditional=True)
    check_agreement(recipe, engine)
    plain, _ = trained(dataclasses.replace(recipe, conditional=False), "step")
    assert plain != trained(recipe, "step")[0]


def test_losses_are_those_of_the_last_step_before_its_updates():
    recipe = small("minimal")
    with assembled(recipe) as engine:
        progress(engine, (0, 2))
        before = twin.doubles(engine.state())
        (last,) = progress(engine, (2, 3))
        after = twin.doubles(engine.state())
        block = engine._batches.block(2, 3)
    x = block.images[0, 0] / 255
    assert last.step == 3
    expected = twin.d_loss(before, recipe, x, block.d_latents[0, 0])
    assert last.d_loss == pytest.approx(expected, rel=1e-5)
    between = {n: (after if n.startswith("discriminator") else before)[n] for n in before}
    expected = twin.g_loss(between, block.g_latents[0, 0])
    assert last.g_loss == pytest.approx(expected, rel=1e-5)


def test_each_network_steps_at_its_own_rate_of_that_step():
    recipe = small("minimal", learning_rate=1e-2, g_learning_rate=1e-3, lr_milestones=(1,))
    with assembled(recipe) as engine:
        states = [engine.state()]
        for _ in engine.train(0, 2):
            states.append(engine.state())
    for name, rate in [("discriminator/hidden/kernel", 1e-2), ("generator/hidden/kernel", 1e-3)]:
        first, second = (np.abs(b[name] - a[name]).max() for a, b in itertools.pairwise(states))
        assert first == pytest.approx(rate, rel=0.01)
        assert 0.05 * rate < second < 0.2 * rate


@pytest.mark.slow
def test_xla_takes_large_batches():
    """From 13,755 on, TensorFlow's memory optimizer put what XLA refuses into the loop."""
    recipe = recipes.override(recipes.get("minimal"), batch_size=14_000)
    done, _ = assembly.trained(recipe, 1, "fused")
    assert np.isfinite(done).all()


# Blocks.


@pytest.fixture(scope="module")
def in_fives():
    """The compiled engine with blocks of five steps, its model and how that began."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches_module, "_MAX_STEPS", 5)
        with assembled(small("minimal"), "fused") as engine:
            yield engine, engine.state()


def run(in_fives, *spans):
    """From the beginning -> progress, and the state's bytes."""
    engine, state = in_fives
    engine.load(state)
    return progress(engine, *spans), frozen(engine.state())


@pytest.mark.parametrize("spans", [[(0, 20)], [(0, 7), (7, 20)], [(0, 1), (1, 20)]], ids=str)
def test_a_run_cut_anywhere_ends_in_the_same_bytes(in_fives, spans):
    assert run(in_fives, *spans) == run(in_fives, (0, 20))


def test_another_graph_ends_in_the_same_bytes(in_fives):
    done, state = trained(small("minimal"), "fused")
    assert run(in_fives, (0, STEPS)) == (done, frozen(state))


def test_variables_are_those_after_the_block_just_seen(in_fives):
    engine, state = in_fives
    engine.load(state)
    seen = []
    for block in engine.train(0, 12):
        now = engine.state()
        assert now["d_adam/updates"] == now["g_adam/updates"] == block[-1].step
        seen.append([p.step for p in block])
    assert seen == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12]]


def test_a_run_stopped_between_blocks_has_not_gone_further(in_fives):
    engine, state = in_fives
    engine.load(state)
    blocks = engine.train(0, 20)
    first = next(blocks)
    blocks.close()
    assert (first, frozen(engine.state())) == run(in_fives, (0, 5))


def test_no_steps_are_no_blocks(in_fives):
    engine, _ = in_fives
    assert list(engine.train(7, 7)) == []


@pytest.mark.parametrize(
    "slow, own, choice, wanted",
    [
        (False, False, "auto", "fused"),
        (True, False, "auto", "step"),
        (False, True, "auto", "step"),
        (True, True, "fused", "fused"),
        (False, False, "step", "step"),
    ],
)
def test_choice_of_the_engine(slow, own, choice, wanted):
    settings = RunOptions(engine=choice, gan_class=object if own else None)
    assert trainer._engine_choice(slow, settings) == wanted


@pytest.mark.parametrize("devices, slow", [([], True), (["GPU"], False)])
def test_xla_is_slow_for_convolutions_on_a_cpu_alone(monkeypatch, devices, slow):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: devices)
    for name, convolutional in [("upsampling_cnn", True), ("minimal", False)]:
        with tf.Graph().as_default():
            gan = recipes.build(name)
            gan.session.close()
        assert trainer._slow_under_xla(gan) == (slow and convolutional)


def samples_in(precision, recipe):
    """-> images of untrained networks."""
    check_precision(precision, recipe)
    with tf.Graph().as_default() as graph:
        tf.set_random_seed(1)
        gan = recipes.build_gan(recipe)
        gan.session.close()
        z = np.random.default_rng(1).normal(size=[4, recipe.nlatent])
        with ALONE.open_session(graph, session_config(precision)) as session:
            session.run(tf.global_variables_initializer())
            return session.run(gan.x_hat, {gan.z_placeholder: z})


@pytest.mark.slow
def test_bfloat16_rounds_the_convolutions_products():
    recipe = recipes.get("upsampling_cnn")
    try:
        rounded = samples_in("bfloat16", recipe)
    except UserError as refusal:
        pytest.skip(str(refusal))
    difference = np.abs(rounded - samples_in("float32", recipe))
    # A bfloat16 has 8 bits of precision.
    assert 1e-5 < difference.max() < 0.05
