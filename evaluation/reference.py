"""The classifier, statistics and reference scores of a data set.

Those of MNIST and Fashion-MNIST are in `shipped/`. For any other set they are computed once and
cached in the user's cache folder. Scores by different classifiers are not comparable.

data = input_data.read_data_sets("MNIST_data", validation_size=0)
reference.make(data, Path("FOLDER"), classifier_training.NUM_STEPS)    # rebuilds those of MNIST
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import filelock
import numpy as np

import input_data
from evaluation import classifier_training, metrics
from evaluation.classifier import NUM_FEATURES, Classifier
from support.errors import UserError
from support.files import atomic_write, cache_folder, write_json

# Enough for the metrics based on neighbours, small enough for a repository.
NUM_REFERENCE_FEATURES = 10_000
# With fewer samples than twice the features, a covariance is meaningless.
FEWEST = 2 * NUM_FEATURES
CACHED_STEPS = 3_000
SHIPPED_FOLDER = Path(__file__).resolve().parent / "shipped"
# Checksum of a data set -> its folder in `shipped/`.
SHIPPED = {
    "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16": "mnist",
    "ca3ab2a37f845e1b8ae23cab1b51749a3011ba3bf1d9016176d75cbaabac376f": "fashion_mnist",
}
_WEIGHTS, _STATISTICS, _SCORES = "classifier.npz", "statistics.npz", "reference_scores.json"


class Standard(NamedTuple):
    """A data set's classifier, statistics and reference scores.

    Attributes:
      classifier: Trained on the data set.
      reference: Statistics of its training images.
      scores: Scores by name, of real images and of noise.
      data: The data set itself.
      test_accuracy: The classifier's accuracy on the test images.
    """

    classifier: Classifier
    reference: metrics.Reference
    scores: dict
    data: input_data.Datasets
    test_accuracy: float


def get(data: input_data.Datasets, info: input_data.DataSetInfo, log=print) -> Standard:
    """Returns the Standard of a data set.

    The first time, it is computed, which takes minutes, unless it is shipped.

    Args:
      data: The data set, without a validation part.
      info: Its description.
      log: Called with lines for the user.

    Raises:
      UserError: If the set is too small.
    """
    key = checksum(data)
    if key in SHIPPED:
        return load(SHIPPED_FOLDER / SHIPPED[key], data)
    if min(len(data.train.pixels), len(data.test.pixels)) < FEWEST:
        raise UserError(
            f"scores require at least {FEWEST} training and test images each, got "
            f"{len(data.train.pixels):,} and {len(data.test.pixels):,}; use a larger data set"
        )
    folder = cache_folder() / key
    folder.mkdir(parents=True, exist_ok=True)
    has_classes = len(np.unique(data.train.file_labels)) > 1
    lock = filelock.FileLock(folder / ".lock")
    try:
        held = lock.acquire(timeout=0)
    except filelock.Timeout:
        log(f"Waiting for another process that uses {folder}.")
        held = lock.acquire()
    with held:
        if not (folder / _SCORES).exists():  # which is written last
            if has_classes:
                log(f"Training a classifier on {info.title} once; it is cached in {folder}.")
            make(data, folder, CACHED_STEPS)
    standard = load(folder, data)
    log(
        f"The classifier of {info.title} has {standard.test_accuracy:.1%} test accuracy; its "
        "scores are not comparable with those of other classifiers."
        if has_classes
        else "Without at least two labels, no classifier can be trained on these images: classes "
        "covered, classifier score, confidence and total variation of classes cannot be scored. "
        "The other scores use the features of MNIST's classifier; compare them only with the "
        "columns next to them."
    )
    return standard


def checksum(data: input_data.Datasets) -> str:
    """Returns a SHA-256 of all training and test images and labels, in file order."""
    total = hashlib.sha256()
    for part in (data.train, data.test):
        total.update(part.pixels.tobytes())
        total.update(part.file_labels.tobytes())
    return total.hexdigest()


def load(folder: Path, data: input_data.Datasets) -> Standard:
    """Loads a Standard that `make` wrote."""
    content = json.loads((folder / _SCORES).read_bytes())
    scores = {name: metrics.Scores(**each) for name, each in content["reference_scores"].items()}
    with np.load(folder / _WEIGHTS) as weights, np.load(folder / _STATISTICS) as statistics:
        classifier = Classifier(dict(weights), content["classifier_sha256"])
        arrays = dict(statistics)
    del arrays["classifier_sha256"]
    reference = metrics.Reference(**arrays, training_pixels=data.train.pixels)
    return Standard(classifier, reference, scores, data, content["test_accuracy"])


def make(data: input_data.Datasets, folder: Path, num_steps: int) -> Standard:
    """Trains a classifier, scores real images and noise, and writes the files.

    Without at least two labels there is nothing to train: MNIST's classifier is used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    has_classes = len(np.unique(data.train.file_labels)) > 1
    if has_classes:
        weights = classifier_training.train(data.train, num_steps)
    else:  # its checksum says that scores are of these images
        with np.load(SHIPPED_FOLDER / "mnist" / _WEIGHTS) as shipped:
            weights = dict(shipped)
        weights["images"] = np.array(checksum(data))
    with atomic_write(folder / _WEIGHTS) as temporary:
        np.savez(temporary, **weights)
    sha256 = hashlib.sha256((folder / _WEIGHTS).read_bytes()).hexdigest()
    classifier = Classifier(weights, sha256)
    features = classifier(data.train.images).features
    mean, covariance = metrics.statistics(features)
    test = data.test.images
    arrays: dict = {
        "mean": mean,
        "covariance": covariance,
        "histogram": metrics.class_histogram(data.train.labels),
        "features": np.float16(features[reference_rows(len(features))]),
        "copy_distances": metrics.copy_distances(test, data.test.labels, data.train.pixels),
    }
    if not has_classes:  # whatever the predicted class
        arrays["copy_distances"][:] = arrays["copy_distances"].max()
    with atomic_write(folder / _STATISTICS) as temporary:
        np.savez(temporary, classifier_sha256=np.array(sha256), **arrays)
    reference = metrics.Reference(**arrays, training_pixels=data.train.pixels)
    # The best possible scores, those after losing one class (the last), and the worst possible.
    last = data.test.labels.max()
    sets = {"real test images": test}
    without = test[data.test.labels != last]
    if len(without) >= FEWEST:
        label = input_data.identify(data.train.pixels).label(last)
        sets[f"real test images without {label}"] = without
    sets["uniform noise"] = np.random.default_rng(0).random(test.shape, np.float32)
    scores = {
        name: metrics.score(*classifier(images), images, reference)._asdict()
        for name, images in sets.items()
    }
    content = {
        "classifier_sha256": sha256,
        "test_accuracy": classifier.accuracy(data.test),
        "reference_scores": scores,
    }
    write_json(folder / _SCORES, content)
    return load(folder, data)


def reference_rows(num_images: int) -> np.ndarray:
    """Returns the rows of the training images whose features are stored.

    They are at most 10,000 random ones, because MNIST's order has a pattern: every second image
    counts from 0 to 9.
    """
    return np.random.default_rng(0).permutation(num_images)[:NUM_REFERENCE_FEATURES]
