"""The part of each batch that a process has, of several that train together."""

from collections.abc import Callable
from typing import NamedTuple


class Share(NamedTuple):
    """Part `index` of `count`, in order and alike.

    mean: a float32 tensor -> its mean over all processes, with a gradient.
    """

    index: int = 0
    count: int = 1
    mean: Callable = lambda x: x


WHOLE = Share()
