"""Which images a run learns from, and where they are."""

from pathlib import Path

import input_data
from support.errors import UserError

_PROJECT = Path(__file__).parent.parent


def folder_of(dataset, data_dir=None):
    """-> the folder of a data set's four files: `data_dir` where it is given.

    Else MNIST_data in the project's folder, also for None, or data/NAME in the current one.
    """
    if data_dir:
        return str(data_dir)
    return str(_PROJECT / "MNIST_data") if dataset in (None, "mnist") else f"data/{dataset}"


def read(dataset, data_dir=None):
    """-> the Datasets in that folder, of which nothing is set aside, and their DataSetInfo.

    What is missing of `dataset`, of MNIST for None, is downloaded into it.
    """
    folder = folder_of(dataset, data_dir)
    images = input_data.read_data_sets(folder, validation_size=0, dataset=dataset or "mnist")
    return images, input_data.identify(images.train.pixels)


def read_named(dataset, data_dir=None):
    """As `read`; UserError where the folder holds others than those of a `dataset` given here."""
    images, info = read(dataset, data_dir)
    if dataset not in (None, info.name):
        there = info.title if info.name else "other images"
        raise UserError(f"--dataset={dataset}: {folder_of(dataset, data_dir)} holds {there}")
    return images, info


def of_recipe(recipe, images):
    """Datasets -> those that a recipe trains on: some set aside, one label alone if it says so."""
    images = input_data.split_validation(images, recipe.validation_size)
    if recipe.digit is None:
        return images
    parts = (input_data.only_digit(part, recipe.digit) for part in (images.train, images.test))
    train, test = parts
    return images._replace(train=train, test=test)
