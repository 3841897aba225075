"""The contract of `Gan`: article 003's names and values, whatever the caller did before."""

import contextlib
import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import twin

from models import layers, recipes
from models.gan import Gan
from models.objective import Objective
from training.draws import Draws
from training.engines import FusedEngine, StepEngine

NLATENT = 10
PLAIN = Objective()
NETS = ("generator", "discriminator")


def random_batch(ndims=784, nlatent=NLATENT, count=8, seed=0):
    """-> images [count, ndims] and latents [count, nlatent]."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(-1, 1, (count, nlatent)).astype(np.float32)
    return rng.random((count, ndims), np.float32), z


def update(model, net, x, z, rate=1e-3):
    """One update of the net; -> its loss before."""
    loss, optimizer = {
        "generator": (model.g_loss, model.g_optimizer),
        "discriminator": (model.d_loss, model.d_optimizer),
    }[net]
    feed = {model.x_placeholder: x, model.z_placeholder: z, model.learning_rate_placeholder: rate}
    return model.session.run([loss, optimizer], feed)[0]


def weights_of(net, state):
    """The names of the net's own variables: kernels and biases."""
    return {name for name in state if name.startswith(net) and name.endswith(("kernel", "bias"))}


def changed(before, after):
    """The names under which two states differ in at least one bit."""
    assert before.keys() == after.keys()
    return {name for name in before if before[name].tobytes() != after[name].tobytes()}


@contextlib.contextmanager
def fresh(cls=Gan, *args, **options):
    """A Gan in a graph of its own, the default one meanwhile."""
    with tf.Graph().as_default():
        model = cls(*args, **options)
        yield model
        model.session.close()


@pytest.fixture(scope="module")
def article():
    with fresh(nlatent=NLATENT, seed=7) as model:
        yield model, model.state()


@pytest.fixture
def model(article):
    """The article's Gan as it was initialised, its graph and session the default ones."""
    model, state = article
    model.load_state(state)
    with model.graph.as_default(), model.session.as_default():
        yield model


# Shapes, names and counts.


def test_placeholders_and_outputs(model):
    logits = model._discriminator(model.x_hat, reuse=True)
    for tensor, shape in [
        (model.x_placeholder, [None, 784]),
        (model.z_placeholder, [None, NLATENT]),
        (model.learning_rate_placeholder, []),
        (model.x_hat, [None, 784]),
        (logits, [None, 1]),
        (model.d_loss, []),
        (model.g_loss, []),
    ]:
        assert (tensor.dtype, tensor.shape.as_list()) == (tf.float32, shape)
    assert isinstance(model.session, tf.InteractiveSession)


def test_two_latents_and_784_pixels_by_default():
    with fresh() as model:
        assert model.x_placeholder.shape[1] == 784
        assert model.z_placeholder.shape[1] == 2


@pytest.mark.parametrize("net, count", [("generator", 51_664), ("discriminator", 402_433)])
def test_parameter_counts(model, net, count):
    variables = tf.trainable_variables(f"{net}/")
    assert sum(variable.shape.num_elements() for variable in variables) == count


def test_reuse_adds_no_variable_and_gives_the_same_values(model):
    before = tf.global_variables()
    x, z = random_batch()
    x_hat = model._generator(model.z_placeholder, reuse=True)
    logits = model._discriminator(model.x_placeholder, reuse=True)
    assert tf.global_variables() == before
    same, x_hat, logits = model.session.run(
        [model.x_hat, x_hat, logits], {model.x_placeholder: x, model.z_placeholder: z}
    )
    w = twin.doubles(model.state())
    assert x_hat.tobytes() == same.tobytes()
    np.testing.assert_allclose(x_hat, twin.generate(w, z), atol=1e-6)
    np.testing.assert_allclose(logits, twin.logits(w, PLAIN, x), atol=1e-5)


def test_weights_follow_from_the_seed():
    states = []
    for seed in (1, 1, 2, None):
        with fresh(ndims=4, seed=seed) as model:
            states.append(model.state())
    first, again, *others = states
    assert changed(first, again) == set()
    kernels = {name for name in first if name.endswith("kernel")}
    assert all(changed(first, other) == kernels for other in others)


