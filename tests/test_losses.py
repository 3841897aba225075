"""The losses against their formulas in NumPy."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import twin

from models.losses import LOSSES, gradient_penalty

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


def test_gradient_penalty_of_a_flat_discriminator_can_be_trained():
    def slope(x, w):
        return tf.gradients(gradient_penalty(x @ w, x), w)

    assert np.isfinite(run(slope, np.ones([2, 3], np.float32), np.zeros([3, 1], np.float32))).all()
