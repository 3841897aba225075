"""Reads a generator's graph as a short program of array operations.

The same program runs in NumPy (`numpy_generator.py`) and in a page (`page/runner.js`). What does
not depend on the inputs is computed here, shapes are known, and padding is an operation of its own,
so that both need few operations.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from support.errors import UserError


class Program(NamedTuple):
    """Array operations that turn latents, and labels if there are any, into pixels.

    Attributes:
      lines: (operation, name of its result, names of its arguments), in order; the last result is
        the pixels `[n, 784]`.
      constants: {name: ndarray}, float32 or int64.
    """

    lines: list
    constants: dict


class UnsupportedOperation(UserError):
    """An operation of a graph that programs do not have."""


def compile_graph(frozen):
    """Compiles a `Frozen` graph to a Program.

    Raises:
      UnsupportedOperation: For the first operation that programs do not have.
      UserError: If a weight is not finite.
    """
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.import_graph_def(frozen.definition, name="")
        compiler = _Compiler(session, frozen.inputs)
        for op in graph.get_operations():  # each after those that it depends on
            compiler.add(op)
        output = graph.get_tensor_by_name(f"{frozen.output}:0")
        compiler.emit("Reshape", compiler.value(output), _sizes(_shape(output)))
    return Program(compiler.lines, compiler.constants)


class _Compiler:
    """The program so far, and the values of the graph's tensors."""

    def __init__(self, session, inputs):
        self.lines, self.constants = [], {}
        self._session = session
        # By a tensor's name: the name of its result in the program; an ndarray if it is the same
        # for all inputs; the error to raise once something depends on it.
        self._values = {f"{op}:0": name for name, op in inputs.items()}

    def add(self, op):
        """Reads an operation, unless it does not depend on the inputs."""
        if any(tensor.name in self._values for tensor in op.inputs):
            try:
                if op.type not in _READERS:
                    raise _unsupported(op, "neither NumPy nor a page has this operation")
                results = _READERS[op.type](_Node(self, op))
            except UnsupportedOperation as error:
                results = error
        elif op.op_def is not None and op.op_def.is_stateful:
            results = _unsupported(op, "it may have another value each time")
        else:
            return
        if not isinstance(results, list):
            results = [results] * len(op.outputs)
        for tensor, result in zip(op.outputs, results, strict=True):
            self._values[tensor.name] = result

    def value(self, tensor):
        """Returns the name of a tensor's result, or its ndarray if it is a constant."""
        if tensor.name not in self._values:
            self._values[tensor.name] = self._constant(tensor)
        value = self._values[tensor.name]
        if isinstance(value, UnsupportedOperation):
            raise value
        return value

    def _constant(self, tensor):
        array = np.asarray(self._session.run(tensor))
        if not np.isfinite(array).all():
            value = array[~np.isfinite(array)][0]
            raise UserError(f"{_described(tensor.op)}: expected finite weights, found {value}")
        return array.astype(np.float32 if array.dtype.kind == "f" else np.int64, copy=False)

    def emit(self, operation, *arguments):
        """Adds a line and returns the name of its result."""
        names = []
        for argument in arguments:
            if not isinstance(argument, str):
                name = f"c{len(self.constants)}"
                self.constants[name] = np.asarray(argument)
                argument = name
            names.append(argument)
        result = f"t{len(self.lines)}"
        self.lines.append((operation, result, *names))
        return result


class _Node:
    """An operation of the graph, as the functions below read it."""

    def __init__(self, compiler, op):
        self._compiler, self._op = compiler, op
        self.type = op.type
        self.emit = compiler.emit
        self.shape = _shape(op.outputs[0])
        self.input_shapes = [_shape(tensor) for tensor in op.inputs]

    def input(self, k):
        return self._compiler.value(self._op.inputs[k])

    def inputs(self):
        return [self.input(k) for k in range(len(self.input_shapes))]

    def array(self, k):
        """Returns an input that must be a constant."""
        value = self.input(k)
        if isinstance(value, str):
            raise self.unsupported("what it does depends on the latents")
        return value

    def attribute(self, name):
        value = self._op.get_attr(name)
        return value.decode() if isinstance(value, bytes) else value

    def check(self, name, expected):
        """Checks that an attribute has the expected value.

        Raises:
          UnsupportedOperation: If it has another one.
        """
        if self.attribute(name) != expected:
            raise self.unsupported(f"{name} must be {expected}, got {self.attribute(name)}")

    def unsupported(self, why):
        return _unsupported(self._op, why)

    def reshape(self, value):
        """Emits a reshape to the shape of this node's result."""
        return self.emit("Reshape", value, _sizes(self.shape))


def _unsupported(op, why):
    return UnsupportedOperation(f"{_described(op)}: {why}")


def _described(op):
    return f"the generator's operation {op.type} ('{op.name}')"


