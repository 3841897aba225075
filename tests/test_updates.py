"""One update of each network: against NumPy, finite differences or its own absence."""

import functools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import twin
from assembly import assembled, feed, trained

from models import layers, randomness, recipes
from models.gan import Gan
from support.errors import UserError

NLATENT, BATCH = 3, 8
NETWORKS = ("generator", "discriminator")


def small(**values):
    """The minimal recipe with a few latents."""
    values = {"nlatent": NLATENT, "batch_size": BATCH, **values}
    return recipes.override(recipes.get("minimal"), **values)


def random_batch(seed=0):
    rng = np.random.default_rng(seed)
    z = rng.uniform(-1, 1, (BATCH, NLATENT)).astype(np.float32)
    return rng.random((BATCH, 784), np.float32), z


def update(engine, network, x, z, rate=1e-3):
    """One update of the network; -> its loss before."""
    gan = engine.gan
    ops = {
        "discriminator": [gan.d_loss, gan.d_optimizer],
        "generator": [gan.g_loss, gan.g_optimizer],
    }
    return engine.session.run(ops[network], feed(engine, x, z, rate))[0]


def weights(state, network=""):
    """Kernels and biases alone, of one network or of both."""
    ends = ("kernel", "bias")
    return {n: v for n, v in state.items() if n.startswith(network) and n.endswith(ends)}


def assert_close(one, other, atol=1e-6):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=atol, err_msg=name)


# Losses, the penalty and what they do to the weights.

TRICKS = [{}, {"label_smoothing": 0.1, "beta1": 0.5}, {"r1_gamma": 6.0}]


