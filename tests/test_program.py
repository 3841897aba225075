"""Programs of array operations against TensorFlow's own run of the graphs they come from."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from generation import frozen as frozen_module
from generation import numpy_generator, program
from generation.frozen import Frozen
from models import priors, recipes
from support.errors import UserError

NLATENT = 6


def constant(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32))


def frozen(build, labels=False):
    """A function of z, and of labels, to a tensor in the current graph -> its Frozen."""
    with tf.Graph().as_default() as graph:
        inputs = {"z": tf.placeholder(tf.float32, [None, NLATENT], "latents")}
        if labels:
            inputs["labels"] = tf.placeholder(tf.float32, [None, 10], "classes")
        output = tf.identity(build(*inputs.values()), name="out")
        names = {name: tensor.op.name for name, tensor in inputs.items()}
        return Frozen(graph.as_graph_def(), output.op.name, names, NLATENT, "normal", False)


def by_tensorflow(graph, **inputs):
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(graph.pixels(**{k: tf.constant(v) for k, v in inputs.items()}))


def by_numpy(graph, **inputs):
    compiled = program.compile_graph(graph)
    return numpy_generator.run(compiled.lines, compiled.constants, **inputs)


def latents(n=5):
    return np.random.default_rng(1).standard_normal((n, NLATENT)).astype(np.float32)


def picture(z, channels=3):
    return tf.reshape(tf.matmul(z, constant(NLATENT, 4 * 4 * channels)), [-1, 4, 4, channels])


def batch_norm(x, seed=2):
    gamma, beta, mean = (constant(x.shape[-1], seed=seed + k) for k in range(3))
    variance = tf.square(constant(x.shape[-1], seed=seed + 3))
    return tf.nn.fused_batch_norm(x, gamma, beta, mean, variance, 1e-3, is_training=False)[0]


def residual(z):
    """What batch norm scales is taken by something else too, behind the bias."""
    x = tf.nn.bias_add(tf.nn.conv2d(picture(z), constant(3, 3, 3, 3), 1, "SAME"), constant(3))
    return batch_norm(x) + tf.nn.relu(x)


GRAPHS = {
    "convolution, same": lambda z: tf.nn.conv2d(picture(z), constant(3, 3, 3, 5), 2, "SAME"),
    "convolution, valid": lambda z: tf.nn.conv2d(picture(z), constant(2, 3, 3, 5), 1, "VALID"),
    "transposed convolution, same": lambda z: tf.nn.conv2d_transpose(
        picture(z), constant(5, 5, 2, 3), [tf.shape(z)[0], 8, 8, 2], 2, "SAME"
    ),
    "transposed convolution, valid": lambda z: tf.nn.conv2d_transpose(
        picture(z), constant(3, 3, 2, 3), [tf.shape(z)[0], 9, 9, 2], 2, "VALID"
    ),
    "nearest neighbours": lambda z: tf.image.resize_nearest_neighbor(picture(z), [12, 12]),
    "depth to space": lambda z: batch_norm(tf.nn.depth_to_space(picture(z, 8), 2)),
    "batch norm behind a bias": lambda z: batch_norm(
        tf.nn.bias_add(tf.nn.conv2d(picture(z), constant(3, 3, 3, 5), 1, "SAME"), constant(5))
    ),
    "batch norm of a ReLU": lambda z: batch_norm(tf.nn.relu(picture(z))),
    "residual": residual,
    "parts": lambda z: tf.concat([z[:, 2:5], z[:, -1:], tf.split(z, 2, axis=1)[1]], axis=1),
    "one latent": lambda z: z[:, 3] * z[:, -2],
    "transposed product": lambda z: tf.matmul(z, constant(4, NLATENT), transpose_b=True),
    "pixel norm": lambda z: (
        z * tf.rsqrt(tf.reduce_mean(tf.square(z), axis=1, keepdims=True) + 1e-8)
    ),
    "functions": lambda z: tf.nn.elu(z) + tf.nn.softplus(z) + tf.exp(-tf.abs(z)) - tf.tanh(z),
    "steep": lambda z: tf.nn.leaky_relu(z, 1.5),
    "leaky": lambda z: tf.nn.leaky_relu(z, 0.3) + tf.maximum(z, 0.1 * z) + tf.minimum(z, 1.0),
    "transposed axes": lambda z: tf.transpose(picture(z), [0, 3, 1, 2])[:, 0],
    "sums": lambda z: tf.add_n([z, 2 * z, z / 3, tf.sigmoid(z)]),
    "expanded": lambda z: tf.squeeze(tf.expand_dims(2 * z, 1), 1),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_program_does_what_its_graph_does(name):
    graph, z = frozen(GRAPHS[name]), latents()
    expected = by_tensorflow(graph, z=z)
    np.testing.assert_allclose(by_numpy(graph, z=z), expected, rtol=1e-4, atol=2e-6)
    assert by_numpy(graph, z=z[:1]).shape == expected[:1].shape


def test_labels_are_a_second_input():
    graph = frozen(lambda z, y: tf.matmul(tf.concat([z, y], 1), constant(NLATENT + 10, 7)), True)
    inputs = {"z": latents(), "labels": np.eye(10, dtype=np.float32)[:5]}
    np.testing.assert_allclose(by_numpy(graph, **inputs), by_tensorflow(graph, **inputs), rtol=1e-4)


def test_batch_norm_and_constants_cost_nothing_at_run_time():
    def build(z):
        kernel = tf.reshape(tf.tile(constant(3, 12), [4, 2]), [3, 3, 4, 8])
        x = tf.nn.bias_add(tf.nn.conv2d(picture(z, 4), kernel, 1, "SAME"), constant(8))
        return batch_norm(tf.nn.depth_to_space(x, 2))

    operations = [line[0] for line in program.compile_graph(frozen(build)).lines]
    assert operations == ["MatMul", "Reshape", "Pad", "Conv2D", "Add", "DepthToSpace"]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (tf.sin, r"operation Sin \("),
        (lambda z: z + tf.random_normal([NLATENT]), "RandomStandardNormal"),
        (lambda z: z - tf.reduce_mean(z, axis=0), "Mean .*over the batch"),
        (lambda z: tf.image.resize_bilinear(picture(z), [8, 8]), "ResizeBilinear"),
        (lambda z: z[:, ::2], "StridedSlice .*strides"),
    ],
)
def test_what_a_program_cannot_do_is_named(build, words):
    with pytest.raises(program.UnsupportedOperation, match=words):
        program.compile_graph(frozen(build))


def test_weights_that_are_no_numbers_are_refused():
    with pytest.raises(UserError, match=r"'Const.*nan"):
        program.compile_graph(frozen(lambda z: z * tf.constant([np.nan] * NLATENT)))


class Model:
    """As much of a Gan as is frozen: G, and an open session."""

    def __init__(self, build):
        self.z_placeholder = tf.placeholder(tf.float32, [None, NLATENT], "latents")
        self.x_hat = build(self.z_placeholder)
        self.session = tf.Session()


def freeze(build):
    recipe = recipes.override(recipes.get("minimal"), nlatent=NLATENT)
    with tf.Graph().as_default():
        return frozen_module.freeze(SimpleNamespace(gan=Model(build), recipe=recipe, classes=(0,)))


def test_statistics_of_a_batch_are_fixed():
    """Against NumPy's own: 256 draws, each feature's mean and mean squared deviation."""

    def build(z):
        x = tf.reshape(tf.matmul(z, constant(NLATENT, 5)), [-1, 1, 1, 5])
        gamma, beta = constant(5, seed=1), constant(5, seed=2)
        y = tf.nn.fused_batch_norm(x, gamma, beta, epsilon=1e-3, is_training=True)[0]
        return tf.reshape(y, [-1, 5])

    graph = freeze(build)
    assert graph.fixed_statistics
    kernel, gamma, beta = (
        np.random.default_rng(seed).normal(0, 0.5, shape)
        for seed, shape in enumerate([(NLATENT, 5), 5, 5])
    )
    drawn = priors.get("uniform").sample(np.random.default_rng(0), [256, NLATENT]) @ kernel
    z = latents()
    expected = gamma * (z @ kernel - drawn.mean(axis=0)) / np.sqrt(drawn.var(axis=0) + 1e-3) + beta
    np.testing.assert_allclose(by_numpy(graph, z=z), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_tensorflow(graph, z=z), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_numpy(graph, z=z[:1]), expected[:1], rtol=1e-4, atol=1e-5)


def test_a_graph_that_takes_something_else_is_refused():
    with pytest.raises(UserError, match=r"placeholder 'rate': wanted none"):
        freeze(lambda z: z * tf.placeholder(tf.float32, [], "rate"))
