"""Measurements on a student's class from outside; runs in the child process.

`net` is "generator" or "discriminator", the scope of the network's variables. Arrays of `images`
are `[n, ndims]`, of `latents` `[n, nlatent]`.
"""

import contextlib
import functools
import re
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from grading import NETWORKS
from support import user_code
from support.tf import network_variables
from tf1 import import_file

tf1 = tf.compat.v1
# A file in graph style need not do so itself.
tf1.disable_eager_execution()

ROOT = Path(__file__).resolve().parents[1]
HINTS = {
    **user_code.PORTING_HINTS,
    "MemoryError|bad_alloc|OOM when allocating": "more memory than a class may use here",
    "RecursionError": "which call has no end?",
}


def describe_error(error, folder):
    """Returns an exception in one line.

    It has the type, the message, the student's line, and a hint if any.
    """
    text = user_code.describe(error, HINTS)
    line = user_code.find_line(error, [folder])
    return f"{text}, line {line.number} of {line.path.name}" if line else text


class Bench:
    """Models of one class, each in a new graph.

    The public methods are the parent's questions. Building takes longer than most checks, so a
    model is used again with its initial values, unless it has new variables or other arguments are
    asked for.
    """

    def __init__(self):
        self.source = {"folder": "."}
        self._model = self._key = None

    def get_ready(self):
        """Does nothing: the answer shows that this process has started."""

    def begin(self, source, arguments, sizes, fresh):
        """Provides a model as its constructor left it.

        Args:
          source: The fields of a `Source` as strings.
          arguments: Positional arguments of the constructor.
          sizes: Its keyword arguments; None for an object whose constructor was not called.
          fresh: Whether to build it even if the last model can be used again.
        """
        key = [source, arguments, sizes]
        with contextlib.suppress(Exception):  # a class may have made anything of its session
            if key == self._key and not fresh and self._model.is_unchanged():
                self._model.restore()
                return
        with contextlib.suppress(Exception):
            self._model.gan.session.close()
        if source != self.source:
            self.source = source
            self._load = functools.cache(lambda: load_class(**source))
        self._key = None
        tf1.reset_default_graph()
        tf1.set_random_seed(1)
        gan_class = self._load()
        if sizes is None:
            gan = gan_class.__new__(gan_class)
            gan.session = tf1.InteractiveSession()
        else:
            gan = gan_class(*arguments, **sizes)
        self._model, self._key = Model(gan), key

    def measure(self, name, arguments):
        """Calls a method of the `Model`."""
        return getattr(self._model, name)(**arguments)


def load_class(path, class_name, folder):
    """Runs a file, which may import its neighbours by any of their usual names.

    Raises what the file raises; SystemExit, from an unguarded `app.run`, becomes ImportError.
    """
    path = Path(path)
    # Only the classes in models/ may import the project, which has the solution.
    own = path.parent.resolve() == ROOT / "models"
    folders = [each for each in (*path.parents[:2], Path(folder)) if own or each.resolve() != ROOT]
    sys.path[:0] = [str(each) for each in folders if str(each) not in sys.path]
    try:
        # A dotted name lets `from . import layers` work.
        module = import_file(path, f"{path.parent.name}.graded_{path.stem}")
    except SystemExit as error:
        raise ImportError("the file ends the program when it is imported") from error
    if not hasattr(module, class_name):
        raise ImportError(f"{path.name} has no class {class_name}")
    return getattr(module, class_name)


