"""The losses and penalties against their formulas in NumPy and finite differences."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import twin

from models.losses import LOSSES, gradient_penalty, squared_gradient_penalty

# Also logits whose sigmoid is 0 or 1 in float32.
Y = np.array([[1.5], [-0.3], [0.4], [-4.0], [50.0], [-120.0]], np.float32)
Y_HAT = np.array([[-0.7], [2.2], [0.1], [0.9], [-120.0], [50.0]], np.float32)


def run(build, *arrays):
    """Returns the value of a function of tensors."""
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(build(*map(tf.constant, arrays)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_of_the_papers(name, smoothing):
    loss = LOSSES[name]
    if smoothing and not loss.has_targets:
        with pytest.raises(TypeError):
            loss.discriminator(Y, Y_HAT, label_smoothing=smoothing)
        return
    given = {"label_smoothing": smoothing} if smoothing else {}
    values = run(lambda *ys: [loss.discriminator(*ys, **given), loss.generator(*ys)], Y, Y_HAT)
    expected = twin.D_LOSSES[name](Y, Y_HAT, smoothing), twin.G_LOSSES[name](Y, Y_HAT)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_pairs_are_those_that_do_not_separate(name):
    """Two D updates, on real and on generated images, need a sum of two losses."""
    other = Y[::-1] + 1
    loss = LOSSES[name].discriminator
    differences = [run(loss, y, Y_HAT) - run(loss, y, Y_HAT - 1) for y in (Y, other)]
    assert np.isclose(*differences, rtol=1e-4) == (not LOSSES[name].compares_pairs)


def test_penalties_are_those_of_finite_differences():
    rng = np.random.default_rng(0)
    x, first, second = rng.normal(size=[5, 6]), rng.normal(size=[6, 4]), rng.normal(size=[4, 1])

    def logits(x):
        return np.tanh(x @ first) @ second

    steps = 1e-5 * np.eye(6)[:, None]
    gradient = (logits(x + steps) - logits(x - steps))[..., 0] / 2e-5  # [6, 5]
    norms = np.sqrt((gradient**2).sum(axis=0))

    def penalties(x):
        y = tf.tanh(x @ tf.constant(first)) @ tf.constant(second)
        return squared_gradient_penalty(y, x), gradient_penalty(y, x)

    expected = np.mean(norms**2) / 2, np.mean((norms - 1) ** 2)
    np.testing.assert_allclose(run(penalties, x), expected, rtol=1e-5)


def test_gradient_penalty_of_a_flat_discriminator_can_be_trained():
    def slope(x, w):
        return tf.gradients(gradient_penalty(x @ w, x), w)

    assert np.isfinite(run(slope, np.ones([2, 3], np.float32), np.zeros([3, 1], np.float32))).all()
