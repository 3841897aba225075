"""What two networks compute in inference, as text: an operation a line, the same for the same.

Names of files, of scopes within the graph and of operations do not count, nor do operations that
only hand a value on, nor what is computed twice; so that a run is recognised after its class was
moved, renamed or tidied. Attributes that have their default value are left out, for a newer
TensorFlow gives more of them to old operations. What Python computes in `tf.py_func` is not seen.
"""

import hashlib
import json

import tensorflow.compat.v1 as tf

# Operations that hand their inputs on, and what today's TensorFlow calls older ones.
_TRANSPARENT = {"Identity", "IdentityN", "ReadVariableOp", "StopGradient", "PreventGradient"}
_SAME = {
    "Add": "AddV2",
    "FusedBatchNorm": "FusedBatchNormV3",
    "FusedBatchNormV2": "FusedBatchNormV3",
    "StatelessIf": "If",
    "StatelessWhile": "While",
    "StatefulPartitionedCall": "PartitionedCall",
}
_VARIABLES = {"VarHandleOp", "VariableV2", "Variable"}
# A network sees one kind of labels, whichever placeholder they come by.
_INPUTS = {
    "z_placeholder": "z_placeholder",
    "x_placeholder": "x_placeholder",
    "labels_placeholder": "labels_placeholder",
    "x_labels_placeholder": "labels_placeholder",
}
# Attributes that follow from how the graph came about, such as seeds, which count operations.
_LEFT_OUT = {"seed", "seed2", "shared_name", "container", "config", "config_proto", "token", "U"}
_SHOWN_VALUES = 8


def of_gan(gan):
    """A Gan -> {"generator": [line], "discriminator": [line]}, in the order of computation."""
    graph = gan.x_hat.graph
    with graph.as_default():
        logits = gan._discriminator(gan.x_placeholder, reuse=True)
        exported = tf.train.export_meta_graph(collection_list=[], strip_default_attrs=True)
    definition = exported.graph_def
    inputs = {getattr(gan, a).op.name: name for a, name in _INPUTS.items() if hasattr(gan, a)}
    functions = {each.signature.name: each for each in definition.library.function}
    networks = {"generator": gan.x_hat, "discriminator": logits}
    return {
        network: _Description(definition.node, inputs, functions, [tensor.name]).lines
        for network, tensor in networks.items()
    }


def checksum(networks):
    """What `of_gan` gives -> a SHA-256 of it."""
    return hashlib.sha256(json.dumps(networks, sort_keys=True).encode()).hexdigest()


class _Description:
    """The nodes behind some outputs, as lines that refer to each other by their numbers."""

    def __init__(self, nodes, inputs, functions, outputs):
        """inputs: {name of a node: what it stands for}; functions: {name: FunctionDef};
        outputs: texts such as `node:0`.
        """
        self._nodes = {node.name: node for node in nodes}
        self._inputs = inputs
        self._functions = functions
        self._numbers = {}  # of the nodes that are done
        self._open = {}  # those that wait for what is behind them: a loop leads back to one
        self._places = {}  # of the lines
        outputs = [self._described(output) for output in outputs]
        self.lines = [*self._places, f"-> {' '.join(outputs)}"]

    def _described(self, output):
        """-> the place of an output, after the lines of all that is behind it."""
        waiting = [self._source(output)[0]]
        while waiting:
            name = waiting[-1]
            new = [each for each, _ in self._sources(name) if not self._is_known(each)]
            if new and name not in self._numbers:
                self._open.setdefault(name, f"loop {len(self._open)}")
                waiting.append(new[0])
            else:
                self._number(waiting.pop())
        return self._place(output)

    def _is_known(self, name):
        return name in self._numbers or name in self._open

    def _number(self, name):
        """Gives a node the number of its line, which is that of an equal one before it."""
        self._open.pop(name, None)
        if name in self._numbers:
            return
        self._numbers[name] = self._places.setdefault(self._line(name), len(self._places))

    def _line(self, name):
        if name in self._inputs:
            return self._inputs[name]
        node = self._nodes[name]
        if node.op in _VARIABLES:
            return f"variable {name} {_shape(node.attr['shape'].shape)}"
        if node.op == "Const":
            return f"Const {_value(tf.make_ndarray(node.attr['value'].tensor))}"
        own = [name] if node.op == "Placeholder" else []
        places = [self._place(each) for each in _data_inputs(node)]
        return " ".join([_SAME.get(node.op, node.op), *own, *self._attributes(node), *places])

    def _attributes(self, node):
        return [
            f"{name}={self._attribute(node.attr[name])}"
            for name in sorted(node.attr)
            if name[0] != "_" and name not in _LEFT_OUT
        ]

    def _attribute(self, value):
        """-> the value as text, a function's as the checksum of its own lines."""
        if value.HasField("func"):
            return self._function(value.func.name)
        if value.list.func:
            return ",".join(self._function(each.name) for each in value.list.func)
        text = " ".join(str(value).split())
        return text if value.HasField("list") else text.partition(": ")[2]

    def _function(self, name):
        function = self._functions[name]
        arguments = [each.name for each in function.signature.input_arg]
        inputs = {each: f"argument {place}" for place, each in enumerate(arguments)}
        outputs = [function.ret[each.name] for each in function.signature.output_arg]
        own = _Description(function.node_def, inputs, self._functions, outputs)
        return _digest("\n".join(own.lines).encode())

    def _sources(self, name):
        node = self._nodes.get(name)
        if name in self._inputs or node is None or node.op in _VARIABLES:
            return []
        return [self._source(each) for each in _data_inputs(node)]

    def _source(self, text):
        """`node:1`, in a function `node:output:1` -> (node, `1`), past what only hands on."""
        name, _, output = text.partition(":")
        node = self._nodes.get(name)
        if name not in self._inputs and node is not None and node.op in _TRANSPARENT:
            place = int(output.rpartition(":")[2] or 0)
            return self._source(_data_inputs(node)[place])
        return name, output or "0"

    def _place(self, text):
        name, output = self._source(text)
        number = self._numbers.get(name, self._open.get(name))
        return f"%{number}" if output.rpartition(":")[2] == "0" else f"%{number}:{output}"


def _data_inputs(node):
    """-> the inputs of a NodeDef that carry a value; the others only say what comes first."""
    return [each for each in node.input if each[0] != "^"]


def _shape(shape):
    return "unknown" if shape.unknown_rank else [dim.size for dim in shape.dim]


def _value(array):
    if array.size <= _SHOWN_VALUES:
        return f"{array.dtype} {array.tolist()}"
    return f"{array.dtype} {list(array.shape)} {_digest(array.tobytes())}"


def _digest(content):
    return hashlib.sha256(content).hexdigest()[:16]
