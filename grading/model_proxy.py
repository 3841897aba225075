"""A model as the checks see it.

Each method asks the student's process for a measurement.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

RNG_SEED = 0


@dataclass(frozen=True)
class Source:
    """The place of a class: its file, its name, and the folder of the student's files."""

    path: Path
    class_name: str
    folder: Path


class ModelProxy:
    """A model in the student's process, and inputs that fit its placeholders.

    Inputs take their width from the placeholders, so that a wrong size fails only the checks of
    sizes. `net` is one of `grading.NETWORKS`. Every method raises `process.Raised` if the class
    raises an exception. `source` is the `Source` of the class.
    """

    def __init__(self, process, source):
        self.source = source
        self._process = process
        self._rng = np.random.default_rng(RNG_SEED)

    def another(self, *arguments, **sizes):
        """Builds a model with these arguments instead of the present one; returns this proxy."""
        self.begin(arguments, sizes, fresh=True)
        return self

    def begin(self, arguments, sizes, fresh=False):
        """Provides a model as its constructor left it, see `measurements.Bench`."""
        source = {name: str(value) for name, value in vars(self.source).items()}
        call = {"source": source, "arguments": arguments, "sizes": sizes, "fresh": fresh}
        self._process.ask("begin", **call)

    def measure(self, name, /, **arguments):
        """Returns what a method of `measurements.Model` returns, arrays as nested lists."""
        return self._process.ask("measure", name=name, arguments=arguments)

    def width(self, placeholder):
        """Returns the length of one image or one latent vector; None if it is open."""
        _, shape = self.measure("placeholder", name=placeholder)
        return shape[-1] if shape else None

    def images(self, n, low=0.0, high=1.0):
        """Draws `[n, ndims]`, uniform."""
        return self._rng.uniform(low, high, [n, self.width("x_placeholder")])

    def latents(self, n):
        """Draws `[n, nlatent]`, uniform in [-1, 1]."""
        return self._rng.uniform(-1, 1, [n, self.width("z_placeholder")])

    def batch(self, n=16):
        """Draws images and latents as arguments for `run` and `update`."""
        return {"images": self.images(n), "latents": self.latents(n)}

    def run(self, *fetches, **feeds):
        """Returns arrays of the fetches: attributes, `image_logits` and `sample_logits`.

        Args:
          *fetches: Names; one value is returned for one name. The value of an update is None.
          **feeds: `images`, `latents`, `rate`; nothing else is fed.
        """
        values = self.measure("run", fetches=fetches, **feeds)
        values = [None if value is None else np.asarray(value) for value in values]
        return values if len(fetches) > 1 else values[0]

    def update(self, net, rate, steps=1, **batch):
        """Updates one network.

        Returns:
          `{network: [largest change of each variable]}` of both.
        """
        return self.measure("update", net=net, rate=rate, steps=steps, **batch)

    def randomize_weights(self, net, gain=1.0):
        """Sets a network's weights to normal draws; `gain` multiplies a layer's scale."""
        seed = int(self._rng.integers(2**31))
        self.measure("randomize_weights", net=net, gain=gain, seed=seed)

    def restore(self):
        """Sets all variables, the optimizers' included, and the inputs back to the start."""
        self._rng = np.random.default_rng(RNG_SEED)
        self.measure("restore")

    def d_loss_at(self, y, y_hat):
        """Returns the mean of the discriminator's loss function for these logits."""
        return float(np.mean(self.measure("loss", name="_discriminator_loss", logits=[y, y_hat])))

    def g_loss_at(self, y_hat):
        """Returns the mean of the generator's loss function for these logits."""
        return float(np.mean(self.measure("loss", name="_generator_loss", logits=[y_hat])))

    def generate_samples(self, latents):
        """Returns the type's name and the array that generate_samples returns."""
        type_name, samples = self.measure("generate_samples", latents=latents)
        return type_name, np.asarray(samples)