# The losses and their gradients.


def test_losses_are_those_before_the_update(model):
    for net, loss in [("discriminator", twin.d_loss), ("generator", twin.g_loss)] * 2:
        x, z = random_batch()
        w = twin.doubles(model.state())
        assert update(model, net, x, z) == pytest.approx(loss(w, PLAIN, x, z), rel=1e-5)


@pytest.mark.parametrize("net, loss", [("discriminator", twin.d_loss), ("generator", twin.g_loss)])
def test_gradients_against_central_differences(model, net, loss):
    x, z = random_batch()
    w = twin.doubles(model.state())
    update(model, net, x, z)
    after = model.state()
    for name in weights_of(net, w):
        direction = np.random.default_rng(1).normal(size=w[name].shape)
        expected = twin.directional(lambda w: loss(w, PLAIN, x, z), w, name, direction)
        # Adam's first moment after its first step.
        gradient = after[f"{name}/{net[0]}_optimizer"] / (1 - PLAIN.beta1)
        assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_d_updates_are_adam_s(model):
    x, z = random_batch()
    w = twin.doubles(model.state())
    adam = twin.Adam(1e-3)
    for _ in range(3):
        update(model, "discriminator", x, z)
        real, fake = twin.d_gradients(w, x, 1), twin.d_gradients(w, twin.generate(w, z), 0)
        adam.step(w, {name: real[name] + fake[name] for name in real})
    state = model.state()
    for name in real:
        np.testing.assert_allclose(state[name], w[name], atol=2e-5)


# One update of each net.


def check_update(model, net):
    """One update moves all of its net's weights, and nothing of the other net's by a bit."""
    before = model.state()
    update(model, net, *random_batch(ndims=model.x_hat.shape[1]))
    moved = changed(before, model.state())
    assert weights_of(net, before) <= moved
    assert all(name.startswith((net, f"{net[0]}_optimizer")) for name in moved)


@pytest.mark.parametrize("net", NETS)
def test_an_update_moves_all_of_its_own_weights_and_no_others(model, net):
    check_update(model, net)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("rate", [0, 1e-5, 1e-2])
def test_the_rate_fed_is_the_size_of_the_first_step(model, net, rate):
    before = model.state()
    update(model, net, *random_batch(), rate)
    after = model.state()
    for name in weights_of(net, before):
        # float32 weights resolve steps only to about 1e-8.
        step = np.abs(after[name].astype(np.float64) - before[name]).max()
        assert step == pytest.approx(rate, rel=2e-3, abs=2e-8)


def test_article_s_loop_lets_each_net_win_where_the_other_stands_still(model):
    for net in NETS:
        x, z = random_batch()
        losses = [update(model, net, x, z) for _ in range(30)]
        assert losses[-1] < losses[0] / 2


# Samples.


@pytest.mark.parametrize("count", [0, 1, 5])
def test_samples(model, count):
    _, z = random_batch(count=count)
    samples = model.generate_samples(z)
    assert (samples.shape, samples.dtype) == ((count, 784), np.float32)
    assert ((samples >= 0) & (samples <= 1)).all()
    np.testing.assert_allclose(samples, twin.generate(twin.doubles(model.state()), z), atol=1e-6)


def test_judge_gives_d_s_logits_of_both_kinds(model):
    (x, _), (_, z) = random_batch(count=3), random_batch(count=5)
    w = twin.doubles(model.state())
    real, fake = model.judge(x, z)
    np.testing.assert_allclose(real, twin.logits(w, PLAIN, x), atol=1e-5)
    np.testing.assert_allclose(fake, twin.logits(w, PLAIN, twin.generate(w, z)), atol=1e-5)


@pytest.mark.parametrize("shape", [(), (NLATENT,), (3, NLATENT - 1), (2, 3, NLATENT)])
def test_latents_of_another_shape_are_refused(model, shape):
    with pytest.raises(ValueError) as error:
        model.generate_samples(np.zeros(shape))
    assert str(error.value) == f"latents have shape {shape}, wanted (n, {NLATENT})"


