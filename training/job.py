"""A training job: from a recipe's name and what differs from it to a trained run folder."""

import os
from pathlib import Path
from typing import NamedTuple

import input_data
from models import custom_class, hyperparameters, recipes
from support import terminal
from support.errors import UserError
from training import cluster
from training.configuration import Configuration
from training.group import TIMEOUT, group_of
from training.run_folder import RunFolder

ENGINES = ("auto", "fused", "step")
PRECISIONS = ("float32", "bfloat16")
HIGHEST_SEED = 2**31 - 1


def train(recipe="minimal", **options):
    """Trains as `python main.py` does; -> the run's folder, which `generation.load` takes.

    recipe: a name in `models.recipes.RECIPES`. options: those of `run`, and hyper-parameters to
    replace; each is named as the flag of `python main.py --help` that it stands for.
    A run of these very options that is there already goes on, or is left as it is if it is done.
    Raises UserError, one line, for what cannot be used, and KeyboardInterrupt where training was
    interrupted: the same call goes on from there.
    """
    folder, stopped = run(recipe, **options)
    if stopped:
        raise KeyboardInterrupt
    return folder


def run(
    name,
    *,
    run_dir=None,
    seed=0,
    gan=None,
    dataset=None,
    data_dir=None,
    engine="auto",
    precision="float32",
    checkpoint_every=None,
    image_every=0,
    events=True,
    new=False,
    group_timeout=TIMEOUT,
    extra=(),
    log=print,
    **hyper,
):
    """-> (the run's folder, the signal that stopped it or None).

    run_dir: None for a folder under runs/ named by recipe and options. gan: `FILE.py:CLASS` in the
    place of the recipe's class. dataset: one of `input_data.DATASETS`, downloaded if it is not in
    data_dir; None for what is there, and MNIST where nothing is. new: start afresh; an old run is
    kept under another name. group_timeout: seconds for the processes of TF_CONFIG to come together,
    of which all but the chief have no run folder. extra: further callbacks, functions of a
    `callbacks.Run`. log: takes lines for the user.
    hyper: of the recipe.
    """
    _check_choices(engine=(engine, ENGINES), precision=(precision, PRECISIONS),
                   dataset=(dataset or "mnist", tuple(input_data.DATASETS)))  # fmt: skip
    _check_seed(seed)
    _check_at_least(checkpoint_every=(checkpoint_every, 1), image_every=(image_every, 0),
                    group_timeout=(group_timeout, 1))  # fmt: skip
    recipe = recipe_for(name, gan, engine, log, **hyper)
    recipe, images, info = _with_images(recipe, dataset, data_dir, hyper, log)
    machines = cluster.from_environment(os.environ)
    cluster.check(machines, recipe, precision)
    configuration = Configuration.of(
        name, recipe, seed, engine, precision, images.train, gan, info.name, machines.size
    )
    group = group_of(machines, configuration.facts(), timeout=group_timeout, log=log)
    way = _Way(seed, engine, precision, checkpoint_every, image_every, gan)
    if not machines.is_chief:
        return None, way.follow(recipe, images, group, log)
    folder = RunFolder(run_dir or Path("runs") / configuration.folder_name())
    with folder.prepared(configuration, new=new, log=log):
        return folder.path, way.train(recipe, images, folder, group, events, extra, log)


def _with_images(recipe, dataset, data_dir, given, log):
    """-> the recipe, the Datasets that it trains on, and their DataSetInfo.

    Of few images none are set aside, unless `given` says how many.
    """
    images, info = input_data.load(dataset, data_dir)
    count = images.train.num_examples
    if "validation_size" not in given and count < 2 * recipe.validation_size:
        recipe = hyperparameters.override(recipe, validation_size=0)
        log(f"Note: none of the {count:,} images are set aside (--validation_size=0).")
    return recipe, input_data.select(images, recipe.validation_size, recipe.digit), info


class _Way(NamedTuple):
    """How a job is carried out: the fields of `trainer.Settings`, a class of one's own by name."""

    seed: int
    engine: str
    precision: str
    checkpoint_every: int | None
    image_every: int
    gan: str | None

    def train(self, recipe, images, folder, group, events, extra, log):
        """Trains in a run folder, as the chief of a Group or Alone."""
        terminal.import_tensorflow()
        from training import trainer
        from training.events import Events

        callbacks = [*([Events] if events else []), *extra]
        with (
            self._user_errors(),
            group.formed(lambda: folder.is_finished(recipe.num_steps)) as there,
        ):
            return trainer.train(recipe, images, folder, self._settings(), callbacks, log, there)

    def follow(self, recipe, images, group, log):
        """Trains as one of the chief's workers."""
        terminal.import_tensorflow()
        from training import trainer

        with self._user_errors(), group.formed():
            trainer.follow(recipe, images, self._settings(), group, log)

    def _user_errors(self):
        return custom_class.user_errors(self.gan and custom_class.parse(self.gan)[0])

    def _settings(self):
        from training import trainer

        gan_class = self.gan and custom_class.load(self.gan).gan_class
        return trainer.Settings(*self[:-1], gan_class)


def recipe_for(name, gan=None, engine="auto", log=print, **hyper):
    """-> the Recipe of a name with hyper-parameters replaced, as a class `gan` is trained by it.

    UserError for a hyper-parameter that the class's own train ops have no place for.
    """
    recipe = hyperparameters.override(recipes.get(name), **hyper)
    if not gan:
        recipes.check_takes_labels(recipe)
    if recipe.conditional and recipe.held_out:
        raise UserError("--conditional: not with --held_out, which knows no labels; leave it at 0")
    if not gan or engine == "fused":
        return recipe
    for each in hyperparameters.UPDATE_FIELDS:
        if each in hyper:
            raise UserError(
                f"--{each} has no effect on the train ops of a class of your own: leave it out, or "
                "let this project's updates train its networks, --engine=fused"
            )
    recipe, lost = hyperparameters.without_updates(recipe)
    if lost:
        log(
            f"Note: the class's own train ops know nothing of {', '.join(lost)} of the recipe "
            f"{name}; with --engine=fused it is trained by them."
        )
    return recipe


def _check_choices(**choices):
    """UserError for an option {name: (value, choices)} whose value is none of its choices."""
    for name, (value, known) in choices.items():
        if value not in known:
            raise UserError(f"--{name}={value}: wanted one of {', '.join(known)}")


def _check_at_least(**options):
    """UserError for an option {name: (value or None, the least)} that is below it."""
    for name, (value, least) in options.items():
        if value is not None and not value >= least:
            raise UserError(f"--{name}={value}: wanted at least {least}")


def _check_seed(seed):
    if not (isinstance(seed, int) and 0 <= seed <= HIGHEST_SEED):
        raise UserError(f"--seed={seed}: wanted a whole number from 0 to {HIGHEST_SEED}")
