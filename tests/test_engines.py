"""The two engines train the same model, in whatever pieces a run is cut."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import twin

from errors import UserError
from models import recipes
from training import draws as drawing
from training import engines
from training.configuration import check_precision
from training.draws import Draws
from training.engines import FusedEngine, StepEngine, make_engine

SEED, STEPS = 3, 8
PIXELS = np.random.default_rng(0).integers(0, 256, (50, 784), np.uint8)
DENSE = [name for name, r in recipes.RECIPES.items() if not r.convolutional]
ENGINES = {
    "step": StepEngine,
    "fused": functools.partial(FusedEngine, jit=True),
    "fused without XLA": functools.partial(FusedEngine, jit=False),
}


def small_batches(name, **values):
    return recipes.override(recipes.get(name), batch_size=8, **values)


def built(recipe):
    """-> a model in the current default graph and its draws."""
    return recipes.build_gan(recipe, seed=SEED), Draws(recipe, PIXELS, SEED)


def progress(engine, *spans):
    return [p for span in spans for block in engine.blocks(*span) for p in block]


@functools.cache
def trained(recipe, choice):
    """STEPS steps in a fresh graph -> progress and state."""
    with tf.Graph().as_default():
        model, draws = built(recipe)
        done = progress(ENGINES[choice](model, draws), (0, STEPS))
        state = model.state()
        model.session.close()
    return done, state


def check_agreement(recipe, choice):
    """Losses to 1e-4; variables to a tenth of one step, kernels to a thousandth in the mean.

    Adam divides by the gradient's own size: where that is all rounding, so is the step.
    """
    (done, state), (step_done, step_state) = trained(recipe, choice), trained(recipe, "step")
    np.testing.assert_allclose(done, step_done, rtol=1e-4)
    assert state.keys() == step_state.keys()
    rate = min(recipe.rates(0))
    for name in state:
        difference = np.abs(state[name] - np.float64(step_state[name]))
        assert difference.max() < 0.1 * rate, name
        assert difference.mean() < 1e-3 * rate or not name.endswith("kernel"), name


# The same training.


@pytest.mark.parametrize("choice", ["fused", "fused without XLA"])
def test_the_engines_train_alike(choice):
    check_agreement(small_batches("minimal"), choice)


# A step of two updates each contains all that a step of one does.
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "minimal")) for n in DENSE]
)
def test_every_dense_recipe_trains_alike_with_two_updates_a_step(name):
    check_agreement(small_batches(name, d_iters=2, g_iters=2), "fused")


def test_rates_and_half_batches_reach_both_engines():
    recipe = small_batches("minimal", g_learning_rate=3e-4, decay=0.1, g_iters=2)
    recipe = dataclasses.replace(recipe, drops=(3, 5), half_batches=True)
    check_agreement(recipe, "fused without XLA")


def test_losses_are_those_of_the_last_step_before_its_updates():
    recipe = small_batches("minimal")
    with tf.Graph().as_default():
        model, draws = built(recipe)
        engine = StepEngine(model, draws)
        progress(engine, (0, 2))
        before = twin.doubles(model.state())
        (last,) = progress(engine, (2, 3))
        after = twin.doubles(model.state())
        model.session.close()
    block = draws.block(2, 3)
    x = block.images[0, 0] / 255
    assert last.step == 3
    expected = twin.d_loss(before, recipe, x, block.d_latents[0, 0])
    assert last.d_loss == pytest.approx(expected, rel=1e-5)
    between = {n: (after if n.startswith("discriminator") else before)[n] for n in before}
    expected = twin.g_loss(between, recipe, x, block.g_latents[0, 0])
    assert last.g_loss == pytest.approx(expected, rel=1e-5)


def test_each_net_steps_at_its_own_rate_of_that_step():
    recipe = small_batches("minimal", learning_rate=1e-2, g_learning_rate=1e-3)
    recipe = dataclasses.replace(recipe, drops=(1,))
    with tf.Graph().as_default():
        model, draws = built(recipe)
        states = [model.state()]
        for _ in StepEngine(model, draws).blocks(0, 2):
            states.append(model.state())
        model.session.close()
    for name, rate in [("discriminator/hidden/kernel", 1e-2), ("generator/hidden/kernel", 1e-3)]:
        first, second = (np.abs(b[name] - a[name]).max() for a, b in itertools.pairwise(states))
        assert first == pytest.approx(rate, rel=0.01)
        assert 0.05 * rate < second < 0.2 * rate


# Blocks.


@pytest.fixture(scope="module")
def in_fives():
    """The compiled engine with blocks of five steps, its model and how that began."""
    with tf.Graph().as_default(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_MAX_STEPS", 5)
        model, draws = built(small_batches("minimal"))
        yield FusedEngine(model, draws, jit=True), model, model.state()
        model.session.close()


def run(in_fives, *spans):
    """From the beginning -> progress, and the state's bytes."""
    engine, model, state = in_fives
    model.load_state(state)
    return progress(engine, *spans), frozen(model)


