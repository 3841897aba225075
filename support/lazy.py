"""TensorFlow, imported at its first use.

Modules that are imported before flags are checked use it, so that `--help` and mistakes are quick.
"""

import importlib


class _LazyModule:
    def __getattr__(self, attribute):
        return getattr(importlib.import_module("tensorflow.compat.v1"), attribute)


tf = _LazyModule()
