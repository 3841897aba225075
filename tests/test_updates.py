"""One update of each network, compared with NumPy and finite differences."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import twin
from assembly import assembled, changed, generate, update

from models import layers, randomness, recipes
from models.gan import Gan
from models.inference import Inference
from models.losses import LOSSES
from support.errors import UserError
from training.updates import Updates

BATCH, NLATENT = 8, 3
RNG = np.random.default_rng(0)
X = RNG.random((BATCH, 784), np.float32)
Z = RNG.uniform(-1, 1, (BATCH, NLATENT)).astype(np.float32)


def small(**values):
    values = {"nlatent": NLATENT, "batch_size": BATCH, **values}
    return recipes.override(recipes.get("minimal"), **values)


def weights(state, network=""):
    """Returns only kernels and biases, of one network or of both."""
    ends = ("kernel", "bias")
    return {n: v for n, v in state.items() if n.startswith(network) and n.endswith(ends)}


def assert_close(one, other, atol=1e-6):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=atol, err_msg=name)


# Losses, penalties and Adam.


class Hinge(Gan):
    """Lim & Ye 2017."""

    def _discriminator_loss(self, y, y_hat):
        return tf.reduce_mean(tf.nn.relu(1 - y)) + tf.reduce_mean(tf.nn.relu(1 + y_hat))

    def _generator_loss(self, y_hat):
        return -tf.reduce_mean(y_hat)


@pytest.mark.parametrize(
    ("gan_class", "additions"),
    [
        *((Gan, {"loss": name}) for name in LOSSES),
        (Gan, {"label_smoothing": 0.1, "beta1": 0.5, "beta2": 0.99}),
        (Gan, {"r1_gamma": 6.0, "r2_gamma": 2.0}),
        (Gan, {"gradient_penalty": 10.0}),
        (Hinge, {}),
    ],
    ids=str,
)
def test_gradients_of_updates_are_central_differences_of_the_formulas(gan_class, additions):
    recipe = small(**additions)
    totals = {"discriminator": twin.d_total, "generator": twin.g_loss}
    with assembled(recipe, "our updates", gan_class=gan_class) as engine:
        start, x = engine.state(), X
        if recipe.gradient_penalty:  # all points between G's images and the real ones are the same
            start.update({n: np.zeros_like(start[n]) for n in weights(start, "generator/pixels")})
            x = np.full_like(X, 0.5)
        w, rate = twin.doubles(start), 2e-3
        formulas = recipes.override(recipe, loss="hinge") if gan_class is Hinge else recipe
        for network, total in totals.items():
            engine.load(start)
            loss = update(engine, network, x, Z, rate)
            # The reported loss is that before the update and without the penalties.
            plain = {"discriminator": twin.d_loss, "generator": twin.g_loss}[network]
            assert loss == pytest.approx(plain(w, formulas, x, Z), rel=1e-5, abs=1e-6)
            after = engine.state()
            for name in weights(w, network):
                direction = np.random.default_rng(1).normal(size=w[name].shape)
                expected = twin.directional(
                    lambda w, total=total: total(w, formulas, x, Z), w, name, direction
                )
                # Adam's moments after its first step, whose size is the learning rate.
                moments = [after[f"{name}/{network[0]}_adam{end}"] for end in ("", "_1")]
                gradient = moments[0] / (1 - recipe.beta1)
                assert (gradient * direction).sum() == pytest.approx(expected, rel=2e-3, abs=1e-4)
                np.testing.assert_allclose(moments[1], (1 - recipe.beta2) * gradient**2, rtol=1e-4)
                step = (w[name] - after[name])[np.abs(gradient) > 1e-4]
                np.testing.assert_allclose(np.abs(step), rate, rtol=1e-2)


def test_largest_gradient_of_the_generator_is_that_of_its_update():
    recipe = small(loss="least_squares")
    with assembled(recipe) as engine:
        inference = Inference(engine.gan, LOSSES[recipe.loss])
        inference.load(engine.state())
        found = inference.generator_gradient(X, Z)
        update(engine, "generator", X, Z)
        moments = [v for name, v in engine.state().items() if name.endswith("/g_adam")]
    expected = max(np.abs(moment).max() for moment in moments) / (1 - recipe.beta1)
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("conditional", [False, True])
def test_gradient_penalty_is_at_random_points_between_real_and_generated_images(conditional):
    recipe = small(gradient_penalty=10.0, conditional=conditional)
    with tf.Graph().as_default():
        gan = recipes.build_gan(recipe)
        updates = Updates(gan, recipe, seed=0)
        x, z = gan.x_placeholder, gan.z_placeholder
        given = {"labels": tf.eye(BATCH, 10)} if conditional else {}
        x_hat = gan._generator(z, reuse=True, **given)
        # With labels, it generates from the latents itself.
        others = tf.zeros_like(x_hat) if conditional else x_hat
        between = updates.points_between(x, given.get("labels"), others, z).images
        gan.session.run(tf.global_variables_initializer())
        points, x_hat = gan.session.run([between, x_hat], {x: X, z: Z})
        gan.session.close()
    position = (points - x_hat) / (X - x_hat)
    middle = np.median(position, axis=1)
    np.testing.assert_allclose(points, middle[:, None] * (X - x_hat) + x_hat, atol=1e-5)
    assert (middle >= 0).all() and (middle < 1).all() and len(set(middle)) == BATCH


def test_weights_are_clipped_after_each_update_of_the_discriminator():
    states = []
    for limit in (0.0, 0.01):
        with assembled(small(weight_clip=limit)) as engine:
            update(engine, "generator", X, Z)
            update(engine, "discriminator", X, Z)
            states.append(weights(engine.state()))
    free, clipped = states
    for name in free:
        limit = 0.01 if name.startswith("discriminator") else np.inf
        np.testing.assert_array_equal(clipped[name], np.clip(free[name], -limit, limit))


class Real(Gan):
    def _discriminator_loss(self, y, y_hat):
        return tf.reduce_mean(tf.nn.softplus(-y))


class Generated(Gan):
    def _discriminator_loss(self, y, y_hat):
        return tf.reduce_mean(tf.nn.softplus(y_hat))


def test_separate_update_equals_one_of_each_half():
    def updated(gan_class, start=None, **values):
        """Returns D's loss before an update, by default a new engine's, and the state after it."""
        with assembled(small(**values), "our updates", gan_class=gan_class) as engine:
            engine.load(start or engine.state())
            return update(engine, "discriminator", X, Z), engine.state()

    loss, state = updated(Gan, separate_updates=True)
    first, middle = updated(Real)
    second, end = updated(Generated, middle)
    assert loss == pytest.approx(first + second, rel=1e-6)
    assert_close(state, end)


@pytest.mark.parametrize("penalty", ["r1_gamma", pytest.param("r2_gamma", marks=pytest.mark.slow)])
@pytest.mark.parametrize("separate, every", [(False, 3), (True, 2)])
def test_lazy_penalty_comes_every_nth_time_with_n_times_the_weight(separate, every, penalty):
    """A lazy update equals one with the complete penalty, or one without any."""

    def states(gamma, penalty_every, *starts):
        """Returns the states after an update from each start, by default the new engine's."""
        recipe = small(separate_updates=separate, penalty_every=penalty_every, **{penalty: gamma})
        with assembled(recipe) as engine:
            for start in starts:
                engine.load(start or engine.state())
                update(engine, "discriminator", X, Z)
                yield engine.state()

    first, second = states(6.0 / every, every, None, None)
    (complete,) = states(6.0, 1, None)
    assert_close(first, complete)
    without, after_first = states(0.0, 1, None, first)
    assert changed(first, without)
    assert_close(second, after_first)


