"""Layers against NumPy twins."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from models import layers, passes

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def session():
    with tf.Graph().as_default(), tf.Session() as session:
        yield session


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def run(tensors, values=None):
    """Runs tensors after setting variables, by the last part of their names."""
    session = tf.get_default_session()
    session.run(tf.global_variables_initializer())
    for variable in tf.global_variables():
        name = variable.op.name.rpartition("/")[2]
        if name in (values or {}):
            session.run(variable.assign(values[name]))
    return session.run(tensors)


def a_pass(first=7, second=0):
    return passes.training(tf.constant([first, second]))


def in_training(layer, *arguments, seed=(7, 0), **options):
    """Returns a layer's output in a training pass."""
    with a_pass(*seed):
        return layer(*arguments, **options)


def normalised(x, mean, variance, gamma, beta):
    return gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta


# Dense and convolutional layers against TensorFlow's own operations.


def plain_conv2d(x, kernel, bias, strides=1):
    return tf.nn.conv2d(x, kernel, strides, "SAME") + bias


def plain_upsample_conv2d(x, kernel, bias):
    return plain_conv2d(tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2), kernel, bias)


def plain_conv2d_valid(x, kernel, bias, strides=1):
    size = round((kernel.shape[0] / x.shape[-1]) ** 0.5)
    kernel = tf.reshape(kernel, [size, size, x.shape[-1], -1])
    return tf.nn.conv2d(x, kernel, strides, "VALID") + bias


def plain_conv2d_8x8_stride_4(x, kernel, bias):
    # A patch's rows and columns: which of the four squares, then where in it.
    squares = tf.transpose(tf.reshape(kernel, [2, 2, 4, 4, x.shape[-1], -1]), [0, 2, 1, 3, 4, 5])
    return plain_conv2d(x, tf.reshape(squares, [8, 8, x.shape[-1], -1]), bias, strides=4)


def gradients(y, x, weights):
    """Returns first-order gradients, and the kernel's second-order one, like R1."""
    first = tf.gradients(tf.sin(y), [x, *weights])
    return [*first, *tf.gradients(first[0] ** 2, weights[0])]


SHAPES = [(1, 1), (2, 3), (5, 4), (7, 6)]
MANY = {"channels": 128, "filters": 256}  # the kernel's gradient is then taken tap by tap


@pytest.mark.parametrize(
    ("layer", "plain", "shapes", "size", "options"),
    [
        (layers.dense, tf.nn.xw_plus_b, [()], [], {}),
        *((layers.conv2d, plain_conv2d, SHAPES, [size], {}) for size in (3, 5)),
        *((layers.conv2d, plain_conv2d, SHAPES, [size], {"strides": 2}) for size in (3, 5)),
        (layers.conv2d, plain_conv2d, [(7, 7), (5, 4)], [2], MANY),
        (layers.conv2d, plain_conv2d, [(7, 7), (5, 4)], [3], {"strides": 3, **MANY}),
        (layers.conv2d, plain_conv2d, [(7, 7), (5, 4)], [5], {"strides": 2, **MANY}),
        (layers.conv2d, plain_conv2d, [(7, 7), (5, 4)], [1], {"strides": 2, **MANY}),
        *((layers.conv2d_valid, plain_conv2d_valid, [(5, 4)], [size], {}) for size in (1, 3)),
        (layers.conv2d_valid, plain_conv2d_valid, [(7, 7), (6, 5)], [3], {"strides": 2}),
        (layers.conv2d_8x8_stride_4, plain_conv2d_8x8_stride_4, [(28, 28)], [], {}),
        *((layers.upsample_conv2d, plain_upsample_conv2d, SHAPES, [n], {}) for n in (3, 5)),
    ],
)
def test_layer_has_the_plain_forms_values_and_gradients(layer, plain, shapes, size, options):
    options = {"channels": 3, "filters": 4, **options}
    channels, filters = options.pop("channels"), options.pop("filters")
    ours, expected = [], []
    for number, shape in enumerate(shapes):
        x = normal(2, *shape, channels) / channels**0.5
        x = tf.placeholder_with_default(x, [None, *shape, channels])
        y = layer(x, filters, *size, name=f"a{number}", **options)
        weights = tf.trainable_variables(f"a{number}/")
        same = plain(x, *weights, **options)
        ours.append([y, *gradients(y, x, weights)])
        expected.append([same, *gradients(same, x, weights)])
    found = run([ours, expected], {"bias": normal(filters)})
    for one, other in zip(*map(tf.nest.flatten, found), strict=True):
        # Small values of large tensors are sums in which large ones cancel.
        rounding = 1e-6 * np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 + rounding)


def test_conv2d_transpose_8x8_stride_4():
    x, kernel, bias = normal(3, 7, 7, 5), normal(5, 8, 8), normal(8, 8)
    y = layers.conv2d_transpose_8x8_stride_4(tf.constant(x), name="a")
    squares = [k.reshape(-1, 2, 4, 2, 4).transpose(0, 1, 3, 2, 4) for k in (kernel, bias)]
    found = run(y, {"kernel": squares[0].reshape(5, 64), "bias": squares[1].reshape(64)})
    expected = np.zeros([3, 32, 32])
    for i, j in np.ndindex(7, 7):
        window = np.einsum("bn,nuv->buv", x[:, i, j], kernel) + bias
        expected[:, 4 * i : 4 * i + 8, 4 * j : 4 * j + 8] += window
    np.testing.assert_allclose(found, expected[:, 2:30, 2:30], atol=1e-4)


