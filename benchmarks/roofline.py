"""The least time that a training step can take.

It follows from the arithmetic and traffic of the step's own graph.

Only matrix products and convolutions are counted, read off the graph that `training/updates.py`
builds; activations, normalisation and losses cost little compared with them. A product reads its
two inputs and writes its result. Adam reads a weight, its gradient and two moments, and writes all
but the gradient: 28 bytes per weight. See Williams, Waterman & Patterson 2009, "Roofline".
"""

import dataclasses
import functools
import math
import re
import timeit
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.peers.job import graph_parameters
from models import recipes
from models.recipes import Recipe
from support.graphs import upstream_ops
from support.lazy import tf
from training.options import processor_cores

_FLOAT_BYTES = 4
_ADAM_FLOATS = 7
_SIDE = 2048  # of the matrices in `measure_flops`
_TRIES = 9  # of a measurement, whose shortest time counts
_IS_PRODUCT = re.compile(r"MatMul|Conv\dD|DepthwiseConv|Einsum")


@functools.cache
def parameters(recipe: Recipe) -> tuple[int, int]:
    """Returns the numbers of trainable parameters of G and of D."""
    with tf.Graph().as_default():
        recipes.build_gan(recipe).session.close()
        return graph_parameters()


def step_cost(recipe: Recipe) -> np.ndarray:
    """Returns the operations and the memory traffic of one training step.

    They are [floating-point operations, bytes to and from memory].

    A penalty that is applied at every k-th update counts as a k-th.
    """
    from training.updates import Updates

    if recipe.r1_gamma and recipe.penalty_every > 1:
        never = step_cost(dataclasses.replace(recipe, r1_gamma=0.0))
        always = step_cost(dataclasses.replace(recipe, penalty_every=1))
        return never + (always - never) / recipe.penalty_every
    with tf.Graph().as_default():
        gan = recipes.build_gan(recipe)
        updates = Updates(gan, recipe, seed=0)
        x = tf.zeros([recipe.d_batch_size, 784])
        z = tf.zeros([recipe.d_batch_size, recipe.nlatent])
        _, d_update = updates.d_update(x, z, 1e-3)
        _, g_update = updates.g_update(tf.zeros([recipe.batch_size, recipe.nlatent]), 1e-3)
        gan.session.close()
        cost = recipe.d_iters * ops_cost(d_update) + recipe.g_iters * ops_cost(g_update)
    g, d = parameters(recipe)
    d_updates = recipe.d_iters * (2 if recipe.separate_updates else 1)
    cost[1] += _FLOAT_BYTES * _ADAM_FLOATS * (d_updates * d + recipe.g_iters * g)
    return cost


def ops_cost(fetch) -> np.ndarray:
    """Returns the cost of the products and convolutions that an operation needs.

    It is [FLOPs, bytes].

    Raises:
      NotImplementedError: For a product of a type that is not counted yet.
    """
    cost = np.zeros(2)
    for op in upstream_ops([fetch]):
        if _IS_PRODUCT.search(op.type):
            tensors = [each for each in [*op.inputs, *op.outputs] if each.dtype.is_floating]
            values = sum(math.prod(tensor.shape.as_list()) for tensor in tensors)
            cost += 2 * _multiplications(op), _FLOAT_BYTES * values
    return cost


def _multiplications(op):
    shapes = [tensor.shape.as_list() for tensor in op.inputs]
    output = op.outputs[0].shape.as_list()
    if op.type in ("MatMul", "BatchMatMulV2"):
        transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
        return math.prod(output) * shapes[0][-2 if transposed else -1]
    # Each output takes a product per height, width and input channel of the kernel. A gradient
    # takes as many products as its convolution, whose output has the shape of its third input.
    if op.type == "Conv2D":
        return math.prod(output) * math.prod(shapes[1][:3])
    if op.type == "Conv2DBackpropInput":
        return math.prod(shapes[2]) * math.prod(shapes[1][:3])
    if op.type == "Conv2DBackpropFilter":
        return math.prod(shapes[2]) * math.prod(output[:3])
    raise NotImplementedError(f"{op.name}: operations of type {op.type} are not counted yet")


def least_seconds(recipe: Recipe, flop_rate: float) -> float:
    """Returns the time of a step that runs at the machine's speed.

    The larger of the times for the arithmetic, and for the traffic at the speed of a copy that is
    as large as the networks with their gradients and moments.

    Args:
      recipe: `Recipe`.
      flop_rate: FLOPs per second, from `measure_flops`.
    """
    flops, traffic = step_cost(recipe)
    state_bytes = 4 * _FLOAT_BYTES * sum(parameters(recipe))
    return max(flops / flop_rate, traffic / measure_copy(state_bytes))


def measure_flops() -> float:
    """Returns the FLOPs per second of NumPy's product of two large float32 matrices."""
    a, b = np.random.default_rng(0).random((2, _SIDE, _SIDE), np.float32)
    product = functools.partial(np.matmul, a, b, out=np.empty_like(a))
    return 2 * _SIDE**3 / min(timeit.repeat(product, number=1, repeat=_TRIES))


def measure_copy(size: int) -> float:
    """Returns the bytes per second of a copy by all cores.

    The copy reads and writes `size` bytes.

    A small copy is repeated and stays in those caches that are large enough.
    """
    cores = len(processor_cores())
    count = max(1, size // (2 * _FLOAT_BYTES * cores))
    repeats = max(1, 2**28 // size)
    pairs = [(np.zeros(count, np.float32), np.ones(count, np.float32)) for _ in range(cores)]

    def copy(pair):
        for _ in range(repeats):
            np.copyto(*pair)

    with ThreadPoolExecutor(cores) as pool:
        times = timeit.repeat(lambda: list(pool.map(copy, pairs)), number=1, repeat=_TRIES)
    return repeats * cores * count * 2 * _FLOAT_BYTES / min(times)
