"""The least time that a training step can take: its arithmetic and its traffic, counted by hand.

Counted are the products of the layers, forward and backward; all else in a step (activations,
normalisation, losses) is taken to cost nothing beside them. A product of a layer's inputs x,
weights w and outputs y, |w| MAC an image in a dense layer, is one of three:

  forward   y  = x w     2 MAC FLOPs an image; each reads two of x, w, y and writes the third:
  weights   dw = x'dy    4 (b |x| + b |y| + |w|) bytes
  inputs    dx = dy w'

An update of D is a forward pass of G, then forward, weights and inputs of D on both batches, but
no inputs of D's first layer. An update of G is forward of G and D, inputs of D, weights of G and
inputs of G but for its first layer. Adam reads a weight, its gradient and two moments and writes
all but the gradient: 28 bytes a weight. An R1 penalty adds to D's real batch the inputs of every
layer and, to descend that, two products more of each.

In convolutions only what an output needs is counted: no zeros beyond the border, and where pixels
were doubled first, one product for those that are equal.
"""

import itertools
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

_FLOAT = 4
_ADAM_FLOATS = 7


class Dense(NamedTuple):
    """[inputs] -> [outputs]; norm: batch normalisation follows, with two weights an output."""

    inputs: int
    outputs: int
    norm: bool = False

    @property
    def parameters(self):
        """Trainable ones, biases and the normalisation's included."""
        return (self.inputs + 1 + 2 * self.norm) * self.outputs

    @property
    def multiplications(self):
        """Of one image."""
        return self.inputs * self.outputs

    @property
    def values(self):
        """Inputs and outputs of one image."""
        return self.inputs + self.outputs


