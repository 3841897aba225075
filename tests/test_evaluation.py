"""What is said of scores: of sets with fewer classes, of labels asked for, of runs side by side."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from training.run_folder import RunFolder

import input_data
from evaluation import comparison, conditional, metrics, report
from evaluation.classifier import Predictions
from generation.generator import Generator

INFO = input_data.known(None)
SCORES = {"frechet_distance": 4.5, "classes_covered": 10, "precision": 0.5, "recall": 0.25}
METRICS = {
    **SCORES, "step": 7, "raw": False, "classifier_sha256": "12" * 32, "checkpoint_sha256": "ab",
    "num_samples": 10_000,
}  # fmt: skip


@pytest.mark.parametrize(
    "real",
    [
        np.repeat([0.2, 0], 5),
        np.array([0.82, *[0.02] * 9]),
        np.array([0.996, 0.004, *[0] * 8]),
    ],
    ids=["five classes", "unbalanced", "one rare class"],
)
def test_samples_spread_as_their_data_are_no_collapse(real):
    words = report.describe(real, None, INFO, real)
    rarest = int(np.flatnonzero(real == real[real > 0].min())[0])
    assert words.startswith(f"No class is lost: the rarest, class {rarest}, has {real[rarest]:.1%}")


def test_scores_of_one_class_alone_are_said_to_mean_little():
    words = report.describe(np.eye(10)[3], None, INFO, np.eye(10)[3])
    assert words.startswith("All images have one label, class 3:") and "say little" in words


def test_a_class_that_is_there_and_never_drawn_is_lost():
    real, drawn = np.repeat([0.2, 0], 5), np.array([0, 0.25, 0.25, 0.25, 0.25, 0, 0, 0, 0, 0])
    words = report.describe(drawn, None, INFO, real)
    assert words.startswith("Mode collapse") and words.endswith("Hardly there: class 0.")


class FromPixels:
    """A classifier that reads two features and a label from an image's first pixels."""

    def __call__(self, images):
        levels = np.rint(np.asarray(images) * 255)
        return Predictions(levels[:, 1:3], np.eye(10)[levels[:, 0].astype(int)])

    def features(self, images):
        return self(images).features


def standard_of(features, labels):
    """A Standard of images that FromPixels takes for class 9 all, whatever their labels."""
    pixels = np.zeros([len(features), 784], np.uint8)
    pixels[:, 0], pixels[:, 1:3] = 9, features
    train = input_data.DataSet(pixels, np.uint8(labels))
    data = SimpleNamespace(train=train, test=train)
    return SimpleNamespace(classifier=FromPixels(), data=data, test_accuracy=0.9)


def test_labels_asked_for_by_hand(monkeypatch):
    monkeypatch.setattr(conditional, "_TRAINING_STEPS", 1)
    rng = np.random.default_rng(0)
    real, labels = rng.integers(0, 100, [40, 2]), np.repeat([0, 1], 20)
    taken = np.where(np.arange(40) == 25, 4, labels)  # one 1 looks like a 4
    shift = np.where(labels == 1, 3, 0)[:, None] * [1, 0]
    predictions = Predictions(real + shift, np.eye(10)[taken])
    samples = report.Samples(np.zeros([40, 784], np.float32), labels, {})
    found = conditional.scores(samples, predictions, standard_of(real, labels), INFO)
    assert found["label_accuracy"] == 39 / 40 and found["real_label_accuracy"] == 0.9
    assert found["label_accuracies"] == {"class 0": 1.0, "class 1": 0.95}
    distances = found["label_frechet_distances"]
    assert distances["class 0"] == pytest.approx(0, abs=1e-6)
    assert distances["class 1"] == pytest.approx(9)  # the square of the shift
    assert found["trained_on_samples"] == 40
    assert found["real_label_frechet_distances"] == pytest.approx({"class 0": 0, "class 1": 0})
    found["trained_on_samples_accuracy"] = 0.5
    found["real_label_frechet_distances"] = {"class 1": 0.0}
    assert conditional.describe(found, INFO) == (
        "97.5% of the samples (of real test images 90.0%) are taken for the class asked for; the "
        "worst is class 1 with 95.0%.\n"
        "Fréchet distance within one class: at most 9 (of real test images 0), of class 1.\n"
        "A classifier trained on 40 samples alone gets 50.0% of the real test images right."
    )


def test_too_few_of_a_label_for_a_covariance_have_no_distance():
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    features = np.random.default_rng(0).integers(0, 100, [7, 2])
    found = conditional._distances(
        labels, Predictions(features, None), standard_of(features, labels), INFO
    )
    assert list(found["label_frechet_distances"]) == ["class 1"]


