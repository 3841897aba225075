"""The least time that a training step can take: the arithmetic and traffic of its own graph.

Counted are the matrix products and convolutions that the step's updates consist of, read off the
graph that `training/updates.py` builds; all else (activations, normalisation, losses) is taken to
cost nothing beside them. A product reads its two inputs and writes its result. Adam reads a weight,
its gradient and two moments and writes all but the gradient: 28 bytes a weight.
"""

import dataclasses
import functools
import math
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

_FLOAT = 4
_IS_PRODUCT = re.compile(r"MatMul|Conv\dD|DepthwiseConv|Einsum")
_ADAM_FLOATS = 7


class Cost(NamedTuple):
    """Floating-point operations and bytes to and from memory."""

    flops: float
    bytes: float

    def __add__(self, other):
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def seconds(self, rates):
        """Rates -> the larger of the time for the arithmetic and that for the traffic."""
        return max(self.flops / rates.flops, self.bytes / rates.bytes)


@functools.cache
def parameters(recipe):
    """A Recipe -> trainable parameters (G's, D's)."""
    import tensorflow.compat.v1 as tf

    from models import recipes

    with tf.Graph().as_default():
        recipes.build_gan(recipe).session.close()
        return tuple(
            sum(v.shape.num_elements() for v in tf.trainable_variables(f"{scope}/"))
            for scope in ("generator", "discriminator")
        )


def step_cost(recipe):
    """A Recipe -> Cost of a step. A penalty that is due every k updates counts as a k-th."""
    every = recipe.penalty_every
    plain = _step_cost(dataclasses.replace(recipe, r1_gamma=0.0))
    if not recipe.r1_gamma:
        return plain
    always = _step_cost(dataclasses.replace(recipe, penalty_every=1))
    return Cost(*(p + (a - p) / every for p, a in zip(plain, always, strict=True)))


def _step_cost(recipe):
    """As `step_cost`, with a penalty at every update if at all."""
    import tensorflow.compat.v1 as tf

    from models import recipes
    from training.updates import Updates

    with tf.Graph().as_default():
        gan = recipes.build_gan(recipe)
        updates = Updates(gan, recipe, seed=0)
        x = tf.zeros([recipe.d_batch_size, 784])
        z = tf.zeros([recipe.d_batch_size, recipe.nlatent])
        _, d_update = updates.d_update(x, z, 1e-3)
        _, g_update = updates.g_update(tf.zeros([recipe.batch_size, recipe.nlatent]), 1e-3)
        gan.session.close()
        costs = [recipe.d_iters * _ops_cost(d_update), recipe.g_iters * _ops_cost(g_update)]
        flops, traffic = np.sum(costs, axis=0)
    twice = 2 if recipe.separate_updates else 1
    g, d = parameters(recipe)
    weights = recipe.d_iters * twice * d + recipe.g_iters * g
    return Cost(flops, traffic + _FLOAT * _ADAM_FLOATS * weights)


def _ops_cost(fetch):
    """An operation -> array [FLOPs, bytes] of all products and convolutions that it needs.

    NotImplementedError that names a kind of product which is not counted yet.
    """
    from models.custom_class import upstream_ops

    ops = [op for op in upstream_ops([fetch]) if _IS_PRODUCT.search(op.type)]
    for op in ops:
        if op.type not in _PRODUCTS:
            raise NotImplementedError(f"{op.name}: operations of {op.type} are not counted yet")
    return np.sum([_PRODUCTS[op.type](op) for op in ops], axis=0)


def _matmul(op):
    a, (y,) = op.inputs[0].shape.as_list(), [out.shape.as_list() for out in op.outputs]
    inner = a[0] if op.get_attr("transpose_a") else a[1]
    return _cost(op, math.prod(y) * inner)


def _conv2d(op):
    """Each value of the result takes a product for each of the kernel's height, width and input."""
    return _cost(op, math.prod(_shape(op.outputs[0])) * math.prod(_shape(op.inputs[1])[:3]))


def _conv2d_of_gradient(op):
    """As many products as the convolution whose gradient it is, with the result's gradient dy."""
    dy = math.prod(_shape(op.inputs[2]))
    kernel = op.outputs[0] if op.type == "Conv2DBackpropFilter" else op.inputs[1]
    return _cost(op, dy * math.prod(_shape(kernel)[:3]))


def _cost(op, multiplications):
    tensors = [each for each in [*op.inputs, *op.outputs] if each.dtype.is_floating]
    values = sum(math.prod(_shape(tensor)) for tensor in tensors)
    return np.array([2.0 * multiplications, float(_FLOAT * values)])


def _shape(tensor):
    return tensor.shape.as_list()


def _batch_matmul(op):
    a, y = _shape(op.inputs[0]), _shape(op.outputs[0])
    return _cost(op, math.prod(y) * a[-2 if op.get_attr("adj_x") else -1])


_PRODUCTS = {
    "MatMul": _matmul,
    "BatchMatMulV2": _batch_matmul,
    "Conv2D": _conv2d,
    "Conv2DBackpropInput": _conv2d_of_gradient,
    "Conv2DBackpropFilter": _conv2d_of_gradient,
}


def state_bytes(recipe):
    """A Recipe -> bytes of its weights, their gradients and both moments."""
    return 4 * _FLOAT * sum(parameters(recipe))


class Rates(NamedTuple):
    """What the machine does on all cores: float32 operations and copied bytes a second."""

    flops: float
    bytes: float


def measure_flops(size=2048, tries=8):
    """-> FLOPs a second of the best of several products of size x size matrices.

    By NumPy and by TensorFlow: which of their libraries knows a processor better differs.
    """
    a, b = np.random.default_rng(0).random((2, size, size), np.float32)
    out = np.empty_like(a)
    by_numpy = _best(lambda: np.matmul(a, b, out=out), tries)
    return 2 * size**3 / min(by_numpy, _best(_tensorflow_product(a, b), tries))


def _tensorflow_product(a, b):
    """-> a function that multiplies two matrices and leaves the result where it is."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default():
        a, b = (tf.get_variable(name, initializer=x) for name, x in {"a": a, "b": b}.items())
        product = tf.matmul(a, b).op
        session = tf.Session()
        session.run(tf.global_variables_initializer())
    return functools.partial(session.run, product)


def measure_copy(size, cores, tries=8):
    """Bytes read and written by a copy, number of cores -> best bytes a second, each core a part.

    A small copy is repeated, so that it stays in those caches that have room for it.
    """
    count = max(1, size // (2 * _FLOAT * cores))
    repeats = max(1, 2**28 // size)
    pairs = [(np.zeros(count, np.float32), np.ones(count, np.float32)) for _ in range(cores)]

    def copy(pair):
        for _ in range(repeats):
            np.copyto(*pair)

    with ThreadPoolExecutor(cores) as pool:
        seconds = _best(lambda: list(pool.map(copy, pairs)), tries)
    return repeats * cores * count * 2 * _FLOAT / seconds


def _best(function, tries):
    def seconds():
        began = time.perf_counter()
        function()
        return time.perf_counter() - began

    return min(seconds() for _ in range(tries + 1))
