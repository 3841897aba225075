"""A trained generator, loaded from its run folder, for notebooks and for `main.py`."""

import numpy as np
import tensorflow.compat.v1 as tf

import input_data
from input_data import NUM_CLASSES, SIDE
from models import custom_class, priors, recipes
from models.inference import Inference, one_hot
from support.errors import RunError, UserError
from training.run import RunFolder, digest


def load(run_dir, *, gan=None, checkpoint=None, raw=False, log=print):
    """A run folder -> its Generator as of the newest whole checkpoint.

    gan: `FILE.py:CLASS`, for a run that was trained with a class of one's own. checkpoint: the name
    of another checkpoint, such as `best`. raw: G's weights themselves, where the run also keeps
    their average. log: takes a line for each damaged checkpoint.
    Raises UserError if there is no run, no checkpoint, no whole one, or it is another class's.
    """
    folder = RunFolder(run_dir)
    configuration = folder.configuration()
    recipe = configuration.full_recipe()
    if raw and not recipe.ema_decay:
        raise UserError("--raw: this run keeps no average of its weights, leave it out")
    own = configuration.check_class(gan)
    loaded = folder.load_named_checkpoint(checkpoint) if checkpoint else folder.load_checkpoint(log)
    if loaded is None:
        raise RunError(f"--run_dir={folder}: no checkpoint yet; train it first")
    with custom_class.user_errors(own and own.path):
        generator = Generator(recipe, *loaded, raw=raw, gan_class=own and own.gan_class)
    generator.classes = configuration.classes
    generator.class_names = input_data.known(configuration.dataset).class_names
    return generator


class Generator:
    """A generator of images.

    recipe: the run's Recipe; step: the steps it was trained for; digest: a SHA-256 of the
    checkpoint; raw: whether the weights are G's own, no average; class_names: of the labels from 0
    to 9; classes: the labels that a conditional one learnt; gan: its `Gan`, in a graph of its own.
    """

    def __init__(self, recipe, step, state, *, raw=False, gan_class=None):
        self.recipe = recipe
        self.step = step
        self.digest = digest(state)
        self.raw = raw
        self.classes = tuple(range(NUM_CLASSES))
        self.class_names = tuple("0123456789")
        self._prior = priors.get(recipe.prior)
        with tf.Graph().as_default():
            self.gan = recipes.build_gan(recipe, gan_class)
        self.gan.session.close()
        self._inference = Inference(self.gan)
        self.gan.session = self._inference.session
        self._inference.load(state, average=not raw)

    def is_scored_by(self, content):
        """What metrics.json holds -> whether the scores are of these weights.

        The step alone would not tell: a new run of the same folder may have got as far.
        """
        scored = content["checkpoint_sha256"], content["step"], content["raw"]
        return scored == (self.digest, self.step, self.raw)

    def generate(self, z, labels=None):
        """[n, nlatent] -> float32 [n, 28, 28] in [0, 1]; ValueError for any other shape.

        labels: of a conditional GAN, whole numbers [n] or rows of weights [n, 10]; else ValueError.
        """
        wanted = (len(z), self.recipe.nlatent)
        if np.shape(z) != wanted:
            raise ValueError(f"latents have shape {np.shape(z)}, wanted {wanted}")
        if not np.isfinite(z).all():
            raise ValueError("latents with NaN or infinity, wanted finite ones")
        self._check_labels(labels, len(z))
        return self._inference.generate(z, labels).reshape(len(z), SIDE, SIDE)

    def _check_labels(self, labels, count):
        if not self.recipe.conditional:
            if labels is not None:
                raise ValueError("labels: this generator is not conditional, leave them out")
            return
        learnt = np.shape(labels) == (count,) and set(np.unique(labels)) <= set(self.classes)
        if not learnt and np.shape(labels) != (count, NUM_CLASSES):
            there = ", ".join(map(str, self.classes))
            raise ValueError(f"labels: wanted {count} of {there}, or rows of {NUM_CLASSES}")

    def sample(self, n, seed=0, *, truncation=None, labels=None):
        """n draws from the prior -> (float32 [n, 28, 28] in [0, 1], latents [n, nlatent]).

        truncation: greatest absolute value of a latent, for a normal prior only (UserError).
        labels: of a conditional GAN, whole numbers [n]; None for all in turn, `labels_in_turn`.
        """
        z = self.latents(n, np.random.default_rng(seed), truncation)
        if labels is None and self.recipe.conditional:
            labels = self.labels_in_turn(n)
        return self.generate(z, labels), z

    def labels_in_turn(self, n, chosen=None):
        """-> int [n]: the chosen labels, or all learnt, again and again.

        UserError for a label that was not learnt, or for a GAN without labels.
        """
        if not self.recipe.conditional:
            raise UserError("--labels: this run learnt no labels; train one with --conditional")
        if chosen is not None and len(chosen) > n:
            raise UserError(f"--labels: {len(chosen)} labels, but {n} draws; wanted one for each")
        chosen = self.classes if chosen is None else chosen
        for label in chosen:
            if label not in self.classes:
                there = ", ".join(map(str, self.classes))
                raise UserError(f"--labels={label}: this run learnt the labels {there}")
        return np.resize(np.asarray(chosen), n)

    def interpolate(self, draws, frames, seed=0, *, truncation=None, labels=None):
        """A closed walk through `draws` draws of the prior -> as `sample`, draws * frames images.

        Straight between the draws of a bounded prior, along the sphere for a normal one. labels: of
        a conditional GAN, whole numbers [draws] to cross between; None keeps the first learnt.
        """
        corners = self.latents(draws, np.random.default_rng(seed), truncation)
        t = np.arange(frames) / frames
        z = _legs(corners, lambda a, b: self._prior.interpolate(a, b, t))
        if not self.recipe.conditional:
            return self.generate(z), z
        rows = one_hot(self.labels_in_turn(draws, self.classes[:1] if labels is None else labels))
        crossing = _legs(rows, lambda a, b: a + t[:, None] * (b - a))
        return self.generate(z, crossing.astype(np.float32)), z

    def latents(self, n, rng, truncation=None):
        """n draws from the prior -> float32 [n, nlatent]."""
        if n < 1:
            raise UserError(f"--num_samples={n}: wanted at least 1")
        shape = [n, self.recipe.nlatent]
        if truncation is None:
            return self._prior.sample(rng, shape)
        return self._prior.truncate(rng, shape, truncation)

    def close(self):
        """Frees the Gan's session."""
        self._inference.close()


def _legs(corners, between):
    """Corners [k, n] -> [k * frames, n]: from each to the next, from the last to the first."""
    pairs = zip(corners, np.roll(corners, -1, axis=0), strict=True)
    return np.concatenate([between(a, b) for a, b in pairs])