def _shape(tensor):
    """Returns the shape, None for unknown sizes, or None if its rank is unknown."""
    return None if tensor.shape.rank is None else tensor.shape.as_list()


def _sizes(shape):
    """Returns the shape as an array, with -1 for the one size that may be unknown."""
    return np.array([-1 if size is None else size for size in shape], np.int64)


# The readers: functions of a _Node that return the name of its result, or a list of names.

_READERS: dict[str, Callable] = {}
_ELEMENTWISE = {
    "Abs": "Abs", "Add": "Add", "AddV2": "Add", "Div": "Div", "Elu": "Elu", "Exp": "Exp",
    "Maximum": "Maximum", "Minimum": "Minimum", "Mul": "Mul", "RealDiv": "Div", "Relu": "Relu",
    "Rsqrt": "Rsqrt", "Sigmoid": "Sigmoid", "Softplus": "Softplus", "Sqrt": "Sqrt",
    "Square": "Square", "Sub": "Sub", "Tanh": "Tanh",
}  # fmt: skip


def _reads(*types):
    """Decorator that registers the reader of some types of operations."""

    def register(function):
        _READERS.update(dict.fromkeys(types, function))
        return function

    return register


@_reads(*_ELEMENTWISE)
def _elementwise(node):
    return node.emit(_ELEMENTWISE[node.type], *node.inputs())


@_reads("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Snapshot")
def _identity(node):
    return node.input(0)


@_reads("Neg")
def _negative(node):
    return node.emit("Mul", node.input(0), np.float32(-1))


@_reads("AddN")
def _add_all(node):
    total, *others = node.inputs()
    for other in others:
        total = node.emit("Add", total, other)
    return total


@_reads("BiasAdd", "BiasAddV1")
def _add_bias(node):
    if node.type == "BiasAdd":
        node.check("data_format", "NHWC")
    return node.emit("Add", *node.inputs())


@_reads("LeakyRelu")
def _leaky_relu(node):
    return node.emit("LeakyRelu", node.input(0), np.float32(node.attribute("alpha")))


@_reads("MatMul")
def _matrix_product(node):
    factors = node.inputs()
    for k, flag in enumerate(("transpose_a", "transpose_b")):
        if node.attribute(flag):
            transposed = isinstance(factors[k], str)
            factors[k] = node.emit("Transpose", factors[k], [1, 0]) if transposed else factors[k].T
    return node.emit("MatMul", *factors)


@_reads("Reshape", "Squeeze", "ExpandDims")
def _reshape(node):
    # To the shape that TensorFlow infers, so that no shape is computed at run time.
    if node.shape is None or node.shape.count(None) > 1:
        raise node.unsupported(f"its shape {node.shape} is unknown before it runs")
    return node.reshape(node.input(0))


@_reads("Transpose")
def _transpose(node):
    return node.emit("Transpose", node.input(0), node.array(1))


@_reads("Pad", "PadV2")
def _pad(node):
    if len(node.input_shapes) == 3 and node.array(2) != 0:
        raise node.unsupported(f"it must pad with 0, got {node.array(2)}")
    return node.emit("Pad", node.input(0), node.array(1))


@_reads("Slice")
def _slice(node):
    return node.emit("Slice", node.input(0), node.array(1), node.array(2))


@_reads("StridedSlice")
def _strided_slice(node):
    for mask in ("ellipsis_mask", "new_axis_mask"):
        node.check(mask, 0)
    firsts, lasts, strides = (node.array(k).tolist() for k in (1, 2, 3))
    if set(strides) != {1}:
        raise node.unsupported(f"its strides must be 1, got {strides}")
    shape = node.input_shapes[0]
    begin, size = [0] * len(shape), [-1] * len(shape)
    for axis, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
        if node.attribute("shrink_axis_mask") >> axis & 1:
            part = slice(first, first + 1 or None)
        else:
            part = slice(
                None if node.attribute("begin_mask") >> axis & 1 else first,
                None if node.attribute("end_mask") >> axis & 1 else last,
            )
        if part == slice(None):
            continue
        if shape[axis] is None:
            raise node.unsupported("it takes a part of the batch")
        begin[axis], stop, _ = part.indices(shape[axis])
        size[axis] = stop - begin[axis]
    return node.reshape(node.emit("Slice", node.input(0), begin, size))


@_reads("ConcatV2")
def _concatenate(node):
    *parts, axis = node.inputs()
    if not all(isinstance(part, str) for part in parts):
        raise node.unsupported("one of its parts is the same for all latents")
    return node.emit("Concat", *parts, axis % len(node.shape))


@_reads("Split")
def _split(node):
    axis, x = int(node.array(0)), node.input(1)
    parts = []
    for k in range(node.attribute("num_split")):
        begin, size = np.zeros(len(node.shape), np.int64), np.full(len(node.shape), -1)
        begin[axis], size[axis] = k * node.shape[axis], node.shape[axis]
        parts.append(node.emit("Slice", x, begin, size))
    return parts


