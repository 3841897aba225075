"""A frozen graph as a short program of array operations, for NumPy and for a browser.

What does not depend on the latents is computed once, here: phase kernels, tiled biases. Batch norm
goes into the weights before it, padding becomes an operation of its own, and shapes are known. So
the two that run a program (`numpy_generator.py`, `runner.js`) need few operations and no shapes.
"""

import itertools
from collections import Counter
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from support.errors import UserError


class Program(NamedTuple):
    """What to compute from the inputs, in order; the last line's result is the pixels [n, 784].

    lines: (operation, name of its result, names of what it takes); constants: {name: ndarray},
    float32 or int64.
    """

    lines: list
    constants: dict


class Unknown(UserError):
    """An operation that a program does not have."""


def compile_graph(frozen):
    """A `Frozen` -> its Program. Unknown, naming the operation, if it has one that no program has.

    UserError for weights that are not finite.
    """
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.import_graph_def(frozen.definition, name="")
        reader = _Reader(session, {op: name for name, op in frozen.inputs.items()})
        result = reader.term(graph.get_tensor_by_name(f"{frozen.output}:0"))
    return _program(_Folding(result).result)


class _Term:
    """An operation on other terms and constant arrays, and its result's shape; None: the batch."""

    def __init__(self, operation, *inputs, shape):
        self.operation, self.inputs, self.shape = operation, inputs, shape


class _Reader:
    """Turns the tensors of a graph into terms; those apart from its inputs into arrays."""

    def __init__(self, session, inputs):
        """session: of the graph; inputs: {operation's name: the program's name for it}."""
        self._session, self._inputs = session, inputs
        self._depending, self._terms = set(), {}
        for op in session.graph.get_operations():
            if op.name in inputs or any(tensor.op in self._depending for tensor in op.inputs):
                self._depending.add(op)

    def term(self, tensor):
        """-> the _Term of a tensor, or its ndarray where it is the same for all latents."""
        key = tensor.name
        if key not in self._terms:
            self._terms[key] = self._read(tensor)
        return self._terms[key]

    def _read(self, tensor):
        op = tensor.op
        if op not in self._depending:
            return self._constant(tensor)
        if op.name in self._inputs:
            return _Term("Input", self._inputs[op.name], shape=_shape(tensor))
        if op.type not in _READ:
            raise Unknown(f"{_named(op)}: there is no such operation in NumPy or a page")
        return _READ[op.type](_Node(self, tensor))

    def _constant(self, tensor):
        for op in _ancestors(tensor.op):
            if op.op_def is not None and op.op_def.is_stateful:
                raise Unknown(f"{_named(op)}: it may give another value each time")
        array = np.asarray(self._session.run(tensor))
        if not np.isfinite(array).all():
            raise UserError(f"{_named(tensor.op)}: a weight is {array[~np.isfinite(array)][0]}")
        return array.astype(np.float32 if array.dtype.kind == "f" else np.int64, copy=False)


class _Node:
    """What a reading function sees of an operation."""

    def __init__(self, reader, tensor):
        self._reader, self._op = reader, tensor.op
        self.type = tensor.op.type
        self.index = tensor.value_index
        self.shape = _shape(tensor)
        self.count = len(tensor.op.inputs)

    def input(self, place):
        return self._reader.term(self._op.inputs[place])

    def inputs(self):
        return [self.input(place) for place in range(self.count)]

    def array(self, place):
        """The input of that place, a constant; Unknown otherwise."""
        value = self.input(place)
        if isinstance(value, _Term):
            raise self.unknown("what it does depends on the latents")
        return value

    def attribute(self, name):
        return self._op.get_attr(name)

    def check(self, name, wanted):
        """Unknown unless an attribute has the wanted value."""
        value = self.attribute(name)
        value = value.decode() if isinstance(value, bytes) else value
        if value != wanted:
            raise self.unknown(f"{name} is {value}, wanted {wanted}")

    def unknown(self, why):
        return Unknown(f"{_named(self._op)}: {why}")

    def term(self, operation, *inputs):
        """The term of this node's shape."""
        return _Term(operation, *inputs, shape=self.shape)


def _named(op):
    return f"the generator's operation {op.type} ('{op.name}')"


def _ancestors(op):
    found, waiting = set(), [op]
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
            waiting += [tensor.op for tensor in op.inputs]
    return found


def _shape(tensor):
    """A tensor's shape as a tuple, None where it is not known before it runs, or None."""
    return None if tensor.shape.rank is None else tuple(tensor.shape.as_list())


