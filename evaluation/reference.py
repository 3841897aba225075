"""What samples of a data set are compared with: its classifier, statistics, reference scores.

MNIST's and Fashion-MNIST's are shipped. For any other set they are made once and kept in the
user's cache folder; scores by different classifiers do not compare.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

import input_data
from evaluation import classifier_training, metrics
from evaluation.classifier import MNIST, WEIGHTS_SHA256, Classifier, read, unpack
from support.errors import UserError
from support.files import atomic_write, remove_stale_files, write_json

# Of the training images: enough for neighbours, small enough for a repository.
NUM_REFERENCE_FEATURES = 10_000
_WEIGHTS, _STATISTICS, _SCORES = "classifier.npz", "statistics.npz", "reference_scores.json"
_CACHED_STEPS = 3_000
# A data set's checksum -> its folder beside this file, the SHA-256 of the weights there.
_SHIPPED = {
    "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16": ("mnist", WEIGHTS_SHA256),
    "ca3ab2a37f845e1b8ae23cab1b51749a3011ba3bf1d9016176d75cbaabac376f": (
        "fashion_mnist",
        "0223e1f90e377a1cc101dcd17e0b24c7d9c41546829e5f37c2906c2276d258fb",
    ),
}
# Fewer than twice the features say nothing of a covariance.
_FEWEST = 128


class Standard(NamedTuple):
    """classifier: of a data set; reference: metrics.Reference; scores: {name: metrics.Scores} of
    real images and of noise; data: the set itself; test_accuracy: share of the test images that
    the classifier gets right, None where the file of the scores does not say.
    """

    classifier: Classifier
    reference: metrics.Reference
    scores: dict
    data: input_data.Datasets
    test_accuracy: float | None = None


def of(data, info, log=print):
    """Datasets without a validation part, their DataSetInfo -> the Standard.

    Made and kept if it is not there yet, which takes minutes; log: takes lines for the user.
    """
    key = checksum(data)
    if key in _SHIPPED:
        name, sha256 = _SHIPPED[key]
        return load(MNIST.parent / name, data, sha256)
    standard = _kept(key, data, info, log)
    log(
        f"Scores are by a classifier of {info.title} that gets {standard.test_accuracy:.1%} of the "
        "test images right; they compare only with scores by the same classifier."
    )
    return standard


def _kept(key, data, info, log):
    """A data set's checksum -> its Standard in the cache folder, made if it is not there yet."""
    if min(len(data.train.pixels), len(data.test.pixels)) < _FEWEST:
        raise UserError(
            f"{len(data.train.pixels):,} training and {len(data.test.pixels):,} test images: "
            f"scores want at least {_FEWEST} of each"
        )
    folder = _cache_folder() / key
    with _locked(folder, log):
        if not (folder / _SCORES).exists():  # which is written last
            log(f"Training a classifier of {info.title}, once; it is kept in {folder}.")
            remove_stale_files(folder, deep=False)
            make(data, folder, _CACHED_STEPS)
        try:
            return load(folder, data)
        except UserError as error:
            raise UserError(f"{error}; delete {folder} to have it made again") from error


def checksum(data):
    """Datasets -> a SHA-256 of all training and test images and labels, in file order."""
    total = hashlib.sha256()
    for part in (data.train, data.test):
        total.update(np.ascontiguousarray(part.pixels))
        total.update(part.file_labels)
    return total.hexdigest()