class Conv(NamedTuple):
    """[side, side, inputs] -> [side * up / stride, ..., outputs] by kernels of size x size.

    up: how often each pixel is repeated in either direction first.
    """

    inputs: int
    outputs: int
    size: int
    side: int
    stride: int = 1
    up: int = 1
    norm: bool = False

    @property
    def parameters(self):
        """Trainable ones, biases and the normalisation's included."""
        return (self.inputs * self.size**2 + 1 + 2 * self.norm) * self.outputs

    @property
    def multiplications(self):
        """Of one image: for each output, each input pixel that its kernel meets, once."""
        return self._meetings() ** 2 * self.inputs * self.outputs

    @property
    def values(self):
        """Inputs and outputs of one image."""
        return self.side**2 * self.inputs + self._out_side**2 * self.outputs

    @property
    def _out_side(self):
        return math.ceil(self.side * self.up / self.stride)

    def _meetings(self):
        """In one direction: pairs of an output and an input pixel that it depends on."""
        span = self.side * self.up
        # As "SAME": the zeros are shared out evenly, the odd one at the end.
        before = max((self._out_side - 1) * self.stride + self.size - span, 0) // 2
        return sum(
            len({at // self.up for at in range(first, first + self.size) if 0 <= at < span})
            for first in range(-before, self._out_side * self.stride - before, self.stride)
        )


def _chain(*widths):
    return [Dense(*pair) for pair in itertools.pairwise(widths)]


# Recipe -> layers of G and of D.
NETS = {
    "minimal": (_chain(10, 64, 784), _chain(784, 512, 1)),
    "leaky_mlp": (_chain(100, 128, 784), _chain(784, 128, 1)),
    "dcgan": (
        [
            Dense(100, 7 * 7 * 256, norm=True),
            Conv(256, 128, 5, side=7, up=2, norm=True),
            Conv(128, 64, 5, side=14, up=2, norm=True),
            Conv(64, 32, 5, side=28, norm=True),
            Conv(32, 1, 5, side=28),
        ],
        [
            Conv(1, 64, 5, side=28, stride=2),
            Conv(64, 128, 5, side=14, stride=2),
            Conv(128, 256, 5, side=7, stride=2),
            Conv(256, 512, 5, side=4),
            Dense(4 * 4 * 512, 1),
        ],
    ),
    "upsampling_cnn": (
        [
            Dense(64, 7 * 7 * 128, norm=True),
            Conv(128, 64, 5, side=7, up=2, norm=True),
            Conv(64, 32, 5, side=14, up=2, norm=True),
            Conv(32, 1, 5, side=28),
        ],
        [
            Conv(1, 64, 5, side=28, stride=2, norm=True),
            Conv(64, 128, 5, side=14, stride=2, norm=True),
            Conv(128, 256, 5, side=7, stride=2, norm=True),
            Dense(4 * 4 * 256, 1),
        ],
    ),
    "pretrained_cnn": (
        [
            Dense(100, 14 * 14 * 200, norm=True),
            Conv(200, 100, 3, side=14, up=2, norm=True),
            Conv(100, 50, 3, side=28, norm=True),
            Conv(50, 1, 1, side=28),
        ],
        [
            Conv(1, 256, 5, side=28, stride=2),
            Conv(256, 512, 5, side=14, stride=2),
            Dense(7 * 7 * 512, 256),
            Dense(256, 2),
        ],
    ),
    "stable_mlp": (
        [*_chain(16, 256, 256, 49 * 32), Conv(32, 64, 1, side=7)],
        [
            Conv(1, 16, 8, side=28, stride=4),
            Conv(9 * 16, 32, 1, side=5),
            Dense(25 * 32, 256),
            Dense(257, 1),
        ],
    ),
}


class Cost(NamedTuple):
    """Floating-point operations and bytes to and from memory."""

    flops: float
    bytes: float

    def __add__(self, other):
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def seconds(self, rates):
        """Rates -> the larger of the time for the arithmetic and that for the traffic."""
        return max(self.flops / rates.flops, self.bytes / rates.bytes)


def parameters(name):
    """Recipe's name -> trainable parameters (G's, D's)."""
    return tuple(sum(layer.parameters for layer in net) for net in NETS[name])


def step_cost(name, recipe):
    """A recipe's name, and the recipe with its batch size -> Cost of a step."""
    g, d = NETS[name]
    d_update = _d_update(g, d, recipe)
    g_update = _g_update(g, d, recipe.batch_size)
    return _total([d_update] * recipe.d_iters + [g_update] * recipe.g_iters)


def _d_update(g, d, recipe):
    batch = recipe.d_batch_size
    batches = [batch, batch] if recipe.separate else [2 * batch]
    parts = [_products(g, batch)]
    for count in batches:
        parts += [_products(d, count), _products(d, count), _products(d[1:], count), _adam(d)]
    if recipe.r1_gamma:
        once = _products(d, batch)
        parts += [Cost(*(value / recipe.penalty_every for value in once))] * 3
    return _total(parts)


def _g_update(g, d, batch):
    forward = [_products(g, batch), _products(d, batch)]
    backward = [_products(d, batch), _products(g, batch), _products(g[1:], batch)]
    return _total([*forward, *backward, _adam(g)])


def _products(layers, batch):
    """-> Cost of one product of each layer: forward, weights or inputs, which are alike."""
    return _total(
        Cost(
            2 * batch * layer.multiplications,
            _FLOAT * (batch * layer.values + layer.parameters),
        )
        for layer in layers
    )


def _adam(net):
    return Cost(0, _FLOAT * _ADAM_FLOATS * sum(layer.parameters for layer in net))


def _total(costs):
    return sum(costs, Cost(0, 0))


def state_bytes(name):
    """Recipe's name -> bytes of its weights, their gradients and both moments."""
    return 4 * _FLOAT * sum(parameters(name))


class Rates(NamedTuple):
    """What the machine does on all cores: float32 operations and copied bytes a second."""

    flops: float
    bytes: float


def measure_flops(size=2048, tries=8):
    """-> FLOPs a second of the best of several NumPy products of size x size matrices."""
    a, b = np.random.default_rng(0).random((2, size, size), np.float32)
    out = np.empty_like(a)
    return 2 * size**3 / _best(lambda: np.matmul(a, b, out=out), tries)


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
