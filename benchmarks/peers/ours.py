"""This project's engines, without the files that a run writes."""

from benchmarks.peers.job import Job, graph_parameters
from support import terminal
from training.batches import Batches
from training.options import RunOptions, check_precision


class Peer:
    """A recipe's model and the engine that trains it."""

    def __init__(self, job: Job, engine: str = "auto", precision: str = "float32"):
        check_precision(precision)
        terminal.import_tensorflow()
        import tensorflow.compat.v1 as tf

        from training.loop import make_engine

        options = RunOptions(engine=engine, precision=precision)
        with tf.Graph().as_default():
            batches = Batches(job.recipe, job.pixels, options.seed)
            self._engine = make_engine(job.recipe, batches, options)
            self.parameters = graph_parameters()
        self.block = job.block if self._engine.name == "fused" else 1
        self._done = 0

    def train(self, steps):
        """Trains; yields the losses of D and G of each step."""
        start, self._done = self._done, self._done + steps
        for block in self._engine.train(start, self._done):
            yield from ((progress.d_loss, progress.g_loss) for progress in block)
