"""TensorFlow, imported at its first use, and walks through its graphs.

Modules that are imported before flags are checked use `tf` of this module, so that `--help` and
mistakes are quick.
"""

import importlib


class _LazyModule:
    def __getattr__(self, attribute):
        return getattr(importlib.import_module("tensorflow.compat.v1"), attribute)


tf = _LazyModule()


def upstream_ops(fetches) -> set:
    """Returns the operations that run when these tensors and operations are fetched."""
    found, waiting = set(), [getattr(each, "op", each) for each in fetches]
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return found


def network_variables(gan, trainable) -> dict:
    """Returns the variables that a Gan's networks read, by the network's name.

    They are found by what depends on them, whatever their names are. Those that both networks read
    count as the generator's.

    Args:
      gan: Instance.
      trainable: The trainable variables of its graph.
    """
    of_g, of_d = upstream_ops([gan.x_hat]), upstream_ops([gan.d_loss])
    return {
        "generator": [v for v in trainable if v.op in of_g],
        "discriminator": [v for v in trainable if v.op in of_d - of_g],
    }