def _sizes(shape):
    """-> int64 array of the shape with -1 for the one size that may be unknown."""
    return np.array([-1 if size is None else size for size in shape], np.int64)


# How each of TensorFlow's operations is read: a function of a _Node.

_SAME = {
    "Abs": "Abs", "Add": "Add", "AddV2": "Add", "Div": "Div", "Elu": "Elu", "Exp": "Exp",
    "Minimum": "Minimum", "Mul": "Mul", "RealDiv": "Div", "Relu": "Relu", "Rsqrt": "Rsqrt",
    "Sigmoid": "Sigmoid", "Softplus": "Softplus", "Sqrt": "Sqrt", "Square": "Square", "Sub": "Sub",
    "Tanh": "Tanh",
}  # fmt: skip
_THROUGH = ("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Snapshot")
_READ = {name: lambda node: node.input(0) for name in _THROUGH}
_READ |= {
    name: lambda node, operation=operation: node.term(operation, *node.inputs())
    for name, operation in _SAME.items()
}


def _reads(*names):
    def register(function):
        _READ.update(dict.fromkeys(names, function))
        return function

    return register


@_reads("Neg")
def _negative(node):
    return node.term("Mul", node.input(0), np.float32(-1))


@_reads("AddN")
def _sum(node):
    total, *others = node.inputs()
    for other in others:
        total = node.term("Add", total, other)
    return total


@_reads("BiasAdd", "BiasAddV1")
def _add_bias(node):
    if node.type == "BiasAdd":
        node.check("data_format", "NHWC")
    return node.term("Add", *node.inputs())


@_reads("LeakyRelu")
def _leaky_relu(node):
    return node.term("LeakyRelu", node.input(0), np.float32(node.attribute("alpha")))


@_reads("Maximum")
def _maximum(node):
    """The greater of x and a share of it is a leaky ReLU."""
    for x, other in itertools.permutations(node.inputs()):
        if isinstance(other, _Term) and other.operation == "Mul" and x in other.inputs:
            share = other.inputs[other.inputs[0] is x]
            if isinstance(share, np.ndarray) and share.ndim == 0 and 0 <= share <= 1:
                return node.term("LeakyRelu", x, share)
    return node.term("Maximum", *node.inputs())


@_reads("MatMul")
def _product(node):
    def turned(value, flag):
        if not node.attribute(flag):
            return value
        if isinstance(value, _Term):
            return _Term("Transpose", value, np.array([1, 0]), shape=value.shape[::-1])
        return value.T

    return node.term(
        "MatMul", turned(node.input(0), "transpose_a"), turned(node.input(1), "transpose_b")
    )


@_reads("Reshape", "Squeeze", "ExpandDims")
def _reshape(node):
    """To the shape that TensorFlow itself infers, so that no shape is computed at run time."""
    if node.shape is None or node.shape.count(None) > 1:
        raise node.unknown(f"its shape {node.shape} is not known before it runs")
    return node.term("Reshape", node.input(0), _sizes(node.shape))


@_reads("Transpose")
def _transpose(node):
    return node.term("Transpose", node.input(0), node.array(1))


@_reads("Pad", "PadV2")
def _pad(node):
    if node.count == 3 and node.array(2) != 0:
        raise node.unknown(f"it pads with {node.array(2)}, wanted 0")
    return node.term("Pad", node.input(0), node.array(1))


@_reads("Slice")
def _slice(node):
    return node.term("Slice", node.input(0), node.array(1), node.array(2))


@_reads("StridedSlice")
def _strided_slice(node):
    for mask in ("ellipsis_mask", "new_axis_mask"):
        node.check(mask, 0)
    x, firsts, lasts, strides = node.input(0), node.array(1), node.array(2), node.array(3)
    if (strides != 1).any():
        raise node.unknown(f"its strides are {strides.tolist()}, wanted 1")
    begin, size = np.zeros(len(x.shape), np.int64), _sizes(x.shape)
    for axis, (first, last) in enumerate(zip(firsts.tolist(), lasts.tolist(), strict=True)):
        span = _span(node, axis, first, last)
        if span == slice(None):
            continue
        if x.shape[axis] is None:
            raise node.unknown("it takes a part of the batch")
        start, stop, _ = span.indices(x.shape[axis])
        begin[axis], size[axis] = start, stop - start
    shape = tuple(None if n < 0 else n for n in size.tolist())
    return node.term("Reshape", _Term("Slice", x, begin, size, shape=shape), _sizes(node.shape))


