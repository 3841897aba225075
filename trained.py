"""A trained generator, loaded from its run folder: `load(run_dir)`, for notebooks and `main.py`.

generator = trained.load("runs/minimal")
images, latents = generator.sample(16, seed=1)    # [16, 28, 28] in [0, 1], [16, nlatent]
images = generator.generate(latents)              # the same images again
"""

import math

import numpy as np
import tensorflow.compat.v1 as tf

from errors import UserError
from input_data import SIDE
from models import priors, recipes
from training.run_folder import RunError, RunFolder, load_state

# Images made in one call: enough to keep the cores busy, little enough for any memory.
_AT_ONCE = 1000


def load(run_dir, *, checkpoint=None, raw=False, say=print):
    """A run folder -> its `Trained` generator as of the newest whole checkpoint.

    checkpoint: the name of another one, such as `best`. raw: the weights themselves, where the run
    also keeps their average. say: takes a line for each damaged checkpoint.
    Raises UserError if there is no run, no checkpoint, or no whole one.
    """
    folder = RunFolder(run_dir)
    recipe = folder.configuration().full_recipe()
    if raw and not recipe.ema_decay:
        raise UserError("--raw: this run keeps no average of its weights, leave it out")
    loaded = folder.load_named_checkpoint(checkpoint) if checkpoint else folder.load_checkpoint(say)
    if loaded is None:
        raise RunError(f"--run_dir={folder}: no checkpoint yet; train it first")
    return Trained(recipe, *loaded, raw=raw)


class Trained:
    """A generator of images.

    recipe: the run's Recipe; step: the steps it was trained for; model: its `Gan`, in a graph of
    its own.
    """

    def __init__(self, recipe, step, state, *, raw=False):
        self.recipe = recipe
        self.step = step
        self._raw = raw
        self._prior = priors.get(recipe.prior)
        with tf.Graph().as_default():
            self.model = recipes.build_gan(recipe, open_session=tf.Session)
        load_state(self.model, state)

    def generate(self, z):
        """[n, nlatent] -> float32 [n, 28, 28] in [0, 1]; ValueError for any other shape."""
        parts = np.array_split(z, max(1, math.ceil(len(z) / _AT_ONCE)))
        pixels = [self.model.generate_samples(part, averaged=not self._raw) for part in parts]
        return np.concatenate(pixels).reshape(len(z), SIDE, SIDE)

    def sample(self, n, seed=0, *, truncation=None):
        """n draws from the prior -> (float32 [n, 28, 28] in [0, 1], latents [n, nlatent]).

        truncation: greatest absolute value of a latent, for a normal prior only (UserError).
        """
        z = self.latents(n, np.random.default_rng(seed), truncation)
        return self.generate(z), z

    def interpolate(self, draws, frames, seed=0, *, truncation=None):
        """A closed walk through `draws` draws of the prior -> as `sample`, draws * frames images.

        Straight between the draws of a bounded prior, along the sphere for a normal one.
        """
        corners = self.latents(draws, np.random.default_rng(seed), truncation)
        t = np.arange(frames) / frames
        pairs = zip(corners, np.roll(corners, -1, axis=0), strict=True)
        z = np.concatenate([self._prior.interpolate(a, b, t) for a, b in pairs])
        return self.generate(z), z

    def latents(self, n, rng, truncation=None):
        """n draws from the prior -> float32 [n, nlatent]."""
        if n < 1:
            raise UserError(f"--num_samples={n}: wanted at least 1")
        shape = [n, self.recipe.nlatent]
        if truncation is None:
            return self._prior.sample(rng, shape)
        return self._prior.truncate(rng, shape, truncation)

    def close(self):
        """Frees the model's session."""
        self.model.session.close()
