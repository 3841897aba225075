"""Layers as functions of tensors, each on `get_variable` in the scope that the caller names.

Variables are resource variables on explicit request, because `disable_v2_behavior` turns that
default off. A layer whose behaviour differs in training takes a `TrainingPass` or None.
"""

import math

import tensorflow.compat.v1 as tf

# Odd and without structure, so that neighbouring seeds' draws do not meet.
_SEED_STRIDE = 0x1C88647


class TrainingPass:
    """One training pass through a net: where its randomness comes from, what it leaves to do.

    Layers draw their seeds from it (`next_seed`) and leave in `updates` functions that create what
    the net's own update is to run too, such as moving averages: a pass through D while G trains
    must not. None instead of a pass means inference.
    """

    def __init__(self, seed):
        """seed: int32 [2] tensor; the pass's randomness is a function of it alone."""
        self._seed = seed
        self._draws = 0
        self.updates = []

    def next_seed(self):
        """() -> int32 [2], another one at every call."""
        self._draws += 1
        return self._seed + tf.constant([self._draws * _SEED_STRIDE, 0])


def variable(name, shape, *, initializer=None, trainable=True):
    """A float32 resource variable of the current scope; Glorot uniform unless told otherwise."""
    return tf.get_variable(
        name, shape, tf.float32, initializer=initializer, trainable=trainable, use_resource=True
    )


def dense(x, units, *, name, initializer=None):
    """[batch, n] -> [batch, units], x * kernel + bias."""
    with tf.variable_scope(name):
        kernel = variable("kernel", [x.shape[-1], units], initializer=initializer)
        bias = variable("bias", [units], initializer=tf.zeros_initializer())
    return tf.matmul(x, kernel) + bias


def leaky_relu(x, slope):
    """Any shape -> the same: x where positive, slope * x elsewhere."""
    return tf.maximum(x, slope * x)


def random_uniform(shape, seed):
    """int32 [2] seed -> float32 of that shape in (0, 1), a function of the seed alone.

    A counter through MurmurHash3's finaliser. TensorFlow's own stateless kernels will not do: they
    draw other numbers under XLA than outside it, and the two engines are to agree.
    """
    size = tf.reduce_prod(shape)
    key = _mixed(_mixed(tf.cast(seed[0], tf.uint32)) + tf.cast(seed[1], tf.uint32))
    bits = _mixed(_mixed(tf.cast(tf.range(size), tf.uint32) + key) + key)
    top = tf.cast(tf.bitwise.right_shift(bits, tf.constant(9, tf.uint32)), tf.int32)
    return tf.reshape((tf.cast(top, tf.float32) + 0.5) * 2.0**-23, shape)


def random_normal(shape, seed):
    """int32 [2] seed -> standard normal float32 of that shape, a function of the seed alone."""
    return math.sqrt(2) * tf.math.erfinv(2 * random_uniform(shape, seed) - 1)


def _mixed(bits):
    """uint32 -> uint32, each input bit changing about half of the output's."""
    for shift, factor in [(16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)]:
        bits = tf.bitwise.bitwise_xor(
            bits, tf.bitwise.right_shift(bits, tf.constant(shift, tf.uint32))
        )
        bits *= tf.constant(factor, tf.uint32)
    return bits


def minibatch_stddev(x):
    """[batch, n] -> [batch, n + 1]: appends the features' mean standard deviation in the batch.

    Karras et al. 2018, with the whole batch as one group.
    """
    variance = tf.math.reduce_variance(x, axis=0)
    spread = tf.reduce_mean(tf.sqrt(variance + 1e-8))
    return tf.concat([x, tf.fill([tf.shape(x)[0], 1], spread)], axis=1)


def spectral_norm(training):
    """-> a custom getter that divides each kernel by an estimate of its largest singular value.

    Miyato et al. 2018: one power iteration a training pass on a persistent vector `u`, kept beside
    the kernel as a variable that no optimizer moves. Inference uses the vector as it is.
    """

    def normalised(getter, name, *args, **kwargs):
        kernel = getter(name, *args, **kwargs)
        if not name.endswith("kernel"):
            return kernel
        matrix = tf.reshape(kernel, [-1, kernel.shape[-1]])
        u = getter(
            f"{name}_u",
            [1, matrix.shape[1]],
            tf.float32,
            initializer=tf.random_normal_initializer(),
            trainable=False,
            use_resource=True,
        )
        v = tf.stop_gradient(tf.nn.l2_normalize(tf.matmul(u, matrix, transpose_b=True)))
        next_u = tf.stop_gradient(tf.nn.l2_normalize(tf.matmul(v, matrix)))
        if training is not None:
            training.updates.append(lambda: u.assign(next_u))
        return kernel / tf.reduce_sum(tf.matmul(v, matrix) * next_u)

    return normalised
