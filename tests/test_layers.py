"""Layers against NumPy twins."""

import itertools

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


# NumPy twins.


def same_padding(size, taps, strides):
    """Returns the zeros before and after, by TensorFlow's documentation of SAME."""
    outputs = -(-size // strides)
    total = max((outputs - 1) * strides + taps - size, 0)
    return total // 2, total - total // 2


def convolved(x, kernel, strides=1):
    """Returns conv2d by definition: each output pixel is the sum over its window."""
    size = kernel.shape[0]
    pads = [same_padding(n, size, strides) for n in x.shape[1:3]]
    padded = np.pad(x.astype(np.float64), [(0, 0), *pads, (0, 0)])
    outputs = [-(-n // strides) for n in x.shape[1:3]]
    y = np.zeros([len(x), *outputs, kernel.shape[3]])
    for i, j in np.ndindex(*outputs):
        window = padded[:, i * strides :, j * strides :][:, :size, :size]
        y[:, i, j] = np.einsum("buvn,uvnm->bm", window, kernel)
    return y


def doubled(x):
    return x.repeat(2, axis=1).repeat(2, axis=2)


def normalised(x, mean, variance, gamma, beta):
    return gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta


# Dense and convolutional layers.


def test_dense():
    x, kernel, bias = normal(3, 5), normal(5, 4), normal(4)
    y = layers.dense(tf.constant(x), 4, name="a")
    np.testing.assert_allclose(run(y, {"kernel": kernel, "bias": bias}), x @ kernel + bias, 1e-5)


SHAPES = [(1, 1), (2, 3), (4, 4), (5, 4), (7, 7)]


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_conv2d(size, strides):
    kernel, bias = normal(size, size, 3, 4), normal(4)
    x = [normal(2, *shape, 3) for shape in SHAPES]
    y = [
        layers.conv2d(tf.constant(each), 4, size, name=f"a{i}", strides=strides)
        for i, each in enumerate(x)
    ]
    for shape, layer in zip(SHAPES, y, strict=True):
        assert layer.shape.as_list() == [2, *(-(-n // strides) for n in shape), 4]
    for x_, y_ in zip(x, run(y, {"kernel": kernel, "bias": bias}), strict=True):
        np.testing.assert_allclose(y_, convolved(x_, kernel, strides) + bias, atol=1e-5)


def test_conv2d_8x8_stride_4():
    x, kernel, bias = normal(3, 28, 28, 2), normal(8, 8, 2, 5), normal(5)
    y = layers.conv2d_8x8_stride_4(tf.constant(x), 5, name="a")
    # A patch's rows and columns: which of the four squares, then where in it.
    squares = kernel.reshape(2, 4, 2, 4, 2, 5).transpose(0, 2, 1, 3, 4, 5)
    found = run(y, {"kernel": squares.reshape(128, 5), "bias": bias})
    assert found.shape == (3, 7, 7, 5)
    np.testing.assert_allclose(found, convolved(x, kernel, strides=4) + bias, atol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_conv2d_valid(size):
    x, kernel, bias = normal(3, 5, 4, 2), normal(size, size, 2, 6), normal(6)
    y = layers.conv2d_valid(tf.constant(x), 6, size, name="a")
    found = run(y, {"kernel": kernel.reshape(-1, 6), "bias": bias})
    height, width = 6 - size, 5 - size
    before = (size - 1) // 2
    inside = convolved(x, kernel)[:, before : before + height, before : before + width]
    assert found.shape == (3, height, width, 6)
    np.testing.assert_allclose(found, inside + bias, atol=1e-5)


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


@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_upsample_conv2d(size):
    kernel, bias = normal(size, size, 3, 4), normal(4)
    x = [normal(2, *shape, 3) for shape in SHAPES]
    y = [
        layers.upsample_conv2d(tf.constant(each), 4, size, name=f"a{i}") for i, each in enumerate(x)
    ]
    for shape, layer in zip(SHAPES, y, strict=True):
        assert layer.shape.as_list() == [2, *(2 * n for n in shape), 4]
    for x_, y_ in zip(x, run(y, {"kernel": kernel, "bias": bias}), strict=True):
        np.testing.assert_allclose(y_, convolved(doubled(x_), kernel) + bias, atol=1e-5)


def plain_conv2d(x, kernel, bias, strides=1):
    return tf.nn.conv2d(x, kernel, strides, "SAME") + bias


def plain_upsample_conv2d(x, kernel, bias):
    return plain_conv2d(tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2), kernel, bias)


def gradients(y, x, weights):
    """Returns first-order gradients, and the kernel's second-order one, like R1."""
    first = tf.gradients(tf.sin(y), [x, *weights])
    return [*first, *tf.gradients(first[0] ** 2, weights[0])]


MANY = {"channels": 128, "filters": 256}  # the kernel's gradient is then taken tap by tap


@pytest.mark.parametrize(
    ("layer", "plain", "shapes", "size", "options"),
    [
        (layers.upsample_conv2d, plain_upsample_conv2d, SHAPES, 3, {}),
        (layers.upsample_conv2d, plain_upsample_conv2d, SHAPES, 5, {}),
        (layers.conv2d, plain_conv2d, [(3, 4)], 5, {}),  # on images smaller than the kernel
        (layers.conv2d, plain_conv2d, [(7, 7), (5, 4)], 2, MANY),
        (layers.conv2d, plain_conv2d, [(7, 7), (5, 4)], 3, {"strides": 3, **MANY}),
        (layers.conv2d, plain_conv2d, [(7, 7), (5, 4)], 5, {"strides": 2, **MANY}),
        (layers.conv2d, plain_conv2d, [(7, 7), (5, 4)], 1, {"strides": 2, **MANY}),
    ],
)
def test_fast_forms_have_the_plain_forms_gradients(layer, plain, shapes, size, options):
    options = {"channels": 3, "filters": 4, **options}
    channels, filters = options.pop("channels"), options.pop("filters")
    ours, expected = [], []
    for number, shape in enumerate(shapes):
        x = normal(2, *shape, channels) / channels**0.5
        x = tf.placeholder_with_default(x, [None, *shape, channels])
        y = layer(x, filters, size, name=f"a{number}", **options)
        weights = tf.trainable_variables(f"a{number}/")
        ours.append(gradients(y, x, weights))
        expected.append(gradients(plain(x, *weights, **options), x, weights))
    for one, other in zip(*map(tf.nest.flatten, run([ours, expected])), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


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


def test_batch_norm_has_a_second_derivative():
    """R1 through a D with batch normalisation needs it; by central differences."""
    x, weights, direction, step = normal(5, 3), normal(5, 3), normal(5, 3), 1e-2

    def slopes(at):
        """Returns the gradients of a loss in the input and in gamma."""
        with tf.variable_scope("", reuse=tf.AUTO_REUSE):
            y = in_training(layers.batch_norm, at, name="a", momentum=None)
        return tf.gradients(tf.sin(y) * weights, [at, *tf.trainable_variables("a/gamma")])

    along = tf.reduce_sum(slopes(tf.constant(x))[0] * direction)
    (second,) = tf.gradients(along, tf.trainable_variables("a/gamma"))
    sides = [slopes(tf.constant(x + by * direction))[1] for by in (step, -step)]
    second, above, below = run([second, *sides])
    np.testing.assert_allclose(second, (above - below) / (2 * step), rtol=2e-2, atol=2e-2)


# Dropout.


def test_dropout_drops_its_fraction_and_keeps_the_mean():
    y = run(in_training(layers.dropout, tf.ones([1000, 999]), 0.2))
    assert set(np.unique(y)) == {0, np.float32(1) / np.float32(0.8)}
    # 999,000 draws: the fraction's standard deviation is 0.0004.
    assert abs((y == 0).mean() - 0.2) < 0.002
    # Neighbours and rows are independent.
    dropped = y == 0
    for one, other in [(dropped[1:], dropped[:-1]), (dropped[:, 1:], dropped[:, :-1])]:
        assert abs((one & other).mean() - 0.04) < 0.002


def test_dropout_is_a_function_of_the_seed():
    x = tf.ones([50, 7])
    with a_pass(3, 4):
        one, later = (layers.dropout(x, 0.5) for _ in range(2))
    seeds = [(3, 4), (3, 5), (4, 4)]
    others = [in_training(layers.dropout, x, 0.5, seed=seed) for seed in seeds]
    first, same, *others = run([one, others[0], later, *others[1:]])
    assert np.array_equal(first, same)
    assert not any(np.array_equal(first, other) for other in others)


def test_dropout_is_the_same_under_xla():
    def dropped():
        return in_training(layers.dropout, tf.ones([50, 7]), 0.3)

    plain, compiled = run([dropped(), tf.function(dropped, jit_compile=True)()])
    assert np.array_equal(plain, compiled)


def test_gradient_of_dropout_is_dropped_equally():
    x = tf.constant(1 + normal(40, 5) ** 2)
    y = in_training(layers.dropout, x, 0.25)
    x, y, slope = run([x, y, tf.gradients(y, x)[0]])
    np.testing.assert_allclose(slope * x, y, rtol=1e-6)


def test_inference_drops_nothing():
    x = tf.ones([3])
    assert layers.dropout(x, 0.9) is x


# Small ones.


def test_leaky_relu():
    x = np.float32([-2, -0.5, 0, 3])
    np.testing.assert_allclose(run(layers.leaky_relu(x, 0.01)), [-0.02, -0.005, 0, 3])


def test_ranges():
    ends = tf.constant([0.0, 0.5, 1.0])
    signed = layers.signed(ends)
    assert run(signed).tolist() == [-1, 0, 1]
    assert run(layers.unsigned(signed)).tolist() == [0, 0.5, 1]


def test_images_and_flat():
    rows = normal(6, 784)
    images = layers.images(tf.constant(rows.reshape(3, 2 * 784)))
    expected = rows.reshape(3, 2, 28, 28).transpose(0, 2, 3, 1)
    assert np.array_equal(run(images), expected) and images.shape.as_list() == [3, 28, 28, 2]
    assert layers.flat(images).shape.as_list() == [3, 1568]


def test_layers_record_their_output_shapes_once():
    for reuse in (False, True):
        with tf.variable_scope("net", reuse=reuse):
            x = tf.placeholder(tf.float32, [None, 3])
            layers.batch_norm(layers.dense(x, 8, name="a"), name="b")
    recorded = tf.get_collection(layers.LAYERS)
    assert recorded == [("net/a", [None, 8]), ("net/b", [None, 8])]


def test_names_of_variables():
    x = tf.zeros([1, 4, 4, 1])
    layers.upsample_conv2d(layers.conv2d(x, 2, 3, name="a"), 2, 3, name="b")
    layers.batch_norm(x, name="c")
    parts = itertools.product("ab", ["kernel", "bias"])
    norm = [f"c/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")]
    expected = [f"{layer}/{part}" for layer, part in parts] + norm
    assert [variable.op.name for variable in tf.global_variables()] == expected