# The contract is checked while the graph is built.


class OutsideBothScopes(Gan):
    def _generator(self, z, reuse=False, training=None):
        with tf.variable_scope("elsewhere", reuse=reuse):
            gain = layers.variable("gain", [])
        return gain * super()._generator(z, reuse, training)


class TwoLogits(Gan):
    def _discriminator(self, x, reuse=False, training=None):
        return tf.tile(super()._discriminator(x, reuse, training), [1, 2])


class OnePixelLess(Gan):
    def _generator(self, z, reuse=False, training=None):
        return super()._generator(z, reuse, training)[:, 1:]


class OneImage(Gan):
    def _generator(self, z, reuse=False, training=None):
        return tf.reduce_mean(super()._generator(z, reuse, training), axis=0)


@pytest.mark.parametrize(
    "cls, message",
    [
        (OutsideBothScopes, r"'elsewhere/gain:0'.* not split .*generator .*discriminator"),
        (TwoLogits, r"logits has shape \(None, 2\), wanted \(None, 1\)"),
        (OnePixelLess, r"x_hat has shape \(None, 3\), wanted \(None, 4\)"),
        (OneImage, r"x_hat has shape \(4,\), wanted \(None, 4\)"),
    ],
)
def test_a_recipe_that_breaks_the_contract_is_refused(cls, message):
    with tf.Graph().as_default(), pytest.raises(ValueError, match=message):
        cls(ndims=4)


# State.


def test_state_goes_on_in_a_fresh_graph_to_the_bit():
    images, latents = random_batch(ndims=6)
    with fresh(Gan, 6, NLATENT, objective=Objective(ema_decay=0.9), seed=1) as model:
        for net in NETS * 3:
            update(model, net, images, latents)
        saved = model.state()
        for net in NETS:
            update(model, net, images, latents)
        expected = model.state()
    with fresh(Gan, 6, NLATENT, objective=Objective(ema_decay=0.9), seed=2) as model:
        model.load_state(saved)
        assert changed(saved, model.state()) == set()
        for net in NETS:
            update(model, net, images, latents)
        assert changed(expected, model.state()) == set()


def test_state_of_other_nets_is_refused_and_changes_nothing(model):
    state = model.state()
    name = "generator/hidden/kernel"
    less = {key: value for key, value in state.items() if key != name}
    for other in [less, {**state, "more": np.zeros(2)}, {**state, name: np.zeros([3, 64])}]:
        with pytest.raises(ValueError, match=r"state of other nets: (more|generator/hidden/ker)"):
            model.load_state(other)
    assert changed(state, model.state()) == set()


# Neighbours.


def test_two_gans_in_one_graph():
    images, latents = random_batch(ndims=6)
    with fresh(Gan, 6, NLATENT) as first:
        update(first, "discriminator", images, latents)
        trained = first.state()
        callers_own = tf.get_variable("callers_own", [], use_resource=True)
        second = Gan(6, NLATENT)
        assert changed(trained, first.state()) == set()
        assert callers_own.name not in {variable.name for variable in second.variables}
        assert {name.split("/")[0] for name in second.state()} == {
            "generator_1",
            "discriminator_1",
            "g_optimizer_1",
            "d_optimizer_1",
        }
        for model, other in [(first, second), (second, first)]:
            with pytest.raises(tf.errors.FailedPreconditionError):
                model.session.run(other.variables[0])
            for net in NETS:
                before = model.state()
                update(model, net, images, latents)
                scope = net if model is first else f"{net}_1"
                assert weights_of(scope + "/", before) <= changed(before, model.state())
        second.session.close()


def test_session_runs_where_it_is_told_to():
    server = tf.train.Server.create_local_server()
    opener = functools.partial(tf.Session, server.target)
    with fresh(Gan, 6, NLATENT, open_session=opener) as model:
        update(model, "generator", *random_batch(ndims=6))
        # The server keeps the variables, for every session that runs there.
        with tf.Session(server.target) as session:
            assert session.run(model.nets[0].updates) == 1


