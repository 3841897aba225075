"""Custom classes, `--gan=FILE.py:CLASS`: loading, and the contract of training.

A class's code comes only from the path on the command line, never from a run folder. An error
in it is reported in one line with the line in its file. Importing this module imports no
TensorFlow.
"""

import contextlib
import hashlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import tf1
from support import user_code
from support.data_sets import NUM_CLASSES, NUM_PIXELS
from support.errors import UserError
from support.tf import tf, upstream_ops

# Errors of custom classes: pattern of the message -> what to do.
_HINTS = {
    **{
        pattern: f"{hint}; see docs/porting.md" for pattern, hint in user_code.PORTING_HINTS.items()
    },
    "^SystemExit": 'move what the file does as a program below `if __name__ == "__main__":`',
    "^DuplicateFlagError": "main.py has its own flags: define none where the file is imported",
    "No variables to optimize|No gradients provided": (
        "no variable is in the scope that var_list names; Keras ignores variable scopes"
    ),
    r"__init__\(\) got an unexpected keyword argument '(ndims|nlatent)'": (
        "write it as `def __init__(self, ndims=784, nlatent=2)`"
    ),
    "unexpected keyword argument '(conditioning|[dg]_channels|minibatch_stddev)'": (
        "its networks have no such option: omit the flag"
    ),
    "'NoneType' object has no attribute 'dtype'": "does a loss or a network return nothing?",
    r"\(\) takes no arguments": "__init__ must accept ndims and nlatent",
    "must feed a value for placeholder": (
        "with --engine=fused, compute losses from the arguments, self.x_placeholder or self.x_hat, "
        "not from another tensor of __init__; or use --engine=step"
    ),
    "clear nested graphs": "omit reset_default_graph: each run has its own graph",
}
# Methods: their parameters, and what they return.
_METHODS = {
    "_generator": ("z, reuse=False", "images [batch, 784]"),
    "_discriminator": ("x, reuse=False", "logits [batch, 1]"),
    "_discriminator_loss": ("y, y_hat", "a scalar, the mean over the batch"),
    "_generator_loss": ("y_hat", "a scalar, the mean over the batch"),
}

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("models", "training", "generation", "evaluation", "support")
_FILES = ("main.py", "command_line.py", "input_data.py", "tf1.py")
_PROJECT = [_ROOT / name for name in (*_FILES, *_PACKAGES)]
# Folders of the classes loaded so far, the latest first: their files may import each other.
_folders: list[str] = []


# Loading.


def parse(spec: str) -> tuple[str, str, str]:
    """Splits `FILE.py:CLASS` without running the file.

    Returns:
      The path with `~` expanded, the class's name, the SHA-256 of the file.
    """
    path, _, name = spec.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise UserError(f"--gan must be FILE.py:CLASS, such as my_gan.py:Gan, got {spec!r}")
    path = os.path.expanduser(path)
    try:
        return path, name, hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise UserError(f"--gan: {path} does not exist; check the path") from error
    except OSError as error:
        raise UserError(f"--gan: cannot read {path} ({error.strerror})") from error


def load(spec: str) -> type:
    """Returns the class of `FILE.py:CLASS`; the file may import its neighbours."""
    path, name, sha256 = parse(spec)
    _let_import_from(str(Path(path).resolve().parent))
    with user_errors():
        module = tf1.import_file(path, f"custom_class_{sha256[:8]}")
    # The file may call disable_v2_behavior; loops in the graph need resource variables.
    tf.enable_resource_variables()
    gan_class = getattr(module, name, None)
    if not isinstance(gan_class, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise UserError(
            f"--gan must name a class of {path} ({', '.join(classes) or 'it has none'}), got {name}"
        )
    return gan_class


def _let_import_from(folder):
    """Puts a folder on `sys.path` and forgets the modules of other classes' folders."""
    others = [each for each in _folders if each != folder]
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None) and Path(module.__file__).resolve()
        if path and str(path.parent) in others and not {path, path.parent} & set(_PROJECT):
            del sys.modules[name]
    sys.path[:] = [*(each for each in sys.path if each not in _folders), folder, *others]
    _folders[:] = [folder, *others]


