"""Layers as functions of tensors, each on `get_variable` in the scope that the caller names.

Variables are resource variables on explicit request, because `disable_v2_behavior` turns that
default off. Pictures are [batch, height, width, channels]. Dropout and batch norm are themselves in
a training pass (`passes.training`) and stand still outside one.
"""

import tensorflow.compat.v1 as tf

from input_data import SIDE
from models import convolutions, passes, randomness

# The graph collection of (scope name, output shape) of every layer with variables.
LAYERS = "layers"

_VARIANCE_FLOOR = 1e-3


def variable(name, shape, *, initializer=None, trainable=True):
    """A float32 resource variable of the current scope; Glorot uniform unless told otherwise."""
    return tf.get_variable(
        name, shape, tf.float32, initializer=initializer, trainable=trainable, use_resource=True
    )


def dense(x, units, *, name, initializer=None):
    """[batch, n] -> [batch, units], x * kernel + bias."""
    with tf.variable_scope(name):
        kernel, bias = _weights([x.shape[-1], units], initializer)
        return _record_shape(tf.matmul(x, kernel) + bias)


def conv2d(x, filters, size, *, name, strides=1, initializer=None):
    """[batch, h, w, n] -> [batch, ceil(h / strides), ceil(w / strides), filters], plus bias.

    Kernels of `size` x `size` pixels; beyond the border there are zeros.
    """
    with tf.variable_scope(name):
        kernel, bias = _weights([size, size, x.shape[-1], filters], initializer)
        return _record_shape(tf.nn.bias_add(convolutions.same(x, kernel, strides), bias))


def conv2d_valid(x, filters, size, *, name):
    """[batch, h, w, n] -> [batch, h + 1 - size, w + 1 - size, filters]: within the borders."""
    _, height, width, n = x.shape.as_list()
    rows = convolutions.patches(x, size)
    with tf.variable_scope(name):
        kernel, bias = _weights([size * size * n, filters])
        y = tf.matmul(rows, kernel) + bias
        return _record_shape(tf.reshape(y, [-1, height + 1 - size, width + 1 - size, filters]))


def conv2d_8x8_stride_4(x, filters, *, name):
    """[batch, 28, 28, n] -> [batch, 7, 7, filters]; beyond the border there are zeros."""
    return conv2d_valid(convolutions.squares(x), filters, 2, name=name)


def conv2d_transpose_8x8_stride_4(x, *, name):
    """[batch, 7, 7, n] -> [batch, 28, 28], the transpose of the convolution above, plus bias.

    One bias for each of a patch's 64 pixels (Zeiler et al. 2010).
    """
    n = int(x.shape[-1])
    with tf.variable_scope(name):
        kernel, bias = _weights([n, 64])
        pixels = tf.matmul(tf.reshape(x, [-1, n]), kernel) + bias
        return _record_shape(convolutions.overlapped(tf.reshape(pixels, [-1, 7, 7, 64])))


def upsample_conv2d(x, filters, size, *, name, initializer=None):
    """[batch, h, w, n] -> [batch, 2h, 2w, filters]: every pixel becomes 2 x 2, then `conv2d`.

    The same kernel [size, size, n, filters], size odd, and the same result, with 4 multiplications
    in the place of 9 (size 3) or 9 in that of 25 (size 5): where the kernel meets equal pixels its
    weights are added up first. That gives a kernel for each of the four positions in a 2 x 2
    square, all on the same patches of x but for a shift of the result if size // 2 is odd.
    """
    _, height, width, channels = x.shape.as_list()
    shift = size // 2 % 2
    with tf.variable_scope(name):
        kernel, bias = _weights([size, size, channels, filters], initializer)
        padded = tf.pad(x, [[0, 0], [shift, 0], [shift, 0], [0, 0]])
        y = convolutions.same(padded, convolutions.phase_kernels(kernel))
        y = tf.nn.depth_to_space(tf.nn.bias_add(y, tf.tile(bias, [4])), 2)
        # tf.slice, because the gradient of y[...] takes ten times as long.
        return _record_shape(tf.slice(y, [0, shift, shift, 0], [-1, 2 * height, 2 * width, -1]))


def batch_norm(x, *, name, momentum=0.9):
    """[batch, ..., n] -> the same, each of the n features with mean beta and deviation gamma.

    Ioffe & Szegedy 2015. In training by the batch's own statistics, of which the network's update
    keeps moving averages; in inference by those. momentum: the averages' decay; None keeps none
    and takes the batch's own statistics always, so that a result depends on its whole batch.
    """
    with tf.variable_scope(name):
        shape = [x.shape[-1]]
        gamma = variable("gamma", shape, initializer=tf.ones_initializer())
        beta = variable("beta", shape, initializer=tf.zeros_initializer())
        averages = [] if momentum is None else _moving_averages(shape)
        if averages and passes.current() is None:
            return _record_shape(_normalised(x, gamma, beta, *averages)[0])
        y, *statistics = _normalised(x, gamma, beta)
        if averages:
            passes.current().updates.append(lambda: _moved(averages, statistics, momentum))
        return _record_shape(y)


