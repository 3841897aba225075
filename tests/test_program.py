"""Programs of array operations compared with TensorFlow's own results."""

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


def frozen(build, labels=False, prior="normal"):
    """Freezes a function of z, and of labels, to a tensor in the current graph."""
    with tf.Graph().as_default() as graph:
        inputs = {"z": tf.placeholder(tf.float32, [None, NLATENT], "latents")}
        if labels:
            inputs["labels"] = tf.placeholder(tf.float32, [None, 10], "classes")
        output = tf.identity(build(*inputs.values()), name="out")
        names = {name: tensor.op.name for name, tensor in inputs.items()}
        return Frozen(graph.as_graph_def(), output.op.name, names, NLATENT, priors.PRIORS[prior])


def by_tensorflow(graph, **inputs):
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(graph.pixels(**{k: tf.constant(v) for k, v in inputs.items()}))


def by_numpy(graph, **inputs):
    return numpy_generator.run(*program.compile_graph(graph), **inputs)


def latents(n=5):
    return np.random.default_rng(1).standard_normal((n, NLATENT)).astype(np.float32)


def image(z, channels=3):
    return tf.reshape(tf.matmul(z, constant(NLATENT, 4 * 4 * channels)), [-1, 4, 4, channels])


def batch_norm(x, seed=2):
    gamma, beta, mean = (constant(x.shape[-1], seed=seed + k) for k in range(3))
    variance = tf.square(constant(x.shape[-1], seed=seed + 3))
    return tf.nn.fused_batch_norm(x, gamma, beta, mean, variance, 1e-3, is_training=False)[0]


def transposed(x, kernel, size, stride, padding):
    shape = [tf.shape(x)[0], *size, kernel[2]]
    return tf.nn.conv2d_transpose(x, constant(*kernel), shape, stride, padding)


def unknown(z, channels=8):
    """Returns images whose height and number of channels the graph leaves open."""
    x = image(z, channels)
    return tf.reshape(x, [tf.shape(z)[0], -1, 4, tf.shape(x)[3] // 2])


PADDING = [[0, 0], [2, 0], [1, 1], [0, 0]]
GRAPHS = {
    "convolution, same": lambda z: tf.nn.conv2d(image(z), constant(3, 3, 3, 5), 2, "SAME"),
    "convolution, valid": lambda z: tf.nn.conv2d(image(z), constant(2, 3, 3, 5), 1, "VALID"),
    "convolution, explicit": lambda z: tf.nn.conv2d(image(z), constant(3, 3, 3, 2), 1, PADDING),
    "transposed, same": lambda z: transposed(image(z), [5, 5, 2, 3], [8, 8], 2, "SAME"),
    "transposed, odd": lambda z: transposed(image(z), [5, 4, 2, 3], [7, 7], 2, "SAME"),
    "transposed, valid": lambda z: transposed(image(z), [3, 3, 2, 3], [9, 9], 2, "VALID"),
    "transposed, explicit": lambda z: transposed(image(z), [3, 3, 2, 3], [7, 7], 2, PADDING),
    "transposed, small kernel": lambda z: transposed(image(z), [2, 2, 2, 3], [12, 12], 3, "SAME"),
    "nearest neighbours": lambda z: tf.image.resize_nearest_neighbor(image(z), [12, 8]),
    "depth to space": lambda z: batch_norm(tf.nn.depth_to_space(image(z, 8), 2)),
    "residual": lambda z: batch_norm(tf.nn.bias_add(image(z), constant(3))) + tf.nn.relu(image(z)),
    "parts of images": lambda z: image(z)[:, 1:3, tf.newaxis, -1, ..., 1:],
    "parts": lambda z: tf.concat([z[:, 2:5], z[:, -1:], tf.split(z, 2, axis=1)[1]], axis=1),
    "one latent": lambda z: z[:, 3] * z[:, -2],
    "the latents": tf.identity,
    "output before other operations": lambda z: (2 * z, tf.exp(z))[0],
    "transposed product": lambda z: tf.matmul(z, constant(4, NLATENT), transpose_b=True),
    "pixel norm": lambda z: z * tf.rsqrt(tf.reduce_mean(tf.square(z), 1, keepdims=True) + 1e-8),
    "functions": lambda z: tf.nn.elu(z) + tf.nn.softplus(z) + tf.exp(-tf.abs(z)) - tf.tanh(z),
    "leaky": lambda z: tf.nn.leaky_relu(z, 1.5) + tf.maximum(z, 0.1 * z) + tf.minimum(z, 1.0),
    "transposed axes": lambda z: tf.transpose(image(z), [0, 3, 1, 2])[:, 0],
    "padded": lambda z: tf.pad(image(z), [[0, 0], [1, 0], [0, 2], [0, 0]]),
    "sums": lambda z: tf.add_n([z, 2 * z, z / 3, tf.sigmoid(z)]) / tf.sqrt(tf.abs(z) + 1.0),
    "flattened": lambda z: tf.reshape(image(z), [tf.shape(z)[0], -1]),
    "unknown sizes, split": lambda z: tf.split(unknown(z), 2, axis=3)[1],
    "unknown sizes, resized": lambda z: tf.image.resize_nearest_neighbor(unknown(z, 4), [8, 8]),
    "unknown sizes, transposed": lambda z: transposed(unknown(z), [5, 5, 2, 4], [16, 8], 2, "SAME"),
    "unknown sizes, convolution": lambda z: tf.nn.conv2d(
        tf.nn.depth_to_space(unknown(z), 2), constant(3, 3, 1, 2), 1, "SAME"
    ),
    "unknown sizes, mean": lambda z: tf.reduce_mean(unknown(z), [1, 2], keepdims=True),
    "expanded": lambda z: tf.squeeze(tf.expand_dims(2 * z, 1), 1),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_program_computes_what_its_graph_computes(name):
    graph, z = frozen(GRAPHS[name]), latents()
    expected = by_tensorflow(graph, z=z)
    np.testing.assert_allclose(by_numpy(graph, z=z), expected, rtol=1e-4, atol=2e-6)
    assert by_numpy(graph, z=z[:1]).shape == expected[:1].shape


def freeze(build):
    """Freezes a model that has only what is frozen of a Gan: G, and an open session."""
    recipe = recipes.override(recipes.get("minimal"), nlatent=NLATENT)
    with tf.Graph().as_default():
        z = tf.placeholder(tf.float32, [None, NLATENT], "latents")
        gan = SimpleNamespace(z_placeholder=z, x_hat=build(z), session=tf.Session())
        return frozen_module.freeze(SimpleNamespace(gan=gan, recipe=recipe, classes=(0,)))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (tf.sin, r"operation Sin \("),
        (lambda z: z + tf.random_normal([NLATENT]), "RandomStandardNormal"),
        (lambda z: z - tf.reduce_mean(z, axis=0), "Mean .*over the batch"),
        (lambda z: tf.image.resize_nearest_neighbor(image(z), [6, 6]), "must be a multiple"),
        (lambda z: z[:, ::2], "StridedSlice .*strides"),
        (lambda z: tf.pad(z, [[0, 0], [1, 1]], constant_values=1), "must pad with 0"),
        (lambda z: tf.reshape(z, [NLATENT, -1]), "Reshape .*only its first size"),
        (lambda z: tf.reshape(z, [5, -1]), "Reshape .*unknown before it runs"),
        (lambda z: z[1:], "StridedSlice .*part of the batch"),
    ],
)
def test_what_no_program_computes_is_named(build, words):
    with pytest.raises(UserError, match=words):
        program.compile_graph(freeze(build))
