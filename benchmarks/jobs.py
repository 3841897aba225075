"""What is trained: a recipe's updates on MNIST, and where a peer's batches come from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import input_data
from models import priors, recipes
from models.recipes import Recipe
from training.batches import block_steps
from training.schedule import learning_rates

_DATA = Path(__file__).parent.parent / "MNIST_data"
_CONVOLUTIONAL_STEPS = 4


@dataclass(frozen=True)
class Job:
    """name: of the recipe; recipe: with the batch size asked for; pixels: uint8 [n, 784]."""

    name: str
    recipe: Recipe
    pixels: np.ndarray

    @classmethod
    def of(cls, name, batch):
        """Recipe's name, images a batch -> Job on MNIST's training images."""
        recipe = _recipe(name, batch)
        data = input_data.read_data_sets(_DATA, validation_size=recipe.validation_size)
        return cls(name, recipe, data.train.pixels)

    @property
    def batch(self):
        """Images a batch."""
        return self.recipe.batch_size

    @property
    def rates(self):
        """Learning rates (D's, G's)."""
        return learning_rates(self.recipe, 0)

    @property
    def labels(self):
        """What D is to say of a batch of real and one of generated images: float32 [2 b, 1]."""
        real = np.full([self.batch, 1], 1 - self.recipe.label_smoothing, np.float32)
        return np.concatenate([real, np.zeros_like(real)])

    @property
    def scale(self):
        """(a, b) so that a * pixels + b is in the range of the peers' networks: theirs inside."""
        return (2 / 255, -1) if self.name == "leaky_mlp" else (1 / 255, 0)


class Feed:
    """Random batches from uint8 pixels in memory, and latents of the recipe's prior."""

    def __init__(self, job, seed=0):
        self._pixels = job.pixels
        self._nlatent = job.recipe.nlatent
        self._prior = priors.get(job.recipe.prior)
        self._rng = np.random.default_rng(seed)

    def images(self, *shape):
        """-> uint8 [*shape, 784]."""
        return self._pixels[self._rng.integers(len(self._pixels), size=shape)]

    def latents(self, *shape):
        """-> float32 [*shape, nlatent]."""
        return self._prior.sample(self._rng, [*shape, self._nlatent])


def first_steps(name, batch):
    """Steps that a worker trains before it is ready, and over which it reports the losses."""
    recipe = _recipe(name, batch)
    return _CONVOLUTIONAL_STEPS if recipe.convolutional else block_steps(recipe)


def _recipe(name, batch):
    return recipes.override(recipes.get(name), batch_size=batch)
