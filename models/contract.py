"""What a class of article 003's shape has to be, checked on an instance before it is trained.

Whatever is missing is told in one line that names the class, what was seen and what is wanted.
"""

import inspect

import numpy as np
import tensorflow.compat.v1 as tf

from input_data import NUM_PIXELS
from models import layers, passes
from support.errors import UserError

_ATTRIBUTES = {
    "x_placeholder": "the placeholder of the images, float32 [None, ndims]",
    "z_placeholder": "the placeholder of the latents, float32 [None, nlatent]",
    "learning_rate_placeholder": "the placeholder of the learning rate, a float32 scalar",
    "x_hat": "the generator's images, self._generator(self.z_placeholder)",
    "d_loss": "the discriminator's loss, a scalar",
    "g_loss": "the generator's loss, a scalar",
    "d_optimizer": "the discriminator's train op",
    "g_optimizer": "the generator's train op",
    "session": "an open session whose variables are initialised",
}
_LABELS = {
    "labels_placeholder": "the placeholder of the labels to generate, one-hot float32 [None, 10]",
    "x_labels_placeholder": "the placeholder of the images' labels, one-hot float32 [None, 10]",
}
_METHODS = {
    "_generator": "z, reuse=False",
    "_discriminator": "x, reuse=False",
    "_discriminator_loss": "y, y_hat",
    "_generator_loss": "y_hat",
}
_SCOPES = ("generator", "discriminator")
# Kernels with a random generator of their own, whose state no variable holds, have this attribute.
_OWN_GENERATOR = "seed2"
_SAMPLES = 10


def check(gan, recipe):
    """UserError that names what a class lacks of the article's shape, and where it belongs.

    gan: its instance, in the current default graph, with an open session.
    """
    name = type(gan).__name__
    attributes = {**_ATTRIBUTES, **_LABELS} if recipe.conditional else _ATTRIBUTES
    _check_attributes(gan, name, attributes)
    _check_methods(gan, name)
    _check_shapes(gan, name, recipe)
    _check_variables(name)
    logits = _called_again(gan, "_discriminator", gan.x_placeholder)
    _check_feeds(gan, name, attributes, logits)
    _check_images(gan, name, recipe)


def check_generator(gan):
    """UserError unless `_generator` can be called again, as updates other than its own do."""
    _called_again(gan, "_generator", gan.z_placeholder)


def check_own_train_ops(gan, recipe):
    """UserError for what a class's own train ops would get wrong without a word.

    That is labels of real images that its loss does not see, and layers of this project that do
    something else in training: such train ops run the networks as they are in inference.
    """
    if recipe.conditional and gan.x_labels_placeholder.op not in upstream_ops([gan.d_loss]):
        raise UserError(
            f"{type(gan).__name__}.d_loss does not depend on x_labels_placeholder: call "
            "self._discriminator(self.x_placeholder, reuse=True, labels=self.x_labels_placeholder) "
            "in __init__, or train it with --engine=fused"
        )
    if not tf.get_collection(layers.LAYERS):
        return
    with passes.training(tf.constant([0, 0])) as running:
        _called_again(gan, "_generator", gan.z_placeholder)
        _called_again(gan, "_discriminator", gan.x_placeholder)
    if running.is_used:
        raise UserError(
            f"{type(gan).__name__} has layers that do something else in training, such as dropout "
            "and batch_norm of models/layers.py, of which its own train ops know nothing: train "
            "it with --engine=fused"
        )


def random_ops(gan):
    """-> the names of the operations that draw random numbers while the train ops run.

    TensorFlow keeps their state in no variable: a run that goes on draws others than one that was
    never stopped. Branches, loops and functions are looked into.
    """
    library = gan.x_hat.graph.as_graph_def().library.function
    bodies = {function.signature.name: list(function.node_def) for function in library}
    nodes = [op.node_def for op in upstream_ops([gan.d_optimizer, gan.g_optimizer])]
    names = set()
    while nodes:
        node = nodes.pop()
        if _OWN_GENERATOR in node.attr:
            names.add(node.name)
        for called in _functions_called(node):
            nodes += bodies.pop(called, [])
    return sorted(names)


def upstream_ops(fetches):
    """-> the set of the operations that run where these tensors and operations are fetched."""
    seen, waiting = set(), [getattr(each, "op", each) for each in fetches]
    while waiting:
        op = waiting.pop()
        if op not in seen:
            seen.add(op)
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return seen


def _functions_called(node):
    """A NodeDef -> the names of the functions among its attributes, such as a branch's."""
    for value in node.attr.values():
        yield from (function.name for function in [value.func, *value.list.func])


def _check_attributes(gan, name, attributes):
    for attribute, meaning in attributes.items():
        value = getattr(gan, attribute, None)
        if value is None:
            raise UserError(
                f"{name} has no {attribute}: set self.{attribute} in __init__, {meaning}"
            )
        if attribute != "session":
            _check_in_graph(value, f"{name}.{attribute}", meaning)


