"""A training pass through a network: what it carries beside the call.

`_generator` and `_discriminator` have the article's signatures and know nothing of training. Layers
that behave differently there ask `current()`: None means inference.
"""

import contextlib
import contextvars

import tensorflow.compat.v1 as tf

from models.share import WHOLE

_CURRENT = contextvars.ContextVar("training pass", default=None)
_SHARE = contextvars.ContextVar("share", default=WHOLE)
# Odd and without structure, so that neighbouring seeds' draws do not meet.
_SEED_STRIDE = 0x1C88647


class TrainingPass:
    """Where the layers' randomness comes from, and what they leave to the network's update.

    batches: how many batches of one size pass together, one after the other.
    updates: functions that create what the network's own update is to run too, such as a step of
    moving averages; a pass through D while G trains must not.
    """

    def __init__(self, seed, batches):
        self._seed = seed
        self._draws = 0
        self.batches = batches
        self.updates = []

    @property
    def is_used(self):
        """Whether anything so far was other than in inference."""
        return bool(self._draws or self.updates)

    def next_seed(self):
        """() -> int32 [2], another one at every call."""
        self._draws += 1
        return self._seed + tf.constant([self._draws * _SEED_STRIDE, 0])


@contextlib.contextmanager
def training(seed, batches=1):
    """Within it networks are built for training; -> the TrainingPass.

    seed: int32 [2] tensor; the pass's randomness is a function of it alone.
    """
    running = TrainingPass(seed, batches)
    token = _CURRENT.set(running)
    try:
        yield running
    finally:
        _CURRENT.reset(token)


@contextlib.contextmanager
def sharing(share):
    """Within it networks are built for a Share of each batch."""
    token = _SHARE.set(share)
    try:
        yield
    finally:
        _SHARE.reset(token)


def share():
    """-> the Share of each batch that a network is being built for."""
    return _SHARE.get()


def current():
    """-> the TrainingPass that a network is being built for, or None for inference."""
    return _CURRENT.get()
