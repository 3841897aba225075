"""The networks of a Gan in inference, with the weights of a checkpoint."""

import numpy as np
import tensorflow.compat.v1 as tf

from input_data import NUM_CLASSES
from models import custom_class
from support.errors import UserError

# Images generated per session call: enough to keep the cores busy, little enough for any memory.
_IMAGES_PER_CALL = 1000
_AVERAGE = "/ExponentialMovingAverage"
# Checkpoints hold what G and D return for a few fixed inputs under these names.
_OUTPUTS = ("outputs/generator", "outputs/discriminator")
_NUM_INPUTS = 4
_TOLERANCE = 1e-4


class Inference:
    """A Gan's generator and discriminator in inference.

    They run in a float32 session of their own. It is a plain one: an interactive session disables
    graph optimisation. The weights are those of the last `load`.
    """

    def __init__(self, gan):
        self.gan = gan
        self._graph = gan.x_hat.graph
        with self._graph.as_default():
            self._y = gan._discriminator(gan.x_placeholder, reuse=True)
            self._y_hat = gan._discriminator(gan.x_hat, reuse=True)
            variables = variables_behind([self._y, self._y_hat])
        self._variables = {variable.op.name: variable for variable in variables}
        self._losses = None
        config = tf.ConfigProto()
        config.gpu_options.allow_growth = True
        self.session = tf.Session(graph=self._graph, config=config)

    def load(self, state, *, average=True):
        """Sets the weights from a checkpoint.

        Args:
          state: {variable name: ndarray}, and `outputs(state)` unless the networks are not
            deterministic.
          average: Whether to use the moving averages of G's weights where `state` has them.

        Raises:
          UserError: If `state` has other shapes, or a network's code has changed since it was
            saved.
        """
        check_shapes(state, self._variables, exact=False)
        self._assign(state)
        saved = {name: state[name] for name in _OUTPUTS if name in state}
        for name, values in self._fixed_outputs().items() if saved else ():
            if not np.allclose(values, saved[name], rtol=_TOLERANCE, atol=_TOLERANCE):
                network = name.rpartition("/")[2]
                raise UserError(
                    f"the code of the {network} has changed since the run was trained: its weights "
                    "give other outputs now; restore that code, or train again in another --run_dir"
                )
        if average:
            self._assign(
                {
                    name: state[f"{name}{_AVERAGE}"]
                    for name in self._variables
                    if f"{name}{_AVERAGE}" in state
                }
            )

    def outputs(self, state):
        """Returns what both networks return for a few fixed inputs.

        It is to be saved with `state`.

        Returns:
          {name: ndarray}, empty if the networks draw random numbers of their own.
        """
        self._assign(state)
        first, second = self._fixed_outputs(), self._fixed_outputs()
        same = all(np.array_equal(first[name], second[name]) for name in first)
        return first if same else {}

    def generate(self, z, labels=None):
        """Generates images.

        Args:
          z: Latents [n, nlatent].
          labels: For a conditional Gan, integers [n] or rows of weights [n, 10].

        Returns:
          float32 [n, ndims] in [0, 1].
        """
        gan = self.gan
        if not len(z):  # TensorFlow's convolutions return a wrong shape for an empty batch
            return np.empty([0, gan.x_hat.shape[1]], np.float32)
        z, images = np.asarray(z, np.float32), []
        for start in range(0, len(z), _IMAGES_PER_CALL):
            part = slice(start, start + _IMAGES_PER_CALL)
            feed = {gan.z_placeholder: z[part]}
            if labels is not None:
                rows = np.asarray(labels)[part]
                feed[gan.labels_placeholder] = rows if rows.ndim == 2 else one_hot(rows)
            images.append(self.session.run(gan.x_hat, feed))
        return np.concatenate(images)

    def logits(self, x, z):
        """Returns D's logits [n, 1] of images [n, ndims] and of the images of latents."""
        feed = {self.gan.x_placeholder: x, self.gan.z_placeholder: z}
        return self.session.run([self._y, self._y_hat], feed)

    def losses(self, x, z):
        """Returns D's and G's loss, the class's own, for images [n, ndims] and latents."""
        if self._losses is None:
            with self._graph.as_default():
                self._losses = [
                    self.gan._discriminator_loss(self._y, self._y_hat),
                    self.gan._generator_loss(self._y_hat),
                ]
        feed = {self.gan.x_placeholder: x, self.gan.z_placeholder: z}
        return self.session.run(self._losses, feed)

    def close(self):
        """Closes the session."""
        self.session.close()

    def _assign(self, state):
        assign(self.session, self._variables, state)

    def _fixed_outputs(self):
        gan, rng = self.gan, np.random.default_rng(0)
        feed = {
            placeholder: rng.random([_NUM_INPUTS, placeholder.shape[1]], np.float32)
            for placeholder in (gan.x_placeholder, gan.z_placeholder)
        }
        for name in ("labels_placeholder", "x_labels_placeholder"):
            if hasattr(gan, name):
                feed[getattr(gan, name)] = np.eye(_NUM_INPUTS, NUM_CLASSES)
        values = self.session.run([gan.x_hat, self._y], feed)
        return dict(zip(_OUTPUTS, values, strict=True))


def one_hot(labels):
    """Returns integers [n] from 0 to 9 as float32 [n, 10]."""
    return np.eye(NUM_CLASSES, dtype=np.float32)[np.asarray(labels)]


def variables_behind(fetches, others=()):
    """Returns the variables that the fetches read or write, and those in `others`."""
    graph = tf.get_default_graph()
    operations = custom_class.upstream_ops([graph.as_graph_element(fetch) for fetch in fetches])
    kept = {variable.op for variable in others}
    return [v for v in tf.global_variables() if v.op in operations | kept]


def assign(session, variables, values):
    """Sets those of `variables` that `values` has.

    Args:
      session: A session of the variables' graph.
      variables: {name: variable}.
      values: {name: ndarray}.
    """
    names = variables.keys() & values.keys()
    # An initializer assigns its second input, which a feed may replace.
    feed = {variables[name].initializer.inputs[1]: values[name] for name in names}
    session.run([variables[name].initializer for name in names], feed)


def check_shapes(state, variables, *, exact=True):
    """Checks that a checkpoint has the variables, in their shapes.

    Args:
      state: {variable name: ndarray}.
      variables: {variable name: variable}.
      exact: Whether `state` may have no other variables.

    Raises:
      UserError: If it has not; the message names a variable.
    """
    names = {name for name in state if name not in _OUTPUTS}
    expected = {name: tuple(variable.shape) for name, variable in variables.items()}
    for name in sorted(expected.keys() | (names if exact else set())):
        found = np.shape(state[name]) if name in state else None
        needed = expected.get(name)
        if found != needed:
            what = f"{name} has shape {found} in the checkpoint, {needed} in the networks"
            if found is None or needed is None:
                place = "checkpoint has" if found is None else "networks have"
                what = f"the {place} no variable {name}"
            raise UserError(f"{what}; restore the code, or train in another --run_dir")
