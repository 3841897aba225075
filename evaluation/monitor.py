"""A reader of training that scores samples on the way, warns in plain words, keeps the best."""

import numpy as np

from evaluation import metrics
from evaluation.judge import Judge, load_statistics
from models import priors
from training.readers import Reader
from training.run_folder import Table

# Enough for a distance to steer by; the report takes more.
_SAMPLES = 5_000
_AT_ONCE = 1_000
# Below this mean D's loss says that it tells all images apart; a loss of 1.39 is a coin's.
_D_LOSS_GONE = 0.02
# Mean change of a pixel, in units of the pixel range, from one score to the next.
_G_STANDS_STILL = 1e-3


class Monitor(Reader):
    """metrics.csv, the distance in the bar, warnings above it, and checkpoints/best.npz.

    Scores the same latents every `every` steps and at the end.
    """

    def __init__(self, model, draws, folder, bar, every, log):
        """log: takes (step, {tag: number}) for each score."""
        self.every = every
        self._log = log
        self._wanted = range(10) if draws.recipe.digit is None else [draws.recipe.digit]
        self._model = model
        self._folder = folder
        self._bar = bar
        self._judge = Judge()
        self._real = self._real_statistics(draws)
        columns = ["step", "frechet_distance", "digits_covered", *(f"share_{d}" for d in range(10))]
        self._table = Table(folder.file("metrics.csv"), columns)
        prior = priors.get(draws.recipe.prior)
        self._latents = prior.sample(draws.picture_rng(), [_SAMPLES, draws.recipe.nlatent])
        self._best = np.inf
        self._images = None
        self._d_losses = []
        self._warned = set()

    def open(self, step):
        self._best = min((row[1] for row in self._table.open(step)), default=np.inf)

    def see(self, block):
        self._d_losses.extend(progress.d_loss for progress in block)

    def act(self, step):
        images = self._generate()
        verdicts = self._judge(images)
        distance = metrics.frechet_distance(*metrics.statistics(verdicts.features), *self._real)
        histogram = metrics.digit_histogram(verdicts.probabilities)
        covered = metrics.digits_covered(histogram)
        self._table.append([(step, distance, covered, *histogram)])
        self._log(step, {"metrics/frechet_distance": distance, "metrics/digits_covered": covered})
        self._bar.note = f"Fréchet distance {distance:.1f}, digits {covered}"
        self._warn(step, self._symptoms(histogram, images))
        self._images, self._d_losses = images, []
        if distance < self._best:
            self._best = distance
            self._folder.save_checkpoint(step, self._model.state(), name="best")

    def flush(self):
        self._table.flush()

    def close(self):
        self._table.close()

    def _real_statistics(self, draws):
        """-> mean and covariance of the real features: all digits', or those of the only one."""
        if draws.recipe.digit is None:
            statistics = load_statistics(self._judge)
            return statistics["mean"], statistics["covariance"]
        return metrics.statistics(self._judge.features(draws.pixels / np.float32(255)))

    def _generate(self):
        parts = np.split(self._latents, _SAMPLES // _AT_ONCE)
        return np.concatenate([self._model.generate_samples(part) for part in parts])

    def _symptoms(self, histogram, images):
        """-> {name: sentence} of what looks wrong now."""
        symptoms = {}
        missing = [str(d) for d in self._wanted if histogram[d] < metrics.COVERED_SHARE]
        if missing:
            symptoms["digits"] = (
                f"hardly any sample is a {', '.join(missing)}: the generator is collapsing. "
                "R1 (--r1_gamma) and Adam without momentum (--beta1=0) usually help"
            )
        if self._d_losses and np.mean(self._d_losses) < _D_LOSS_GONE:
            symptoms["d_loss"] = (
                f"D's loss is {np.mean(self._d_losses):.3f}: it tells every sample from a real "
                "image, and G learns little from it. Try --r1_gamma or a lower --learning_rate"
            )
        if self._images is not None and np.abs(images - self._images).mean() < _G_STANDS_STILL:
            symptoms["still"] = (
                "the samples hardly change any more: G has stopped moving. Its rate may be too "
                "low, or it is done"
            )
        return symptoms

    def _warn(self, step, symptoms):
        """Says each symptom once, and again if it was gone in between."""
        for name in symptoms.keys() - self._warned:
            self._bar.line(f"Step {step:,}: {symptoms[name]}.")
        self._warned = set(symptoms)
