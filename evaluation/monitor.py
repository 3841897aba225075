"""A callback that scores during training, warns and saves the best weights."""

import numpy as np

from evaluation import metrics
from training.callbacks import Callback

# Fewer than a report's 10,000: enough to compare the distances of one run.
_SAMPLES = 5_000


class Monitor(Callback):
    """Callback that scores the generator, warns, and saves the best weights.

    It scores samples of the same latents every `every` steps and at the end. The scores are written
    to metrics.csv and shown in the progress bar, the weights saved as checkpoints/best.npz.

    Args:
      run: The `callbacks.Context`.
      every: Steps between scores.
      standard: The `reference.Standard` of the run's data set.
      info: The DataSetInfo.
    """

    def __init__(self, run, every, standard, info):
        super().__init__(run, every)
        self._names = info.class_names
        self._classifier = standard.classifier
        if run.recipe.digit is None:
            self._real = standard.reference.mean, standard.reference.covariance
            self._real_histogram = standard.reference.histogram
        else:
            pixels = run.batches.pixels / np.float32(255)
            self._real = metrics.statistics(self._classifier(pixels).features)
            self._real_histogram = np.eye(10)[run.recipe.digit]
        self._has_classes = standard.reference.has_classes
        columns = ["step", "frechet_distance"]
        if self._has_classes:
            columns += ["classes_covered", *(f"share_{k}" for k in range(10))]
        self._table = run.table("metrics.csv", columns)
        self._best = min((row[1] for row in self._table.rows), default=np.inf)
        self._drawn = run.draw(_SAMPLES)
        self._has_warned = False

    def on_interval(self, step):
        images = self.context.inference.generate(*self._drawn)
        predictions = self._classifier(images)
        distance = metrics.frechet_distance(*metrics.statistics(predictions.features), *self._real)
        histogram = metrics.class_histogram(predictions.probabilities.argmax(axis=1))
        scores, shares = {"frechet_distance": distance}, []
        self.context.note = f"Fréchet distance {distance:.1f}"
        if self._has_classes:
            scores["classes_covered"] = covered = metrics.classes_covered(histogram)
            self.context.note += f", classes {covered}"
            shares = histogram
        self._table.append([(step, *scores.values(), *shares)])
        self.context.report(step, {f"metrics/{name}": value for name, value in scores.items()})
        self._warn(step, histogram)
        if distance < self._best:
            self._best = distance
            self.context.save_checkpoint(step, name="best")

    def _warn(self, step, histogram):
        """Prints which classes are missing, once until none is."""
        recipe = self.context.recipe
        missing = [self._names[k] for k in metrics.lost_classes(histogram, self._real_histogram)]
        has_lost = bool(missing) and self._has_classes
        if has_lost and not self._has_warned:
            unset = {"--r1_gamma": not recipe.r1_gamma, "--beta1=0": recipe.beta1}
            remedies = [flag for flag, is_unset in unset.items() if is_unset]
            advice = f". If it stays so, try {' and '.join(remedies)}" if remedies else ""
            self.context.bar.line(
                f"Step {step:,}: almost no samples of {', '.join(missing)}: the generator may have "
                f"collapsed, or needs more steps{advice}."
            )
        self._has_warned = has_lost
