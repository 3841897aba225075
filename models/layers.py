"""Layers as functions of tensors, each on `get_variable` in the scope that the caller names.

Variables are resource variables on explicit request, because `disable_v2_behavior` turns that
default off. A layer whose behaviour differs in training takes a `TrainingPass` or None. Pictures
are [batch, height, width, channels].
"""

import itertools
import math

import numpy as np
import tensorflow.compat.v1 as tf

from input_data import SIDE

# The graph collection of (scope name, output shape) of every layer with variables.
LAYERS = "layers"
NUM_WINDOWS = 7 * 7

# Input channels times output channels from which on a kernel's gradient is taken tap by tap.
_MANY_CHANNELS = 2**15

_VARIANCE_FLOOR = 1e-3

# Odd and without structure, so that neighbouring seeds' draws do not meet.
_SEED_STRIDE = 0x1C88647


class TrainingPass:
    """One training pass through a net: where its randomness comes from, what it leaves to do.

    Layers draw their seeds from it (`next_seed`) and leave in `updates` functions that create what
    the net's own update is to run too, such as moving averages: a pass through D while G trains
    must not. None instead of a pass means inference.

    batches: how many batches of one size pass together, one after the other.
    """

    def __init__(self, seed):
        """seed: int32 [2] tensor; the pass's randomness is a function of it alone."""
        self._seed = seed
        self._draws = 0
        self._last = []
        self.updates = []
        self.batches = 1

    def next_seed(self):
        """() -> int32 [2], another one at every call."""
        self._draws += 1
        return self._seed + tf.constant([self._draws * _SEED_STRIDE, 0])

    def leave(self, update):
        """Adds to `updates` a function whose operation runs after those of its predecessors.

        Two updates of one variable in any order would end in different last bits.
        """

        def in_turn():
            with tf.control_dependencies(self._last):
                self._last = [update()]
            return self._last[0]

        self.updates.append(in_turn)


def variable(name, shape, *, initializer=None, trainable=True):
    """A float32 resource variable of the current scope; Glorot uniform unless told otherwise."""
    return tf.get_variable(
        name, shape, tf.float32, initializer=initializer, trainable=trainable, use_resource=True
    )


def dense(x, units, *, name, initializer=None):
    """[batch, n] -> [batch, units], x * kernel + bias."""
    with tf.variable_scope(name):
        kernel, bias = _weights([x.shape[-1], units], initializer)
        return _noted(tf.matmul(x, kernel) + bias)


def conv2d(x, filters, size, *, name, strides=1, initializer=None):
    """[batch, h, w, n] -> [batch, ceil(h / strides), ceil(w / strides), filters], plus bias.

    Kernels of `size` x `size` pixels; beyond the border there are zeros.
    """
    with tf.variable_scope(name):
        kernel, bias = _weights([size, size, x.shape[-1], filters], initializer)
        return _noted(tf.nn.bias_add(_convolved(x, kernel, strides), bias))


def _convolved(x, kernel, strides=1):
    """`tf.nn.conv2d` with padding SAME, in the form that is the fastest on a CPU."""
    size, _, n, m = kernel.shape.as_list()
    if strides == 1 and size // 2 < min(x.shape[1:3]) < size:
        return _convolved_by_taps(x, kernel)
    gradients = {"Conv2D": "ConvolutionByTaps"} if n * m >= _MANY_CHANNELS else {}
    with tf.get_default_graph().gradient_override_map(gradients):
        return tf.nn.conv2d(x, kernel, strides, "SAME")


@tf.RegisterGradient("ConvolutionByTaps")
def _gradients_of_convolution(convolution, dy):
    """A convolution and the gradient in its result -> the gradients in x and in the kernel."""
    x, kernel = convolution.inputs
    strides = convolution.get_attr("strides")
    dx = tf.nn.conv2d_backprop_input(tf.shape(x), kernel, dy, strides, "SAME")
    return dx, _filter_gradient(x, kernel.shape.as_list(), dy, strides[1])