def test_pixel_norm_gives_each_row_a_mean_square_of_1():
    x = np.vstack([normal(2, 5), np.zeros([1, 5], np.float32)])
    y = run(layers.pixel_norm(tf.constant(x)))
    np.testing.assert_allclose(np.square(y).mean(axis=1), [1, 1, 0], rtol=1e-5)
    np.testing.assert_allclose(y[:2] / x[:2], (y[:2, :1] / x[:2, :1]).repeat(5, 1), rtol=1e-5)


# Batch normalisation.


@pytest.mark.parametrize("shape", [(6, 3), (4, 5, 2, 3)])
def test_batch_norm_takes_the_batchs_statistics_in_training_and_averages_in_inference(shape):
    x, gamma, beta, mean, variance = 3 + 2 * normal(*shape), *normal(2, 3), *normal(2, 3) ** 2
    values = {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_variance": variance}
    trained = in_training(layers.batch_norm, tf.constant(x), name="a")
    with tf.variable_scope("", reuse=True):
        inferred = layers.batch_norm(tf.constant(x), name="a")
    trained, inferred = run([trained, inferred], values)
    rows = x.reshape(-1, 3)
    expected = normalised(x, rows.mean(0), rows.var(0), gamma, beta)
    np.testing.assert_allclose(trained, expected, atol=1e-5)
    expected = normalised(x, mean, variance, gamma, beta)
    np.testing.assert_allclose(inferred, expected, rtol=1e-4, atol=1e-5)


def test_averages_of_batch_norm_are_moved_by_the_networks_update():
    x = 3 + 2 * normal(6, 3)
    with a_pass() as running:
        y = layers.batch_norm(tf.constant(x), name="a", momentum=0.8)
    averages = tf.global_variables("a/moving_")
    assert [v.name for v in averages] == ["a/moving_mean:0", "a/moving_variance:0"]
    assert not set(averages) & set(tf.trainable_variables())
    (update,) = running.updates
    update = update()
    run(y)
    session = tf.get_default_session()
    np.testing.assert_array_equal(session.run(averages), [[0] * 3, [1] * 3])
    session.run(update)
    session.run(update)
    mean, variance = x.mean(0), x.var(0, ddof=1)
    expected = [0.36 * mean, 1 + 0.36 * (variance - 1)]  # 1 - 0.8^2 of the way
    np.testing.assert_allclose(session.run(averages), expected, rtol=1e-5)


def test_batch_norm_without_averages_always_uses_the_batchs_statistics():
    x = 3 + 2 * normal(6, 3)
    y = layers.batch_norm(tf.constant(x), name="a", momentum=None)
    assert len(tf.global_variables()) == 2
    np.testing.assert_allclose(run(y), normalised(x, x.mean(0), x.var(0), 1, 0), atol=1e-5)


# Dropout.


def test_dropout_drops_its_fraction_and_keeps_the_mean():
    y = run(in_training(layers.dropout, tf.ones([1000, 999]), 0.2))
    assert set(np.unique(y)) == {0, np.float32(1) / np.float32(0.8)}
    # 999,000 draws: the fraction's standard deviation is 0.0004.
    assert abs((y == 0).mean() - 0.2) < 0.002


def test_dropout_is_a_function_of_the_seed():
    x = tf.ones([50, 7])
    with a_pass(3, 4):
        one, later = (layers.dropout(x, 0.5) for _ in range(2))
    seeds = [(3, 4), (3, 5), (4, 4)]
    others = [in_training(layers.dropout, x, 0.5, seed=seed) for seed in seeds]
    first, same, *others = run([one, others[0], later, *others[1:]])
    assert np.array_equal(first, same)
    assert not any(np.array_equal(first, other) for other in others)


def test_inference_drops_nothing():
    x = tf.ones([3])
    assert layers.dropout(x, 0.9) is x


# Small ones.


def test_functions_of_single_pixels():
    x = np.float32([-2, -0.5, 0, 3])
    np.testing.assert_allclose(run(layers.leaky_relu(x, 0.01)), [-0.02, -0.005, 0, 3])
    signed = layers.signed(tf.constant([0.0, 0.5, 1.0]))
    assert run(signed).tolist() == [-1, 0, 1]
    assert run(layers.unsigned(signed)).tolist() == [0, 0.5, 1]


def test_images_and_flat():
    rows = normal(6, 784)
    images = layers.images(tf.constant(rows.reshape(3, 2 * 784)))
    expected = rows.reshape(3, 2, 28, 28).transpose(0, 2, 3, 1)
    assert np.array_equal(run(images), expected) and images.shape.as_list() == [3, 28, 28, 2]
    assert layers.flat(images).shape.as_list() == [3, 1568]
