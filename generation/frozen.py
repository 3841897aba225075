"""The part of a trained GAN's graph that makes images, with its weights as constants."""

from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from input_data import NUM_CLASSES
from models import priors
from models.inference import one_hot
from support.errors import UserError

_STATISTICS_BATCH = 256


class Frozen(NamedTuple):
    """A graph from latents [n, nlatent], and labels where it is conditional, to pixels [n, 784].

    inputs: {"z": its operation's name, and "labels", one-hot [n, 10], of a conditional GAN}.
    fixed_statistics: whether batch norm goes by the statistics of one large batch of draws here,
    where the GAN itself goes by those of whatever batch it is given.
    classes: the labels that a conditional GAN learnt, none of another.
    """

    definition: tf.GraphDef
    output: str
    inputs: dict
    nlatent: int
    prior: str
    fixed_statistics: bool
    classes: tuple = ()

    def pixels(self, **inputs):
        """Tensors of the same names as `inputs` -> [n, 784] in [0, 1], in the current graph."""
        feed = {f"{self.inputs[name]}:0": tensor for name, tensor in inputs.items()}
        (pixels,) = tf.import_graph_def(
            self.definition, feed, [f"{self.output}:0"], name="generator"
        )
        return pixels

    def placeholders(self):
        """-> {name of an input: a new float32 placeholder of that name}."""
        widths = {"z": self.nlatent, "labels": NUM_CLASSES}
        return {
            name: tf.placeholder(tf.float32, [None, widths[name]], name) for name in self.inputs
        }


def freeze(generator):
    """A `generation.generator.Generator` -> Frozen, by the weights that its samples come from.

    UserError for a class whose images depend on more than latents and labels.
    """
    model, recipe = generator.gan, generator.recipe
    images = model.x_hat
    graph, output = images.graph, images.op.name
    with graph.as_default():
        definition = tf.graph_util.convert_variables_to_constants(
            model.session, graph.as_graph_def(), [output]
        )
    for node in definition.node:  # elsewhere nobody knows the layers' own gradients
        node.attr.pop("_gradient_op_type", None)
    placeholders = {"z": model.z_placeholder, "labels": getattr(model, "labels_placeholder", None)}
    there = {node.name for node in definition.node}
    inputs = {
        name: placeholder.op.name
        for name, placeholder in placeholders.items()
        if placeholder is not None and placeholder.op.name in there
    }
    _check_fed(definition, inputs)
    fixed = _fix_statistics(definition, _draws(inputs, generator))
    classes = generator.classes if "labels" in inputs else ()
    return Frozen(definition, output, inputs, recipe.nlatent, recipe.prior, fixed, classes)


def _check_fed(definition, inputs):
    """UserError for a generator that takes something else than latents and labels."""
    placeholders = {node.name for node in definition.node if node.op == "Placeholder"}
    if unknown := sorted(placeholders - set(inputs.values())):
        raise UserError(
            f"the generator's images depend on the placeholder '{unknown[0]}': wanted none but "
            "z_placeholder and, of a conditional class, labels_placeholder"
        )


def _draws(inputs, generator):
    """-> {tensor's name: ndarray} of latents from the prior, each learnt label equally often."""
    recipe, labels = generator.recipe, np.resize(generator.classes, _STATISTICS_BATCH)
    shape = [_STATISTICS_BATCH, recipe.nlatent]
    values = {
        "z": priors.get(recipe.prior).sample(np.random.default_rng(0), shape),
        "labels": one_hot(labels),
    }
    return {f"{op}:0": values[name] for name, op in inputs.items()}


def _fix_statistics(definition, feed):
    """Gives batch norm that goes by its batch's own statistics those of `feed`, in place.

    So an image no longer depends on the latents beside its own. -> whether there was any.
    """
    norms = [node for node in definition.node if _uses_batch_statistics(node)]
    if norms:
        for norm, statistics in zip(norms, _statistics(definition, norms, feed), strict=True):
            norm.attr["is_training"].b = False
            for place, value in zip((3, 4), statistics, strict=True):
                constant = definition.node.add(name=f"{norm.name}/fixed_{place}", op="Const")
                constant.attr["dtype"].type = tf.float32.as_datatype_enum
                constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
                norm.input[place] = constant.name
    return bool(norms)


def _uses_batch_statistics(node):
    return node.op.startswith("FusedBatchNorm") and node.attr["is_training"].b


def _statistics(definition, norms, feed):
    """-> for each norm the mean and the mean squared deviation of its features over `feed`."""
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.import_graph_def(definition, name="")
        tensors = [graph.get_operation_by_name(norm.name) for norm in norms]
        fetches = [(*op.outputs[1:3], tf.size(op.outputs[0])) for op in tensors]
        found = session.run(fetches, feed)
    # TensorFlow gives the unbiased estimate, and divides by the mean squared deviation.
    return [(mean, variance * np.float32(1 - mean.size / size)) for mean, variance, size in found]