def _filter_gradient(x, shape, dy, strides):
    """A kernel's gradient as a matrix product for each of its entries, over what it meets.

    With many channels as fast as oneDNN's in float32 on a Xeon, and two to four times as fast in
    bfloat16.
    """
    size, _, n, m = shape
    out = dy.shape.as_list()[1:3]
    rows, phases = tf.reshape(dy, [-1, m]), _phases(x, size, strides, out)
    taps = []
    for down, right in itertools.product(range(size), repeat=2):
        phase = phases[down % strides, right % strides]
        part = tf.slice(phase, [0, down // strides, right // strides, 0], [-1, *out, -1])
        taps.append(tf.matmul(tf.reshape(part, [-1, n]), rows, transpose_a=True))
    return tf.reshape(tf.stack(taps), shape)


def _phases(x, size, strides, out):
    """[batch, h, w, n] -> [strides, strides, batch, ., ., n]: padded, every strides-th pixel.

    A slice with strides in its place takes four times as long.
    """
    edges = []
    for length, steps in zip(x.shape.as_list()[1:3], out, strict=True):
        padded = max((steps - 1) * strides + size, length)
        before = (padded - length) // 2
        edges.append([before, padded - length - before + -padded % strides])
    phases = tf.space_to_batch_nd(x, [strides, strides], edges)
    return tf.reshape(phases, [strides, strides, -1, *phases.shape[1:]])


def _convolved_by_taps(x, kernel):
    """conv2d of stride 1 as a matrix product for each entry of the kernel, over what it meets.

    On pictures smaller than the kernel, half of conv2d's multiplications are by the zeros beyond
    the border; here there are none.
    """
    (_, height, width, _), (size, _, n, m) = x.shape.as_list(), kernel.shape.as_list()
    reach = range(-((size - 1) // 2), size // 2 + 1)
    taps = tf.unstack(tf.reshape(kernel, [size * size, n, m]))
    products = []
    for tap, (down, right) in zip(taps, itertools.product(reach, reach), strict=True):
        met = [height - abs(down), width - abs(right)]
        part = tf.slice(x, [0, max(down, 0), max(right, 0), 0], [-1, *met, -1])
        product = tf.reshape(tf.matmul(tf.reshape(part, [-1, n]), tap), [-1, *met, m])
        edges = [[max(-by, 0), max(by, 0)] for by in (down, right)]
        products.append(tf.pad(product, [[0, 0], *edges, [0, 0]]))
    return tf.add_n(products)


def neighbours_dense(x, size, units, *, name):
    """[batch, h, w, n] -> [batch, h + 1 - size, w + 1 - size, units]: a convolution within borders.

    As one product of a matrix with a row for each `size` x `size` neighbours, which XLA compiles
    far better than a convolution.
    """
    _, height, width, n = x.shape.as_list()
    reach = [height + 1 - size, width + 1 - size]
    places = itertools.product(range(size), repeat=2)
    shifted = [x[:, i : i + reach[0], j : j + reach[1]] for i, j in places]
    rows = tf.reshape(tf.concat(shifted, axis=3), [-1, size * size * n])
    with tf.variable_scope(name):
        kernel, bias = _weights([size * size * n, units])
        return _noted(tf.reshape(tf.matmul(rows, kernel) + bias, [-1, *reach, units]))


def window_dense(x, units, *, name):
    """[batch, 28, 28, n] -> [batch, 7, 7, units]: one dense layer for all windows of 8 x 8 pixels.

    A convolution with strides of 4 and zeros beyond the border: each window is four neighbours of
    8 x 8 squares of 4 x 4 pixels.
    """
    n = int(x.shape[-1])
    padded = tf.pad(x, [[0, 0], [2, 2], [2, 2], [0, 0]])
    squares = tf.transpose(tf.reshape(padded, [-1, 8, 4, 8, 4, n]), [0, 1, 3, 2, 4, 5])
    return neighbours_dense(tf.reshape(squares, [-1, 8, 8, 16 * n]), 2, units, name=name)


def window_dense_transpose(x, *, name):
    """[batch, 7, 7, n] -> [batch, 28, 28]: one dense layer from each cell to its window's pixels.

    The windows are those of `window_dense`, whose transpose this is: where they overlap, they add
    up (Zeiler et al. 2010).
    """
    n = int(x.shape[-1])
    with tf.variable_scope(name):
        kernel, bias = _weights([n, 64])
        windows = tf.reshape(tf.matmul(tf.reshape(x, [-1, n]), kernel) + bias, [-1, 7, 7, 64])
        parts = [tf.slice(windows, [0, 0, 0, 16 * k], [-1, 7, 7, 16]) for k in range(4)]
        corners = itertools.product([[0, 1], [1, 0]], repeat=2)
        places = [[[0, 0], *corner, [0, 0]] for corner in corners]
        squares = tf.add_n([tf.pad(*each) for each in zip(parts, places, strict=True)])
        rows = tf.transpose(tf.reshape(squares, [-1, 8, 8, 4, 4]), [0, 1, 3, 2, 4])
        return _noted(tf.slice(tf.reshape(rows, [-1, 32, 32]), [0, 2, 2], [-1, SIDE, SIDE]))


def upsample_conv2d(x, filters, size, *, name, initializer=None):
    """[batch, h, w, n] -> [batch, 2h, 2w, filters]: every pixel becomes 2 x 2, then `conv2d`.

    The same kernel [size, size, n, filters], size odd, and the same result, with 4 multiplications
    in the place of 9 (size 3) or 9 in that of 25 (size 5): where the kernel meets equal pixels its
    weights are added up first. That gives a kernel for each of the four positions in a 2 x 2
    square, all on the same windows of x but for a shift of the result if size // 2 is odd.
    """
    _, height, width, channels = x.shape.as_list()
    shift = size // 2 % 2
    with tf.variable_scope(name):
        kernel, bias = _weights([size, size, channels, filters], initializer)
        padded = tf.pad(x, [[0, 0], [shift, 0], [shift, 0], [0, 0]])
        y = _convolved(padded, _phase_kernels(kernel))
        y = tf.nn.depth_to_space(tf.nn.bias_add(y, tf.tile(bias, [4])), 2)
        # tf.slice, because the gradient of y[...] takes ten times as long.
        return _noted(tf.slice(y, [0, shift, shift, 0], [-1, 2 * height, 2 * width, -1]))


def _phase_kernels(kernel):
    """[k, k, n, m] -> [t, t, n, 4 m] with t = (k + 1) / 2, position by position of the square."""
    size, _, n, m = kernel.shape.as_list()
    taps = (size + 1) // 2
    # At position s of a doubled row, the kernel's entry u meets the row's pixel (s + u) // 2.
    s, tap, u = np.ogrid[:2, :taps, :size]
    meets = ((s + u) // 2 == tap).astype(np.float32)
    sums = np.einsum("stu,zwv->twszuv", meets, meets).reshape(-1, size * size)
    kernels = tf.matmul(sums, tf.reshape(kernel, [size * size, n * m]))
    kernels = tf.transpose(tf.reshape(kernels, [taps, taps, 4, n, m]), [0, 1, 3, 2, 4])
    return tf.reshape(kernels, [taps, taps, n, 4 * m])


def batch_norm(x, training, *, name, momentum=0.9):
    """[batch, ..., n] -> the same, each of the n features with mean beta and deviation gamma.

    Ioffe & Szegedy 2015. In training by the batch's own statistics, of which the net's update
    keeps moving averages; in inference by those. momentum: the averages' decay; None keeps none
    and takes the batch's own statistics always, so that a result depends on its whole batch.
    """
    with tf.variable_scope(name):
        shape = [x.shape[-1]]
        gamma = variable("gamma", shape, initializer=tf.ones_initializer())
        beta = variable("beta", shape, initializer=tf.zeros_initializer())
        averages = [] if momentum is None else _moving_averages(shape)
        if training is None and averages:
            return _noted(_normalised(x, gamma, beta, *averages)[0])
        y, *statistics = _normalised(x, gamma, beta)
        if training is not None and averages:
            training.leave(lambda: _moved(averages, statistics, momentum))
        return _noted(y)


def _moving_averages(shape):
    mean = variable("moving_mean", shape, initializer=tf.zeros_initializer(), trainable=False)
    ones = tf.ones_initializer()
    return [mean, variable("moving_variance", shape, initializer=ones, trainable=False)]


def _normalised(x, gamma, beta, *statistics):
    """-> (normalised x, mean [n], variance [n]) by the given statistics, or else by x's own.

    The variance that x is divided by is the mean square, the one returned the unbiased estimate.
    """
    rows = x if len(x.shape) == 4 else tf.reshape(x, [-1, 1, 1, x.shape[-1]])
    y, mean, variance = tf.nn.fused_batch_norm(
        rows, gamma, beta, *statistics, epsilon=_VARIANCE_FLOOR, is_training=not statistics
    )
    return tf.reshape(y, tf.shape(x)), mean, variance


def _moved(averages, statistics, momentum):
    """-> the operation that takes each average a step towards the statistic."""
    moves = zip(averages, statistics, strict=True)
    return tf.group(
        *(average.assign_sub((1 - momentum) * (average.read_value() - s)) for average, s in moves)
    )


def dropout(x, rate, training):
    """Any shape -> the same: in training, a share `rate` of the values 0, the others scaled up.

    Srivastava et al. 2014; the scale 1 / (1 - rate) keeps the mean. Which are dropped is a function
    of the pass's seed alone. In inference x itself.
    """
    if training is None:
        return x
    # 16 random bits a value are enough for a rate, and cost half of 32.
    bits = tf.bitcast(_random_bits((tf.size(x) + 1) // 2, training.next_seed()), tf.uint16)
    kept = tf.reshape(bits, [-1])[: tf.size(x)] >= tf.constant(round(rate * 2**16), tf.uint16)
    return x * tf.reshape(tf.cast(kept, tf.float32) / (1 - rate), tf.shape(x))


def leaky_relu(x, slope):
    """Any shape -> the same: x where positive, slope * x elsewhere.

    Of operations that `numpy_generator` has; on pictures TensorFlow's own is three times as fast.
    """
    return tf.maximum(x, slope * x)


def signed(x):
    """[0, 1] -> [-1, 1]."""
    return 2 * x - 1


def unsigned(x):
    """[-1, 1] -> [0, 1]."""
    return (x + 1) / 2


def pictures(x):
    """[batch, n * 784] -> [batch, 28, 28, n]: n images in a row as n channels."""
    stacked = tf.reshape(x, [-1, x.shape[-1] // SIDE**2, SIDE, SIDE])
    return tf.transpose(stacked, [0, 2, 3, 1])


def flat(x):
    """[batch, ...] -> [batch, n]."""
    return tf.reshape(x, [-1, x.shape[1:].num_elements()])


def _weights(shape, initializer=None):
    """-> the current scope's `kernel` of that shape and its `bias` of zeros."""
    kernel = variable("kernel", shape, initializer=initializer)
    return kernel, variable("bias", shape[-1:], initializer=tf.zeros_initializer())


def _noted(y):
    """A layer's output -> the same, its shape noted where the layer's variables are created."""
    scope = tf.get_variable_scope()
    if not scope.reuse:
        tf.add_to_collection(LAYERS, (scope.name, y.shape.as_list()))
    return y


def random_uniform(shape, seed):
    """int32 [2] seed -> float32 of that shape in (0, 1), a function of the seed alone.

    A counter through MurmurHash3's finaliser. TensorFlow's own stateless kernels will not do: they
    draw other numbers under XLA than outside it, and the two engines are to agree.
    """
    bits = _random_bits(tf.reduce_prod(shape), seed)
    top = tf.cast(tf.bitwise.right_shift(bits, tf.constant(9, tf.uint32)), tf.int32)
    return tf.reshape((tf.cast(top, tf.float32) + 0.5) * 2.0**-23, shape)


def random_normal(shape, seed):
    """int32 [2] seed -> standard normal float32 of that shape, a function of the seed alone."""
    return math.sqrt(2) * tf.math.erfinv(2 * random_uniform(shape, seed) - 1)


def _random_bits(count, seed):
    """int32 [2] seed -> uint32 [count]."""
    key = _mixed(_mixed(tf.cast(seed[0], tf.uint32)) + tf.cast(seed[1], tf.uint32))
    return _mixed(_mixed(tf.cast(tf.range(count), tf.uint32) + key) + key)


def _mixed(bits):
    """uint32 -> uint32, each input bit changing about half of the output's."""
    for shift, factor in [(16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)]:
        bits = tf.bitwise.bitwise_xor(
            bits, tf.bitwise.right_shift(bits, tf.constant(shift, tf.uint32))
        )
        bits *= tf.constant(factor, tf.uint32)
    return bits


def minibatch_stddev(x, training):
    """[batch, n] -> [batch, n + 1]: appends the features' mean standard deviation in the batch.

    Karras et al. 2018, with the whole batch as one group, each of its own if several pass together.
    """
    batches = 1 if training is None else training.batches
    apart = tf.reshape(x, [batches, -1, x.shape[1]])
    variance = tf.math.reduce_variance(apart, axis=1, keepdims=True)
    spread = tf.reduce_mean(tf.sqrt(variance + 1e-8), axis=2, keepdims=True)
    column = tf.broadcast_to(spread, tf.concat([tf.shape(apart)[:2], [1]], axis=0))
    return tf.concat([x, tf.reshape(column, [-1, 1])], axis=1)


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
