"""The graph of a trained generator, with its weights as constants."""

from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from models import priors
from models.inference import one_hot
from support.data_sets import NUM_CLASSES

STATISTICS_BATCH = 256


class Frozen(NamedTuple):
    """A graph from latents, and labels if conditional, to pixels `[n, 784]`.

    Attributes:
      definition: The graph.
      output: The name of the operation that returns the pixels.
      inputs: {"z": name of its operation}, with "labels", one-hot `[n, 10]`, if conditional.
      nlatent: The number of latents.
      prior: Their distribution.
      classes: The labels that a conditional GAN was trained on.
      fixed_statistics: Whether batch norm uses the statistics of one large batch of draws, but
        those of the given batch in the GAN itself.
    """

    definition: tf.GraphDef
    output: str
    inputs: dict
    nlatent: int
    prior: priors.Prior
    classes: tuple = ()
    fixed_statistics: bool = False

    def pixels(self, **inputs):
        """Adds the graph to the current one. Returns the pixels of the tensors `inputs`."""
        feed = {f"{self.inputs[name]}:0": tensor for name, tensor in inputs.items()}
        (pixels,) = tf.import_graph_def(
            self.definition, feed, [f"{self.output}:0"], name="generator"
        )
        return pixels

    def placeholders(self):
        """Returns a new float32 placeholder for each input, {name: placeholder}."""
        widths = {"z": self.nlatent, "labels": NUM_CLASSES}
        return {
            name: tf.placeholder(tf.float32, [None, widths[name]], name) for name in self.inputs
        }

    def metadata(self):
        """Returns {name: ndarray} that the inputs can be drawn from, without this project.

        np.interp(uniform random numbers, *prior_quantiles) are draws from the prior.
        """
        return {
            "nlatent": np.array(self.nlatent),
            "prior": np.array(self.prior.name),
            "prior_quantiles": np.stack(self.prior.quantiles()),
            "classes": np.array(self.classes, int),
        }


def freeze(generator):
    """Freezes a `generation.generator.Generator` with the weights of its samples."""
    gan, recipe = generator.gan, generator.recipe
    output = gan.x_hat.op.name
    with gan.x_hat.graph.as_default() as graph:
        definition = tf.graph_util.convert_variables_to_constants(
            gan.session, graph.as_graph_def(), [output]
        )
    for node in definition.node:  # the layers' own gradients are unknown elsewhere
        node.attr.pop("_gradient_op_type", None)
    inputs = {"z": gan.z_placeholder.op.name}
    if recipe.conditional:
        inputs["labels"] = gan.labels_placeholder.op.name
    found = {node.name for node in definition.node if node.op == "Placeholder"}
    inputs = {name: op for name, op in inputs.items() if op in found}
    classes = generator.classes if "labels" in inputs else ()
    prior = priors.PRIORS[recipe.prior]
    frozen = Frozen(definition, output, inputs, recipe.nlatent, prior, classes)
    return _fix_statistics(frozen)


def _fix_statistics(frozen):
    """Gives batch norm in training mode the statistics of one large batch of draws.

    An image then does not depend on the other latents of its batch.
    """
    norms = [
        node
        for node in frozen.definition.node
        if node.op.startswith("FusedBatchNorm") and node.attr["is_training"].b
    ]
    if not norms:
        return frozen
    shape = [STATISTICS_BATCH, frozen.nlatent]
    values = {"z": frozen.prior.sample(np.random.default_rng(0), shape)}
    if frozen.classes:
        values["labels"] = one_hot(np.resize(frozen.classes, STATISTICS_BATCH))
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.import_graph_def(frozen.definition, name="")
        ops = [graph.get_operation_by_name(norm.name) for norm in norms]
        fetches = [(*op.outputs[1:3], tf.size(op.outputs[0])) for op in ops]
        feed = {f"{op}:0": values[name] for name, op in frozen.inputs.items()}
        statistics = session.run(fetches, feed)
    for norm, (mean, variance, size) in zip(norms, statistics, strict=True):
        # TensorFlow returns the unbiased estimate, but divides by the mean squared deviation.
        variance = variance * np.float32(1 - mean.size / size)
        norm.attr["is_training"].b = False
        for k, value in ((3, mean), (4, variance)):
            constant = frozen.definition.node.add(name=f"{norm.name}/fixed_{k}", op="Const")
            constant.attr["dtype"].type = tf.float32.as_datatype_enum
            constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
            norm.input[k] = constant.name
    return frozen._replace(fixed_statistics=True)
