"""Each trick of an `Objective`, against NumPy, finite differences or its own absence."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import twin

from errors import UserError
from models import layers, recipes
from models.gan import Gan
from models.objective import Objective
from training.draws import Draws
from training.engines import FusedEngine, StepEngine

NDIMS, NLATENT, BATCH = 6, 3, 8
NETS = ("generator", "discriminator")


@functools.cache
def built(cls, objective):
    with tf.Graph().as_default():
        model = cls(NDIMS, NLATENT, objective=objective, seed=5)
        return model, model.state()


def small(cls=Gan, **tricks):
    """A Gan of six pixels in a graph of its own, as it was initialised."""
    model, state = built(cls, Objective(**tricks))
    model.load_state(state)
    return model


def random_batch(seed=0):
    rng = np.random.default_rng(seed)
    z = rng.uniform(-1, 1, (BATCH, NLATENT)).astype(np.float32)
    return rng.random((BATCH, NDIMS), np.float32), z


def run(model, tensors, x=None, z=None, rate=0.0):
    feed = {model.x_placeholder: x, model.z_placeholder: z, model.learning_rate_placeholder: rate}
    return model.session.run(
        tensors, {key: value for key, value in feed.items() if value is not None}
    )


def update(model, net, x, z, rate=1e-3):
    """One update of the net; -> its loss before."""
    d, g = (model.d_loss, model.d_optimizer), (model.g_loss, model.g_optimizer)
    return run(model, d if net == "discriminator" else g, x, z, rate)[0]


def weights(state, net=""):
    """Kernels and biases alone, of one net or of both."""
    ends = ("kernel", "bias")
    return {n: v for n, v in state.items() if n.startswith(net) and n.endswith(ends)}


def assert_close(one, other, atol=1e-6):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=atol, err_msg=name)


# Losses, penalties and what they do to the weights.

TRICKS = [
    {},
    {"label_smoothing": 0.1, "beta1": 0.5},
    {"relativistic": True},
    {"r1_gamma": 6.0, "r2_gamma": 3.0},
    {"relativistic": True, "r2_gamma": 2.0},
    {"minibatch_stddev": True},
    {"packing": 2, "r1_gamma": 1.0, "label_smoothing": 0.3},
]


@pytest.mark.parametrize("tricks", TRICKS, ids=str)
def test_reported_losses_are_the_closed_forms_without_penalties(tricks):
    model = small(**tricks)
    w, (x, z) = twin.doubles(model.state()), random_batch()
    d_loss, g_loss = run(model, [model.d_loss, model.g_loss], x, z)
    assert d_loss == pytest.approx(twin.d_loss(w, model.objective, x, z), rel=1e-5)
    assert g_loss == pytest.approx(twin.g_loss(w, model.objective, x, z), rel=1e-5)


@pytest.mark.parametrize("net, total", [(NETS[0], twin.g_loss), (NETS[1], twin.d_total)])
@pytest.mark.parametrize("tricks", TRICKS, ids=str)
def test_updates_descend_the_central_differences_with_penalties(tricks, net, total):
    model = small(**tricks)
    w, (x, z) = twin.doubles(model.state()), random_batch()
    update(model, net, x, z)
    after = model.state()
    for name in weights(w, net):
        direction = np.random.default_rng(1).normal(size=w[name].shape)
        expected = twin.directional(lambda w: total(w, model.objective, x, z), w, name, direction)
        # Adam's first moment after its first step.
        gradient = after[f"{name}/{net[0]}_optimizer"] / (1 - model.objective.beta1)
        assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_slopes_of_a_d_that_looks_at_the_whole_batch():
    model = small(minibatch_stddev=True)
    w, x = twin.doubles(model.state()), np.float64(random_batch()[0])
    nudges = 1e-6 * np.eye(x.size).reshape(-1, *x.shape)
    total = [[twin.logits(w, model.objective, x + s * n).sum() for n in nudges] for s in (1, -1)]
    slopes = np.subtract(*total) / 2e-6
    with model.graph.as_default():
        squared = model._squared_slope(tf.constant(x, tf.float32))
    assert run(model, squared) == pytest.approx((slopes**2).sum() / BATCH, rel=1e-4)


def test_label_smoothing_by_hand():
    y, y_hat = np.array([[0.3], [-2.0]]), np.array([[1.0], [0.5]])
    real = 0.9 * np.log1p(np.exp(-y)) + 0.1 * np.log1p(np.exp(y))
    model = small(label_smoothing=0.1, beta1=0.5)
    with model.graph.as_default():
        d_loss = model._discriminator_loss(tf.constant(y), tf.constant(y_hat))
        g_loss = model._generator_loss(tf.constant(y_hat))
    expected = (real + np.log1p(np.exp(y_hat))).mean(), np.log1p(np.exp(-y_hat)).mean()
    assert run(model, [d_loss, g_loss]) == pytest.approx(expected)


@pytest.mark.parametrize("separate, every", [(False, 3), (True, 2)])
def test_lazy_penalties_come_every_nth_time_at_n_times_the_weight(separate, every):
    lazy = small(r1_gamma=6.0 / every, r2_gamma=3.0 / every, penalty_every=every, separate=separate)
    strong = small(r1_gamma=6.0, r2_gamma=3.0, separate=separate)
    without = small(separate=separate)
    x, z = random_batch()
    for model in [strong, *[without] * (every - 1)] * 2:
        before = lazy.state()
        states = []
        for each in (lazy, model):
            each.load_state(before)
            update(each, "discriminator", x, z)
            states.append(each.state())
        assert_close(*states)


def test_separate_updates_are_two_adam_steps():
    model = small(separate=True)
    x, z = random_batch()
    w, adam = twin.doubles(model.state()), twin.Adam(1e-3)
    for _ in range(2):
        expected = twin.d_loss(w, model.objective, x, z)
        assert update(model, "discriminator", x, z) == pytest.approx(expected, rel=1e-5)
        adam.step(w, twin.d_gradients(w, x, 1))
        adam.step(w, twin.d_gradients(w, twin.generate(w, z), 0))
    assert_close(weights(model.state()), weights(w), atol=2e-5)


class Leaky(Gan):
    """Its biases feel no R1 penalty that reads them."""

    def _discriminator(self, x, reuse=False, training=None):
        with self._discriminator_scope(reuse, training):
            hidden = layers.leaky_relu(layers.dense(x, 8, name="hidden"), 0.2)
            return self._head(hidden, training)


WRITES = {"AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp", "ResourceApplyAdam"}


@pytest.mark.parametrize(
    "tricks",
    [
        {"r1_gamma": 1.0, "instance_noise": 0.1},
        {"r2_gamma": 1.0, "penalty_every": 2, "relativistic": True},
        {"r1_gamma": 1.0, "separate": True, "spectral_norm": True, "ema_decay": 0.9},
    ],
    ids=str,
)
def test_no_variable_is_read_while_it_may_be_written(tricks):
    model = small(Leaky, **tricks)
    for update in (model.d_optimizer, model.g_optimizer):
        before = ancestors(update)
        for users in by_variable(before).values():
            for write in (user for user in users if user.type in WRITES):
                unordered = [
                    user.name
                    for user in users
                    if user is not write and user not in before[write] and write not in before[user]
                ]
                assert not unordered, (write.name, unordered)


def ancestors(operation):
    """-> {each operation that it needs, itself included: the set of those that must run first}."""
    found, waiting = {}, [operation]
    while waiting:
        last = waiting[-1]
        needed = {tensor.op for tensor in last.inputs} | set(last.control_inputs)
        missing = [other for other in needed if other not in found]
        waiting.extend(missing)
        if not missing:
            found[waiting.pop()] = needed.union(*(found[other] for other in needed))
    return found


def by_variable(operations):
    """-> {variable's handle: the operations that take it}."""
    users = {}
    for operation in operations:
        for tensor in operation.inputs:
            if tensor.dtype == tf.resource:
                users.setdefault(tensor.name, set()).add(operation)
    return users


# The average of G's weights.


def test_samples_come_from_the_average_of_g_s_weights():
    model = small(ema_decay=0.5)
    x, z = random_batch()
    average = weights(twin.doubles(model.state()), "generator")
    for t in range(1, 13):
        update(model, "generator", x, z, rate=0.01)
        # The cap takes over at t = 8.
        decay = min(0.5, (1 + t) / (10 + t))
        raw = weights(twin.doubles(model.state()), "generator")
        average = {name: decay * average[name] + (1 - decay) * raw[name] for name in raw}
    state = model.state()
    kept = {name: state[f"{name}/ExponentialMovingAverage"] for name in average}
    assert_close(kept, average)
    np.testing.assert_allclose(model.generate_samples(z), twin.generate(average, z), atol=1e-5)
    x_hat = run(model, model.x_hat, z=z)
    np.testing.assert_allclose(x_hat, twin.generate(raw, z), atol=1e-5)
    np.testing.assert_array_equal(x_hat, model.generate_samples(z, averaged=False))
    assert np.abs(x_hat - model.generate_samples(z)).max() > 1e-3


def test_no_average_without_a_decay():
    model = small()
    assert model.x_average is model.x_hat
    assert not any("Average" in name for name in model.state())


# What D sees.


def test_minibatch_stddev_is_one_more_feature_for_d():
    shape = small(minibatch_stddev=True).state()["discriminator/logit/kernel"].shape
    assert shape == (512 + 1, 1)


def test_packed_images_are_judged_together():
    model = small(packing=2, r1_gamma=1.0, label_smoothing=0.3)
    assert model.state()["discriminator/hidden/kernel"].shape == (2 * NDIMS, 512)
    x, _ = random_batch()
    with model.graph.as_default():
        logits = model._logits(tf.constant(x), None)
        pairs = model._discriminator(tf.constant(np.hstack([x[0::2], x[1::2]])), reuse=True)
    logits, pairs = run(model, [logits, pairs])
    assert logits.shape == (BATCH // 2, 1)
    np.testing.assert_array_equal(logits, pairs)


@pytest.mark.parametrize("packing", [1, 2])
def test_windows_come_before_the_first_dense_layer(packing):
    objective = Objective(windows=5, packing=packing, minibatch_stddev=True)
    with tf.Graph().as_default():
        model = Gan(784, NLATENT, objective=objective, seed=5)
        pictures = tf.transpose(
            tf.reshape(model.x_placeholder, [-1, packing, 28, 28]), [0, 2, 3, 1]
        )
        with tf.variable_scope("discriminator", reuse=True):
            features = layers.window_dense(pictures, 5, name="windows")
            features = layers.leaky_relu(features, 0.2)
            features = layers.neighbours_dense(features, 3, 10, name="neighbours")
        w, x = model.state(), np.random.default_rng(0).random((4, 784), np.float32)
        features = run(model, features, x).reshape(4 // packing, -1)
        logits = model.judge(x, np.zeros([packing, NLATENT]))[0]
        model.session.close()
    assert w["discriminator/windows/kernel"].shape == (64 * packing, 5)
    seen = np.maximum(features, 0.2 * features)
    plain = dataclasses.replace(objective, packing=1)
    np.testing.assert_allclose(logits, twin.logits(twin.doubles(w), plain, seen), atol=1e-4)


@pytest.mark.parametrize("name", ["windows", "g_windows"])
def test_windows_and_convolutions_are_refused_together(name):
    with pytest.raises(UserError, match=f"--{name}=4: goes with the dense recipes"):
        recipes.override(recipes.get("dcgan"), **{name: 4})


def test_generators_windows_come_after_the_last_dense_layer():
    with tf.Graph().as_default():
        model = Gan(784, NLATENT, objective=Objective(g_windows=3), seed=5)
        w, z = model.state(), np.random.default_rng(0).normal(size=(4, NLATENT))
        samples = model.generate_samples(z)
        model.session.close()
    w = {k: v.astype(np.float64) for k, v in w.items()}
    hidden = np.maximum(z @ w["generator/hidden/kernel"] + w["generator/hidden/bias"], 0)
    cells = hidden @ w["generator/windows/kernel"] + w["generator/windows/bias"]
    cells = np.maximum(cells, 0.2 * cells).reshape(4, 7, 7, 3)
    with tf.Graph().as_default(), tf.Session() as session:
        pixels = layers.window_dense_transpose(tf.constant(cells, tf.float32), name="pixels")
        for variable, part in zip(tf.global_variables(), ("kernel", "bias"), strict=True):
            variable.load(w[f"generator/pixels/{part}"], session)
        logits = session.run(pixels).reshape(4, -1)
    np.testing.assert_allclose(samples, 1 / (1 + np.exp(-logits)), atol=1e-5)


def unit(vector):
    return vector / np.linalg.norm(vector)


def normalised(w):
    """Weights with each of D's kernels divided by its largest singular value."""
    kernels = {name: w[name] for name in weights(w, "discriminator") if name.endswith("kernel")}
    return {**w, **{name: k / np.linalg.svd(k)[1][0] for name, k in kernels.items()}}


def test_spectral_norm_makes_the_largest_singular_values_one():
    model = small(spectral_norm=True)
    x, z = random_batch()
    # The kernels wait while the power iteration settles, then both go on together.
    for rate, tolerance in [(0, 1e-4), (1e-3, 3e-2)]:
        for _ in range(100):
            update(model, "discriminator", x, z, rate)
        d_loss = run(model, model.d_loss, x, z)
        w = normalised(twin.doubles(model.state()))
        assert d_loss == pytest.approx(twin.d_loss(w, model.objective, x, z), rel=tolerance)


def test_spectral_norm_takes_one_power_iteration_at_each_update_of_d_alone():
    model = small(spectral_norm=True)
    x, z = random_batch()
    names = {name for name in model.state() if name.endswith("_u")}
    assert names == {"discriminator/hidden/kernel_u", "discriminator/logit/kernel_u"}
    assert not names & {v.op.name for v in model.nets[1].trainable_variables}
    before = twin.doubles(model.state())
    update(model, "generator", x, z)
    model.generate_samples(z)
    assert all((model.state()[name] == before[name]).all() for name in names)
    update(model, "discriminator", x, z)
    for name in names:
        kernel = before[name.removesuffix("_u")]
        u = unit(before[name] @ kernel.T @ kernel)
        np.testing.assert_allclose(model.state()[name], u, atol=1e-5)


def test_spectral_norm_s_singular_vectors_are_constants_to_the_gradient():
    model = small(spectral_norm=True)
    state = model.state()
    # Singular values well apart: near equal ones, every vector is a singular vector.
    state["discriminator/hidden/kernel"] *= np.linspace(1, 4, NDIMS, dtype=np.float32)[:, None]
    model.load_state(state)
    w, (x, z) = twin.doubles(state), random_batch()
    sides = {}
    for name in weights(w, "discriminator"):
        if name.endswith("kernel"):
            v = unit(w[name] @ w[f"{name}_u"].T)
            sides[name] = v, unit(v.T @ w[name])

    def loss(w):
        kernels = {name: w[name] / (v.T @ w[name] @ u.T) for name, (v, u) in sides.items()}
        return twin.d_loss({**w, **kernels}, model.objective, x, z)

    update(model, "discriminator", x, z)
    after = model.state()
    for name in sides:
        direction = np.random.default_rng(1).normal(size=w[name].shape)
        gradient = after[f"{name}/d_optimizer"] / (1 - model.objective.beta1)
        expected = twin.directional(loss, w, name, direction)
        assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-3, abs=1e-5)


class Sum(Gan):
    """D adds pixels, so that the noise on them shows in its logits."""

    def _discriminator(self, x, reuse=False, training=None):
        with self._discriminator_scope(reuse, training):
            return layers.dense(x, 1, name="sum", initializer=tf.ones_initializer())


def test_instance_noise_is_normal_and_only_there_in_training():
    model = small(Sum, instance_noise=0.3)
    with model.graph.as_default():
        images = tf.fill([20_000, NDIMS], 0.5)
        training = model.nets[1].training_pass()
        noisy = [model._logits(images, training) for _ in range(2)]
        still = model._discriminator(images, reuse=True)
    noisy, still = run(model, [noisy, still])
    assert (still == 0.5 * NDIMS).all()
    noise = np.hstack(noisy - still) / (0.3 * NDIMS**0.5)
    assert noise.mean() == pytest.approx(0, abs=5 / noise.size**0.5)
    assert noise.std() == pytest.approx(1, abs=0.03)
    assert np.quantile(noise, 0.975) == pytest.approx(1.96, abs=0.07)
    assert np.corrcoef(noise.T)[0, 1] == pytest.approx(0, abs=5 / len(noise) ** 0.5)


@pytest.mark.parametrize("net", NETS)
def test_instance_noise_follows_from_the_number_of_updates(net):
    model = small(instance_noise=0.3)
    x, z = random_batch()
    losses = [update(model, net, x, z, rate) for rate in (0, 0)]
    model.load_state(built(Gan, model.objective)[1])
    assert update(model, net, x, z, rate=0) == losses[0] != losses[1]


# The generator of random numbers behind noise and dropout.


def in_graph(function, *arguments):
    """Runs a function of tensors outside XLA and inside."""
    with tf.Graph().as_default(), tf.Session() as session:
        compiled = tf.function(function, jit_compile=True, autograph=False)
        tensors = [tf.constant(argument) for argument in arguments]
        return session.run([function(*tensors), compiled(*tensors)])


def test_random_numbers_are_the_same_inside_xla_and_outside():
    def both(seed):
        return layers.random_uniform([999, 7], seed), layers.random_normal([999, 7], seed)

    (uniform, normal), (compiled_uniform, compiled_normal) = in_graph(both, [3, 5])
    np.testing.assert_array_equal(uniform, compiled_uniform)
    np.testing.assert_allclose(normal, compiled_normal, atol=1e-5)


@functools.cache
def streams():
    """Draws of neighbouring seeds: [seeds, 100,000], uniform and normal."""
    seeds = np.array([[0, 0], [0, 1], [1, 0], [0x1C88647, 0], [-(2**31), -1], [2**31 - 1, 7]])
    with tf.Graph().as_default(), tf.Session() as session:
        draws = [
            (layers.random_uniform([100_000], seed), layers.random_normal([100_000], seed))
            for seed in tf.unstack(tf.constant(seeds, tf.int32))
        ]
        uniform, normal = zip(*session.run(draws), strict=True)
    return np.float64(uniform), np.float64(normal)


def test_uniform_draws():
    uniform, _ = streams()
    assert ((uniform > 0) & (uniform < 1)).all()
    for u in uniform:
        # Kolmogorov's statistic exceeds 1.95 once in a thousand times.
        steps = np.arange(len(u)) / len(u)
        assert np.abs(np.sort(u) - steps).max() * len(u) ** 0.5 < 1.95
        assert u.mean() == pytest.approx(1 / 2, abs=5 / (12 * len(u)) ** 0.5)
        assert u.var() == pytest.approx(1 / 12, rel=0.02)


def test_normal_draws():
    _, normal = streams()
    for x in normal:
        assert x.mean() == pytest.approx(0, abs=5 / len(x) ** 0.5)
        assert x.var() == pytest.approx(1, abs=0.03)
        assert (x**4).mean() == pytest.approx(3, abs=0.2)
        assert np.isfinite(x).all()


def test_streams_are_independent_of_each_other_and_of_themselves_later():
    uniform, _ = streams()
    shifted = [u[k : 90_000 + k] for u in uniform for k in (0, 1, 2, 64, 512)]
    correlations = np.corrcoef(shifted) - np.eye(len(shifted))
    assert np.abs(correlations).max() < 5.5 / 90_000**0.5


# All together.

TOGETHER = {
    "label_smoothing": 0.0,
    "relativistic": True,
    "r1_gamma": 0.3,
    "r2_gamma": 0.1,
    "penalty_every": 2,
    "ema_decay": 0.99,
    "minibatch_stddev": True,
    "windows": 3,
    "g_windows": 2,
    "packing": 2,
    "spectral_norm": True,
    "instance_noise": 0.05,
}
DENSE = [name for name, r in recipes.RECIPES.items() if not r.convolutional]


def trained_together(name, *engines):
    """Three steps by each engine from the same weights -> their progress."""
    recipe = recipes.override(recipes.get(name), batch_size=4, **TOGETHER, separate=False)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 784), np.uint8)
    with tf.Graph().as_default():
        model = recipes.build_gan(recipe, seed=1)
        draws, initial, results = Draws(recipe, pixels, 1), model.state(), []
        for engine in engines:
            model.load_state(initial)
            results.append([p for block in engine(model, draws).blocks(0, 3) for p in block])
        assert np.isfinite(model.generate_samples(draws.block(0, 1).g_latents[0, 0])).all()
        model.session.close()
    return results


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DENSE if name != "minimal"])
def test_all_tricks_together_train_every_dense_recipe(name):
    (progress,) = trained_together(name, StepEngine)
    assert np.isfinite(progress).all()


