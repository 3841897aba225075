"""Scoring a run, sentences about it, requested labels, and comparing runs."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import evaluation
import generation
import input_data
import training
from evaluation import comparison, conditional, metrics, reference, report
from evaluation.classifier import Predictions
from models import recipes
from support.errors import UserError
from training.batches import Batches

INFO = input_data.known(None)


class FromPixels:
    """A classifier that reads a label and two features from an image's first pixels."""

    def __call__(self, images):
        levels = np.rint(np.asarray(images) * 255).astype(int)
        return Predictions(levels[:, 1:3], np.eye(10)[levels[:, 0] % 10])


def images_of(labels, features):
    """Returns images `[n, 784]` in [0, 1] that FromPixels reads."""
    images = np.zeros([len(labels), 784], np.float32)
    images[:, 0], images[:, 1:3] = labels, features
    return images / 255


FRACTIONS = np.full(10, 0.1)
FIVE = 0.9 * np.eye(10)[5] + 0.01
ROUGH = 0.005, 0.7  # typical precision and confidence
ALL = recipes.get("minimal")
ONE = recipes.override(ALL, digit=5)


@pytest.mark.parametrize(
    ("drawn", "real", "recipe", "look", "words"),
    [
        (np.repeat([0.2, 0], 5), None, ALL, ROUGH, "lost: the rarest, class 0, has 20.0%"),
        ([0.996, 0.004] + [0] * 8, None, ALL, ROUGH, "lost: the rarest, class 1, has 0.4%"),
        ([0, *[0.25] * 4, *[0] * 5], np.repeat([0.2, 0], 5), ALL, ROUGH, "missing: class 0."),
        (FIVE, FRACTIONS, ONE, ROUGH, "only on class 5: 91.0% of the samples are classified as it"),
        (FIVE, FRACTIONS, ALL, ROUGH, "Mode collapse: the most frequent classes are class 5 (91"),
        (FIVE, FRACTIONS, ALL, ROUGH, "Try --r1_gamma=1; see docs/collapse.md."),
        (FIVE, FRACTIONS, ALL, (0.001, 1), "not like the training images: 0.1% of them"),
        (FIVE, FRACTIONS, ONE, (0.5, 0.5), "means little: class 5 (91.0%), class 0 (1.0%)"),
    ],
)
def test_sentences_about_classes(drawn, real, recipe, look, words):
    """Samples distributed like the data, also on one class, are no collapse."""
    typical, confidence = look
    scores = SimpleNamespace(histogram=drawn, typical_precision=typical, mean_confidence=confidence)
    real = np.array(drawn if real is None else real)
    assert words in report.describe(scores, 0.99, recipe, INFO, real)


@pytest.mark.parametrize("name", reference.SHIPPED.values())
def test_images_of_nothing_are_not_typical(name, mnist):
    """Noise, grey images and spots, but one digit is."""
    standard = reference.load(reference.SHIPPED_FOLDER / name, mnist)

    def typical(images):
        features = standard.classifier(images).features
        return metrics.neighbour_scores(standard.reference.features, features)["typical_precision"]

    noise = np.random.default_rng(0).random([100, 784], np.float32)
    spots = np.hypot(*np.mgrid[-14:14, -14:14]).ravel() < np.linspace(3, 9, 100)[:, None]
    images = np.concatenate([noise, 0.5 + 0.04 * noise, 0 * noise, noise * spots])
    assert typical(images) < 0.002
    if name == "mnist":
        assert typical(mnist.test.images[mnist.test.labels == 7]) > 0.5


def standard_of(images, labels):
    """Returns a Standard whose classifier is FromPixels."""
    data_set = input_data.DataSet(np.uint8(np.rint(255 * images)), np.uint8(labels))
    data = SimpleNamespace(train=data_set, test=data_set)
    return SimpleNamespace(classifier=FromPixels(), data=data, test_accuracy=0.9)