# Classes with their own losses and networks.


class Pairs(Gan):
    def _discriminator_loss(self, y, y_hat):
        return tf.reduce_mean(tf.nn.softplus(y_hat - y))


@pytest.mark.parametrize(
    ("gan_class", "values", "message"),
    [
        (Hinge, {"label_smoothing": 0.1}, "would replace the _discriminator_loss of Hinge"),
        (Hinge, {"loss": "hinge"}, "--loss=hinge would replace the losses of Hinge"),
        (Pairs, {"separate_updates": True}, "--separate_updates requires .* unlike Pairs's"),
    ],
)
def test_losses_that_would_be_replaced_or_split_are_refused(gan_class, values, message):
    with tf.Graph().as_default(), pytest.raises(UserError, match=message):
        Updates(gan_class(nlatent=NLATENT), small(**values), seed=0)


class Normalised(Gan):
    """D's hidden units have mean 0 over the batch."""

    def _discriminator(self, x, reuse=False):
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            hidden = layers.dense(x, 8, name="hidden")
            hidden -= tf.reduce_mean(hidden, axis=0)
            return layers.dense(tf.nn.relu(hidden), 1, name="logit")


def test_real_and_generated_images_are_normalised_separately():
    with assembled(small(), "fused without XLA", gan_class=Normalised) as engine:
        w, block = twin.doubles(engine.state()), engine._batches.block(0, 1)
        ((progress,),) = engine.train(0, 1)

    def logits(x):
        hidden = x @ w["discriminator/hidden/kernel"]
        on = np.maximum(hidden - hidden.mean(axis=0), 0)
        return on @ w["discriminator/logit/kernel"] + w["discriminator/logit/bias"]

    y = logits(block.images[0, 0] / 255)
    y_hat = logits(twin.generate(w, block.d_latents[0, 0]))
    expected = (twin.softplus(-y) + twin.softplus(y_hat)).mean()
    assert progress.d_loss == pytest.approx(expected, rel=1e-5)


# The order of reads and writes.