@pytest.mark.parametrize("tricks", TRICKS, ids=str)
def test_updates_descend_the_closed_forms_by_central_differences(tricks):
    recipe, (x, z) = small(**tricks), random_batch()
    totals = {
        "discriminator": lambda w: twin.d_total(w, recipe, x, z),
        "generator": lambda w: twin.g_loss(w, z),
    }
    with assembled(recipe) as engine:
        start = engine.state()
        w = twin.doubles(start)
        for network, total in totals.items():
            engine.load(start)
            loss = update(engine, network, x, z)
            # The loss reported is that before the update and without the penalty.
            plain = twin.d_loss(w, recipe, x, z) if network[0] == "d" else total(w)
            assert loss == pytest.approx(plain, rel=1e-5)
            after = engine.state()
            for name in weights(w, network):
                direction = np.random.default_rng(1).normal(size=w[name].shape)
                expected = twin.directional(total, w, name, direction)
                # Adam's first moment after its first step.
                gradient = after[f"{name}/{network[0]}_adam"] / (1 - recipe.beta1)
                assert (gradient * direction).sum() == pytest.approx(expected, rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("separate, every", [(False, 3), (True, 2)])
def test_lazy_penalties_come_every_nth_time_at_n_times_the_weight(separate, every):
    """What a lazy update does is what one with the whole penalty does, or one without any."""
    x, z = random_batch()

    def after(r1_gamma, penalty_every, updates):
        recipe = small(r1_gamma=r1_gamma, penalty_every=penalty_every, separate_updates=separate)
        with assembled(recipe) as engine:
            for before in updates:
                engine.load({**engine.state(), **before})
                update(engine, "discriminator", x, z)
            return engine.state()

    first = after(6.0 / every, every, [{}])
    assert_close(first, after(6.0, 1, [{}]))
    names = [name for name in first if name.startswith("discriminator") or "d_adam" in name]
    kept = {name: first[name] for name in names}
    assert_close(after(6.0 / every, every, [{}, {}]), after(0.0, 1, [kept]))


def test_separate_updates_are_two_adam_steps():
    recipe, (x, z) = small(separate_updates=True), random_batch()
    with assembled(recipe) as engine:
        w, adam = twin.doubles(engine.state()), twin.Adam(1e-3)
        for _ in range(2):
            expected = twin.d_loss(w, recipe, x, z)
            assert update(engine, "discriminator", x, z) == pytest.approx(expected, rel=1e-5)
            adam.step(w, twin.d_gradients(w, x, 1))
            adam.step(w, twin.d_gradients(w, twin.generate(w, z), 0))
        assert_close(weights(engine.state()), weights(w), atol=2e-5)


class Hinge(Gan):
    """Lim & Ye 2017."""

    def _discriminator_loss(self, y, y_hat):
        return tf.reduce_mean(tf.nn.relu(1 - y)) + tf.reduce_mean(tf.nn.relu(1 + y_hat))


@pytest.mark.parametrize("separate", [False, True])
def test_a_loss_of_ones_own_is_the_one_that_trains(separate):
    """Near 0 the hinge's gradient is -1 at each real logit and 1 at each generated one."""
    recipe = small(separate_updates=separate)
    with assembled(recipe, "fused without XLA", gan_class=Hinge) as engine:
        w, adam = twin.doubles(engine.state()), twin.Adam(1e-3)
        block = engine._batches.block(0, 1)
        for _ in engine.train(0, 1):
            pass
        after = engine.state()
    x, z = block.images[0, 0] / 255, block.d_latents[0, 0]
    gradients = [hinge_gradients(w, x, -1), hinge_gradients(w, twin.generate(w, z), 1)]
    if not separate:
        adam.step(w, {name: gradients[0][name] + gradients[1][name] for name in gradients[0]})
    else:
        adam.step(w, gradients[0])
        adam.step(w, hinge_gradients(w, twin.generate(w, z), 1))
    assert_close(weights(after, "discriminator"), weights(w, "discriminator"), atol=2e-5)


def hinge_gradients(w, x, sign):
    """Of mean(relu(1 + sign D(x))), by hand."""
    before = x @ w["discriminator/hidden/kernel"] + w["discriminator/hidden/bias"]
    hidden = np.maximum(before, 0)
    inside = 1 + sign * twin.logits(w, x) > 0
    d_logits = sign * inside / len(x)
    d_hidden = (d_logits @ w["discriminator/logit/kernel"].T) * (before > 0)
    return {
        "discriminator/hidden/kernel": x.T @ d_hidden,
        "discriminator/hidden/bias": d_hidden.sum(axis=0),
        "discriminator/logit/kernel": hidden.T @ d_logits,
        "discriminator/logit/bias": d_logits.sum(axis=0),
    }


def test_label_smoothing_does_not_replace_a_loss_of_ones_own():
    with pytest.raises(UserError, match="would replace the _discriminator_loss of Hinge"):
        trained(small(label_smoothing=0.1), 1, "fused", gan_class=Hinge)


class Normalised(Gan):
    """D's hidden units have mean 0 over the batch."""

    def _discriminator(self, x, reuse=False):
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            hidden = layers.dense(x, 8, name="hidden")
            hidden -= tf.reduce_mean(hidden, axis=0)
            return layers.dense(tf.nn.relu(hidden), 1, name="logit")


@pytest.mark.parametrize(
    "gan_class, recipe, one_pass",
    [
        (Normalised, small(), False),
        (Gan, small(), True),
        (None, recipes.get("stable_cnn"), True),
        (None, recipes.get("upsampling_cnn"), False),
        (None, recipes.get("dcgan"), True),
    ],
)
def test_real_and_generated_images_pass_together_only_where_that_changes_nothing(
    gan_class, recipe, one_pass
):
    from training.updates import Updates

    with tf.Graph().as_default():
        gan = recipes.build_gan(recipe, gan_class)
        assert Updates(gan, recipe, seed=0)._one_pass == one_pass
        gan.session.close()


WRITES = {"AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp", "ResourceApplyAdam"}


class Leaky(Gan):
    """Its biases feel no R1 penalty that reads them."""

    def _discriminator(self, x, reuse=False):
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            hidden = layers.leaky_relu(layers.dense(x, 8, name="hidden"), 0.2)
            return layers.dense(hidden, 1, name="logit")


@pytest.mark.parametrize(
    "tricks",
    [
        {"r1_gamma": 1.0},
        {"r1_gamma": 1.0, "penalty_every": 2},
        {"r1_gamma": 1.0, "separate_updates": True, "ema_decay": 0.9},
    ],
    ids=str,
)
def test_no_variable_is_read_while_it_may_be_written(tricks):
    from training.updates import Updates

    recipe = small(**tricks)
    with tf.Graph().as_default():
        gan = recipes.build_gan(recipe, Leaky)
        Updates(gan, recipe, seed=0).install()
        gan.session.close()
    for update in (gan.d_optimizer, gan.g_optimizer):
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
    x, z = random_batch()
    with assembled(small(ema_decay=0.5)) as engine:
        average = weights(twin.doubles(engine.state()), "generator")
        for t in range(1, 13):
            update(engine, "generator", x, z, rate=0.01)
            # The cap takes over at t = 8.
            decay = min(0.5, (1 + t) / (10 + t))
            raw = weights(twin.doubles(engine.state()), "generator")
            average = {name: decay * average[name] + (1 - decay) * raw[name] for name in raw}
        state = engine.state()
        kept = {name: state[f"{name}/ExponentialMovingAverage"] for name in average}
        assert_close(kept, average)
        np.testing.assert_allclose(generate(engine, z), twin.generate(average, z), atol=1e-5)
        # And afterwards G has its own weights again.
        assert all(np.array_equal(state[n], value) for n, value in engine.state().items())
        x_hat = engine.session.run(engine.gan.x_hat, feed(engine, z=z))
        np.testing.assert_allclose(x_hat, twin.generate(raw, z), atol=1e-5)
        assert np.abs(x_hat - generate(engine, z)).max() > 1e-3


def test_no_average_without_a_decay():
    with assembled(small()) as engine:
        assert not any("Average" in name for name in engine.state())


# State.


def test_a_state_of_other_networks_is_refused_and_changes_nothing():
    with assembled(small()) as engine:
        state = engine.state()
        name = "generator/hidden/kernel"
        less = {key: value for key, value in state.items() if key != name}
        for other, words in [
            (less, r"has generator/hidden/kernel nothing, your class has \(3, 64\)"),
            ({**state, "more": np.zeros(2)}, r"has more \(2,\), your class has nothing"),
            ({**state, name: np.zeros([5, 64])}, r"kernel \(5, 64\), your class has \(3, 64\)"),
        ]:
            with pytest.raises(UserError, match=words):
                engine.load(other)
        assert all(np.array_equal(state[n], value) for n, value in engine.state().items())


def test_weights_follow_from_the_seed():
    states = []
    for seed in (1, 1, 2):
        with assembled(small(), seed=seed) as engine:
            states.append(weights(engine.state()))
    first, again, other = states
    for name in first:
        assert np.array_equal(first[name], again[name])
        assert np.array_equal(first[name], other[name]) == name.endswith("bias")


# The random bits behind dropout.


@functools.cache
def streams():
    """Uniform numbers from the random bits of neighbouring seeds: [seeds, 100,000]."""
    seeds = np.array([[0, 0], [0, 1], [1, 0], [0x1C88647, 0], [-(2**31), -1], [2**31 - 1, 7]])
    with tf.Graph().as_default(), tf.Session() as session:
        tensors = tf.unstack(tf.constant(seeds, tf.int32))
        bits = session.run([randomness.random_bits(100_000, seed) for seed in tensors])
    return (np.float64(bits) + 0.5) / 2**32


def test_random_bits_are_the_same_inside_xla_and_outside():
    with tf.Graph().as_default(), tf.Session() as session:

        def draw(seed):
            return randomness.random_bits(999, seed)

        compiled = tf.function(draw, jit_compile=True, autograph=False)
        seed = tf.constant([3, 5])
        np.testing.assert_array_equal(*session.run([draw(seed), compiled(seed)]))


def test_random_bits_are_uniform():
    for u in streams():
        # Kolmogorov's statistic exceeds 1.95 once in a thousand times.
        steps = np.arange(len(u)) / len(u)
        assert np.abs(np.sort(u) - steps).max() * len(u) ** 0.5 < 1.95
        assert u.mean() == pytest.approx(1 / 2, abs=5 / (12 * len(u)) ** 0.5)
        assert u.var() == pytest.approx(1 / 12, rel=0.02)


def test_streams_are_independent_of_each_other_and_of_themselves_later():
    shifted = [u[k : 90_000 + k] for u in streams() for k in (0, 1, 2, 64, 512)]
    correlations = np.corrcoef(shifted) - np.eye(len(shifted))
    assert np.abs(correlations).max() < 5.5 / 90_000**0.5


# What is refused.


@pytest.mark.parametrize(
    "name, value, wanted",
    [
        ("beta1", 1.0, "0 to 0.9999"),
        ("beta2", -0.1, "0 to 0.999999"),
        ("label_smoothing", 0.6, "0 to 0.5"),
        ("r1_gamma", float("nan"), "0 to 1000000"),
        ("penalty_every", 0, "1 to 1000"),
        ("ema_decay", 1.0, "0 to 0.999999"),
        ("learning_rate", 0, "above 0 to 1"),
        ("g_learning_rate", 2, "above 0 to 1"),
        ("batch_size", 0, "1 to 65536"),
        ("nlatent", 4097, "1 to 4096"),
        ("num_steps", 0, "1 to 1000000000"),
        ("d_iters", 0, "1 to 100"),
        ("g_iters", 101, "1 to 100"),
        ("digit", 10, "0 to 9"),
        ("lr_decay", -1, "0 to 1"),
    ],
)
def test_numbers_out_of_range_are_refused(name, value, wanted):
    with pytest.raises(UserError) as error:
        recipes.override(recipes.get("minimal"), **{name: value})
    assert str(error.value) == f"--{name}={value}: wanted {wanted}"


@pytest.mark.parametrize(
    "values, message",
    [
        ({"prior": "gauss"}, "prior must be one of uniform, .*, got 'gauss'"),
        ({"momentum": 1}, "momentum: no such hyper-parameter, choose from nlatent, prior"),
        ({"conditional": True, "digit": 3}, "--digit=3: --conditional learns every label"),
        ({"conditioning": "guess"}, "--conditioning=guess: wanted projection or concat"),
        ({"half_batches": True, "batch_size": 1}, "--batch_size=1: wanted at least 2"),
        ({"pretraining": 63}, "--pretraining=63: wanted 0 or at least 64, one batch"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_in_one_line(values, message):
    with pytest.raises(UserError, match=message) as error:
        recipes.override(recipes.get("minimal"), **values)
    assert "\n" not in str(error.value)
