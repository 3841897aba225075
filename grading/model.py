"""One model of a student's class, and what can be measured on it from outside.

Runs in the student's process. `net` is one of `NETWORKS`' two scopes throughout; arrays are
`images` [n, ndims] and `latents` [n, nlatent].
"""

import numpy as np
import tensorflow as tf

from grading.candidate import NETWORKS, owners

tf1 = tf.compat.v1
# A graph-style file need not say so itself.
tf1.disable_eager_execution()


def construct(load, *arguments, **sizes):
    """The class's constructor; raises what the file or the constructor raises."""
    return load()(*arguments, **sizes)


def without_constructor(load):
    """An object of the class as `__new__` leaves it, with a session."""
    gan_class = load()
    gan = gan_class.__new__(gan_class)
    gan.session = tf1.InteractiveSession()
    return gan


def build(make, *arguments, **sizes):
    """-> `Model` of what `make` returns, in a graph of its own; raises what that raises."""
    outer = tf1.get_default_session()
    tf1.reset_default_graph()
    tf1.set_random_seed(1)
    try:
        return Model(make(*arguments, **sizes), outer)
    except BaseException:
        _close_sessions_since(outer)
        raise


def _close_sessions_since(outer):
    """Closes the interactive sessions opened after `outer`, innermost first as they demand."""
    while (session := tf1.get_default_session()) not in (None, outer):
        session.close()
        if tf1.get_default_session() is session:
            return


class Model:
    """A Gan as its constructor left it; the public methods are the measurements."""

    def __init__(self, gan, outer_session):
        self._gan = gan
        self._outer_session = outer_session
        self._all_variables = tf1.global_variables()
        self._new_values = self._first_values()
        self._made = {}  # tensors that a measurement added to the graph

    def _first_values(self):
        try:
            return self._gan.session.run(self._all_variables)
        # A model without a session that is ready fails the check that asks for one.
        except Exception:
            return None

    def can_be_restored(self):
        """Whether this is still the default graph, with no variables added, and it ever ran."""
        same = tf1.global_variables() == self._all_variables
        return same and self._new_values is not None

    def restore(self):
        """Puts all variables, the optimizers' included, back as the constructor left them."""
        self._put(self._all_variables, self._new_values)

    def close(self):
        """Closes the model's session, and any other that its constructor opened."""
        _close_sessions_since(self._outer_session)
        if hasattr(self._gan, "session"):
            self._gan.session.close()

    def missing(self, attributes, methods):
        """Those of the names that the model lacks."""
        lacking = [name for name in attributes if getattr(self._gan, name, None) is None]
        return lacking + [name for name in methods if not callable(getattr(self._gan, name, None))]

    def placeholder(self, name):
        """-> `[dtype, shape]`; a shape is a list of lengths, None where open, or None itself."""
        placeholder = getattr(self._gan, name)
        shape = placeholder.shape
        return [placeholder.dtype.name, None if shape.rank is None else shape.as_list()]

    def num_uninitialized(self):
        """How many variables hold nothing."""
        names = tf1.report_uninitialized_variables(tf1.global_variables())
        return len(self._gan.session.run(names))

    def new_variables_on_reuse(self):
        """Names of the variables made by building both networks with reuse=True."""
        before = [v.name for v in tf1.global_variables()]
        self._gan._generator(self._gan.z_placeholder, reuse=True)
        self._gan._discriminator(self._gan.x_placeholder, reuse=True)
        return [v.name for v in tf1.global_variables() if v.name not in before]

    def trainable_names(self):
        """Names of the trainable variables."""
        return [v.name for v in tf1.trainable_variables()]

    def num_parameters(self):
        """-> `{network: how many numbers it trains}`."""
        return {net: sum(v.shape.num_elements() for v in self._variables(net)) for net in NETWORKS}

    def run(self, fetches, images=None, latents=None, rate=None):
        """Values of the fetches, None for an update's; fed with what is given and nothing else."""
        gan = self._gan
        feeds = {
            gan.x_placeholder: images,
            gan.z_placeholder: latents,
            gan.learning_rate_placeholder: rate,
        }
        given = {placeholder: value for placeholder, value in feeds.items() if value is not None}
        return gan.session.run([self._tensor(name) for name in fetches], given)

    def _tensor(self, name):
        networks = {"image_logits": "x_placeholder", "sample_logits": "x_hat"}
        return self._logits(networks[name]) if name in networks else getattr(self._gan, name)

    def _logits(self, images):
        def make():
            return self._gan._discriminator(getattr(self._gan, images), reuse=True)

        return self._once(images, make)

    def loss(self, name, logits, constant=False):
        """What a loss function gives for columns of logits, however many numbers that is."""
        columns = [np.reshape(column, [-1, 1]).astype(np.float32) for column in logits]
        if constant:
            inputs = [tf.constant(column) for column in columns]
            return self._gan.session.run(getattr(self._gan, name)(*inputs))
        inputs, loss = self._loss(name, len(columns))
        return self._gan.session.run(loss, dict(zip(inputs, columns, strict=True)))

    def _loss(self, name, arity):
        def make():
            inputs = [tf1.placeholder(tf.float32, [None, 1]) for _ in range(arity)]
            return inputs, getattr(self._gan, name)(*inputs)

        return self._once(name, make)

    def _once(self, key, make):
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def generate_samples(self, latents):
        """-> `[name of the type, values]`."""
        samples = self._gan.generate_samples(latents)
        return [type(samples).__name__, np.asarray(samples)]

    def update(self, net, steps, rate, images, latents):
        """Updates of one network by its optimizer -> `{network: largest changes}`.

        The largest absolute change of each of its trainable variables, in their order.
        """
        before = {each: self._weights(each) for each in NETWORKS}
        for _ in range(steps):
            self.run([f"{net[0]}_optimizer"], images, latents, rate)
        return {each: _changes(before[each], self._weights(each)) for each in NETWORKS}

    def randomize_weights(self, net, gain, seed):
        """Normal draws in place of the network's weights, to multiply a layer's scale by `gain`.

        Unlike the weights a constructor chooses they leave nothing at 0, and no two layers alike.
        """
        rng = np.random.default_rng(seed)
        variables = self._variables(net)
        shapes = [variable.shape.as_list() for variable in variables]
        draws = [gain * rng.standard_normal(s) / np.sqrt(np.prod(s[:-1])) for s in shapes]
        self._put(variables, draws)

    def _variables(self, net):
        return [v for v in tf1.trainable_variables() if net in owners(v.name)]

    def _weights(self, net):
        return self._gan.session.run(self._variables(net))

    def _put(self, variables, values):
        # An initializer's second input is the value it writes: feeding it writes another one,
        # for reference variables as well as resources, and adds nothing to the graph.
        initializers = [variable.initializer for variable in variables]
        slots = [initializer.inputs[1] for initializer in initializers]
        self._gan.session.run(initializers, dict(zip(slots, values, strict=True)))


def _changes(before, after):
    return [float(np.abs(a - b).max()) for a, b in zip(after, before, strict=True)]