WRITES = {"AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp", "ResourceApplyAdam"}


class Leaky(Gan):
    """A penalty reads its biases, but has no gradient in them."""

    def _discriminator(self, x, reuse=False):
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            hidden = layers.leaky_relu(layers.dense(x, 8, name="hidden"), 0.2)
            return layers.dense(hidden, 1, name="logit")


@pytest.mark.parametrize(
    "additions",
    [
        {"r1_gamma": 1.0},
        {"r1_gamma": 1.0, "penalty_every": 2},
        {"r1_gamma": 1.0, "separate_updates": True, "ema_decay": 0.9},
    ],
    ids=str,
)
def test_no_variable_is_read_while_it_may_be_written(additions):
    recipe = small(**additions)
    with tf.Graph().as_default():
        gan = recipes.build_gan(recipe, Leaky)
        Updates(gan, recipe, seed=0).install()
        gan.session.close()
    for train_op in (gan.d_optimizer, gan.g_optimizer):
        before, users_of = ancestors(train_op), {}
        for operation in before:
            for tensor in operation.inputs:
                if tensor.dtype == tf.resource:
                    users_of.setdefault(tensor.name, set()).add(operation)
        for users in users_of.values():
            for write in (user for user in users if user.type in WRITES):
                for user in users - {write}:
                    assert user in before[write] or write in before[user], (write.name, user.name)


def ancestors(operation):
    """Returns {operation that it needs, or itself: those that must run first}."""
    found, waiting = {}, [operation]
    while waiting:
        last = waiting[-1]
        needed = {tensor.op for tensor in last.inputs} | set(last.control_inputs)
        missing = [other for other in needed if other not in found]
        waiting.extend(missing)
        if not missing:
            found[waiting.pop()] = needed.union(*(found[other] for other in needed))
    return found


# The average of G's weights, and other state.


def test_samples_come_from_the_average_of_the_generators_weights():
    with assembled(small(ema_decay=0.5)) as engine:
        average = weights(twin.doubles(engine.state()), "generator")
        for t in range(1, 13):
            update(engine, "generator", X, Z, rate=0.01)
            # The cap applies from t = 8.
            decay = min(0.5, (1 + t) / (10 + t))
            raw = weights(twin.doubles(engine.state()), "generator")
            average = {name: decay * average[name] + (1 - decay) * raw[name] for name in raw}
        state = engine.state()
        kept = {name: state[f"{name}/ExponentialMovingAverage"] for name in average}
        assert_close(kept, average)
        np.testing.assert_allclose(generate(engine, Z), twin.generate(average, Z), atol=1e-5)
        # And afterwards training has its own weights.
        assert not changed(state, engine.state())
        x_hat = engine.session.run(engine.gan.x_hat, {engine.gan.z_placeholder: Z})
        np.testing.assert_allclose(x_hat, twin.generate(raw, Z), atol=1e-5)
        assert np.abs(x_hat - generate(engine, Z)).max() > 1e-3


def test_state_of_other_networks_is_refused_and_changes_nothing():
    with assembled(small()) as engine:
        state = engine.state()
        assert not any("Average" in name for name in state)
        name = "generator/hidden/kernel"
        less = {key: value for key, value in state.items() if key != name}
        for other, message in [
            (less, r"generator/hidden/kernel is missing in the checkpoint"),
            (
                {**state, "more": np.zeros(2)},
                r"more is of shape \(2,\) .* missing in the networks",
            ),
            (
                {**state, name: np.zeros([5, 64])},
                r"kernel is of shape \(5, 64\) .* \(3, 64\) in",
            ),
        ]:
            with pytest.raises(UserError, match=message):
                engine.load(other)
        assert not changed(state, engine.state())


def test_initial_weights_follow_from_the_seed():
    states = []
    for seed in (1, 2):
        with assembled(small(), seed=seed) as engine:
            states.append(weights(engine.state()))
    assert changed(*states) == {name for name in states[0] if name.endswith("kernel")}


def test_random_bits_are_uniform_and_their_streams_independent():
    with tf.Graph().as_default(), tf.Session() as session:
        seeds = ([0, 0], [0, 1], [1, 0], [-(2**31), -1], [2**31 - 1, 7])
        bits = [randomness.random_16_bits(100_000, tf.constant(seed)) for seed in seeds]
        streams = (np.float64(session.run(bits)) + 0.5) / 2**16
    for u in streams:
        # Kolmogorov's statistic exceeds 1.95 once in a thousand times.
        places = np.arange(len(u)) / len(u)
        assert np.abs(np.sort(u) - places).max() * len(u) ** 0.5 < 1.95
    shifted = [u[k : 90_000 + k] for u in streams for k in (0, 1, 2, 64, 512)]
    correlations = np.corrcoef(shifted) - np.eye(len(shifted))
    assert np.abs(correlations).max() < 5.5 / 90_000**0.5
