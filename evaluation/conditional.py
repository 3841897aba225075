"""Scores of the samples of a conditional GAN by the label that was requested."""

import numpy as np

import input_data
from evaluation import classifier_training, metrics
from evaluation.classifier import Classifier

# Of the training images: enough for a covariance within each label, and classified in seconds.
_REAL_IMAGES = 20_000
# Training a classifier on this many samples for this many steps takes about a minute.
_TRAINING_SAMPLES = 10_000
TRAINING_STEPS = 1_500


def score(samples: np.ndarray, labels: np.ndarray, predictions, standard, info) -> dict:
    """Scores samples by the labels that were requested.

    Args:
      samples: `[n, 784]` in [0, 1].
      labels: The requested labels, `[n]`.
      predictions: The classifier's Predictions of the samples.
      standard: The data set's `reference.Standard`.
      info: The data set's DataSetInfo.

    Returns:
      Values by name. `label_accuracy`: fraction of the samples that are classified as the requested
      label. `real_label_accuracy`: the same of the real test images, an upper bound.
      `label_accuracies`: `label_accuracy` of each label. `label_frechet_distances`: between each
      label's samples and the training images of that label, if there are enough of both for a
      covariance. `real_label_frechet_distances`: the same of the real test images.
      `trained_on_samples`: number of samples that another classifier was trained on.
      `trained_on_samples_accuracy`: its accuracy on the real test images.
    """
    right = predictions.probabilities.argmax(axis=1) == labels
    accuracies = {
        name: float(right[labels == k].mean())
        for k, name in enumerate(info.class_names)
        if (labels == k).any()
    }
    train, test, classifier = standard.data.train, standard.data.test, standard.classifier
    # Random rows, because a file may be sorted by label.
    rows = np.random.default_rng(0).permutation(len(train.pixels))[:_REAL_IMAGES]
    real_features = classifier(train.pixels[rows] / np.float32(255)).features
    test_features = classifier(test.pixels / np.float32(255)).features
    real = _statistics_by_label(real_features, train.file_labels[rows], info)
    tested = _statistics_by_label(test_features, test.file_labels, info)
    drawn = _statistics_by_label(predictions.features, labels, info)
    pixels = np.uint8(np.rint(255 * samples[:_TRAINING_SAMPLES]))
    drawn_set = input_data.DataSet(pixels, np.uint8(labels[:_TRAINING_SAMPLES]))
    trained = Classifier(classifier_training.train(drawn_set, TRAINING_STEPS))
    return {
        "label_accuracy": float(right.mean()),
        "real_label_accuracy": standard.test_accuracy,
        "label_accuracies": accuracies,
        "label_frechet_distances": _distances(drawn, real),
        "real_label_frechet_distances": _distances(tested, real),
        "trained_on_samples": min(len(labels), _TRAINING_SAMPLES),
        "trained_on_samples_accuracy": trained.accuracy(test),
    }


def _statistics_by_label(features, labels, info):
    """Returns mean and covariance by class name, where there are enough images."""
    parts = {name: features[labels == k] for k, name in enumerate(info.class_names)}
    enough = 2 * features.shape[1]
    return {name: metrics.statistics(p) for name, p in parts.items() if len(p) >= enough}


def _distances(first, second):
    """Returns the Fréchet distances by class name, of those in both."""
    return {
        name: metrics.frechet_distance(*first[name], *second[name])
        for name in first
        if name in second
    }


def describe(scores: dict, info) -> str:
    """Returns sentences about what `score` returned."""
    accuracies = scores["label_accuracies"]
    worst = min(accuracies, key=accuracies.get)
    sentences = [
        f"{scores['label_accuracy']:.1%} of the samples ({scores['real_label_accuracy']:.1%} of "
        f"real test images) are classified as the requested {info.noun}; the worst is {worst} with "
        f"{accuracies[worst]:.1%}."
    ]
    distances = scores["label_frechet_distances"]
    if distances:
        farthest = max(distances, key=distances.get)
        real = scores["real_label_frechet_distances"].get(farthest)
        bound = "" if real is None else f" ({real:.4g} for real test images)"
        sentences.append(
            f"Fréchet distance within one {info.noun}: at most {distances[farthest]:.4g}{bound}, "
            f"of {farthest}."
        )
    sentences.append(
        f"A classifier trained only on {scores['trained_on_samples']:,} samples has "
        f"{scores['trained_on_samples_accuracy']:.1%} accuracy on the real test images."
    )
    return "\n".join(sentences)