def _check_in_graph(value, name, meaning):
    kinds = (tf.Tensor, tf.Operation) if name.endswith("optimizer") else (tf.Tensor,)
    if not isinstance(value, kinds):
        raise UserError(f"{name} is a {type(value).__name__}, wanted {meaning}")
    if value.graph is not tf.get_default_graph():
        raise UserError(
            f"{name} is in another graph than the default one: create it in __init__, without a "
            "tf.Graph() of its own"
        )


def _check_methods(gan, name):
    for method, parameters in _METHODS.items():
        function = getattr(gan, method, None)
        if not callable(function):
            raise UserError(f"{name} has no method {method}({parameters})")
        given = {"reuse": True} if "reuse" in parameters else {}
        tensors = [word for word in parameters.split(", ") if "=" not in word]
        try:
            inspect.signature(function).bind(*tensors, **given)
        except TypeError as error:
            raise UserError(
                f"{name}.{method}: {error}; write it as def {method}(self, {parameters})"
            ) from error


def _check_shapes(gan, name, recipe):
    wanted = {
        "x_placeholder": NUM_PIXELS,
        "z_placeholder": recipe.nlatent,
        "x_hat": NUM_PIXELS,
    }
    for attribute, width in wanted.items():
        shape = getattr(gan, attribute).shape
        # As a list, because version 1's dimensions are never None themselves.
        if shape.rank != 2 or shape.as_list() != [None, width]:
            raise UserError(f"{name}.{attribute} has shape {shape}, wanted (None, {width})")
    for attribute in ("d_loss", "g_loss"):
        shape = getattr(gan, attribute).shape
        if shape.rank not in (0, None):
            raise UserError(
                f"{name}.{attribute} has shape {shape}, wanted a scalar: take the mean over the "
                f"batch in _{'discriminator' if attribute[0] == 'd' else 'generator'}_loss"
            )


def _check_variables(name):
    """Every trainable variable is under one of the two scopes, and each scope has some."""
    names = [variable.op.name for variable in tf.trainable_variables()]
    for scope in _SCOPES:
        if not any(each.startswith(f"{scope}/") for each in names):
            raise UserError(
                f"{name}._{scope} makes no trainable variable under the scope '{scope}': open it "
                f'with tf.variable_scope("{scope}", reuse=reuse)'
            )
    for each in names:
        if not each.startswith(tuple(f"{scope}/" for scope in _SCOPES)):
            raise UserError(
                f"{name} has the trainable variable {each} outside the scopes 'generator' and "
                "'discriminator': which network learns it? Create it within one of the two"
            )


def _called_again(gan, method, inputs):
    """-> a network's result on the variables that there are; UserError if it makes others."""
    name = f"{type(gan).__name__}.{method}"
    before = len(tf.global_variables())
    result = getattr(gan, method)(inputs, reuse=True)
    for variable in tf.global_variables()[before:]:
        raise UserError(
            f"{name} creates another variable, {variable.op.name}, when it is called again: create "
            "it with tf.get_variable under tf.variable_scope(..., reuse=reuse)"
        )
    if not isinstance(result, tf.Tensor):
        wanted = "images [batch, 784]" if method == "_generator" else "logits [batch, 1]"
        raise UserError(f"{name} returns a {type(result).__name__}, wanted one tensor, {wanted}")
    return result


def _check_feeds(gan, name, attributes, logits):
    """UserError for a placeholder that nobody feeds."""
    outputs = [gan.x_hat, gan.d_loss, gan.g_loss, gan.d_optimizer, gan.g_optimizer, logits]
    fed = {getattr(gan, attribute).op for attribute in attributes if "placeholder" in attribute}
    for op in sorted(upstream_ops(outputs) - fed, key=lambda op: op.name):
        if op.type == "Placeholder":
            raise UserError(
                f"{name} wants a value for the placeholder {op.name}, which no step feeds: give it "
                "one with tf.placeholder_with_default"
            )


def _check_images(gan, name, recipe):
    """UserError unless the first images are in [0, 1]."""
    rng = np.random.default_rng(0)
    feed = {gan.z_placeholder: rng.uniform(-1, 1, [_SAMPLES, recipe.nlatent])}
    if recipe.conditional:
        feed[gan.labels_placeholder] = np.eye(_SAMPLES)
    if getattr(gan.session, "_closed", False):
        raise UserError(f"{name}.session is closed: leave it open in __init__")
    try:
        images = gan.session.run(gan.x_hat, feed)
    except tf.errors.FailedPreconditionError as error:
        raise UserError(
            f"{name}.session has variables that hold no value: end __init__ with "
            "self.session.run(tf.global_variables_initializer())"
        ) from error
    if not (images.min() >= 0 and images.max() <= 1):
        raise UserError(
            f"{name}.x_hat has values from {images.min():.3g} to {images.max():.3g}, wanted [0, 1]:"
            " end _generator with tf.nn.sigmoid, or with (x + 1) / 2 after tf.tanh"
        )