def test_a_classifier_learns_from_samples_what_their_labels_say(monkeypatch):
    """Upper half or lower half: real images teach it, and the same with swapped labels do not."""
    images, labels = np.zeros([400, 28, 28], np.float32), np.arange(400) % 2
    images[labels == 0, :14], images[labels == 1, 14:] = 0.8, 0.8
    images = images.reshape(400, 784)
    test = input_data.DataSet(np.uint8(255 * images), np.uint8(labels))
    monkeypatch.setattr(conditional, "_TRAINING_STEPS", 20)
    right = conditional._accuracy_of_training_on(report.Samples(images, labels, {}), test)
    wrong = conditional._accuracy_of_training_on(report.Samples(images, 1 - labels, {}), test)
    assert (right, wrong) == (1, 0)


def test_no_labels_no_scores_of_labels():
    samples = report.Samples(np.zeros([1, 784]), None, {})
    assert conditional.scores(samples, None, None, INFO) == {}


def test_one_digit_alone_is_no_collapse():
    histogram, info, real = np.eye(10)[5] * 0.9 + 0.01, input_data.known("mnist"), np.full(10, 0.1)
    assert report.describe(histogram, 5, info, real) == (
        "Trained on the digit 5 alone: 91.0% of the samples are it. "
        "All other figures compare them with all ten digits."
    )
    assert report.describe(histogram, None, info, real).startswith("Mode collapse")


def test_a_table_says_no_digit_where_there_is_none():
    one = metrics.Scores(**dict.fromkeys(metrics.Scores._fields, 1.0))
    text = report.table({"real test images without class 9": one})
    assert "digit" not in text and "real w/o class 9" in text


def scores_of(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    return of_folder(tmp_path)


def of_folder(path, digest="ab"):
    generator = object.__new__(Generator)  # its networks play no part here
    generator.step, generator.digest, generator.raw = 7, digest, False
    return comparison._scores(RunFolder(path), generator)


def test_scores_of_these_weights_are_read(tmp_path):
    found = scores_of(tmp_path, json.dumps(METRICS))
    assert found == ({**SCORES, "classifier": "12121212", "num_samples": 10_000}, None)


def test_scores_of_another_run_at_the_same_step_are_not_shown(tmp_path):
    """As left by a run that another of the same folder has taken the place of."""
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    assert of_folder(tmp_path, digest="cd") == (None, "has scores of other weights")


def test_a_run_without_scores_says_so(tmp_path):
    assert of_folder(tmp_path) == (None, "is not scored yet")


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "[" * 100_000, '{"step": 60, "raw": false, "frechet_distance": "x"}',
        json.dumps({**METRICS, "step": 8}),
        json.dumps({**METRICS, "raw": True}),
        json.dumps({**METRICS, "recall": None}),
        json.dumps({**METRICS, "recall": 10**400}),
        json.dumps({**METRICS, "classifier_sha256": "\x1b[2J"}),
    ],
)  # fmt: skip
def test_any_other_metrics_are_no_score(tmp_path, text):
    scores, why = scores_of(tmp_path, text)
    assert scores is None and why.startswith("has ")


@pytest.mark.parametrize(
    ("gan", "dataset", "flags"),
    [
        (None, "mnist", ""),
        (None, "fashion_mnist", " --dataset=fashion_mnist"),
        (None, None, " --data_dir=FOLDER"),
        ("my gan.py:G", "mnist", " '--gan=my gan.py:G'"),
    ],
)
def test_the_command_that_scores_a_run_is_whole(gan, dataset, flags):
    configuration = SimpleNamespace(gan=gan, dataset=dataset)

    class Folder(SimpleNamespace):
        __str__ = lambda self: "runs/a"  # noqa: E731

    command = comparison._evaluation_of(Folder(configuration=lambda: configuration))
    assert command == f"python main.py --mode=evaluate --run_dir=runs/a{flags}"


@pytest.mark.parametrize(
    ("name", "values", "other"),
    [("classifier", "12121212", "34343434"), ("scored samples", "10,000", "128")],
)
def test_scores_that_differ_in_how_they_were_taken_are_said_not_to_compare(name, values, other):
    alike = {"classifier": "56565656", "scored samples": "1,000"}
    columns = [{**alike, name: each} for each in (values, "-", values)]
    assert comparison._of_different(columns) == []
    (line,) = comparison._of_different([*columns, {**alike, name: other}])
    assert line.startswith("Their scores do not compare") and len(line) <= 100