@_reads("Mean", "Sum")
def _reduce(node):
    shape = node.input_shapes[0]
    axes = np.atleast_1d(node.array(1)) % len(shape)
    if 0 in axes:
        raise node.unsupported("it is over the batch, so that images depend on each other")
    total = node.emit("Sum", node.input(0), axes)
    if node.type == "Mean":
        total = node.emit("Mul", total, np.float32(1 / np.prod([shape[axis] for axis in axes])))
    return node.reshape(total)


@_reads("DepthToSpace")
def _depth_to_space(node):
    node.check("data_format", "NHWC")
    block, (height, width, _) = node.attribute("block_size"), node.input_shapes[0][1:]
    squares = node.emit("Reshape", node.input(0), [-1, height, width, block, block, node.shape[3]])
    return node.reshape(node.emit("Transpose", squares, [0, 1, 3, 2, 4, 5]))


@_reads("ResizeNearestNeighbor")
def _repeat_pixels(node):
    node.check("align_corners", False)
    (height, width), larger = node.input_shapes[0][1:3], node.shape[1:3]
    if larger[0] % height or larger[1] % width:
        raise node.unsupported(f"{larger} must be a multiple of {[height, width]}")
    return _emit_blocks(node, 0, np.ones([larger[0] // height, larger[1] // width]))


def _emit_blocks(node, k, block):
    """Replaces each pixel of the k-th input by a block times the pixel."""
    height, width, channels = node.input_shapes[k][1:]
    down, right = block.shape
    pixels = node.emit("Reshape", node.input(k), [-1, height, 1, width, 1, channels])
    blocks = node.emit("Mul", pixels, block.astype(np.float32)[:, None, :, None])
    return node.emit("Reshape", blocks, [-1, height * down, width * right, channels])


@_reads("Conv2D")
def _convolution(node):
    strides = _strides(node)
    sizes = zip(node.input_shapes[0][1:3], node.input_shapes[1][:2], strides, strict=True)
    edges = [[0, 0], [0, 0]]
    if node.attribute("padding") == "SAME":
        edges = [_same_edges(*each) for each in sizes]
    elif node.attribute("padding") == "EXPLICIT":
        edges = np.reshape(node.attribute("explicit_paddings"), [4, 2])[1:3].tolist()
    return _emit_convolution(node, node.input(0), edges, node.array(1), strides)


@_reads("Conv2DBackpropInput")
def _transposed_convolution(node):
    # A convolution, its kernel turned by 180 degrees, of pixels with zeros between them.
    strides = _strides(node)
    if node.shape is None or None in node.shape[1:3]:
        raise node.unsupported("the height and width of its result are unknown before it runs")
    kernel, given = node.array(1), node.input_shapes[2]
    block = np.zeros(strides)
    block[0, 0] = 1
    edges = []
    for k, stride in enumerate(strides):
        out, size = node.shape[1 + k], kernel.shape[k]
        before = size - 1
        if node.attribute("padding") == "SAME":
            before -= _same_edges(out, size, stride)[0]
        edges.append([before, out + size - 1 - given[1 + k] * stride - before])
    turned = np.ascontiguousarray(kernel[::-1, ::-1].swapaxes(2, 3))
    return _emit_convolution(node, _emit_blocks(node, 2, block), edges, turned, [1, 1])


def _strides(node):
    """Returns the strides of a convolution that programs have, down and right."""
    node.check("data_format", "NHWC")
    node.check("dilations", [1, 1, 1, 1])
    return node.attribute("strides")[1:3]


def _emit_convolution(node, x, edges, kernel, strides):
    """Emits a convolution of x padded by `edges`; negative ones crop the result."""
    edges = np.array([[0, 0], *edges, [0, 0]])
    if (edges > 0).any():
        x = node.emit("Pad", x, edges.clip(0))
    result = node.emit("Conv2D", x, kernel, strides)
    if (edges < 0).any():
        result = node.emit("Slice", result, [0, 0, 0, 0], _sizes(node.shape))
    return result


def _same_edges(length, size, stride):
    """Returns the zeros before and after for TensorFlow's padding SAME."""
    padded = max((-(-length // stride) - 1) * stride + size, length)
    return [(padded - length) // 2, padded - length - (padded - length) // 2]


@_reads("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def _batch_norm(node):
    node.check("data_format", "NHWC")
    node.check("is_training", False)
    gamma, beta, mean, variance = (node.array(k).astype(np.float64) for k in range(1, 5))
    scale = gamma / np.sqrt(variance + node.attribute("epsilon"))
    scaled = node.emit("Mul", node.input(0), scale.astype(np.float32))
    return node.emit("Add", scaled, (beta - scale * mean).astype(np.float32))