@contextlib.contextmanager
def user_errors(gan_class: type | None = None) -> Iterator[None]:
    """Context manager that turns errors of a custom class into one-line UserErrors.

    Args:
      gan_class: The class to report for an error that passed no line of a user's file. Without it
        such an error is the program's own and passes unchanged.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if line := user_code.find_line(error, _folders, _PROJECT):
            place = _shown(line)
        elif gan_class:
            place = str(error_at(gan_class, f"class {gan_class.__name__}"))
        else:
            raise
        raise UserError(f"{place}: {user_code.describe(error, _HINTS)}") from error


def _shown(line):
    """Returns `my_gan.py, line 3, in __init__`."""
    path, folder = line.path, Path.cwd()
    shown = path.relative_to(folder) if path.is_relative_to(folder) else path
    return f"{shown}, line {line.number}" + (f", in {line.function}" if line.function else "")


def error_at(subject, message: str) -> UserError:
    """Returns an error whose message begins with the user's line that it is about.

    Args:
      subject: A tensor or operation, which stands for the line that created it; a method; or a
        class, which stands for its constructor.
      message: What is wrong with it.
    """
    stack = list(getattr(getattr(subject, "op", subject), "traceback", []))
    method = vars(subject).get("__init__") if isinstance(subject, type) else subject
    if code := getattr(method, "__code__", None):
        stack = [traceback.FrameSummary(code.co_filename, code.co_firstlineno, code.co_name)]
    line = user_code.find_line(stack, _folders, _PROJECT)
    return UserError(f"{_shown(line)}: {message}" if line else message)


# The contract of training.


def check(gan, recipe):
    """Checks that an instance has article 003's interface.

    Args:
      gan: The instance, in the current default graph, with an open session.
      recipe: The Recipe it was built for.

    Raises:
      UserError: If it has not.
    """
    name = type(gan).__name__
    fed = _check_attributes(gan, recipe)
    _check_methods(gan, recipe.conditional)
    logits = call_again(gan, "_discriminator", gan.x_placeholder)
    outputs = [gan.x_hat, gan.d_loss, gan.g_loss, gan.d_optimizer, gan.g_optimizer, logits]
    for op in sorted(upstream_ops(outputs) - fed, key=lambda op: op.name):
        if op.type == "Placeholder":
            raise error_at(
                op,
                f"{name} needs a value for the placeholder {op.name}, which no step feeds: give it "
                "one for both training and sampling, with tf.placeholder_with_default",
            )
    z = np.random.default_rng(0).uniform(-1, 1, [NUM_CLASSES, recipe.nlatent])
    labels = {gan.labels_placeholder: np.eye(NUM_CLASSES)} if recipe.conditional else {}
    try:
        images = gan.session.run(gan.x_hat, {gan.z_placeholder: z, **labels})
    except (AttributeError, RuntimeError, tf.errors.FailedPreconditionError) as error:
        raise error_at(
            gan.__init__,
            f"{name}.session must be open and its variables initialised: end __init__ with "
            "self.session.run(tf.global_variables_initializer())",
        ) from error
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 1):
        remedy = "end _generator with tf.nn.sigmoid, or with (x + 1) / 2 after tf.tanh"
        if np.isnan(low):
            remedy = "look for a logarithm or quotient of 0 in _generator"
        raise error_at(
            gan.x_hat,
            f"{name}.x_hat must be in [0, 1], got values from {low:.3g} to {high:.3g}: {remedy}",
        )


def check_own_train_ops(gan, recipe):
    """Rejects a class whose own train ops would silently train something else.

    That is a loss that does not see the labels of the real images, and layers of this project that
    differ in training: its own train ops run the networks as in inference.
    """
    from models import passes

    name = type(gan).__name__
    if recipe.conditional and gan.x_labels_placeholder.op not in upstream_ops([gan.d_loss]):
        raise UserError(
            f"{name}.d_loss does not depend on x_labels_placeholder: call "
            "self._discriminator(self.x_placeholder, reuse=True, labels=self.x_labels_placeholder) "
            "in __init__, or train it with --engine=fused"
        )
    if tf.get_collection(passes.ASKED):
        raise UserError(
            f"{name} has layers that differ in training, such as dropout and batch_norm of "
            "models/layers.py, which its own train ops ignore; train it with --engine=fused"
        )


def check_for_our_updates(gan):
    """Rejects a class whose networks or losses cannot be called again, as our updates do."""
    y_hat = call_again(gan, "_discriminator", call_again(gan, "_generator", gan.z_placeholder))
    y = call_again(gan, "_discriminator", gan.x_placeholder)
    call_again(gan, "_discriminator_loss", y, y_hat)
    call_again(gan, "_generator_loss", y_hat)


def untrained_variables(gan) -> list:
    """Returns the trainable variables that the networks read and no train op writes."""
    behind = upstream_ops([gan.x_hat, gan.d_loss])
    train_ops = upstream_ops([gan.d_optimizer, gan.g_optimizer])
    # Loops, branches and functions may write all their inputs.
    writing = "Apply|Assign|Scatter|If|While|Call"
    written = {x.op for op in train_ops if re.search(writing, op.type) for x in op.inputs}
    return [v for v in tf.trainable_variables() if v.op in behind - written]


def _check_attributes(gan, recipe):
    """Checks an instance's attributes; returns the placeholders' operations."""
    images, latents = [None, NUM_PIXELS], [None, recipe.nlatent]
    labels, scalar = [None, NUM_CLASSES], []
    attributes = {
        "x_placeholder": (images, "the placeholder of the images"),
        "z_placeholder": (latents, "the placeholder of the latents"),
        "learning_rate_placeholder": (scalar, "the placeholder of the learning rate"),
        "x_hat": (images, "the generator's images, self._generator(self.z_placeholder)"),
        "d_loss": (scalar, "the discriminator's loss, a mean over the batch"),
        "g_loss": (scalar, "the generator's loss, a mean over the batch"),
        "d_optimizer": (None, "the discriminator's train op"),
        "g_optimizer": (None, "the generator's train op"),
    }
    if recipe.conditional:
        attributes["labels_placeholder"] = (labels, "the one-hot labels that --conditional draws")
        attributes["x_labels_placeholder"] = (labels, "the images' one-hot labels")
    placeholders = set()
    for attribute, (shape, meaning) in attributes.items():
        value, name = getattr(gan, attribute, None), f"{type(gan).__name__}.{attribute}"
        if not isinstance(value, tf.Tensor if shape is not None else (tf.Tensor, tf.Operation)):
            found = "nothing; set it in __init__" if value is None else type(value).__name__
            raise error_at(gan.__init__, f"{name} must be {meaning}, got {found}")
        if value.graph is not tf.get_default_graph():
            raise error_at(
                value,
                f"{name} is in another graph instead of the default one: create it in __init__, "
                "without a tf.Graph() of its own",
            )
        if shape is None:
            continue
        # A scalar's shape may be unknown.
        actual = value.shape.as_list() if value.shape.rank is not None else scalar
        if actual != shape or value.dtype != tf.float32:
            raise error_at(
                value,
                f"{name} must be float32 of shape {tuple(shape)}, got {value.dtype.name} of shape "
                f"{tuple(actual)}: it is {meaning}",
            )
        if attribute.endswith("placeholder"):
            placeholders.add(value.op)
    return placeholders


def _check_methods(gan, conditional):
    for method, (parameters, _) in _METHODS.items():
        if conditional and "reuse" in parameters:
            parameters = f"{parameters}, labels=None"
        parts = parameters.split(", ")
        tensors = [part for part in parts if "=" not in part]
        named = {part.partition("=")[0]: None for part in parts if "=" in part}
        function, name = getattr(gan, method, None), f"{type(gan).__name__}.{method}"
        expected = f"write it as def {method}(self, {parameters})"
        if not callable(function):
            raise error_at(gan.__init__, f"{name} is missing: {expected}")
        try:
            inspect.signature(function).bind(*tensors, **named)
        except TypeError as error:
            raise error_at(function, f"{name}: {error}; {expected}") from error


def call_again(gan, method: str, *inputs):
    """Returns what a method of an instance returns for other inputs, with variables that exist."""
    function, name = getattr(gan, method), f"{type(gan).__name__}.{method}"
    before, is_scalar = len(tf.global_variables()), method.endswith("_loss")
    result = function(*inputs) if is_scalar else function(*inputs, reuse=True)
    for variable in tf.global_variables()[before:]:
        raise error_at(
            variable,
            f"{name} creates another variable, {variable.op.name}, when it is called again: create "
            "it with tf.get_variable under tf.variable_scope(..., reuse=reuse), or, like a layer "
            "of Keras, in __init__",
        )
    is_tensor = isinstance(result, tf.Tensor)
    if not is_tensor or (is_scalar and result.shape.rank):
        _, expected = _METHODS[method]
        found = result.shape if is_tensor else type(result).__name__
        raise error_at(function, f"{name} must return one tensor, {expected}, got {found}")
    return result
