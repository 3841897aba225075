"""Tables of a GAN's layers, as the articles print them: output shapes and numbers of parameters."""

from typing import NamedTuple

import tensorflow.compat.v1 as tf

from models import custom_class, layers, recipes

_COLUMNS = "{:<30}{:<24}{:>12}"
_NETWORKS = ("generator", "discriminator")


class Layer(NamedTuple):
    """One layer with variables: its name in its network, output shape, trainable and other values.

    shape: empty where a class does not tell.
    """

    name: str
    shape: list
    trainable: int
    fixed: int

    @property
    def parameters(self):
        return self.trainable + self.fixed


def of_recipe(recipe, gan_class=None):
    """A Recipe -> the text of both networks' tables; UserError for a class of another shape."""
    with tf.Graph().as_default():
        gan = recipes.build_gan(recipe, gan_class)
        custom_class.check(gan, recipe)
        text = of_gan(gan)
        gan.session.close()
    return text


def of_gan(gan):
    """A Gan -> the text of both networks' tables."""
    return "\n\n".join(_table(name, layers_of(gan, name)) for name in _NETWORKS)


def layers_of(gan, network):
    """-> the Layers of `generator` or `discriminator`, in the order in which they were built.

    A class that is not made of this project's layers has a row for each variable.
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
    """Layers -> parameters in all, those that are trained and those that are not."""
    trainable, fixed = sum(row.trainable for row in rows), sum(row.fixed for row in rows)
    return trainable + fixed, trainable, fixed


def _is_in(network, name):
    return name.startswith(f"{network}/")


def _short(name):
    return name.partition("/")[2]


def _layer(variables, trained, scope, shape):
    """Counts the variables in the layer's own scope; an optimizer's are one level below."""
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