def test_scores_by_label(monkeypatch):
    monkeypatch.setattr(conditional, "TRAINING_STEPS", 1)
    real = np.random.default_rng(0).integers(0, 100, [43, 2])
    labels = np.repeat([0, 1, 2], [20, 20, 3])  # too few images of class 2 for a covariance
    found = np.where(np.arange(43) == 25, 4, labels)  # one 1 looks like a 4
    shift = np.where(labels == 1, 3, 0)[:, None] * [1, 0]
    predictions = Predictions(real + shift, np.eye(10)[found])
    standard = standard_of(images_of(labels, real), labels)
    scores = conditional.score(np.zeros([43, 784]), labels, predictions, standard, INFO)
    assert scores["label_accuracy"] == 42 / 43 and scores["trained_on_samples"] == 43
    assert scores["label_accuracies"] == {"class 0": 1.0, "class 1": 0.95, "class 2": 1.0}
    distances, real_distances = {"class 0": 0, "class 1": 9}, {"class 0": 0, "class 1": 0}
    assert scores["label_frechet_distances"] == pytest.approx(distances, abs=1e-6)
    assert scores["real_label_frechet_distances"] == pytest.approx(real_distances, abs=1e-6)
    scores["trained_on_samples_accuracy"] = 0.5
    scores["real_label_frechet_distances"] = {"class 1": 0.0}
    text = conditional.describe(scores, INFO)
    assert "97.7% of the samples (90.0% of real" in text and "class 1 with 95.0%" in text
    assert "at most 9 (0 for real" in text and "only on 43 samples has 50.0% acc" in text


def test_a_classifier_is_trained_on_samples_and_requested_labels(monkeypatch):
    """The label is which half is bright; a swapped classifier is always wrong."""
    monkeypatch.setattr(conditional, "TRAINING_STEPS", 20)
    images, labels = np.zeros([400, 784], np.float32), np.arange(400) % 2
    images[labels == 0, :392], images[labels == 1, 392:] = 0.8, 0.8
    standard, predictions = standard_of(images, labels), FromPixels()(images)
    for requested, expected in ((labels, 1), (1 - labels, 0)):
        scores = conditional.score(images, requested, predictions, standard, INFO)
        assert scores["trained_on_samples_accuracy"] == expected


# Runs.


def train(folder, data_dir, **options):
    options = {"nlatent": 3, "num_steps": 3, "engine": "step", "events": False, **options}
    options |= {"data_dir": str(data_dir), "run_dir": str(folder)}
    training.train("minimal", log=lambda line: None, **options)
    return folder


@pytest.fixture(scope="module")
def run(small_data_dir, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "plain", small_data_dir)


@pytest.fixture(scope="module")
def custom(small_data_dir, tmp_path_factory):
    """A run of a custom class, and its --gan."""
    folder = tmp_path_factory.mktemp("custom")
    (folder / "my gan.py").write_text("from models.gan import Gan as G\n\nclass My(G): pass\n")
    gan = f"{folder / 'my gan.py'}:My"
    return train(folder / "run", small_data_dir, gan=gan), gan


@pytest.fixture(scope="module")
def scored(run, small_data_dir, cache):
    """A copy of the run with scores, and what was logged."""
    path, lines = shutil.copytree(run, run.with_name("scored")), []
    options = {"num_samples": 150, "seed": 4, "data_dir": small_data_dir}
    return path, evaluation.evaluate(path, **options, log=lines.append), lines


def test_a_run_is_scored(scored, small):
    path, scores, lines = scored
    assert scores == json.loads((path / "metrics.json").read_text())
    images, _ = generation.load(path).sample(150, seed=4)
    standard = reference.get(small, INFO)
    expected = metrics.score(*standard.classifier(images), images, standard.reference)
    assert {name: scores[name] for name in expected._fields} == expected._asdict()
    assert (scores["step"], scores["seed"], scores["raw"]) == (3, 4, False)
    assert scores["classifier_sha256"] == standard.classifier.sha256
    assert scores["reference_scores"].keys() == standard.scores.keys()
    assert any(f"{expected.frechet_distance:.4g}" in line for line in lines)
    assert (path / "report.png").stat().st_size > 1000


