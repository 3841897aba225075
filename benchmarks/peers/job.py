"""The task of every contestant: a recipe's updates on random batches of MNIST.

Importing this module does not import TensorFlow, because some contestants do not use it.
"""

import numpy as np

import input_data
from models import priors, recipes
from training.batches import block_steps, learning_rates

# Recipe -> widths of the layers of G and of D, slope of the leaky ReLU between them (0: a ReLU).
DENSE = {
    "minimal": ([10, 64, 784], [784, 512, 1], 0.0),
    "leaky_mlp": ([100, 128, 784], [784, 128, 1], 0.01),
}
# Recipes whose steps take seconds, and how many steps warm them up.
_SLOW, _SLOW_STEPS = ("dcgan", "upsampling_cnn", "pretrained_cnn"), 4


def recipe_of(name: str, batch: int) -> recipes.Recipe:
    """Returns a recipe with another batch size."""
    return recipes.override(recipes.get(name), batch_size=batch)


def first_steps(name: str, batch: int) -> int:
    """Returns the number of warm-up steps before a contestant is timed.

    It is also the block size of contestants that train in blocks.
    """
    return _SLOW_STEPS if name in _SLOW else block_steps(recipe_of(name, batch))


def graph_parameters() -> tuple[int, int]:
    """Returns the numbers of trainable parameters of G and of D in the current graph."""
    import tensorflow.compat.v1 as tf

    networks = [tf.trainable_variables(scope) for scope in ("generator/", "discriminator/")]
    g, d = (sum(v.shape.num_elements() for v in variables) for variables in networks)
    return g, d


class Job:
    """A recipe, and all that a peer needs to train its networks in the same way.

    Attributes:
      name: The recipe's name.
      recipe: `Recipe`, with the requested batch size.
      batch: Number of images per batch.
      block: Number of steps per block, for contestants that train in blocks.
      pixels: The training images, uint8 [n, 784].
      rates: Learning rates of D and of G.
      labels: D's targets for a batch of real and one of generated images, float32 [2 * batch, 1].
      scale: (a, b), so that a * pixels + b is in the range of G's last activation: (-1, 1) for
        tanh, as in the article of leaky_mlp, else (0, 1).
    """

    def __init__(self, name: str, batch: int, block: int):
        self.name, self.batch, self.block = name, batch, block
        self.recipe = recipe_of(name, batch)
        folder = input_data.data_folder()
        data = input_data.read_data_sets(folder, validation_size=self.recipe.validation_size)
        self.pixels = data.train.pixels
        self.rates = learning_rates(self.recipe, 0)
        real = np.full([self.batch, 1], 1 - self.recipe.label_smoothing, np.float32)
        self.labels = np.concatenate([real, np.zeros_like(real)])
        self.scale = (2 / 255, -1) if name == "leaky_mlp" else (1 / 255, 0)
        self._prior = priors.PRIORS[self.recipe.prior]
        self._rng = np.random.default_rng(0)

    def images(self, *shape: int) -> np.ndarray:
        """Returns random training images, uint8 [*shape, 784]."""
        return self.pixels[self._rng.integers(len(self.pixels), size=shape)]

    def latents(self, *shape: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns latents [*shape, nlatent] for D's update, and for G's."""
        shape = (*shape, self.recipe.nlatent)
        z = self._prior.sample(self._rng, shape)
        return z, z if self.recipe.reuse_latents else self._prior.sample(self._rng, shape)