# The same, however TensorFlow was imported: each way in an interpreter of its own.

WAYS = {
    "v2 behaviour off": "import tensorflow.compat.v1 as tf; tf.disable_v2_behavior()",
    "eager execution off": "import tensorflow as tf; tf.compat.v1.disable_eager_execution()",
    "nothing": "",
}
RANDOM = np.random.default_rng(3).normal(0, 4, (2, 5, 1)).astype(np.float32)
LOGITS = {
    "zero": np.zeros((2, 5, 1), np.float32),
    "right": np.stack([np.full((5, 1), 50.0), np.full((5, 1), -50.0)]).astype(np.float32),
    "wrong": np.stack([np.full((5, 1), -50.0), np.full((5, 1), 50.0)]).astype(np.float32),
    "random": RANDOM,
}
# ln 4 and ln 2; e^-50 and 50; 100 and 50.
HAND_SUMS = {"zero": (2 * np.log(2), np.log(2)), "right": (2 * np.exp(-50), 50.0),
             "wrong": (100.0, np.exp(-50))}  # fmt: skip


def closed_forms(y, y_hat):
    """Means over the batch, as in the article; float64."""
    y, y_hat = np.float64(y), np.float64(y_hat)
    real, fake = twin.cross_entropy(1, y), twin.cross_entropy(0, y_hat)
    return (real + fake).mean(), twin.cross_entropy(1, y_hat).mean()


@pytest.mark.parametrize("case", HAND_SUMS)
def test_closed_forms_by_hand(case):
    assert closed_forms(*LOGITS[case]) == pytest.approx(HAND_SUMS[case], rel=1e-12, abs=1e-21)


def check_losses(model):
    """On constants, run by the model's session, the default one and another of the caller's."""
    for y, y_hat in LOGITS.values():
        d_loss = model._discriminator_loss(tf.constant(y), tf.constant(y_hat))
        g_loss = model._generator_loss(tf.constant(y_hat))
        assert d_loss.shape == g_loss.shape == ()
        with tf.Session() as session:
            others = session.run([d_loss, g_loss])
        evaluated = [d_loss.eval(), g_loss.eval()]
        for values in (model.session.run([d_loss, g_loss]), evaluated, others):
            np.testing.assert_allclose(values, closed_forms(y, y_hat), rtol=1e-6, atol=1e-20)


def check_fused_block():
    """A block of steps in one call trains as single steps do."""
    recipe = recipes.override(recipes.get("minimal"), batch_size=4)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 784), np.uint8)
    model = recipes.build_gan(recipe, seed=1)
    draws, initial, results = Draws(recipe, pixels, 1), model.state(), []
    for engine in (StepEngine(model, draws), FusedEngine(model, draws, jit=True)):
        model.load_state(initial)
        results.append([p for block in engine.blocks(0, 3) for p in block])
    np.testing.assert_allclose(*results, rtol=1e-4)


def check_everything(way):
    """What the interpreters run: fails by an AssertionError."""
    assert tf.resource_variables_enabled() == (way != "v2 behaviour off")
    check_losses(Gan(ndims=4))
    tf.reset_default_graph()
    model = Gan(6, NLATENT)
    check_losses(model)
    for net in NETS:
        check_update(model, net)
    if way == "v2 behaviour off":
        check_fused_block()


@pytest.fixture(scope="module", autouse=True)
def interpreters():
    """All at once and beside the tests above, since each takes seconds to import TensorFlow."""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)])}
    started = {
        way: subprocess.Popen(
            [sys.executable, "-c", f"{first}\nimport test_gan\ntest_gan.check_everything({way!r})"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for way, first in WAYS.items()
    }
    yield started
    for process in started.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("way", WAYS)
def test_however_tensorflow_was_imported(interpreters, way):
    output, _ = interpreters[way].communicate(timeout=300)
    assert interpreters[way].returncode == 0, output
