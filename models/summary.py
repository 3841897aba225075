"""Tables of a GAN's layers: output shapes and numbers of parameters."""

from typing import NamedTuple

import tensorflow.compat.v1 as tf

from models import custom_class, layers, recipes


class Layer(NamedTuple):
    """A layer with its output shape and its numbers of trained and fixed values.

    The shape is empty for a class that is not built of this project's layers.
    """

    name: str
    shape: list
    trainable: int
    fixed: int


def of_recipe(recipe, gan_class=None):
    """Returns both networks' tables.

    Raises:
      UserError: For an incompatible class.
    """
    with tf.Graph().as_default():
        gan = recipes.build_gan(recipe, gan_class)
        custom_class.check(gan, recipe)
        text = of_gan(gan)
        gan.session.close()
    return text


def of_gan(gan):
    """Returns the tables of a Gan's two networks as text."""
    tables = []
    for network in ("generator", "discriminator"):
        rows = [(network, "output shape", "parameters")]
        trainable = fixed = 0
        for layer in layers_of(gan, network):
            shape = f"[batch, {', '.join(map(str, layer.shape[1:]))}]" if layer.shape else ""
            rows.append((layer.name, shape, f"{layer.trainable + layer.fixed:,}"))
            trainable += layer.trainable
            fixed += layer.fixed
        rows.append(("total", "", f"{trainable + fixed:,}"))
        rows.append(("trainable", "", f"{trainable:,}"))
        rows.append(("not trainable", "", f"{fixed:,}"))
        tables.append("\n".join(f"{a:<30}{b:<24}{c:>12}" for a, b, c in rows))
    return "\n\n".join(tables)


def layers_of(gan, network):
    """Returns the layers of `generator` or `discriminator` in their order.

    A class that is not built of this project's layers has a row for each variable.
    """
    graph, start = gan.x_hat.graph, f"{network}/"
    variables = graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)
    trained = {v.op.name for v in graph.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES)}
    rows = []
    for scope, shape in graph.get_collection(layers.LAYERS):
        if scope.startswith(start):
            # An optimizer's variables are a level below the layer's own.
            own = [v for v in variables if v.op.name.rpartition("/")[0] == scope]
            sizes = {v.op.name: v.shape.num_elements() for v in own}
            trainable = sum(size for name, size in sizes.items() if name in trained)
            fixed = sum(sizes.values()) - trainable
            rows.append(Layer(scope.removeprefix(start), shape, trainable, fixed))
    if not rows:
        for v in variables:
            if v.op.name in trained and v.op.name.startswith(start):
                rows.append(Layer(v.op.name.removeprefix(start), [], v.shape.num_elements(), 0))
    return rows
