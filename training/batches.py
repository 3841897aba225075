"""Inputs of each training step: images, latents and learning rates.

They are a function of (seed, step). Importing this module does not import TensorFlow.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from models import priors
from models.passes import WHOLE
from support.data_sets import NUM_PIXELS

# One Philox stream for each use of the seed, so that none repeats another's numbers.
_BATCH_ORDER, _LATENTS, _IMAGES, _PRETRAINING, _HELD_OUT, _LABELS = range(6)
# Memory of a block's images, within these numbers of steps.
_BLOCK_BYTES, _MIN_STEPS, _MAX_STEPS = 4_000_000, 4, 200


class Inputs(NamedTuple):
    """Inputs of k consecutive steps; b and B are the batch sizes of D and of G.

    Attributes:
      images: uint8 [k, d_iters, b, 784].
      d_latents: float32 [k, d_iters, b, nlatent].
      g_latents: float32 [k, g_iters, B, nlatent].
      labels: Labels of the images, uint8 [k, d_iters, b]; all labels are 0 unless conditional.
      d_labels: Labels to generate for D's updates, of the same shape.
      g_labels: Labels to generate for G's updates, [k, g_iters, B].
      rates: float32 [k, 2], D's and G's learning rate.
    """

    images: np.ndarray
    d_latents: np.ndarray
    g_latents: np.ndarray
    labels: np.ndarray
    d_labels: np.ndarray
    g_labels: np.ndarray
    rates: np.ndarray


def block_steps(recipe):
    """Returns the number of steps in one block of the fused engine."""
    step_bytes = recipe.d_iters * recipe.d_batch_size * NUM_PIXELS
    return min(max(_BLOCK_BYTES // step_bytes, _MIN_STEPS), _MAX_STEPS)


def learning_rates(recipe, step: int) -> tuple[float, float]:
    """Returns D's and G's learning rate at `step`.

    They follow from the recipe's `lr_...` hyperparameters.
    """
    factor = 0.1 ** sum(step >= milestone for milestone in recipe.lr_milestones)
    if step >= (1 - recipe.lr_cooldown) * recipe.num_steps:
        factor *= 0.1
    factor /= 1 + recipe.lr_decay * step
    g_rate = recipe.learning_rate if recipe.g_learning_rate is None else recipe.g_learning_rate
    return recipe.learning_rate * factor, g_rate * factor


class Batches:
    """Batches in a shuffled order, every image once per epoch, and new latents.

    Attributes:
      classes: Labels that a conditional recipe learns, those that occur; None if it is not.
    """

    def __init__(self, recipe, pixels, seed, labels=None, shard=WHOLE):
        """Draws nothing yet.

        Args:
          recipe: `Recipe`.
          pixels: uint8 [n, 784].
          seed: Integer below 2**31.
          labels: Integers [n] from 0 to 9, which a conditional recipe requires.
          shard: The `passes.Shard` of each batch that `block` returns.
        """
        self._shard = shard
        self.recipe = recipe
        self.pixels = pixels
        self._labels = None if labels is None else np.asarray(labels, np.uint8)
        self.classes = np.unique(self._labels) if recipe.conditional else None
        self._seed = seed
        self._prior = priors.PRIORS[recipe.prior]
        self._order = functools.lru_cache(maxsize=2)(
            lambda epoch: self._rng(_BATCH_ORDER, epoch).permutation(len(pixels))
        )

    def block(self, start, stop):
        """Returns the Inputs of steps start + 1 to stop."""
        recipe, steps = self.recipe, range(start, stop)
        d_shape = [len(steps), recipe.d_iters, recipe.d_batch_size]
        g_shape = [len(steps), recipe.g_iters, recipe.batch_size]
        per_step = recipe.d_iters * recipe.d_batch_size
        chosen = self._positions(start * per_step, stop * per_step).reshape(d_shape)
        d_latents, g_latents = zip(*map(self._step_latents, steps), strict=True)
        labels, d_labels = np.zeros([2, *d_shape], np.uint8)
        g_labels = np.zeros(g_shape, np.uint8)
        if recipe.conditional:
            labels = self._labels[chosen]
            d_labels, g_labels = zip(*map(self._step_labels, steps), strict=True)
        batches = [self.pixels[chosen], d_latents, g_latents, labels, d_labels, g_labels]
        rates = np.array([learning_rates(recipe, step) for step in steps], np.float32)
        return Inputs(*(self.part(batch, axis=2) for batch in batches), rates)

    def part(self, batch, axis=0):
        """Returns this process's shard of a batch along an axis."""
        return np.array_split(np.asarray(batch), self._shard.count, axis)[self._shard.index]

    def pretraining(self, count):
        """Returns real images and latents to train D on first.

        The images are uint8 [n, 784], the latents [n, nlatent].
        """
        rng = self._rng(_PRETRAINING, 0)
        chosen = rng.choice(len(self.pixels), min(count, len(self.pixels)), replace=False)
        return self.pixels[chosen], self._prior.sample(rng, [len(chosen), self.recipe.nlatent])

    def held_out(self, images, count, epoch):
        """Returns `count` of the given images and as many latents, others in each epoch.

        If there are fewer images, some are drawn repeatedly.
        """
        rng = self._rng(_HELD_OUT, epoch)
        chosen = rng.choice(len(images), count, replace=count > len(images))
        return images[chosen], self._prior.sample(rng, [count, self.recipe.nlatent])

    def picture_rng(self):
        """Returns a generator for the latents of a run's images, the same at every call."""
        return self._rng(_IMAGES, 0)

    @property
    def steps_per_epoch(self):
        """Number of whole steps in one pass through the images."""
        return max(1, len(self.pixels) // (self.recipe.d_batch_size * self.recipe.d_iters))

    def _positions(self, start, stop):
        """Returns the indices of images at places of the sequence of shuffled epochs.

        The sequence is endless.
        """
        size = len(self.pixels)
        epochs = range(start // size, (stop - 1) // size + 1)
        parts = [
            self._order(epoch)[max(start - epoch * size, 0) : stop - epoch * size]
            for epoch in epochs
        ]
        return np.concatenate(parts)

    def _step_latents(self, step):
        """Returns latents [d_iters, b, nlatent] and [g_iters, B, nlatent]."""
        recipe = self.recipe
        d_shape = [recipe.d_iters, recipe.d_batch_size, recipe.nlatent]
        g_shape = [recipe.g_iters, recipe.batch_size, recipe.nlatent]
        rng = self._rng(_LATENTS, step)
        if recipe.reuse_latents:
            d_latents = self._prior.sample(rng, d_shape)
            return d_latents, np.broadcast_to(d_latents[-1], g_shape)
        d_count, g_count = math.prod(d_shape[:2]), math.prod(g_shape[:2])
        latents = self._prior.sample(rng, [d_count + g_count, recipe.nlatent])
        return latents[:d_count].reshape(d_shape), latents[d_count:].reshape(g_shape)

    def _step_labels(self, step):
        """Returns labels [d_iters, b] and [g_iters, B], all that occur equally often."""
        recipe, rng = self.recipe, self._rng(_LABELS, step)
        d_labels = self._draw_labels(rng, [recipe.d_iters, recipe.d_batch_size])
        g_shape = [recipe.g_iters, recipe.batch_size]
        if recipe.reuse_latents:
            return d_labels, np.broadcast_to(d_labels[-1], g_shape)
        return d_labels, self._draw_labels(rng, g_shape)

    def _draw_labels(self, rng, shape):
        return self.classes[rng.integers(0, len(self.classes), shape, np.uint8)]

    def _rng(self, stream, index):
        key = [self._seed, stream]
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, index]))
