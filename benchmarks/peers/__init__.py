"""The contestants: each module trains the same networks with a different program.

Each module has a class `Peer(job, **options)` with `parameters`, the numbers of trainable
parameters of G and D; `block`, a number of steps that `train` takes multiples of; and
`train(steps)`, an iterator over the losses of D and G, [2] for one step or [n, 2] for n steps.
"""
