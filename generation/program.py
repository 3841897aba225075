"""Reads a generator's graph as a short program of array operations.

The same program runs in NumPy (`numpy_generator.py`) and in a page (`page/runner.js`). What does
not depend on the inputs is computed here, shapes are known, and padding is an operation of its own,
so that both need few operations.
"""

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
    """
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.import_graph_def(frozen.definition, name="")
        compiler = _Compiler(session, frozen.inputs)
        for op in graph.get_operations():  # each after those that it depends on
            compiler.add(op)
        output = graph.get_tensor_by_name(f"{frozen.output}:0")
        compiler.reshape(output, compiler.value(output))
    return Program(compiler.lines, compiler.constants)


_ELEMENTWISE = (
    "Abs Add Div Elu Exp Maximum Minimum Mul Relu Rsqrt Sigmoid Softplus Sqrt Square Sub Tanh"
)
# TensorFlow's name of an operation of two or fewer arguments: its name in programs.
_SAME = {name: name for name in _ELEMENTWISE.split()} | {
    "AddV2": "Add",
    "BiasAdd": "Add",
    "BiasAddV1": "Add",
    "RealDiv": "Div",
}


class _Compiler:
    """The program so far, and the values of the graph's tensors."""

    def __init__(self, session, inputs):
        self.lines, self.constants = [], {}
        self._session = session
        self._widths = [
            (op, session.graph.get_tensor_by_name(f"{op}:0").shape[1]) for op in inputs.values()
        ]
        # By a tensor's name: the name of its result in the program; an ndarray if it is the same
        # for all inputs; the error to raise once something depends on it.
        self._values = {f"{op}:0": name for name, op in inputs.items()}

    def add(self, op):
        """Reads an operation, unless it does not depend on the inputs."""
        if any(tensor.name in self._values for tensor in op.inputs):
            try:
                results = self.read(op)
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
            array = np.asarray(self._session.run(tensor))
            kind = np.float32 if array.dtype.kind == "f" else np.int64
            self._values[tensor.name] = array.astype(kind, copy=False)
        value = self._values[tensor.name]
        if isinstance(value, UnsupportedOperation):
            raise value
        return value

    def sizes(self, tensor):
        """Returns the shape, -1 for the number of images.

        Sizes that the graph leaves open are measured, with two and with three images.
        """
        shape = tensor.shape
        if shape.rank is not None and None not in shape.as_list()[1:]:
            return [-1 if size is None else size for size in shape.as_list()]
        feeds = [{f"{op}:0": np.zeros([n, width]) for op, width in self._widths} for n in (2, 3)]
        try:
            two, three = (self._session.run(tf.shape(tensor), feed) for feed in feeds)
        except tf.errors.InvalidArgumentError as error:
            raise _unsupported(tensor.op, f"its shape {shape} is unknown before it runs") from error
        if (two[1:] != three[1:]).any():
            raise _unsupported(
                tensor.op, "only its first size may follow from the number of images"
            )
        return np.where(two == three, two, -1).tolist()

    def constant(self, op, k):
        """Returns the k-th input of an operation, which must be an array."""
        value = self.value(op.inputs[k])
        if isinstance(value, str):
            raise _unsupported(op, "what it does depends on the latents")
        return value

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

    def reshape(self, tensor, value):
        """Emits a reshape to the shape that TensorFlow infers for a tensor.

        No shape is then computed at run time.
        """
        return self.emit("Reshape", value, self.sizes(tensor))

    def read(self, op):
        """Emits an operation's lines. Returns the name of its result, or a list of names."""
        if op.node_def.attr["data_format"].s not in (b"", b"NHWC"):
            raise _unsupported(op, "data_format must be NHWC")
        if op.type == "Conv2DBackpropInput":
            return self.read_transposed_convolution(op)
        x, output = self.value(op.inputs[0]), op.outputs[0] if op.outputs else None
        match op.type:
            case name if name in _SAME:
                return self.emit(_SAME[name], *map(self.value, op.inputs))
            case "Identity" | "StopGradient" | "PreventGradient" | "CheckNumerics" | "Snapshot":
                return x
            case "Neg":
                return self.emit("Mul", x, np.float32(-1))
            case "AddN":
                for other in op.inputs[1:]:
                    x = self.emit("Add", x, self.value(other))
                return x
            case "LeakyRelu":
                return self.emit("LeakyRelu", x, np.float32(op.get_attr("alpha")))
            case "MatMul":
                return self.read_product(op)
            case "Reshape" | "Squeeze" | "ExpandDims":
                return self.reshape(output, x)
            case "Transpose":
                return self.emit("Transpose", x, self.constant(op, 1))
            case "Pad" | "PadV2":
                if op.type == "PadV2" and self.constant(op, 2) != 0:
                    raise _unsupported(op, f"it must pad with 0, got {self.constant(op, 2)}")
                return self.emit("Pad", x, self.constant(op, 1))
            case "Slice":
                return self.emit("Slice", x, self.constant(op, 1), self.constant(op, 2))
            case "StridedSlice" | "Split":
                return self.read_slices(op)
            case "ConcatV2":
                *parts, axis = map(self.value, op.inputs)
                if not all(isinstance(part, str) for part in parts):
                    raise _unsupported(op, "one of its parts is the same for all latents")
                return self.emit("Concat", *parts, axis % len(self.sizes(output)))
            case "Mean" | "Sum":
                return self.read_sum(op, x)
            case "DepthToSpace":
                block, (_, height, width, _) = op.get_attr("block_size"), self.sizes(op.inputs[0])
                parts = [-1, height, width, block, block, self.sizes(output)[3]]
                squares = self.emit("Transpose", self.emit("Reshape", x, parts), [0, 1, 3, 2, 4, 5])
                return self.reshape(output, squares)
            case "ResizeNearestNeighbor":
                (_, height, width, _), larger = self.sizes(op.inputs[0]), self.sizes(output)[1:3]
                if op.get_attr("align_corners") or larger[0] % height or larger[1] % width:
                    raise _unsupported(op, f"{larger} must be a multiple of {[height, width]}")
                ones = np.ones([larger[0] // height, larger[1] // width])
                return self.emit_blocks(op.inputs[0], ones)
            case "Conv2D":
                return self.read_convolution(op, x)
            case "FusedBatchNorm" | "FusedBatchNormV2" | "FusedBatchNormV3":
                return self.read_batch_norm(op, x)
        raise _unsupported(op, "neither NumPy nor a page has this operation")

    def read_product(self, op):
        factors = [self.value(tensor) for tensor in op.inputs]
        for k, flag in enumerate(("transpose_a", "transpose_b")):
            if not op.get_attr(flag):
                continue
            if isinstance(factors[k], str):
                factors[k] = self.emit("Transpose", factors[k], [1, 0])
            else:
                factors[k] = factors[k].T
        return self.emit("MatMul", *factors)

    def read_slices(self, op):
        """Reads what an operation takes of its input off what it takes of coordinates."""
        data = 1 if op.type == "Split" else 0
        for k in range(len(op.inputs)):
            if k != data:
                self.constant(op, k)
        x, results = op.inputs[data], []
        shape = [2, *self.sizes(x)[1:]]
        for output in op.outputs:
            taken = [self._session.run(output, {x: at}) for at in np.indices(shape, np.float32)]
            begin = np.array([at.min() for at in taken], np.int64)
            size = np.array([at.max() for at in taken], np.int64) + 1 - begin
            if size[0] != shape[0]:
                raise _unsupported(op, "it takes a part of the batch")
            straight = np.indices(size) + begin.reshape(-1, *[1] * len(size))
            if not np.array_equal(straight.ravel(), np.ravel(taken)):
                raise _unsupported(op, "its strides must be 1")
            size[size == shape] = -1
            part = self.emit("Slice", self.value(x), begin, size)
            results.append(part if op.type == "Split" else self.reshape(output, part))
        return results

    def read_sum(self, op, x):
        shape = self.sizes(op.inputs[0])
        axes = np.atleast_1d(self.constant(op, 1)) % len(shape)
        if 0 in axes:
            raise _unsupported(op, "it is over the batch, so that images depend on each other")
        total = self.emit("Sum", x, axes)
        if op.type == "Mean":
            total = self.emit("Mul", total, np.float32(1 / np.prod([shape[axis] for axis in axes])))
        return self.reshape(op.outputs[0], total)

    def read_convolution(self, op, x):
        strides, edges = op.get_attr("strides")[1:3], [[0, 0], [0, 0]]
        if op.get_attr("padding") == b"SAME":
            kernel = self.sizes(op.inputs[1])[:2]
            axes = zip(self.sizes(op.inputs[0])[1:3], kernel, strides, strict=True)
            edges = [_same_edges(*axis) for axis in axes]
        elif op.get_attr("padding") == b"EXPLICIT":
            edges = np.reshape(op.get_attr("explicit_paddings"), [4, 2])[1:3].tolist()
        return self.emit_convolution(op, x, edges, self.constant(op, 1), strides)

    def read_transposed_convolution(self, op):
        """Reads it as a convolution of pixels with zeros between them.

        Its kernel is turned by 180 degrees.
        """
        strides, kernel = op.get_attr("strides")[1:3], self.constant(op, 1)
        given, out = self.sizes(op.inputs[2]), self.sizes(op.outputs[0])
        block = np.zeros(strides)
        block[0, 0] = 1
        edges = []
        for axis, (size, stride) in enumerate(zip(kernel.shape[:2], strides, strict=True), 1):
            before = size - 1
            if op.get_attr("padding") == b"SAME":
                before -= _same_edges(out[axis], size, stride)[0]
            elif op.get_attr("padding") == b"EXPLICIT":
                before -= op.get_attr("explicit_paddings")[2 * axis]
            edges.append([before, out[axis] + size - 1 - given[axis] * stride - before])
        turned = np.ascontiguousarray(kernel[::-1, ::-1].swapaxes(2, 3))
        spread = self.emit_blocks(op.inputs[2], block)
        return self.emit_convolution(op, spread, edges, turned, [1, 1])

    def emit_convolution(self, op, x, edges, kernel, strides):
        """Emits a convolution of x padded by `edges`; negative ones crop the result."""
        if op.get_attr("dilations") != [1, 1, 1, 1]:
            raise _unsupported(op, f"dilations must be 1, got {op.get_attr('dilations')}")
        edges = np.array([[0, 0], *edges, [0, 0]])
        if (edges > 0).any():
            x = self.emit("Pad", x, edges.clip(0))
        result = self.emit("Conv2D", x, kernel, strides)
        if (edges < 0).any():
            result = self.emit("Slice", result, [0, 0, 0, 0], self.sizes(op.outputs[0]))
        return result

    def emit_blocks(self, tensor, block):
        """Replaces each pixel of a tensor by a block times the pixel."""
        (_, height, width, channels), (down, right) = self.sizes(tensor), block.shape
        columns = [-1, height, 1, width, 1, channels]
        pixels = self.emit("Reshape", self.value(tensor), columns)
        blocks = self.emit("Mul", pixels, block.astype(np.float32)[:, None, :, None])
        return self.emit("Reshape", blocks, [-1, height * down, width * right, channels])

    def read_batch_norm(self, op, x):
        if op.get_attr("is_training"):
            raise _unsupported(op, "is_training must be False")
        gamma, beta, mean, variance = (self.constant(op, k).astype(np.float64) for k in range(1, 5))
        scale = gamma / np.sqrt(variance + op.get_attr("epsilon"))
        scaled = self.emit("Mul", x, scale.astype(np.float32))
        return self.emit("Add", scaled, (beta - scale * mean).astype(np.float32))


def _unsupported(op, why):
    return UnsupportedOperation(f"the generator's operation {op.type} ('{op.name}'): {why}")


def _same_edges(length, size, stride):
    """Returns the zeros before and after for TensorFlow's padding SAME."""
    padded = max((-(-length // stride) - 1) * stride + size, length)
    return [(padded - length) // 2, padded - length - (padded - length) // 2]