class Model:
    """A Gan as its constructor left it; the public methods are the measurements."""

    def __init__(self, gan):
        self.gan = gan
        self._all_variables = tf1.global_variables()
        self._logits = functools.cache(lambda x: gan._discriminator(getattr(gan, x), reuse=True))
        self._fed_loss = functools.cache(self._feed_loss)
        # A model without a session that is ready fails the check of that.
        with contextlib.suppress(Exception):
            self._new_values = gan.session.run(self._all_variables)

    def is_unchanged(self):
        """Returns whether this is still the default graph, without new variables."""
        return tf1.global_variables() == self._all_variables

    def restore(self):
        """Sets all variables, the optimizers' included, to what the constructor gave them."""
        self._set(self._all_variables, self._new_values)

    def missing(self, attributes, methods):
        """Returns those of the names that the model lacks."""
        lacking = [name for name in attributes if getattr(self.gan, name, None) is None]
        return lacking + [name for name in methods if not callable(getattr(self.gan, name, None))]

    def placeholder(self, name):
        """Returns `[dtype, shape]` of a placeholder.

        A shape is a list of lengths, None where open, or None.
        """
        placeholder = getattr(self.gan, name)
        shape = placeholder.shape
        return [placeholder.dtype.name, None if shape.rank is None else shape.as_list()]

    def num_uninitialized(self):
        """Counts the variables without a value."""
        names = tf1.report_uninitialized_variables(tf1.global_variables())
        return len(self.gan.session.run(names))

    def new_variables_on_reuse(self):
        """Returns the names of variables that building with reuse=True creates.

        Both networks are built.
        """
        before = [v.name for v in tf1.global_variables()]
        self.gan._generator(self.gan.z_placeholder, reuse=True)
        self.gan._discriminator(self.gan.x_placeholder, reuse=True)
        return [v.name for v in tf1.global_variables() if v.name not in before]

    def owners(self):
        """Returns `{name of a trainable variable: the networks it belongs to}`."""
        return {v.name: owners(v) for v in tf1.trainable_variables()}

    def run(self, fetches, images=None, latents=None, rate=None):
        """Returns the values of attributes, of `image_logits` and of `sample_logits`.

        Only what is given is fed. The value of an update is None.
        """
        gan = self.gan
        feeds = {
            gan.x_placeholder: images,
            gan.z_placeholder: latents,
            gan.learning_rate_placeholder: rate,
        }
        given = {placeholder: value for placeholder, value in feeds.items() if value is not None}
        inputs = {"image_logits": "x_placeholder", "sample_logits": "x_hat"}
        tensors = [
            self._logits(inputs[name]) if name in inputs else getattr(gan, name) for name in fetches
        ]
        return gan.session.run(tensors, given)

    def loss(self, name, logits):
        """Returns a loss function's value for columns of logits."""
        columns = [np.reshape(column, [-1, 1]).astype(np.float32) for column in logits]
        inputs, value = self._fed_loss(name, len(columns))
        return self.gan.session.run(value, dict(zip(inputs, columns, strict=True)))

    def _feed_loss(self, name, arity):
        inputs = [tf1.placeholder(tf.float32, [None, 1]) for _ in range(arity)]
        return inputs, getattr(self.gan, name)(*inputs)

    def generate_samples(self, latents):
        """Returns `[name of the type, values]`."""
        samples = self.gan.generate_samples(np.array(latents))
        return [type(samples).__name__, np.asarray(samples)]

    def update(self, net, steps, rate, images, latents):
        """Updates one network by its optimizer.

        Returns:
          `{network: [largest absolute change of each of its trainable variables]}` of both.
        """
        before = {each: self._weights(each) for each in NETWORKS}
        for _ in range(steps):
            self.run([f"{net[0]}_optimizer"], images, latents, rate)
        changes = {}
        for each, old in before.items():
            pairs = zip(old, self._weights(each), strict=True)
            changes[each] = [float(np.abs(b - a).max()) for a, b in pairs]
        return changes

    def randomize_weights(self, net, gain, seed):
        """Sets a network's weights to normal draws; `gain` multiplies a layer's scale.

        Unlike the weights a constructor chooses, none is 0 and no two layers are equal.
        """
        rng = np.random.default_rng(seed)
        variables = self._variables(net)
        shapes = [variable.shape.as_list() for variable in variables]
        draws = [gain * rng.standard_normal(s) / np.sqrt(np.prod(s[:-1])) for s in shapes]
        self._set(variables, draws)

    def _variables(self, net):
        return network_variables(self.gan, tf1.trainable_variables())[net]

    def _weights(self, net):
        return self.gan.session.run(self._variables(net))

    def _set(self, variables, values):
        # An initializer's second input is the value it writes: feeding it writes another one,
        # for reference variables as well as resources, and adds nothing to the graph.
        initializers = [variable.initializer for variable in variables]
        slots = [initializer.inputs[1] for initializer in initializers]
        self.gan.session.run(initializers, dict(zip(slots, values, strict=True)))


def owners(variable):
    """Returns the networks whose scope a variable is in.

    A numbered scope counts too: `generator_1/w:0`.
    """
    scopes = [re.sub(r"_*\d*$", "", part) for part in variable.name.split("/")[:-1]]
    return [net for net in NETWORKS if net in scopes]
