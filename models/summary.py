"""Tables of a GAN's layers, as the articles print them: output shapes and numbers of parameters."""

from typing import NamedTuple

import tensorflow.compat.v1 as tf

from models import layers, recipes

_COLUMNS = "{:<30}{:<24}{:>12}"


class Layer(NamedTuple):
    """One layer with variables: its name in its net, output shape, trainable and other values."""

    name: str
    shape: list
    trainable: int
    fixed: int

    @property
    def parameters(self):
        return self.trainable + self.fixed


def of_recipe(recipe):
    """A Recipe -> the text of both nets' tables."""
    with tf.Graph().as_default():
        model = recipes.build_gan(recipe, seed=0)
        text = of_model(model)
        model.session.close()
    return text


def of_model(model):
    """A Gan -> the text of both nets' tables."""
    return "\n\n".join(_table(net, layers_of(model, net)) for net in model.nets)


def layers_of(model, net):
    """-> the list of Layers of one of a model's nets, in the order in which they were built."""
    with model.graph.as_default():
        noted = tf.get_collection(layers.LAYERS)
        trained = {variable.name for variable in net.trainable_variables}
    return [
        _layer(model, trained, scope, shape, scope.removeprefix(f"{net.scope.name}/"))
        for scope, shape in noted
        if scope.startswith(f"{net.scope.name}/")
    ]


def totals(rows):
    """Layers -> parameters in all, those that are trained and those that are not."""
    trainable, fixed = sum(row.trainable for row in rows), sum(row.fixed for row in rows)
    return trainable + fixed, trainable, fixed


def _layer(model, trained, scope, shape, name):
    """Counts the variables in the layer's own scope; an optimizer's are one level below."""
    own = [v for v in model.variables if v.op.name.rpartition("/")[0] == scope]
    total = sum(v.shape.num_elements() for v in own)
    trainable = sum(v.shape.num_elements() for v in own if v.name in trained)
    return Layer(name, shape, trainable, total - trainable)


def _table(net, rows):
    shapes = [", ".join(map(str, ["batch", *row.shape[1:]])) for row in rows]
    lines = [(net.scope.name, "output shape", "parameters")]
    lines += [(r.name, f"[{s}]", f"{r.parameters:,}") for r, s in zip(rows, shapes, strict=True)]
    kinds = zip(["total", "trainable", "not trainable"], totals(rows), strict=True)
    lines += [(kind, "", f"{number:,}") for kind, number in kinds]
    return "\n".join(_COLUMNS.format(*cells) for cells in lines)
