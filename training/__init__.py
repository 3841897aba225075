"""Training: recipes, updates, engines, run folders and the loop that joins them.

path = training.train("minimal", num_steps=20_000)    # like `python main.py`; the run's folder
"""

import contextlib
import dataclasses
import os
from pathlib import Path

import input_data
from models import custom_class, recipes
from support import terminal
from support.errors import UserError
from training import mpi
from training.options import RunOptions, check_precision
from training.run import Configuration, RunFolder


def train(recipe: str = "minimal", **options) -> Path:
    """Trains a run, like `python main.py`, or resumes it if it exists.

    Args:
      recipe: a name in `models.recipes.RECIPES`.
      **options: arguments of `run`, named like the flags of `python main.py --help`.

    Returns:
      The run's folder, for `generation.load`.

    Raises:
      UserError: one line about what cannot be used.
      KeyboardInterrupt: training was interrupted; the same call resumes it.
    """
    path, stopped = run(recipe, **options)
    if stopped:
        raise KeyboardInterrupt
    return path


def run(name: str, *, extra=(), log=print, **options) -> tuple[Path, int | None]:
    """Trains a run.

    Args:
      name: the recipe's name.
      extra: functions of a `callbacks.Run` that each return a further callback.
      log: function of a line for the user.
      **options: fields of `RunOptions`, and hyperparameters to override.

    Returns:
      The run's folder, and the signal that stopped the training or None.
    """
    ranks = mpi.connect()
    if not ranks.is_chief:
        log = lambda line: None  # noqa: E731
    with ranks.together(), contextlib.ExitStack() as stack:
        for key in ("run_dir", "data_dir"):
            if isinstance(options.get(key), os.PathLike):
                options[key] = os.fspath(options[key])
        fields = {field.name for field in dataclasses.fields(RunOptions)}
        overrides = {key: value for key, value in options.items() if key not in fields}
        options = RunOptions(**{key: value for key, value in options.items() if key in fields})
        recipe = recipe_for(name, options.gan, options.engine, log, **overrides)
        check_precision(options.precision, recipe)
        ranks.check(recipe)
        with ranks.chief_first():
            images, info = input_data.load(options.dataset, options.data_dir)
        count = images.train.num_examples
        if "validation_size" not in overrides and count < 2 * recipe.validation_size:
            recipe = dataclasses.replace(recipe, validation_size=0)
            log(f"Note: none of the {count:,} images are held out for validation.")
        images = input_data.select(images, recipe.validation_size, recipe.digit)
        configuration = Configuration.of(
            name, recipe, options, images.train, info.name, workers=ranks.count
        )
        ranks.check_same(configuration.facts())
        folder = RunFolder(options.run_dir or Path("runs") / configuration.folder_name())
        if ranks.is_chief:
            stack.enter_context(folder.open_for_training(configuration, new=options.new, log=log))
        terminal.import_tensorflow()
        from training.loop import train as train_run  # imports TensorFlow

        if options.events and ranks.is_chief:
            from training.events import Events

            extra = [Events, *extra]
        with custom_class.user_errors(options.gan and custom_class.parse(options.gan)[0]):
            stopped = train_run(recipe, images, folder, options, ranks=ranks, extra=extra, log=log)
    return folder.path, stopped


def recipe_for(name, gan=None, engine="auto", log=print, **overrides):
    """Returns the recipe of a run, as the class `gan` is trained by it.

    Raises:
      UserError: an override that the recipe does not allow, or that a custom class's own train ops
        would ignore.
    """
    recipe = recipes.override(recipes.get(name), **overrides)
    if not gan:
        recipes.check_has_conditional_form(recipe)
    if not gan or engine == "fused":
        return recipe
    for each in recipes.UPDATE_FIELDS:
        if each in overrides:
            raise UserError(
                f"--{each} has no effect on the train ops of a custom class; omit it, or train the "
                "class with this project's updates, --engine=fused"
            )
    recipe, ignored = recipes.without_update_fields(recipe)
    if ignored:
        log(
            f"Note: the class's own train ops ignore {', '.join(ignored)} of the recipe {name}; "
            "--engine=fused trains it with them."
        )
    return recipe


def build(recipe: str, seed: int = 0, **overrides):
    """Builds a recipe's Gan, with the recipe's losses and train ops, in the default graph.

    The default graph should be a new one: the seed of the weights is the graph's.

    Args:
      recipe: a name in `models.recipes.RECIPES`.
      seed: random seed.
      **overrides: hyperparameters to replace.
    """
    import tensorflow.compat.v1 as tf

    from training.updates import Updates

    recipe = recipes.override(recipes.get(recipe), **overrides)
    tf.set_random_seed(seed)
    gan = recipes.build_gan(recipe)
    before = {variable.name for variable in tf.global_variables()}
    Updates(gan, recipe, seed).install()
    new = [variable for variable in tf.global_variables() if variable.name not in before]
    gan.session.run(tf.variables_initializer(new))
    return gan
