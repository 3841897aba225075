"""Tables of a GAN's layers: output shapes and numbers of parameters."""

from typing import NamedTuple

import tensorflow.compat.v1 as tf

from models import custom_class, layers, recipes

_COLUMNS = "{:<30}{:<24}{:>12}"
_NETWORKS = ("generator", "discriminator")


class Layer(NamedTuple):
    """A layer with its output shape and its numbers of trained and fixed values.

    The shape is empty for a class that is not built of this project's layers.
    """

    name: str
    shape: list
    trainable: int
    fixed: int

    @property
    def parameters(self):
        return self.trainable + self.fixed


def of_recipe(recipe, gan_class=None):
    """Returns both networks' tables, or raises UserError for an incompatible class."""
    with tf.Graph().as_default():
        gan = recipes.build_gan(recipe, gan_class)
        custom_class.check(gan, recipe)
        text = of_gan(gan)
        gan.session.close()
    return text


def of_gan(gan):
    """Returns the tables of a Gan's two networks as text."""
    return "\n\n".join(_table(name, layers_of(gan, name)) for name in _NETWORKS)


def layers_of(gan, network):
    """Returns the layers of `generator` or `discriminator` in their order.

    A class that is not built of this project's layers has a row for each variable.
    """
    graph = gan.x_hat.graph
    noted = [each for each in graph.get_collection(layers.LAYERS) if _is_in(network, each[0])]
    variables = graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)
    trained = {v.op.name for v in graph.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES)}
    if not noted:
        mine = [v for v in variables if v.op.name in trained and _is_in(network, v.op.name)]
        return [Layer(_short(v.op.name), [], v.shape.num_elements(), 0) for v in mine]
    return [_layer(variables, trained, scope, shape) for scope, shape in noted]


def totals(rows):
    """Returns the numbers of all parameters, of the trained ones and of the others."""
    trainable, fixed = sum(row.trainable for row in rows), sum(row.fixed for row in rows)
    return trainable + fixed, trainable, fixed


def _is_in(network, name):
    return name.startswith(f"{network}/")


def _short(name):
    return name.partition("/")[2]


def _layer(variables, trained, scope, shape):
    """Counts the variables in a layer's scope; an optimizer's are a level below."""
    own = [v for v in variables if v.op.name.rpartition("/")[0] == scope]
    total = sum(v.shape.num_elements() for v in own)
    trainable = sum(v.shape.num_elements() for v in own if v.op.name in trained)
    return Layer(_short(scope), shape, trainable, total - trainable)


def _table(network, rows):
    shapes = [f"[{', '.join(map(str, ['batch', *row.shape[1:]]))}]" for row in rows]
    shapes = [shape if row.shape else "" for shape, row in zip(shapes, rows, strict=True)]
    lines = [(network, "output shape", "parameters")]
    lines += [(r.name, s, f"{r.parameters:,}") for r, s in zip(rows, shapes, strict=True)]
    kinds = zip(["total", "trainable", "not trainable"], totals(rows), strict=True)
    lines += [(kind, "", f"{number:,}") for kind, number in kinds]
    return "\n".join(_COLUMNS.format(*cells) for cells in lines)
