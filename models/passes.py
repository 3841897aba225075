"""Training passes: what a network's layers know beyond the arguments of the call.

`_generator` and `_discriminator` have the article's signatures, without a flag for training. Layers
that differ in training ask `current()`, which is None in inference. Where several processes train
together, layers ask `shard()` which part of each batch theirs is.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager

from support.tf import tf

# The graph collection in which layers that may differ in training leave a mark.
ASKED = "asked for the training pass"
# Odd and without structure, so that the draws of neighbouring seeds do not coincide.
_SEED_STRIDE = 0x1C88647


@dataclasses.dataclass(frozen=True)
class Shard:
    """Part `index` of `count` equal parts of each batch, in order.

    Attributes:
      mean: Function that returns the mean of a float32 tensor over all processes, differentiable.
      begin_update: Function to call before an update is built; updates share no calls of `mean`.
    """

    index: int = 0
    count: int = 1
    mean: Callable = lambda x: x
    begin_update: Callable = lambda: None


WHOLE = Shard()


_shard = contextvars.ContextVar("shard", default=WHOLE)


class TrainingPass:
    """The source of the layers' randomness in a pass, and the updates they ask for.

    Attributes:
      batches: How many batches of one size pass together, one after the other.
      updates: Functions that create operations for the network's own update to run, such as a step
        of moving averages. A pass through D while G trains does not run them.
    """

    def __init__(self, seed, batches):
        self._seed = seed
        self._draws = 0
        self.batches = batches
        self.updates = []

    def next_seed(self):
        """Returns a seed, int32 [2], that differs at every call."""
        self._draws += 1
        return self._seed + tf.constant([self._draws * _SEED_STRIDE % 2**31, 0])


_current: contextvars.ContextVar[TrainingPass | None] = contextvars.ContextVar(
    "training pass", default=None
)


def training(seed, batches: int = 1) -> AbstractContextManager[TrainingPass]:
    """Context manager that builds networks in training mode.

    Args:
      seed: int32 [2] tensor, from which all of the pass's randomness follows.
      batches: How many batches of one size pass together.
    """
    return _bound(_current, TrainingPass(seed, batches))


def sharding(shard: Shard) -> AbstractContextManager[Shard]:
    """Context manager that builds networks for a shard of each batch."""
    return _bound(_shard, shard)


@contextlib.contextmanager
def _bound(variable, value):
    token = variable.set(value)
    try:
        yield value
    finally:
        variable.reset(token)


def shard() -> Shard:
    """Returns the shard of each batch that a network is being built for."""
    return _shard.get()


def batches() -> int:
    """Returns how many batches of one size pass together, one after the other."""
    running = _current.get()
    return 1 if running is None else running.batches


def current() -> TrainingPass | None:
    """Returns the pass that a network is being built for, or None in inference.

    Layers that differ in training ask for it; in inference that leaves the mark ASKED in the graph.
    """
    running = _current.get()
    if running is None:
        tf.add_to_collection(ASKED, True)
    return running
