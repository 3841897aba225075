"""TensorFlow, imported at its first use.

Modules that are imported before flags are checked use it, so that `--help` and mistakes are quick.
"""

import importlib


class _LazyModule:
    def __init__(self, name):
        self._name = name

    def __getattr__(self, attribute):
        return getattr(importlib.import_module(self._name), attribute)


tf = _LazyModule("tensorflow.compat.v1")
