"""What each training step sees, as a function of (seed, step) alone: images, latents, rates."""

import functools
from typing import NamedTuple

import numpy as np

from input_data import NUM_CLASSES, NUM_PIXELS
from models import priors
from models.passes import WHOLE

# One Philox stream for each use of the seed, so that none repeats another's numbers.
_BATCH_ORDER, _LATENTS, _PICTURES, _PRETRAINING, _HELD_OUT, _LABELS = range(6)
# A block's images take about this much memory, within these numbers of steps.
_BLOCK_BYTES, _MIN_STEPS, _MAX_STEPS = 4_000_000, 4, 200


class Inputs(NamedTuple):
    """What k steps in a row see; b and B are the batches of D and of G.

    images: uint8 [k, d_iters, b, 784]; d_latents: float32 [k, d_iters, b, nlatent];
    g_latents: float32 [k, g_iters, B, nlatent]; rates: float32 [k, 2], D's and G's.
    For a conditional GAN, else None: labels of the images, and those to generate for D and for G,
    uint8 [k, d_iters, b], [k, d_iters, b], [k, g_iters, B].
    """

    images: np.ndarray
    d_latents: np.ndarray
    g_latents: np.ndarray
    rates: np.ndarray
    labels: np.ndarray | None = None
    d_labels: np.ndarray | None = None
    g_labels: np.ndarray | None = None

    def d_updates(self):
        """Of one step, without the first axis: [(images, latents, labels, labels to generate)]."""
        return _apart(self.images, self.d_latents, self.labels, self.d_labels)

    def g_updates(self):
        """Of one step, without the first axis: [(latents, labels to generate)]."""
        return _apart(self.g_latents, self.g_labels)

    def share(self, share):
        """-> the Inputs of one of several processes: its part of each batch, the same rates."""
        batches = self._replace(rates=None)
        parts = batches.map(lambda a: np.array_split(a, share.count, axis=2)[share.index])
        return parts._replace(rates=self.rates)

    def map(self, function):
        """-> Inputs of function(array) for each array; None stays None."""
        return Inputs(*(None if array is None else function(array) for array in self))


def _apart(*arrays):
    """Arrays or tensors [k, ...], None for some -> a list of k tuples of their parts."""
    count = arrays[0].shape[0]
    return [tuple(None if a is None else a[i] for a in arrays) for i in range(count)]


def one_hot(labels):
    """Whole numbers [n] from 0 to 9 -> float32 [n, 10]."""
    return np.eye(NUM_CLASSES, dtype=np.float32)[np.asarray(labels)]


def block_steps(recipe):
    """A Recipe -> the steps of one block of the fused engine."""
    step_bytes = recipe.d_iters * recipe.d_batch_size * NUM_PIXELS
    return min(max(_BLOCK_BYTES // step_bytes, _MIN_STEPS), _MAX_STEPS)


class Batches:
    """Batches in each epoch's shuffled order, every image once, and fresh latents."""

    def __init__(self, recipe, pixels, seed, labels=None, share=WHOLE):
        """recipe: a Recipe; pixels: uint8 [n, 784]; seed: whole number below 2**31.

        labels: whole numbers [n] from 0 to 9, which a conditional recipe needs. share: the part of
        each batch that `block` gives.
        classes: the labels that occur, of which alone a conditional GAN is asked for any.
        """
        self._share = share
        self.recipe = recipe
        self.pixels = pixels
        self._labels = None if labels is None else np.asarray(labels, np.uint8)
        self.classes = np.unique(self._labels) if recipe.conditional else None
        self._seed = seed
        self._prior = priors.get(recipe.prior)
        self._order = functools.lru_cache(maxsize=2)(self._shuffled)

    def block(self, start, stop):
        """The Inputs of steps start + 1 ... stop."""
        return self._whole_block(start, stop).share(self._share)

    def _whole_block(self, start, stop):
        recipe = self.recipe
        latents = [self._step_latents(step) for step in range(start, stop)]
        chosen = self._chosen(start, stop)
        inputs = Inputs(
            images=self.pixels[chosen],
            d_latents=np.stack([d for d, _ in latents]),
            g_latents=np.stack([g for _, g in latents]),
            rates=np.array([recipe.rates(step) for step in range(start, stop)], np.float32),
        )
        if not recipe.conditional:
            return inputs
        labels = [self._step_labels(step) for step in range(start, stop)]
        return inputs._replace(
            labels=self._labels[chosen],
            d_labels=np.stack([d for d, _ in labels]),
            g_labels=np.stack([g for _, g in labels]),
        )

    def part(self, batch):
        """-> the rows of a batch that are this process's."""
        return np.array_split(batch, self._share.count)[self._share.index]

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

    def _chosen(self, start, stop):
        """-> int [k, d_iters, b], the indices of D's images."""
        recipe = self.recipe
        per_step = recipe.d_iters * recipe.d_batch_size
        chosen = self._positions(start * per_step, stop * per_step)
        return chosen.reshape(stop - start, recipe.d_iters, recipe.d_batch_size)

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

    def _step_labels(self, step):
        """-> uint8 [d_iters, b] and [g_iters, B], all labels that occur alike often."""
        recipe, rng = self.recipe, self._rng(_LABELS, step)
        d_labels = self._draw_labels(rng, [recipe.d_iters, recipe.d_batch_size])
        g_shape = [recipe.g_iters, recipe.batch_size]
        if recipe.reuse_latents:
            return d_labels, np.broadcast_to(d_labels[-1], g_shape)
        return d_labels, self._draw_labels(rng, g_shape)

    def _draw_labels(self, rng, shape):
        return self.classes[rng.integers(0, len(self.classes), shape, np.uint8)]

    def _sample(self, rng, count):
        return self._prior.sample(rng, [count, self.recipe.nlatent])

    def _rng(self, stream, index):
        key = [self._seed, stream]
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, index]))
