"""Whether samples of a conditional GAN are what was asked for."""

import tempfile
from pathlib import Path

import numpy as np

import input_data
from evaluation import metrics, reference

# Of the training images: enough for a covariance within each label, seconds to classify.
_REAL_IMAGES = 20_000
# Samples that a classifier learns from alone, and its steps: about a minute.
_TRAINED_ON, _TRAINING_STEPS = 10_000, 1_500


def scores(samples, predictions, standard, info):
    """report.Samples with the labels asked for, their Predictions -> {name: value}.

    label_accuracy: share of samples that the classifier takes for what was asked;
    real_label_accuracy: the same of the real test images, which bounds it;
    label_accuracies: the same by label; label_frechet_distances: of each label's samples from the
    training images of that label, where there are enough of both for a covariance;
    real_label_frechet_distances: the same of the real test images;
    trained_on_samples: how many samples alone another classifier learnt from;
    trained_on_samples_accuracy: share of the real test images that it gets right.
    Empty without labels.
    """
    if samples.labels is None:
        return {}
    right = predictions.probabilities.argmax(axis=1) == samples.labels
    by_label = {name: right[samples.labels == k] for k, name in enumerate(info.class_names)}
    return {
        "label_accuracy": float(right.mean()),
        "real_label_accuracy": standard.test_accuracy,
        "label_accuracies": {k: float(v.mean()) for k, v in by_label.items() if len(v)},
        **_distances(samples.labels, predictions, standard, info),
        "trained_on_samples": min(len(samples.labels), _TRAINED_ON),
        "trained_on_samples_accuracy": _accuracy_of_training_on(samples, standard.data.test),
    }


def describe(found, info):
    """What `scores` gave -> sentences."""
    accuracies, distances = found["label_accuracies"], found["label_frechet_distances"]
    real_distances = found["real_label_frechet_distances"]
    real, worst = found["real_label_accuracy"], min(accuracies, key=accuracies.get)
    beside = "" if real is None else f" (of real test images {real:.1%})"
    words = [
        f"{found['label_accuracy']:.1%} of the samples{beside} are taken for the {info.noun} asked "
        f"for; the worst is {worst} with {accuracies[worst]:.1%}."
    ]
    if distances:
        farthest = max(distances, key=distances.get)
        bound = real_distances.get(farthest)
        beside = "" if bound is None else f" (of real test images {bound:.4g})"
        words.append(
            f"Fréchet distance within one {info.noun}: at most {distances[farthest]:.4g}{beside}, "
            f"of {farthest}."
        )
    words.append(
        f"A classifier trained on {found['trained_on_samples']:,} samples alone gets "
        f"{found['trained_on_samples_accuracy']:.1%} of the real test images right."
    )
    return "\n".join(words)


def _distances(labels, predictions, standard, info):
    """-> {name of a score: {class name: distance}}, of samples and of the real test images."""
    train, test = standard.data.train, standard.data.test
    # Drawn, since a file may be sorted by label.
    rows = np.random.default_rng(0).permutation(len(train.pixels))[:_REAL_IMAGES]
    real = _by_label(_features(standard, train.pixels[rows]), train.file_labels[rows], info)
    tested = _by_label(_features(standard, test.pixels), test.file_labels, info)
    drawn = _by_label(predictions.features, labels, info)
    return {
        "label_frechet_distances": _within(drawn, real),
        "real_label_frechet_distances": _within(tested, real),
    }


def _features(standard, pixels):
    return standard.classifier.features(pixels / np.float32(255))


def _by_label(features, labels, info):
    """[n, F], [n] -> {class name: [., F]}, where there are enough for a covariance."""
    parts = {name: features[labels == k] for k, name in enumerate(info.class_names)}
    return {name: part for name, part in parts.items() if len(part) >= 2 * features.shape[1]}


def _within(drawn, real):
    """{class name: features} twice -> {class name: Fréchet distance} of those in both."""
    return {
        name: metrics.frechet_distance(
            *metrics.statistics(drawn[name]), *metrics.statistics(real[name])
        )
        for name in drawn
        if name in real
    }


def _accuracy_of_training_on(samples, test):
    """-> share of a DataSet's images that a classifier trained on samples alone gets right."""
    pixels = np.uint8(np.rint(255 * samples.images[:_TRAINED_ON]))
    labels = np.uint8(samples.labels[:_TRAINED_ON])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classifier.npz"
        learnt = reference.trained(input_data.DataSet(pixels, labels), path, _TRAINING_STEPS)
    return reference.accuracy(learnt, test)