def frozen(model):
    return {name: array.tobytes() for name, array in model.state().items()}


@pytest.mark.parametrize("spans", [[(0, 20)], [(0, 7), (7, 20)], [(0, 1), (1, 20)]], ids=str)
def test_a_run_cut_anywhere_ends_in_the_same_bytes(in_fives, spans):
    assert run(in_fives, *spans) == run(in_fives, (0, 20))


def test_another_graph_ends_in_the_same_bytes(in_fives):
    done, state = trained(small_batches("minimal"), "fused")
    assert run(in_fives, (0, STEPS)) == (done, {n: array.tobytes() for n, array in state.items()})


def test_variables_are_those_after_the_block_just_seen(in_fives):
    engine, model, state = in_fives
    model.load_state(state)
    seen = []
    for block in engine.blocks(0, 12):
        updates = model.session.run([net.updates for net in model.nets])
        assert updates == [block[-1].step] * 2
        seen.append([p.step for p in block])
    assert seen == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12]]


def test_a_run_stopped_between_blocks_has_not_gone_further(in_fives):
    engine, model, state = in_fives
    model.load_state(state)
    blocks = engine.blocks(0, 20)
    first = next(blocks)
    blocks.close()
    assert (first, frozen(model)) == run(in_fives, (0, 5))


def test_no_steps_are_no_blocks(in_fives):
    engine, _, _ = in_fives
    assert list(engine.blocks(7, 7)) == []


@pytest.mark.parametrize(
    "convolutional, choice, name",
    [
        (False, "auto", "fused"),
        (False, "fused", "fused"),
        (False, "step", "step"),
        (True, "auto", "step"),
        (True, "fused", "fused without XLA"),
        (True, "step", "step"),
    ],
)
def test_choice_of_the_engine_on_a_cpu(monkeypatch, in_fives, convolutional, choice, name):
    engine, model, _ = in_fives
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert make_engine(choice, model, as_if(convolutional, engine._draws)).name == name


def test_convolutions_are_compiled_on_a_gpu(monkeypatch, in_fives):
    engine, model, _ = in_fives
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert make_engine("auto", model, as_if(True, engine._draws)).name == "fused"


def as_if(convolutional, draws):
    """Draws of the same recipe, whose nets are said to have convolutions or not."""
    recipe = dataclasses.replace(draws.recipe, convolutional=convolutional)
    return Draws(recipe, PIXELS, SEED)


def samples_in(precision, recipe):
    """-> images of untrained nets."""
    check_precision(precision, recipe)
    with tf.Graph().as_default():
        opener = engines.session_opener(precision)
        model = recipes.build_gan(recipe, seed=SEED, open_session=opener)
        images = model.generate_samples(np.random.default_rng(1).normal(size=[4, recipe.nlatent]))
        model.session.close()
    return images


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
