"""This project's own engines as contestants."""

import numpy as np

from support import terminal
from training.batches import Batches, block_steps
from training.options import RunOptions, check_precision

_SEED = 0


def fused(job):
    """Blocks of steps in one call, compiled by XLA."""
    return Ours(job, "fused")


def step(job):
    """One call an update."""
    return Ours(job, "step")


def auto(job):
    """What main.py takes for the recipe."""
    return Ours(job, "auto")


def bfloat16(job):
    """The engine that main.py takes, under --precision=bfloat16."""
    return Ours(job, "auto", "bfloat16")


class Ours:
    """A recipe's model and an engine, without the files that a run writes."""

    def __init__(self, job, engine, precision="float32"):
        check_precision(precision, job.recipe)
        terminal.import_tensorflow()
        import tensorflow.compat.v1 as tf

        from training.loop import make_engine

        batches = Batches(job.recipe, job.pixels, _SEED)
        options = RunOptions(seed=_SEED, engine=engine, precision=precision)
        with tf.Graph().as_default():
            self._engine = make_engine(job.recipe, batches, options)
        self.block = block_steps(job.recipe) if self._engine.name == "fused" else 1
        self._done = 0

    @property
    def parameters(self):
        """Trainable parameters (G's, D's)."""
        collection = self._engine.session.graph.get_collection
        return tuple(
            sum(v.shape.num_elements() for v in collection("trainable_variables", f"{scope}/"))
            for scope in ("generator", "discriminator")
        )

    def run(self, steps):
        """Trains; -> the mean losses (D's, G's)."""
        start, self._done = self._done, self._done + steps
        progress = [row for block in self._engine.train(start, self._done) for row in block]
        return np.mean([(row.d_loss, row.g_loss) for row in progress], axis=0)
