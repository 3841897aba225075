"""A Gan while it is trained: session, variables, samples from the average of G's weights."""

import contextlib
import functools

import numpy as np
import tensorflow.compat.v1 as tf

from models import custom_class
from support.errors import UserError
from training import checkpoint_files
from training.batches import one_hot

# Images made in one call: enough to keep the cores busy, little enough for any memory.
_AT_ONCE = 1000


class TrainingModel:
    """A Gan of any class, and the session that it is trained in.

    gan: the class's instance, in a graph of its own.
    """

    def __init__(self, gan, train_ops, averages, session):
        """train_ops: what training runs; averages: {variable's name: its average's variable}."""
        self.gan = gan
        self.session = session
        self._averages = averages
        self.graph = gan.x_hat.graph
        with self.graph.as_default():
            self.variables = variables_behind([*train_ops, gan.x_hat], averages)
            self._logits = _discriminate(gan)
        self._by_name = {variable.op.name: variable for variable in self.variables}
        checkpoint_files.check_names(self._by_name)
        session.run([variable.initializer for variable in self.variables])

    def state(self):
        """-> {variable's name: ndarray}: all that training has changed or will go on from."""
        return self.session.run(self._by_name)

    def load_state(self, state):
        """Sets every variable to what `state` returned; UserError if it is of other networks."""
        check_shapes(state, {name: tuple(v.shape) for name, v in self._by_name.items()})
        self._assign(state)

    def generate(self, z, labels=None):
        """[n, nlatent] -> float32 [n, ndims], by the average of G's weights where one is kept.

        labels: whole numbers [n], for a conditional GAN.
        """
        with self._averaged_weights():
            return generate(self.gan, self.session, z, labels)

    def discriminate(self, x, z):
        """Images [n, ndims], latents [n, nlatent] -> D's logits [n, 1] of them and of G(z).

        Both networks in inference, G's weights themselves.
        """
        return self.session.run(self._logits, self._feed(x, z))

    def losses(self, x, z):
        """Images [n, ndims], latents [n, nlatent] -> D's and G's loss, the class's own, as floats.

        Both networks in inference, G's weights themselves.
        """
        return self.session.run(self._losses, self._feed(x, z))

    @functools.cached_property
    def _losses(self):
        y, y_hat = self._logits
        with self.graph.as_default():
            return self.gan._discriminator_loss(y, y_hat), self.gan._generator_loss(y_hat)

    def _feed(self, x, z):
        return {self.gan.x_placeholder: x, self.gan.z_placeholder: z}

    @contextlib.contextmanager
    def _averaged_weights(self):
        """Within it G has the average of its weights."""
        if not self._averages:
            yield
            return
        own = self.session.run({name: self._by_name[name] for name in self._averages})
        self._assign(self.session.run(self._averages))
        try:
            yield
        finally:
            self._assign(own)

    def _assign(self, state):
        assign(self.session, self._by_name, state)


def generate(gan, session, z, labels=None):
    """A Gan, its session, latents [n, nlatent] -> float32 [n, ndims] in [0, 1]."""
    if not len(z):  # TensorFlow's convolutions give an empty batch a wrong shape
        return np.empty([0, gan.x_hat.shape[1]], np.float32)
    parts = np.array_split(np.arange(len(z)), -(-len(z) // _AT_ONCE))
    z, images = np.asarray(z, np.float32), []
    for part in parts:
        feed = _label_feed(gan, None if labels is None else np.asarray(labels)[part])
        images.append(session.run(gan.x_hat, {gan.z_placeholder: z[part], **feed}))
    return np.concatenate(images)


def assign(session, variables, values):
    """{name: variable}, {name: ndarray} -> sets those variables."""
    # An initializer assigns its second input, which a feed may replace.
    feed = {variables[name].initializer.inputs[1]: value for name, value in values.items()}
    session.run([variables[name].initializer for name in values], feed)


def check_shapes(seen, wanted):
    """{name: ndarray}, {name: shape} -> UserError that names the first difference, if any."""
    for name in sorted(seen.keys() | wanted.keys()):
        there = np.shape(seen[name]) if name in seen else "nothing"
        here = wanted.get(name, "nothing")
        if there != here:
            raise UserError(f"the checkpoint has {name} {there}, your class has {here}")


def has_convolutions(gan):
    """Whether a Gan's graph has convolutions."""
    return any(op.type.startswith("Conv") for op in gan.x_hat.graph.get_operations())


def session_config(precision):
    """`float32` or `bfloat16` -> the ConfigProto of the session to train in.

    It is for a plain session; an interactive one leaves the graph as it is: no operations fused, no
    rewrite. bfloat16 is TensorFlow's own rewrite of convolutions and products for oneDNN, which
    keeps the weights in float32.
    """
    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True
    # It would put what XLA refuses, TemporaryVariable, into loops of large batches.
    rewrites = config.graph_options.rewrite_options
    rewrites.memory_optimization = rewrites.NO_MEM_OPT
    if precision == "bfloat16":
        rewrites.auto_mixed_precision_onednn_bfloat16 = rewrites.ON
    return config


def _discriminate(gan):
    """-> D's logits of the placeholder's images and of G's."""
    return gan._discriminator(gan.x_placeholder, reuse=True), gan._discriminator(
        gan.x_hat, reuse=True
    )


def _label_feed(gan, labels):
    """Whole numbers [n], or rows of weights [n, 10] -> a feed for a conditional Gan."""
    if labels is None:
        return {}
    rows = labels if np.ndim(labels) == 2 else one_hot(labels)
    return {gan.labels_placeholder: rows}


def variables_behind(fetches, averages=()):
    """-> the variables that some of these tensors or operations read or write, and averages."""
    graph = tf.get_default_graph()
    seen = custom_class.upstream_ops([graph.as_graph_element(fetch) for fetch in fetches])
    kept = {average.op for average in dict(averages).values()}
    return [v for v in tf.global_variables() if v.op in seen | kept]
