"""A callback that scores samples on the way, warns in plain words, keeps the best."""

import numpy as np

from evaluation import metrics
from training.callbacks import Callback
from training.run import Table

# Enough for a distance to steer by; the report takes more.
_SAMPLES = 5_000
# Below this mean D's loss says that it tells all images apart; a loss of 1.39 is a coin's.
_D_LOSS_GONE = 0.02
# Mean change of a pixel, in units of the pixel range, from one score to the next.
_G_STANDS_STILL = 1e-3


class Monitor(Callback):
    """metrics.csv, the distance in the bar, warnings above it, and checkpoints/best.npz.

    Scores the same latents every `every` steps and at the end.
    """

    def __init__(self, run, every, standard, info):
        """run: a `callbacks.Run`; every: steps from one score to the next.

        standard: what the run's data are compared with; info: their DataSetInfo.
        """
        self.every = every
        self._run = run
        self._names = info.class_names
        self._classifier = standard.classifier
        self._real = self._real_statistics(standard.reference)
        digit = run.recipe.digit
        self._real_shares = standard.reference.histogram if digit is None else np.eye(10)[digit]
        columns = [
            "step",
            "frechet_distance",
            "classes_covered",
            *(f"share_{d}" for d in range(10)),
        ]
        self._table = Table(run.folder.file("metrics.csv"), columns)
        run.files.append(self._table)
        self._drawn = run.draw(_SAMPLES)
        self._best = np.inf
        self._images = None
        self._d_losses = []
        self._warned = set()

    def on_train_begin(self, step):
        self._best = min((row[1] for row in self._table.open(step)), default=np.inf)

    def on_steps(self, block):
        self._d_losses.extend(progress.d_loss for progress in block)

    def on_interval(self, step):
        images = self._run.generate(*self._drawn)
        predictions = self._classifier(images)
        distance = metrics.frechet_distance(*metrics.statistics(predictions.features), *self._real)
        histogram = metrics.class_histogram(predictions.probabilities)
        covered = metrics.classes_covered(histogram)
        self._table.append([(step, distance, covered, *histogram)])
        self._run.report(
            step, {"metrics/frechet_distance": distance, "metrics/classes_covered": covered}
        )
        self._run.bar.note = f"Fréchet distance {distance:.1f}, classes {covered}"
        self._warn(step, self._symptoms(histogram, images))
        self._images, self._d_losses = images, []
        if distance < self._best:
            self._best = distance
            self._run.save_checkpoint(step, name="best")

    def on_train_end(self):
        self._table.close()

    def _real_statistics(self, reference):
        """-> mean and covariance of the real features: all labels', or those of the only one."""
        if self._run.recipe.digit is None:
            return reference.mean, reference.covariance
        pixels = self._run.batches.pixels
        return metrics.statistics(self._classifier.features(pixels / np.float32(255)))

    def _symptoms(self, histogram, images):
        """-> {name: sentence} of what looks wrong now."""
        symptoms = {}
        missing = [self._names[k] for k in metrics.lost_classes(histogram, self._real_shares)]
        if missing:
            symptoms["classes"] = (
                f"hardly any samples of {', '.join(missing)}: the generator is collapsing. "
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
            self._run.bar.line(f"Step {step:,}: {symptoms[name]}.")
        self._warned = set(symptoms)