def _span(node, axis, first, last):
    """-> Python's slice along one axis, by TensorFlow's masks."""

    def has(mask):
        return node.attribute(mask) >> axis & 1

    if has("shrink_axis_mask"):
        return slice(first, first + 1 or None)
    return slice(None if has("begin_mask") else first, None if has("end_mask") else last)


@_reads("ConcatV2")
def _concatenate(node):
    *parts, axis = node.inputs()
    if not all(isinstance(part, _Term) for part in parts):
        raise node.unknown("one of its parts is the same for all latents")
    return node.term("Concat", *parts, axis % len(node.shape))


@_reads("Split")
def _split(node):
    axis, x = int(node.array(0)), node.input(1)
    begin = np.zeros(len(x.shape), np.int64)
    begin[axis] = node.index * node.shape[axis]
    size = np.full(len(x.shape), -1)
    size[axis] = node.shape[axis]
    return node.term("Slice", x, begin, size)


@_reads("Mean", "Sum")
def _reduce(node):
    x, axes = node.input(0), np.atleast_1d(node.array(1)) % len(node.input(0).shape)
    if 0 in axes:
        raise node.unknown("it is over the batch, so one latent alone gives another image")
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    total = _Term("Sum", x, axes, shape=kept)
    if node.type == "Mean":
        count = np.prod([x.shape[axis] for axis in axes])
        total = _Term("Mul", total, np.float32(1 / count), shape=kept)
    return node.term("Reshape", total, _sizes(node.shape))


@_reads("DepthToSpace")
def _depth_to_space(node):
    node.check("data_format", "NHWC")
    return node.term("DepthToSpace", node.input(0), np.int64(node.attribute("block_size")))


@_reads("ResizeNearestNeighbor")
def _repeat_pixels(node):
    """By a whole factor: so many copies of all channels, laid out in squares."""
    node.check("align_corners", False)
    x = node.input(0)
    factors = {a / b for a, b in zip(node.shape[1:3], x.shape[1:3], strict=True)}
    (factor,) = factors if len(factors) == 1 else (0,)
    if factor < 1 or factor != int(factor):
        raise node.unknown(f"from {x.shape[1:3]} to {node.shape[1:3]} is no whole factor")
    squared = int(factor) ** 2
    shape = (*x.shape[:3], squared * x.shape[3])
    copies = _Term("Concat", *[x] * squared, np.int64(3), shape=shape)
    return node.term("DepthToSpace", copies, np.int64(factor))


@_reads("Conv2D")
def _convolution(node):
    node.check("data_format", "NHWC")
    node.check("dilations", [1, 1, 1, 1])
    x, kernel, strides = node.input(0), node.input(1), node.attribute("strides")[1:3]
    edges = [[0, 0]] * 2
    if node.attribute("padding") == b"SAME":
        lengths = zip(x.shape[1:3], kernel.shape[:2], strides, strict=True)
        edges = [_same_edges(*each) for each in lengths]
    elif node.attribute("padding") == b"EXPLICIT":
        edges = np.reshape(node.attribute("explicit_paddings"), [4, 2])[1:3].tolist()
    return node.term("Conv2D", _padded(x, edges), kernel, np.array(strides))


@_reads("Conv2DBackpropInput")
def _transposed_convolution(node):
    """A convolution, kernel turned by 180 degrees, of pixels with zeros in between."""
    node.check("data_format", "NHWC")
    node.check("dilations", [1, 1, 1, 1])
    kernel, x, strides = node.array(1), node.input(2), node.attribute("strides")[1:3]
    if node.shape is None or None in node.shape[1:3]:
        raise node.unknown("its result's height and width are not known before it runs")
    same = node.attribute("padding") == b"SAME"
    edges, lengths = [], []
    for out, given, size, stride in zip(
        node.shape[1:3], x.shape[1:3], kernel.shape[:2], strides, strict=True
    ):
        before = size - 1 - (_same_edges(out, size, stride)[0] if same else 0)
        lengths.append((given - 1) * stride + 1)
        edges.append([before, out + size - 1 - lengths[-1] - before])
    spread = _Term("Spread", x, np.array(strides), shape=(x.shape[0], *lengths, x.shape[3]))
    turned = np.ascontiguousarray(kernel[::-1, ::-1].swapaxes(2, 3))
    return node.term("Conv2D", _padded(spread, edges), turned, np.array([1, 1]))


