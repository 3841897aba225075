"""What each training step sees, as a function of (seed, step) alone: images, latents, rates."""

import functools
from typing import NamedTuple

import numpy as np

from input_data import NUM_PIXELS
from models import priors

# One Philox stream for each use of the seed, so that none repeats another's numbers.
_BATCH_ORDER, _LATENTS, _PICTURES, _PRETRAINING, _HELD_OUT = range(5)
# A block's images take about this much memory, within these numbers of steps.
_BLOCK_BYTES, _MIN_STEPS, _MAX_STEPS = 4_000_000, 4, 200


class Block(NamedTuple):
    """The inputs of k steps in a row; b and B are the batches of D and of G.

    images: uint8 [k, d_iters, b, 784]; d_latents: float32 [k, d_iters, b, nlatent];
    g_latents: float32 [k, g_iters, B, nlatent]; rates: float32 [k, 2], D's and G's.
    """

    images: np.ndarray
    d_latents: np.ndarray
    g_latents: np.ndarray
    rates: np.ndarray


def block_steps(recipe):
    """A Recipe -> the steps of one block of the fused engine."""
    step_bytes = recipe.d_iters * recipe.d_batch_size * NUM_PIXELS
    return min(max(_BLOCK_BYTES // step_bytes, _MIN_STEPS), _MAX_STEPS)


class Draws:
    """Batches in each epoch's shuffled order, every image once, and fresh latents."""

    def __init__(self, recipe, pixels, seed):
        """recipe: a Recipe; pixels: uint8 [n, 784]; seed: whole number below 2**31."""
        self.recipe = recipe
        self.pixels = pixels
        self._seed = seed
        self._prior = priors.get(recipe.prior)
        self._order = functools.lru_cache(maxsize=2)(self._shuffled)

    def block(self, start, stop):
        """The inputs of steps start + 1 ... stop."""
        latents = [self._step_latents(step) for step in range(start, stop)]
        return Block(
            self._images(start, stop),
            np.stack([d for d, _ in latents]),
            np.stack([g for _, g in latents]),
            np.array([self.recipe.rates(step) for step in range(start, stop)], np.float32),
        )

    def pretraining(self, count):
        """-> (real uint8 [n, 784], latents float32 [n, nlatent]) for D to learn from first."""
        rng = self._rng(_PRETRAINING, 0)
        chosen = rng.choice(len(self.pixels), min(count, len(self.pixels)), replace=False)
        return self.pixels[chosen], self._sample(rng, len(chosen))

    def held_out(self, images, count, epoch):
        """-> `count` of the given images, again and again if they are fewer, and as many latents.

        Others in each epoch.
        """
        rng = self._rng(_HELD_OUT, epoch)
        chosen = rng.choice(len(images), count, replace=count > len(images))
        return images[chosen], self._sample(rng, count)

    def picture_rng(self):
        """A generator for the pictures' latents, the same at every call."""
        return self._rng(_PICTURES, 0)

    @property
    def steps_per_epoch(self):
        """Whole batches in the data, one an update of D."""
        return max(1, len(self.pixels) // (self.recipe.d_batch_size * self.recipe.d_iters))

    def _images(self, start, stop):
        recipe = self.recipe
        per_step = recipe.d_iters * recipe.d_batch_size
        chosen = self._positions(start * per_step, stop * per_step)
        shape = (stop - start, recipe.d_iters, recipe.d_batch_size, self.pixels.shape[1])
        return self.pixels[chosen].reshape(shape)

    def _positions(self, start, stop):
        """Places in the endless sequence of shuffled epochs -> indices of images."""
        size = len(self.pixels)
        epochs = range(start // size, (stop - 1) // size + 1)
        parts = [
            self._order(epoch)[max(start - epoch * size, 0) : stop - epoch * size]
            for epoch in epochs
        ]
        return np.concatenate(parts)

    def _shuffled(self, epoch):
        return self._rng(_BATCH_ORDER, epoch).permutation(len(self.pixels))

    def _step_latents(self, step):
        recipe = self.recipe
        d_count = recipe.d_iters * recipe.d_batch_size
        g_count = recipe.g_iters * recipe.batch_size
        latents = self._sample(self._rng(_LATENTS, step), d_count + g_count)
        d_latents = latents[:d_count].reshape(recipe.d_iters, recipe.d_batch_size, recipe.nlatent)
        g_latents = latents[d_count:].reshape(recipe.g_iters, recipe.batch_size, recipe.nlatent)
        if recipe.reuse_latents:
            g_latents = np.broadcast_to(d_latents[-1], g_latents.shape)
        return d_latents, g_latents

    def _sample(self, rng, count):
        return self._prior.sample(rng, [count, self.recipe.nlatent])

    def _rng(self, stream, index):
        key = [self._seed, stream]
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, index]))