@pytest.mark.slow
def test_all_tricks_together_train_alike_in_both_engines():
    fused = functools.partial(FusedEngine, jit=False)
    np.testing.assert_allclose(*trained_together("minimal", StepEngine, fused), rtol=1e-4)


@pytest.mark.parametrize(
    "name, value, wanted",
    [
        ("beta1", 1.0, "0 to 0.9999"),
        ("beta2", -0.1, "0 to 0.999999"),
        ("label_smoothing", 0.6, "0 to 0.5"),
        ("r1_gamma", float("nan"), "0 to 1000000.0"),
        ("r2_gamma", float("inf"), "0 to 1000000.0"),
        ("penalty_every", 0, "1 to 1000"),
        ("ema_decay", 1.0, "0 to 0.999999"),
        ("packing", 0, "1 to 64"),
        ("instance_noise", -0.1, "0 to 10"),
        ("learning_rate", 0, "above 0 to 1"),
        ("g_learning_rate", 2, "above 0 to 1"),
        ("batch_size", 0, "1 to 65536"),
        ("nlatent", 4097, "1 to 4096"),
        ("num_steps", 0, "1 to 1000000000"),
        ("d_iters", 0, "1 to 100"),
        ("g_iters", 101, "1 to 100"),
        ("digit", 10, "0 to 9"),
        ("decay", -1, "0 to 1"),
    ],
)
def test_numbers_out_of_range_are_refused(name, value, wanted):
    with pytest.raises(UserError) as error:
        recipes.override(recipes.get("minimal"), **{name: value})
    assert str(error.value) == f"--{name}={value}: wanted {wanted}"


@pytest.mark.parametrize(
    "values, message",
    [
        ({"prior": "gauss"}, "prior.*'gauss', wanted one of uniform, uniform01, normal"),
        ({"momentum": 1}, "momentum: no such number in a recipe, choose from beta1, beta2"),
        ({"packing": 3}, "--batch_size=16: D judges 3 images together, wanted a batch that"),
        ({"relativistic": True, "separate": True}, "--relativistic=True: .* --separate=False$"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_in_one_line(values, message):
    with pytest.raises(UserError, match=message) as error:
        recipes.override(recipes.get("minimal"), **values)
    assert "\n" not in str(error.value)