@_reads("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def _batch_norm(node):
    node.check("data_format", "NHWC")
    node.check("is_training", False)
    gamma, beta, mean, variance = (node.array(place).astype(np.float64) for place in range(1, 5))
    scale = gamma / np.sqrt(variance + node.attribute("epsilon"))
    return node.term("Affine", node.input(0), scale, beta - scale * mean)


def _same_edges(length, size, stride):
    """-> zeros before and after for TensorFlow's padding SAME."""
    padded = max((-(-length // stride) - 1) * stride + size, length)
    return [(padded - length) // 2, padded - length - (padded - length) // 2]


def _padded(x, edges):
    if not np.any(edges):
        return x
    sizes = [size + sum(edge) for size, edge in zip(x.shape[1:3], edges, strict=True)]
    pads = np.array([[0, 0], *edges, [0, 0]])
    return _Term("Pad", x, pads, shape=(x.shape[0], *sizes, x.shape[3]))


# What is computed once instead of for each image.


class _Folding:
    """The same terms without `Affine`, which becomes weights, and without idle reshapes."""

    def __init__(self, term):
        self._uses = Counter(
            id(each) for other in _in_order(term) for each in other.inputs if _is_term(each)
        )
        self._done = {}
        for each in _in_order(term):
            self._done[id(each)] = self._folded(each)
        self.result = self._done[id(term)]

    def _folded(self, term):
        inputs = [self._done[id(each)] if _is_term(each) else each for each in term.inputs]
        if term.operation == "Affine":
            return self._affine(term.inputs[0], *inputs)
        if term.operation == "Reshape":
            while inputs[0].operation == "Reshape":
                inputs[0] = inputs[0].inputs[0]
            if inputs[0].shape == term.shape:
                return inputs[0]
        return _Term(term.operation, *inputs, shape=term.shape)

    def _affine(self, before, x, scale, shift):
        """scale * x + shift along the last axis; what others take too stays as it is."""
        if self._uses[id(before)] == 1 and not self._branches(before):
            return _affine(x, scale, shift)
        return _plain_affine(x, scale, shift)

    def _branches(self, term):
        """Whether something else takes what a chain of movable operations ends in."""
        while term.operation in _MOVABLE and _is_term(term.inputs[0]):
            term = term.inputs[0]
            if self._uses[id(term)] > 1 and term.operation != "Input":
                return term.operation in (*_MOVABLE, *_WEIGHTED)
        return False


_MOVABLE = ("Add", "DepthToSpace", "Reshape", "Slice")
_WEIGHTED = ("MatMul", "Conv2D")


def _affine(x, scale, shift):
    """scale * x + shift, as far towards the weights behind x as it goes."""
    operation, (first, *rest) = x.operation, x.inputs
    if operation in _WEIGHTED and isinstance(rest[0], np.ndarray):
        weights = (rest[0] * scale).astype(np.float32)
        product = _Term(operation, first, weights, *rest[1:], shape=x.shape)
        return _Term("Add", product, shift.astype(np.float32), shape=x.shape)
    if operation == "Add" and _is_vector(rest[0], x.shape[-1]):
        return _affine(first, scale, scale * rest[0] + shift)
    if operation == "DepthToSpace":
        scale, shift = (np.tile(each, int(rest[0]) ** 2) for each in (scale, shift))
    moves = operation == "DepthToSpace" or (
        operation in ("Reshape", "Slice") and first.shape[-1] == x.shape[-1]
    )
    if moves:
        return _Term(operation, _affine(first, scale, shift), *rest, shape=x.shape)
    return _plain_affine(x, scale, shift)


def _plain_affine(x, scale, shift):
    scaled = _Term("Mul", x, scale.astype(np.float32), shape=x.shape)
    return _Term("Add", scaled, shift.astype(np.float32), shape=x.shape)


def _is_term(value):
    return isinstance(value, _Term)


def _is_vector(value, size):
    return isinstance(value, np.ndarray) and value.shape == (size,)


def _in_order(term):
    """-> all terms behind one, each after what it takes."""
    done, waiting = {}, [(term, False)]
    while waiting:
        each, ready = waiting.pop()
        if ready:
            done.setdefault(id(each), each)
        elif id(each) not in done:
            waiting.append((each, True))
            waiting += [(other, False) for other in each.inputs if _is_term(other)]
    return list(done.values())


def _program(term):
    names, lines, constants = {}, [], {}

    def name(value):
        if _is_term(value):
            return names[id(value)]
        constants[f"c{len(constants)}"] = np.asarray(value)
        return f"c{len(constants) - 1}"

    for each in _in_order(term):
        if each.operation == "Input":
            names[id(each)] = each.inputs[0]
            continue
        line = (each.operation, f"t{len(lines)}", *map(name, each.inputs))
        names[id(each)] = line[1]
        lines.append(line)
    return Program(lines, constants)