def _moving_averages(shape):
    mean = variable("moving_mean", shape, initializer=tf.zeros_initializer(), trainable=False)
    ones = tf.ones_initializer()
    return [mean, variable("moving_variance", shape, initializer=ones, trainable=False)]


def _normalised(x, gamma, beta, *statistics):
    """-> (normalised x, mean [n], variance [n]) by the given statistics, or else by x's own.

    The variance that x is divided by is the mean square, the one returned the unbiased estimate.
    """
    if not statistics and passes.shard().count > 1:
        return _normalised_together(x, gamma, beta, passes.shard())
    rows = x if len(x.shape) == 4 else tf.reshape(x, [-1, 1, 1, x.shape[-1]])
    y, mean, variance = tf.nn.fused_batch_norm(
        rows, gamma, beta, *statistics, epsilon=_VARIANCE_FLOOR, is_training=not statistics
    )
    return tf.reshape(y, tf.shape(x)), mean, variance


def _normalised_together(x, gamma, beta, share):
    """As `_normalised`, by the statistics of all processes' x."""
    axes = list(range(len(x.shape) - 1))
    mean = share.mean(tf.reduce_mean(x, axes))
    variance = share.mean(tf.reduce_mean(tf.square(x - mean), axes))
    y = tf.nn.batch_normalization(x, mean, variance, beta, gamma, _VARIANCE_FLOOR)
    count = tf.cast(share.count * tf.size(x) // tf.size(mean), tf.float32)
    return y, mean, variance * count / (count - 1)


def _moved(averages, statistics, momentum):
    """-> the operation that takes each average a step towards the statistic."""
    moves = zip(averages, statistics, strict=True)
    return tf.group(
        *(average.assign_sub((1 - momentum) * (average.read_value() - s)) for average, s in moves)
    )


def dropout(x, rate):
    """Any shape -> the same: in training, a share `rate` of the values 0, the others scaled up.

    Srivastava et al. 2014; the scale 1 / (1 - rate) keeps the mean. Which are dropped is a function
    of the pass's seed alone. In inference x itself.
    """
    running = passes.current()
    if running is None:
        return x
    seed, share = running.next_seed(), passes.shard()
    if share.count == 1:
        bits = randomness.random_16_bits(tf.size(x), seed)
    else:  # those that x has of the whole batches' bits
        count = tf.size(x) // running.batches
        starts = [(i * share.count + share.index) * count for i in range(running.batches)]
        bits = tf.concat([randomness.random_16_bits(count, seed, at) for at in starts], axis=0)
    kept = bits >= tf.constant(round(rate * 2**16), tf.uint16)
    return x * tf.reshape(tf.cast(kept, tf.float32) / (1 - rate), tf.shape(x))


def leaky_relu(x, slope):
    """Any shape -> the same: x where positive, slope * x elsewhere, with a slope of at most 1.

    On pictures TensorFlow's own is three times as fast.
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


def _record_shape(y):
    """A layer's output -> the same, its shape noted where the layer's variables are created."""
    scope = tf.get_variable_scope()
    if not scope.reuse:
        tf.add_to_collection(LAYERS, (scope.name, y.shape.as_list()))
    return y


def minibatch_stddev(x, labels=None):
    """[batch, n] -> [batch, n + 1]: appends the features' mean standard deviation in the batch.

    Karras et al. 2018, with the whole batch as one group, each of its own if several pass together.
    labels: one-hot [batch, k]; then the deviation from the mean of the rows of the same label.
    """
    running = passes.current()
    batches = 1 if running is None else running.batches
    apart = tf.reshape(x, [batches, -1, x.shape[1]])
    if labels is not None:
        apart -= _means_of_labels(apart, tf.reshape(labels, [batches, -1, labels.shape[1]]))
    variance = _variance(apart, passes.shard())
    spread = tf.reduce_mean(tf.sqrt(variance + 1e-8), axis=2, keepdims=True)
    column = tf.broadcast_to(spread, tf.concat([tf.shape(apart)[:2], [1]], axis=0))
    return tf.concat([x, tf.reshape(column, [-1, 1])], axis=1)


def _means_of_labels(x, labels):
    """[batches, batch, n], one-hot [batches, batch, k] -> for each row the mean of its label's."""
    mean = passes.shard().mean
    sums = mean(tf.matmul(labels, x, transpose_a=True))  # [batches, k, n]
    counts = mean(tf.reduce_sum(labels, axis=1))[:, :, None]
    return tf.matmul(labels, tf.math.divide_no_nan(sums, counts))


def _variance(x, share):
    """[batches, batch, n] -> [batches, 1, n], over the batch of all processes."""
    if share.count == 1:
        return tf.math.reduce_variance(x, axis=1, keepdims=True)
    mean = share.mean(tf.reduce_mean(x, axis=1, keepdims=True))
    return share.mean(tf.reduce_mean(tf.square(x - mean), axis=1, keepdims=True))
