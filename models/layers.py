"""Layers: functions that create variables in a scope that the caller names.

They ask for resource variables explicitly, because `disable_v2_behavior` turns that default off.
Images are [batch, height, width, channels]. Dropout and batch norm act as in training only within
`passes.training`.
"""

import tensorflow.compat.v1 as tf

from models import convolutions, passes, randomness
from support.data_sets import SIDE

_VARIANCE_FLOOR = 1e-3


def variable(name, shape, *, initializer=None, trainable=True):
    """Returns a float32 resource variable, by default Glorot uniform."""
    return tf.get_variable(
        name, shape, tf.float32, initializer=initializer, trainable=trainable, use_resource=True
    )


def dense(x, units, *, name, initializer=None):
    """Applies a dense layer to `[batch, n]`; returns `[batch, units]`."""
    with tf.variable_scope(name):
        kernel, bias = _weights([x.shape[-1], units], initializer)
        return tf.matmul(x, kernel) + bias


def conv2d(x, filters, size, *, name, strides=1, initializer=None):
    """Applies a convolution with bias and zero padding (SAME).

    Args:
      x: `[batch, h, w, n]`.
      filters: Output channels.
      size: Height and width of the kernels, in pixels.

    Returns:
      `[batch, ceil(h / strides), ceil(w / strides), filters]`.
    """
    with tf.variable_scope(name):
        kernel, bias = _weights([size, size, x.shape[-1], filters], initializer)
        return tf.nn.bias_add(convolutions.same(x, kernel, strides), bias)


def conv2d_valid(x, filters, size, *, name, strides=1):
    """Applies a convolution with bias and no padding (VALID).

    Returns:
      `[batch, ceil((h + 1 - size) / strides), ceil((w + 1 - size) / strides), filters]` for x of
      shape `[batch, h, w, n]`.
    """
    patches = convolutions.patches(x, size, strides)
    _, height, width, n = patches.shape
    with tf.variable_scope(name):
        kernel, bias = _weights([n, filters])
        y = tf.matmul(tf.reshape(patches, [-1, n]), kernel) + bias
        return tf.reshape(y, [-1, height, width, filters])


def conv2d_8x8_stride_4(x, filters, *, name):
    """Applies a convolution with bias and zero padding to `[batch, 28, 28, n]`.

    Returns:
      `[batch, 7, 7, filters]`.
    """
    return conv2d_valid(convolutions.squares(x), filters, 2, name=name)


def conv2d_transpose_8x8_stride_4(x, *, name):
    """Applies the transpose of `conv2d_8x8_stride_4` and a bias (Zeiler et al. 2010).

    The bias has one value for each of a patch's 64 pixels.

    Returns:
      `[batch, 28, 28]` for x of shape `[batch, 7, 7, n]`.
    """
    n = int(x.shape[-1])
    with tf.variable_scope(name):
        kernel, bias = _weights([n, 64])
        pixels = tf.matmul(tf.reshape(x, [-1, n]), kernel) + bias
        return convolutions.overlapped(tf.reshape(pixels, [-1, 7, 7, 64]))


def upsample_conv2d(x, filters, size, *, name, initializer=None):
    """Repeats every pixel 2 x 2, then applies `conv2d`.

    The kernel `[size, size, n, filters]`, size odd, and the result are those of the two steps, with
    4 multiplications instead of 9 (size 3) or 9 instead of 25 (size 5): weights that meet equal
    pixels are added first. That takes a kernel for each of the four positions in a 2 x 2 square,
    all on the same patches of x; the result is shifted by a pixel if size // 2 is odd.

    Returns:
      `[batch, 2 h, 2 w, filters]` for x of shape `[batch, h, w, n]`.
    """
    _, height, width, channels = x.shape.as_list()
    shift = size // 2 % 2
    with tf.variable_scope(name):
        kernel, bias = _weights([size, size, channels, filters], initializer)
        padded = tf.pad(x, [[0, 0], [shift, 0], [shift, 0], [0, 0]])
        y = convolutions.same(padded, convolutions.phase_kernels(kernel))
        y = tf.nn.depth_to_space(tf.nn.bias_add(y, tf.tile(bias, [4])), 2)
        # tf.slice, because the gradient of y[...] takes ten times as long.
        return tf.slice(y, [0, shift, shift, 0], [-1, 2 * height, 2 * width, -1])


