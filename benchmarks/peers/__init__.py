"""The contestants: each module trains the same networks with another program.

A module has a class `Peer(job, **options)` with `parameters`, the numbers of trainable parameters
of G and of D; `block`, the number of steps of which `train` takes a multiple; and `train(steps)`,
an iterator of the losses of D and G, [2] of a step or [n, 2] of several.
"""
