"""A trained generator, loaded from its run folder.

Importing this module does not import TensorFlow.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from models import custom_class, priors, recipes
from support import terminal
from support.data_sets import NUM_CLASSES, SIDE
from support.errors import RunError, UserError
from training.run import RunFolder, digest

Labels = Sequence[int] | np.ndarray


def load(run_dir, *, gan=None, checkpoint=None, raw=False, log: Callable = print) -> "Generator":
    """Loads a run's generator from its newest valid checkpoint.

    Args:
      run_dir: The run folder.
      gan: `FILE.py:CLASS`, for a run of a custom class.
      checkpoint: The name of another checkpoint, such as `best`.
      raw: Whether to use G's weights themselves if the run also has their average.
      log: A function of a line, for each damaged checkpoint.

    Raises:
      UserError: If there is no run or no valid checkpoint, or it is of another class.
    """
    folder = RunFolder(run_dir)
    configuration = folder.configuration()
    if raw and not configuration.hyperparameters["ema_decay"]:
        raise UserError("--raw: this run has no average of its weights; omit the flag")
    loaded = folder.load_named_checkpoint(checkpoint) if checkpoint else folder.load_checkpoint(log)
    if loaded is None:
        raise RunError(f"--run_dir={folder}: no checkpoint yet; train it first")
    terminal.import_tensorflow()
    gan_class = configuration.check_class(gan)
    with custom_class.user_errors():
        return Generator(configuration, *loaded, raw=raw, gan_class=gan_class)


class Generator:
    """A generator of images.

    Attributes:
      configuration: The run's `Configuration`.
      recipe: Its Recipe.
      prior: The distribution of the latents.
      step: The number of steps that it was trained for.
      digest: A SHA-256 of the checkpoint.
      raw: Whether the weights are G's own instead of their average.
      classes: The labels that a conditional one was trained on.
      gan: Its `Gan`, in a graph of its own.
    """

    def __init__(self, configuration, step, state, *, raw=False, gan_class=None):
        import tensorflow.compat.v1 as tf

        from models.inference import Inference

        self.configuration = configuration
        self.recipe = configuration.full_recipe()
        self.prior = priors.PRIORS[self.recipe.prior]
        self.step = step
        self.digest = digest(state)
        self.raw = raw
        self.classes = configuration.classes
        with tf.Graph().as_default():
            self.gan = recipes.build_gan(self.recipe, gan_class)
        self.gan.session.close()
        self._inference = Inference(self.gan)
        self.gan.session = self._inference.session
        self._inference.load(state, average=not raw)

    def scores(self, run_dir) -> dict | None:
        """Returns the content of a run's metrics.json, None if it is of other samples.

        They must be of these weights, without truncation. The step is not enough: a new run in the
        same folder may have the same.
        """
        try:
            content = json.loads(Path(run_dir, "metrics.json").read_text(encoding="utf-8"))
            scored = [content[name] for name in ("checkpoint_sha256", "step", "raw")]
        except (OSError, ValueError, KeyError, TypeError):  # not scored yet, or damaged
            return None
        is_same = scored == [self.digest, self.step, self.raw] and not content.get("truncation")
        return content if is_same else None

    def generate(self, z: np.ndarray, labels: Labels | None = None) -> np.ndarray:
        """Generates images from latents.

        Args:
          z: Finite latents `[n, nlatent]`.
          labels: For a conditional generator, integers `[n]` or rows of weights `[n, 10]`.

        Returns:
          float32 `[n, 28, 28]` in [0, 1].

        Raises:
          ValueError: For another shape, or a label that was not trained.
        """
        expected = (len(z), self.recipe.nlatent)
        if np.shape(z) != expected:
            raise ValueError(f"latents must have shape {expected}, got {np.shape(z)}")
        if not np.isfinite(z).all():
            raise ValueError("latents must be finite, got NaN or infinity")
        if self.recipe.conditional:
            rows = np.asarray(labels)
            trained = rows.shape == (len(z),) and set(np.unique(rows)) <= set(self.classes)
            if not trained and rows.shape != (len(z), NUM_CLASSES):
                each = ", ".join(map(str, self.classes))
                raise ValueError(f"labels must be {len(z)} of {each}, or rows of {NUM_CLASSES}")
        elif labels is not None:
            raise ValueError("labels must be None, this generator is not conditional")
        return self._inference.generate(z, labels).reshape(-1, SIDE, SIDE)

    def sample(
        self,
        n: int,
        seed: int = 0,
        *,
        truncation: float | None = None,
        labels: Labels | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws n latents from the prior and generates their images.

        Args:
          n: The number of draws.
          seed: Seed of the latents.
          truncation: The greatest absolute value of a latent, only for a normal prior.
          labels: For a conditional generator, integers `[n]`; None for all in turn.

        Returns:
          (float32 images `[n, 28, 28]` in [0, 1], latents `[n, nlatent]`).
        """
        z = self.latents(n, np.random.default_rng(seed), truncation)
        if labels is None and self.recipe.conditional:
            labels = self.labels_in_turn(n)
        return self.generate(z, labels), z

    def interpolate(
        self,
        draws: int,
        frames: int,
        seed: int = 0,
        *,
        truncation: float | None = None,
        labels: Labels | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Walks through draws from the prior and back to the first.

        In a straight line for a bounded prior, along the sphere for a normal one.

        Args:
          draws: The number of draws.
          frames: Images per leg, from a draw to the next.
          seed, truncation: Like `sample`.
          labels: For a conditional generator, integers `[draws]` to cross between; None keeps the
            first that was trained.

        Returns:
          Like `sample`, for draws * frames images.
        """
        corners = self.latents(draws, np.random.default_rng(seed), truncation)
        following = np.roll(corners, -1, axis=0)
        t = np.arange(frames) / frames
        legs = zip(corners, following, strict=True)
        z = np.concatenate([self.prior.interpolate(a, b, t) for a, b in legs])
        if labels is None and not self.recipe.conditional:
            return self.generate(z), z
        labels = self.labels_in_turn(draws, self.classes[:1] if labels is None else labels)
        rows = np.eye(NUM_CLASSES, dtype=np.float32)[labels][:, None]  # [draws, 1, 10]
        weights = rows + t[:, None] * (np.roll(rows, -1, axis=0) - rows)  # [draws, frames, 10]
        return self.generate(z, weights.astype(np.float32).reshape(-1, NUM_CLASSES)), z

    def latents(self, n: int, rng, truncation: float | None = None) -> np.ndarray:
        """Draws float32 latents `[n, nlatent]` from the prior."""
        shape = [n, self.recipe.nlatent]
        if truncation is None:
            return self.prior.sample(rng, shape)
        return self.prior.truncate(rng, shape, truncation)

    def labels_in_turn(self, n: int, chosen: Labels | None = None) -> np.ndarray:
        """Repeats the chosen labels, or all that were trained, to an integer array `[n]`.

        Raises:
          UserError: For a label that was not trained, or a generator without labels.
        """
        if not self.recipe.conditional:
            raise UserError("--labels: this run has no labels; train one with --conditional")
        if chosen is None:
            return np.resize(self.classes, n)
        if set(chosen) - set(self.classes):
            each = ", ".join(map(str, self.classes))
            got = ",".join(map(str, chosen))
            raise UserError(f"--labels must be among the trained labels {each}, got {got}")
        if len(chosen) > n:
            raise UserError(f"--labels has {len(chosen)} labels: draw at least as many, got {n}")
        return np.resize(chosen, n)

    def close(self) -> None:
        """Closes the Gan's session."""
        self._inference.session.close()