def make(data, folder, num_steps, seed=0):
    """Datasets -> their Standard, trained, measured and written to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    classifier = trained(data.train, folder / _WEIGHTS, num_steps, seed)
    _save_statistics(_statistics(classifier, data), classifier, folder / _STATISTICS)
    # Read back, so that these scores and later ones see the same rounded features.
    reference = _load_reference(classifier, data, folder / _STATISTICS)
    scores = _reference_scores(classifier, data, reference)
    _save_scores(scores, classifier, accuracy(classifier, data.test), folder / _SCORES)
    return load(folder, data, classifier.sha256)


def trained(data_set, path, num_steps, seed=0):
    """DataSet -> a Classifier trained on it, whose weights are written to `path`."""
    with atomic_write(path) as temporary:
        np.savez(temporary, **classifier_training.train(data_set, num_steps, seed))
    return Classifier(path, hashlib.sha256(path.read_bytes()).hexdigest())


def load(folder, data, sha256=None):
    """A folder that `make` wrote, Datasets -> the Standard.

    sha256: of the weights; None for what the reference scores say they belong to. UserError for a
    file that is missing, damaged, or belongs to another classifier.
    """
    owner, scores, test_accuracy = _load_scores(folder / _SCORES)
    classifier = Classifier(folder / _WEIGHTS, sha256 or owner)
    _check_owner(folder / _SCORES, owner, classifier)
    reference = _load_reference(classifier, data, folder / _STATISTICS)
    return Standard(classifier, reference, scores, data, test_accuracy)


def accuracy(classifier, data_set):
    """Share of a DataSet's images whose most probable class is the label."""
    found = classifier.probabilities(data_set.images).argmax(axis=1)
    return float(np.mean(found == data_set.labels))


def reference_rows(num_images):
    """Number of training images -> rows of the 10,000 that lend their features, or of all if fewer.

    Drawn, since MNIST's order repeats: every second image counts 0 to 9 again and again.
    """
    return np.random.default_rng(0).permutation(num_images)[:NUM_REFERENCE_FEATURES]


def _statistics(classifier, data):
    """-> {field: array} of a metrics.Reference but for the training images.

    The test images set what a copy is.
    """
    features = classifier.features(data.train.images)
    mean, covariance = metrics.statistics(features)
    return {
        "mean": mean,
        "covariance": covariance,
        "histogram": metrics.class_histogram(data.train.labels),
        "features": np.float16(features[reference_rows(len(features))]),
        "copy_distances": metrics.copy_distances(
            data.test.images, data.test.labels, data.train.pixels
        ),
    }


def _save_statistics(statistics, classifier, path):
    with atomic_write(path) as temporary:
        np.savez(temporary, classifier_sha256=np.array(classifier.sha256), **statistics)


def _load_reference(classifier, data, path):
    arrays = unpack(read(path), path)
    _check_owner(path, str(arrays.pop("classifier_sha256", None)), classifier)
    return metrics.Reference(**arrays, training_pixels=data.train.pixels)


def _reference_scores(classifier, data, reference):
    """-> metrics.Scores by name, for what bounds every figure: real images, and noise.

    As good as it gets: the test images. One class lost: those without the last one there is. As
    bad: noise.
    """
    test, last = data.test.images, data.test.labels.max()
    sets = {"real test images": test}
    without = test[data.test.labels != last]
    if len(without) >= _FEWEST:
        info = input_data.identify(data.train.pixels)
        sets[f"real test images without {info.label(last)}"] = without
    sets["uniform noise"] = np.random.default_rng(0).random(test.shape, np.float32)
    return {
        name: metrics.score(*classifier(images), images, reference) for name, images in sets.items()
    }


def _save_scores(reference_scores, classifier, test_accuracy, path):
    content = {
        "classifier_sha256": classifier.sha256,
        "test_accuracy": test_accuracy,
        "reference_scores": {name: each._asdict() for name, each in reference_scores.items()},
    }
    write_json(path, content)


def _load_scores(path):
    """-> the SHA-256 of the classifier, {name: metrics.Scores}, its test accuracy or None."""
    try:
        content = json.loads(read(path))
        scores = content["reference_scores"].items()
        scores = {name: metrics.Scores(**each) for name, each in scores}
        return content["classifier_sha256"], scores, content.get("test_accuracy")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: {error}, wanted reference scores") from error


def _check_owner(path, seen, classifier):
    if seen != classifier.sha256:
        raise UserError(
            f"{path}: belongs to classifier {seen}, wanted classifier {classifier.sha256}"
        )


def _cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "small_gans"


@contextlib.contextmanager
def _locked(folder, log):
    """Holds a folder, made if it is not there; waits, and says so, while another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"Waiting for another process, which is making {folder}.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
