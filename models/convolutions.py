"""Convolutions in forms that are fast on a CPU; `layers` adds the variables.

XLA on a CPU is many times slower on convolutions than on matrix products, and TensorFlow's own
kernels are slow at some shapes. The functions here return what their docstrings say, computed in
another order.
"""

import itertools

import numpy as np
import tensorflow.compat.v1 as tf

from support.data_sets import SIDE

# From this many input channels times output channels, a kernel's gradient is taken tap by tap.
_MANY_CHANNELS = 2**15


def same(x, kernel, strides=1):
    """Computes `tf.nn.conv2d` with padding SAME and a kernel `[k, k, n, m]`."""
    size, _, n, m = kernel.shape.as_list()
    if strides == 1 and size // 2 < min(x.shape[1:3]) < size:
        return _same_by_taps(x, kernel)
    gradients = {"Conv2D": "ConvolutionByTaps"} if n * m >= _MANY_CHANNELS else {}
    with tf.get_default_graph().gradient_override_map(gradients):
        return tf.nn.conv2d(x, kernel, strides, "SAME")


@tf.RegisterGradient("ConvolutionByTaps")
def _gradients_of_convolution(convolution, dy):
    """Returns the gradients of a convolution in x and in the kernel.

    The kernel's takes a matrix product for each of its entries. With many channels that is as fast
    as oneDNN's in float32 on a Xeon, and two to four times as fast in bfloat16.
    """
    x, kernel = convolution.inputs
    size, _, n, m = shape = kernel.shape.as_list()
    strides, out = convolution.get_attr("strides"), dy.shape.as_list()[1:3]
    dx = tf.nn.conv2d_backprop_input(tf.shape(x), kernel, dy, strides, "SAME")
    rows, step = tf.reshape(dy, [-1, m]), strides[1]
    # Pad x and split it to [step, step, batch, ., ., n], of which each part has every step-th
    # pixel. A slice with strides takes four times as long.
    edges = []
    for length, count in zip(x.shape.as_list()[1:3], out, strict=True):
        padded = max((count - 1) * step + size, length)
        before = (padded - length) // 2
        edges.append([before, padded - length - before + -padded % step])
    parts = tf.space_to_batch_nd(x, [step, step], edges)
    parts = tf.reshape(parts, [step, step, -1, *parts.shape[1:]])
    taps = []
    for down, right in itertools.product(range(size), repeat=2):
        part = parts[down % step, right % step]
        part = tf.slice(part, [0, down // step, right // step, 0], [-1, *out, -1])
        taps.append(tf.matmul(tf.reshape(part, [-1, n]), rows, transpose_a=True))
    return dx, tf.reshape(tf.stack(taps), shape)


def _same_by_taps(x, kernel):
    """Computes a convolution by a matrix product for each entry of the kernel.

    On images smaller than the kernel, half of conv2d's multiplications are by the zeros of the
    padding; this has none of them.
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


def phase_kernels(kernel):
    """Returns the four kernels of `layers.upsample_conv2d`.

    Args:
      kernel: `[k, k, n, m]`, k odd.

    Returns:
      `[t, t, n, 4 m]` with t = (k + 1) / 2, position by position.
    """
    size, _, n, m = kernel.shape.as_list()
    taps = (size + 1) // 2
    # At position s of a doubled row, the kernel's entry u meets the row's pixel (s + u) // 2.
    s, tap, u = np.ogrid[:2, :taps, :size]
    meets = ((s + u) // 2 == tap).astype(np.float32)
    sums = np.einsum("stu,zwv->twszuv", meets, meets).reshape(-1, size * size)
    kernels = tf.matmul(sums, tf.reshape(kernel, [size * size, n * m]))
    kernels = tf.transpose(tf.reshape(kernels, [taps, taps, 4, n, m]), [0, 1, 3, 2, 4])
    return tf.reshape(kernels, [taps, taps, n, 4 * m])


def patches(x, size, strides=1):
    """Returns the patches of `[batch, h, w, n]`, each as one row of channels.

    Multiplied by a kernel as a matrix, they are a convolution with padding VALID.

    Returns:
      `[batch, p, q, size * size * n]` with p = ceil((h + 1 - size) / strides), q likewise.
    """
    _, height, width, _ = x.shape.as_list()
    down, right = height + 1 - size, width + 1 - size
    places = itertools.product(range(size), repeat=2)
    shifted = [x[:, i : i + down : strides, j : j + right : strides] for i, j in places]
    return tf.concat(shifted, axis=3)


def squares(x):
    """Pads `[batch, 28, 28, n]` by 2 and turns 4 x 4 pixels into channels.

    A patch of 2 x 2 squares has 8 x 8 pixels, and the next one is 4 pixels away.

    Returns:
      `[batch, 8, 8, 16 n]`.
    """
    n = int(x.shape[-1])
    padded = tf.pad(x, [[0, 0], [2, 2], [2, 2], [0, 0]])
    cells = tf.transpose(tf.reshape(padded, [-1, 8, 4, 8, 4, n]), [0, 1, 3, 2, 4, 5])
    return tf.reshape(cells, [-1, 8, 8, 16 * n])


def overlapped(patches_):
    """Adds up `[batch, 7, 7, 64]`, patches of 8 x 8 pixels that are 4 pixels apart.

    It is the transpose of `patches(squares(x), 2)`.

    Returns:
      `[batch, 28, 28]`.
    """
    parts = [tf.slice(patches_, [0, 0, 0, 16 * k], [-1, 7, 7, 16]) for k in range(4)]
    corners = itertools.product([[0, 1], [1, 0]], repeat=2)
    places = [[[0, 0], *corner, [0, 0]] for corner in corners]
    cells = tf.add_n([tf.pad(*each) for each in zip(parts, places, strict=True)])
    rows = tf.transpose(tf.reshape(cells, [-1, 8, 8, 4, 4]), [0, 1, 3, 2, 4])
    return tf.slice(tf.reshape(rows, [-1, 32, 32]), [0, 2, 2], [-1, SIDE, SIDE])