def test_scores_are_of_the_runs_images_also_while_it_trains_and_of_truncated_samples(
    small, small_data_dir, cache, tmp_path
):
    extra = [evaluation.scores_every(3)]
    path = train(tmp_path / "run", small_data_dir, prior="normal", extra=extra)
    generator, standard = generation.load(path), reference.get(small, INFO)

    def distance(images):
        found = metrics.statistics(standard.classifier(images).features)
        return metrics.frechet_distance(*found, *standard.reference[:2])

    rng = Batches(generator.recipe, small.train.pixels, seed=0).picture_rng()
    (row,) = np.loadtxt(path / "metrics.csv", delimiter=",", skiprows=1, ndmin=2)
    expected = distance(generator.generate(generator.latents(5000, rng)))
    assert row[1] == pytest.approx(expected, rel=1e-5)
    options = {"num_samples": 150, "truncation": 0.5, "data_dir": small_data_dir}
    lines: list = []
    scores = evaluation.evaluate(path, **options, log=lines.append)
    images, _ = generator.sample(150, truncation=0.5)
    assert scores["frechet_distance"] == pytest.approx(distance(images))
    assert any("--seed=0 with --truncation=0.5 after step 3" in line for line in lines)
    assert generator.scores(path) is None


def test_invalid_options_are_rejected_before_a_classifier_is_trained(run, small_data_dir):
    for options, message in [
        ({"num_samples": 127}, "--num_samples must be from 128 to 100,000 for scores, got 127"),
        ({"checkpoint": "nope"}, "--checkpoint"),
        ({"data_dir": None}, "MNIST_data"),
    ]:
        options, lines = {"data_dir": small_data_dir, **options}, []
        with pytest.raises(UserError, match=message):
            evaluation.evaluate(run, **options, log=lines.append)
        assert all(line.startswith("Read") for line in lines)


def compare(path, *run_dirs, **options):
    lines = []
    comparison.compare(run_dirs, path / "a.png", log=lines.append, **options)
    return "\n".join(lines)


def edit(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_runs_are_compared(scored, custom, tmp_path):
    (path, gan), (scored, scores, _) = custom, scored
    text = compare(tmp_path, scored, path, gans=[gan])
    rows = {line[:18].strip(): line[18:].split() for line in text.splitlines()}
    assert rows["Fréchet distance"] == [f"{scores['frechet_distance']:.4g}", "-"]
    assert rows["classifier"] == [scores["classifier_sha256"][:8], "-"]
    assert rows["scored samples"] == ["150", "-"] and rows["steps"] == ["3", "3"]
    losses = np.loadtxt(scored / "losses.csv", delimiter=",", skiprows=1)
    assert rows["d_loss"][0] == f"{losses[-1, 1]:.3f}"
    assert f"{scored} overrides nlatent=3" in " ".join(text.split())
    assert f"{path} has no scores of these weights" in text
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({}, ""),
        ({"step": 8}, "other has no scores"),
        ({"checkpoint_sha256": "cd"}, "other has no scores"),
        ({"truncation": 2.0}, "other has no scores"),
        ({"classifier_sha256": "34" * 32}, "not comparable: each data set has its own classifier"),
        ({"num_samples": 10_000}, "not comparable: fewer samples give worse scores"),
    ],
)
def test_scores_are_only_compared_if_valid_and_comparable(scored, tmp_path, values, note):
    shutil.copytree(scored[0], tmp_path / "other")
    edit(tmp_path / "other" / "metrics.json", **values)
    text = compare(tmp_path, scored[0], tmp_path / "other")
    assert note in text
    for part in ("not comparable", "other has no scores", "\x1b"):
        assert (part in text) == (part in note)
