"""Scores during training: the table, the best checkpoint, and warnings."""

from types import SimpleNamespace

import numpy as np
import pytest
from test_evaluation import FromPixels, images_of

import input_data
from evaluation import metrics
from evaluation.monitor import Monitor
from models import recipes
from training.run import RunFolder, Table

LABELS = np.arange(200) % 10
FEATURES = np.random.default_rng(0).integers(0, 100, [200, 2])


class Run(SimpleNamespace):
    """A stand-in for `callbacks.Context` whose generator returns `images`."""

    def __init__(self, path, digit=None):
        recipe = recipes.override(recipes.get("minimal"), digit=digit, beta1=0)
        super().__init__(lines=[], best=[], note="", recipe=recipe)
        pixels = np.uint8(np.rint(255 * images_of(LABELS, FEATURES)))
        self.batches = SimpleNamespace(pixels=pixels[digit == LABELS])
        self.folder = RunFolder(path)
        self.inference = SimpleNamespace(generate=lambda z: self.images)
        self.save_checkpoint = lambda step, name: self.best.append(step)
        self.bar = SimpleNamespace(line=self.lines.append)
        self.draw = lambda n: [np.zeros([n, 2])]
        self.report = lambda step, scores: None
        histogram = metrics.class_histogram(LABELS)
        reference = metrics.Reference(*metrics.statistics(FEATURES), histogram, None, None, None)
        self.standard = SimpleNamespace(classifier=FromPixels(), reference=reference)
        self.begin(0)

    def begin(self, step):
        self.start = step
        self.monitor = Monitor(self, 10, self.standard, input_data.known("mnist"))

    def table(self, name, columns):
        self.csv = Table(self.folder.file(name), columns, self.start)
        return self.csv

    def interval(self, step, labels, features=FEATURES):
        self.images = images_of(labels, features)
        self.monitor.on_interval(step)


def test_scores_are_written_and_the_best_weights_are_kept(tmp_path):
    run = Run(tmp_path)
    for step, shift in ((10, 4), (20, 2), (30, 3)):
        run.interval(step, LABELS, FEATURES + np.array([shift, 0]))
    assert run.note == "Fréchet distance 9.0, classes 10"
    run.csv.close()
    run.begin(30)  # the run is resumed
    run.interval(40, LABELS, FEATURES + np.array([3, 0]))
    assert run.best == [10, 20]
    run.csv.close()
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert header.startswith("step,frechet_distance,classes_covered,share_0,") and len(rows) == 4
    assert [float(value) for value in rows[1].split(",")[:4]] == pytest.approx([20, 4, 10, 0.1])


def test_missing_classes_are_reported_once_until_none_is(tmp_path):
    (tmp_path / "3").mkdir()
    one_digit = Run(tmp_path / "3", digit=3)
    one_digit.interval(10, LABELS[LABELS == 3], FEATURES[LABELS == 3])
    assert one_digit.note == "Fréchet distance 0.0, classes 1" and one_digit.lines == []
    run = Run(tmp_path)
    for step, labels in ((10, 0 * LABELS), (20, 0 * LABELS), (30, LABELS), (40, 0 * LABELS)):
        run.interval(step, labels)
    first, second = run.lines
    assert first.startswith("Step 10: almost no samples of 1, 2, 3, 4, 5, 6, 7, 8, 9: ")
    assert first.endswith("needs more steps. If it stays so, try --r1_gamma.")
    assert second.startswith("Step 40: ")