def batch_norm(x, *, name, momentum=0.9):
    """Normalises each feature to mean beta and deviation gamma (Ioffe & Szegedy 2015).

    Training takes the batch's own statistics, and the network's update keeps moving averages of
    them for inference.

    Args:
      x: `[batch, ..., n]`.
      momentum: The decay of the moving averages. None always takes the batch's own statistics, so
        that a result depends on its whole batch.
    """
    running, shard = None if momentum is None else passes.current(), passes.shard()
    with tf.variable_scope(name):
        shape = [x.shape[-1]]
        zeros, ones = tf.zeros_initializer(), tf.ones_initializer()
        gamma = variable("gamma", shape, initializer=ones)
        beta = variable("beta", shape, initializer=zeros)
        averages = []
        if momentum is not None:
            averages = [
                variable("moving_mean", shape, initializer=zeros, trainable=False),
                variable("moving_variance", shape, initializer=ones, trainable=False),
            ]
        if averages and running is None:
            return _normalised(x, gamma, beta, *averages)[0]
        if shard.count == 1:
            y, *statistics = _normalised(x, gamma, beta)
        else:  # by the statistics of all processes' x
            axes = list(range(len(x.shape) - 1))
            mean = shard.mean(tf.reduce_mean(x, axes))
            variance = shard.mean(tf.reduce_mean(tf.square(x - mean), axes))
            y = tf.nn.batch_normalization(x, mean, variance, beta, gamma, _VARIANCE_FLOOR)
            count = tf.cast(shard.count * tf.size(x) // tf.size(mean), tf.float32)
            statistics = [mean, variance * count / (count - 1)]

        def move():
            moves = zip(averages, statistics, strict=True)
            return tf.group(
                *(v.assign_sub((1 - momentum) * (v.read_value() - s)) for v, s in moves)
            )

        if averages:
            running.updates.append(move)
        return y


def _normalised(x, gamma, beta, *statistics):
    """Returns normalised x, mean [n] and variance [n].

    Without given statistics, x is normalised by its own: it is divided by the root of the mean
    square, and the variance returned is the unbiased estimate.
    """
    rows = x if len(x.shape) == 4 else tf.reshape(x, [-1, 1, 1, x.shape[-1]])
    y, mean, variance = tf.nn.fused_batch_norm(
        rows, gamma, beta, *statistics, epsilon=_VARIANCE_FLOOR, is_training=not statistics
    )
    return tf.reshape(y, tf.shape(x)), mean, variance


def pixel_norm(x):
    """Scales each row of `[batch, n]` to a mean square of 1 (Karras et al. 2018)."""
    return x * tf.rsqrt(tf.reduce_mean(tf.square(x), axis=1, keepdims=True) + 1e-8)


def dropout(x, rate):
    """Sets a fraction `rate` of the values to 0 in training (Srivastava et al. 2014).

    The others are scaled by 1 / (1 - rate), which keeps the mean. Which are dropped follows from
    the pass's seed. Inference returns x.
    """
    running = passes.current()
    if running is None:
        return x
    seed, shard = running.next_seed(), passes.shard()
    if shard.count == 1:
        bits = randomness.random_16_bits(tf.size(x), seed)
    else:  # the bits of this process's rows in the whole batches
        count = tf.size(x) // running.batches
        starts = [(i * shard.count + shard.index) * count for i in range(running.batches)]
        bits = tf.concat([randomness.random_16_bits(count, seed, at) for at in starts], axis=0)
    kept = bits >= tf.constant(round(rate * 2**16), tf.uint16)
    return x * tf.reshape(tf.cast(kept, tf.float32) / (1 - rate), tf.shape(x))


def leaky_relu(x, slope):
    """Returns x where it is positive, slope * x elsewhere, for a slope up to 1.

    On images `tf.nn.leaky_relu` is three times as fast.
    """
    return tf.maximum(x, slope * x)


def signed(x):
    """Maps [0, 1] to [-1, 1]."""
    return 2 * x - 1


def unsigned(x):
    """Maps [-1, 1] to [0, 1]."""
    return (x + 1) / 2


def images(x):
    """Reshapes `[batch, n * 784]`, n images in a row, to `[batch, 28, 28, n]`."""
    stacked = tf.reshape(x, [-1, x.shape[-1] // SIDE**2, SIDE, SIDE])
    return tf.transpose(stacked, [0, 2, 3, 1])


def flat(x):
    """Reshapes `[batch, ...]` to `[batch, n]`."""
    return tf.reshape(x, [-1, x.shape[1:].num_elements()])


def _weights(shape, initializer=None):
    """Returns the current scope's `kernel` of that shape and its `bias` of zeros."""
    kernel = variable("kernel", shape, initializer=initializer)
    return kernel, variable("bias", shape[-1:], initializer=tf.zeros_initializer())


def minibatch_stddev(x, labels=None):
    """Appends the features' mean standard deviation over the batch.

    Karras et al. 2018, with a whole batch as one group.

    Args:
      x: `[batch, n]`.
      labels: One-hot `[batch, k]`; with them deviations are from the mean of the rows of the same
        label.

    Returns:
      `[batch, n + 1]`.
    """
    batches, shard = passes.batches(), passes.shard()
    apart = tf.reshape(x, [batches, -1, x.shape[1]])
    if labels is not None:
        rows = tf.reshape(labels, [batches, -1, labels.shape[1]])
        sums = shard.mean(tf.matmul(rows, apart, transpose_a=True))  # [batches, labels, n]
        counts = shard.mean(tf.reduce_sum(rows, axis=1))[:, :, None]
        apart -= tf.matmul(rows, tf.math.divide_no_nan(sums, counts))
    mean = shard.mean(tf.reduce_mean(apart, axis=1, keepdims=True))
    variance = shard.mean(tf.reduce_mean(tf.square(apart - mean), axis=1, keepdims=True))
    spread = tf.reduce_mean(tf.sqrt(variance + 1e-8), axis=2, keepdims=True)
    column = tf.broadcast_to(spread, tf.concat([tf.shape(apart)[:2], [1]], axis=0))
    return tf.concat([x, tf.reshape(column, [-1, 1])], axis=1)
