"""The networks of a Gan in inference, with the weights of a checkpoint."""

import numpy as np
import tensorflow.compat.v1 as tf

from support.data_sets import NUM_CLASSES
from support.errors import UserError
from support.tf import upstream_ops

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

    def __init__(self, gan, loss=None):
        """Opens a session.

        Args:
          gan: Instance in any graph.
          loss: `models.losses.Loss`, which `losses` and `generator_gradient` require.
        """
        self.gan = gan
        with gan.x_hat.graph.as_default() as graph:
            self._y = gan._discriminator(gan.x_placeholder, reuse=True)
            self._y_hat = gan._discriminator(gan.x_hat, reuse=True)
            self._variables = {v.op.name: v for v in variables_behind([self._y, self._y_hat])}
            if loss:
                both = self._y, self._y_hat
                self._losses = [loss.discriminator(*both), loss.generator(*both)]
                weights = [v for v in variables_behind([gan.x_hat]) if v.trainable]
                gradients = tf.gradients(self._losses[1], weights)
                self._g_gradients = [g for g in gradients if g is not None]
        config = tf.ConfigProto()
        config.gpu_options.allow_growth = True
        self.session = tf.Session(graph=graph, config=config)

    def load(self, state, *, average=True):
        """Sets the weights from a checkpoint.

        Args:
          state: {variable name: ndarray}, and what this returned for them when they were saved.
          average: Whether to use the moving averages of G's weights where `state` has them.

        Returns:
          {name: ndarray} to be saved with `state`: what both networks return for a few fixed
          inputs, with G's own weights. Empty if the networks draw random numbers of their own.

        Raises:
          UserError: If `state` has other shapes, or a network's code has changed since it was
            saved.
        """
        weights = {name: state[name] for name in state if name in self._variables}
        check_shapes(weights, self._variables)
        assign(self.session, self._variables, weights)
        outputs, again = self._fixed_outputs(), self._fixed_outputs()
        for name, values in outputs.items():
            saved = state.get(name, values)
            if not np.allclose(values, saved, rtol=_TOLERANCE, atol=_TOLERANCE):
                raise UserError(
                    f"the code of the {name.rpartition('/')[2]} has changed since the run was "
                    "trained: its weights give other outputs now; restore that code, or train "
                    "again in another --run_dir"
                )
        if not all(np.array_equal(outputs[name], again[name]) for name in _OUTPUTS):
            outputs = {}
        if average:
            averages = [name for name in state if name.endswith(_AVERAGE)]
            values = {name.removesuffix(_AVERAGE): state[name] for name in averages}
            assign(self.session, self._variables, values)
        return outputs

    def generate(self, z, labels=None):
        """Generates images.

        Args:
          z: Latents [n, nlatent].
          labels: For a conditional Gan, integers [n] or rows of weights [n, 10].

        Returns:
          float32 [n, ndims] in [0, 1].

        Raises:
          UserError: If `x_hat` is not in [0, 1].
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
        images = np.concatenate(images)
        low, high = images.min(), images.max()
        if not (low >= 0 and high <= 1):  # a custom class, after training
            raise UserError(
                f"x_hat must be in [0, 1], got values from {low:.3g} to {high:.3g}; end "
                "_generator with tf.nn.sigmoid"
            )
        return images

    def summary(self):
        """Returns tables of both networks' variables and their sizes as text."""
        with self.session.graph.as_default():
            of_g = {v.op.name: v for v in variables_behind([self.gan.x_hat])}
        of_d = {name: v for name, v in self._variables.items() if name not in of_g}
        tables = []
        for network, variables in (("generator", of_g), ("discriminator", of_d)):
            rows, total, trainable = [(network, "shape", "parameters")], 0, 0
            for name, v in variables.items():
                size, shape = v.shape.num_elements(), str(v.shape.as_list())
                rows.append((name.removeprefix(f"{network}/"), shape, f"{size:,}"))
                total += size
                trainable += size if v.trainable else 0
            rows += [("total", "", f"{total:,}"), ("trainable", "", f"{trainable:,}")]
            rows.append(("not trainable", "", f"{total - trainable:,}"))
            tables.append("\n".join(f"{a:<34}{b:<20}{c:>12}" for a, b, c in rows))
        return "\n\n".join(tables)

    def logits(self, x, z):
        """Returns D's logits [n, 1] of images [n, ndims] and of the images of latents."""
        feed = {self.gan.x_placeholder: x, self.gan.z_placeholder: z}
        return self.session.run([self._y, self._y_hat], feed)

    def losses(self, x, z):
        """Returns D's and G's loss for images [n, ndims] and latents [n, nlatent]."""
        feed = {self.gan.x_placeholder: x, self.gan.z_placeholder: z}
        return self.session.run(self._losses, feed)

    def generator_gradient(self, x, z, labels=None):
        """Returns the largest absolute value in the gradient of G's loss in its weights.

        Args:
          x, z: Images [n, ndims], latents [n, nlatent].
          labels: For a conditional Gan, the labels [n] to generate, with which D sees x too.
        """
        gan = self.gan
        feed = {gan.x_placeholder: x, gan.z_placeholder: z}
        if labels is not None:
            feed[gan.labels_placeholder] = feed[gan.x_labels_placeholder] = one_hot(labels)
        gradients = self.session.run(self._g_gradients, feed)
        return max((np.abs(gradient).max() for gradient in gradients), default=0.0)

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
    return np.eye(NUM_CLASSES, dtype=np.float32)[np.asarray(labels, int)]


def variables_behind(fetches):
    """Returns the variables that the fetches read or write."""
    graph = tf.get_default_graph()
    operations = upstream_ops([graph.as_graph_element(fetch) for fetch in fetches])
    return [v for v in tf.global_variables() if v.op in operations]


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


def check_shapes(state, variables):
    """Checks that a checkpoint has these variables and no others, in their shapes.

    Args:
      state: {variable name: ndarray}.
      variables: {variable name: variable}.

    Raises:
      UserError: If it has not; the message names a variable.
    """
    for name in sorted((variables.keys() | state.keys()) - set(_OUTPUTS)):
        found = f"of shape {np.shape(state[name])}" if name in state else "missing"
        needed = (
            f"of shape {tuple(variables[name].shape.as_list())}" if name in variables else "missing"
        )
        if found != needed:
            raise UserError(
                f"{name} is {found} in the checkpoint, but {needed} in the networks; restore the "
                "code, or train in another --run_dir"
            )
