"""Training: recipes, updates, engines, run folders and the loop that joins them.

path = training.train("minimal", num_steps=20_000)    # like `python main.py`; the run's folder
"""

import contextlib
import dataclasses
from pathlib import Path

import input_data
from models import custom_class, recipes
from support import terminal
from support.errors import UserError
from support.tf import tf
from training import mpi
from training.options import Configuration, RunOptions, check_precision
from training.run import RunFolder


def train(recipe: str = "minimal", **options) -> Path:
    """Trains a run, like `python main.py`, or resumes it if it exists.

    Args:
      recipe: A name in `models.recipes.RECIPES`.
      **options: Arguments of `start`, named like the flags of `python main.py --help`.

    Returns:
      The run's folder, for `generation.load`.

    Raises:
      UserError: If a value, file or folder cannot be used; the message is one line.
      KeyboardInterrupt: If training was interrupted; the same call resumes it.
    """
    path, stopped = start(recipe, **options)
    if stopped:
        raise KeyboardInterrupt(stopped)
    return path


def start(name: str, *, extra=(), log=print, **values) -> tuple[Path, int | None]:
    """Starts or resumes a run, and trains it until its end or a signal.

    Args:
      name: The recipe's name.
      extra: Functions of a `callbacks.Context` that each return a further callback.
      log: Function of a line for the user.
      **values: Fields of `RunOptions`, and hyperparameters to override.

    Returns:
      The run's folder, and the signal that stopped the training or None.
    """
    fields = [field.name for field in dataclasses.fields(RunOptions)]
    ranks = mpi.connect()
    if not ranks.is_chief:
        log = lambda line: None  # noqa: E731
    with ranks.together(), contextlib.ExitStack() as stack:
        values = {key: recipes.plain_value(value) for key, value in values.items()}
        options = RunOptions(**{key: value for key, value in values.items() if key in fields})
        overrides = {key: value for key, value in values.items() if key not in fields}
        recipe = recipe_for(name, options, log, **overrides)
        check_precision(options.precision)
        images, info = input_data.load(
            options.dataset, options.data_dir, invert=options.invert, log=log
        )
        count = images.train.num_examples
        if "validation_size" not in overrides and count < 2 * recipe.validation_size:
            recipe = dataclasses.replace(recipe, validation_size=0)
            log(f"Note: none of the {count:,} images are held out for validation.")
        images = input_data.select(images, recipe.validation_size, recipe.digit)
        configuration = Configuration.of(
            name, recipe, options, images.train, info, workers=ranks.count
        )
        ranks.check_run(configuration)
        folder = RunFolder(options.run_dir or Path("runs") / configuration.folder_name())
        if ranks.is_chief:
            stack.enter_context(folder.open_for_training(configuration, new=options.new, log=log))

        terminal.import_tensorflow()
        from training import loop

        gan_class = None
        if options.gan:
            gan_class = custom_class.load(options.gan)
            stack.enter_context(custom_class.user_errors())
        stopped = loop.train(
            recipe, images, folder, options, gan_class, ranks=ranks, extra=extra, log=log
        )
    return folder.path, stopped


def recipe_for(name, options, log=print, **overrides):
    """Returns the recipe of a run, as a custom class is trained by it.

    Args:
      name: The recipe's name.
      options: `RunOptions`.
      log: Function of a line for the user.
      **overrides: Hyperparameters to replace.

    Raises:
      UserError: For an override that the recipe does not allow, or that a custom class's own train
        ops would ignore.
    """
    standard = recipes.get(name)
    recipe = recipes.override(standard, **overrides)
    if options.gan and recipe.loss != standard.loss:
        raise UserError(
            f"--loss={recipe.loss} would replace the losses of the custom class; omit it"
        )
    if standard.label_smoothing > recipe.label_smoothing and "label_smoothing" not in overrides:
        log(f"Note: --loss={recipe.loss} has no targets; {name}'s label smoothing is not used.")
    if recipe.loss == "wasserstein" and not (recipe.weight_clip or recipe.gradient_penalty):
        log(
            "Warning: --loss=wasserstein can only learn if D's slope is bounded; add "
            "--gradient_penalty=10 or --weight_clip=0.01."
        )
    if not options.gan:
        recipes.check_has_conditional_form(recipe)
    if not options.own_train_ops:
        return recipe
    for field in recipes.hyperparameters(recipes.UPDATES):
        if field.name in overrides:
            raise UserError(
                f"--{field.name} has no effect on the train ops of a custom class; omit it, or "
                "train the class with this project's updates, --engine=fused"
            )
    recipe, ignored = recipes.without_update_fields(recipe)
    if ignored:
        log(
            f"Note: the class's own train ops ignore {', '.join(ignored)} of the recipe {name}; "
            "--engine=fused trains it with them."
        )
    return recipe


def build(name: str, seed: int = 0, **overrides):
    """Builds a recipe's Gan with its losses and train ops in the default graph.

    The default graph should be a new one: the seed of the weights is the graph's.

    Args:
      name: A name in `models.recipes.RECIPES`.
      seed: Random seed.
      **overrides: Hyperparameters to replace.
    """
    from training.updates import Updates

    recipe = recipes.override(recipes.get(name), **overrides)
    tf.set_random_seed(seed)
    gan = recipes.build_gan(recipe)
    before = len(tf.global_variables())
    Updates(gan, recipe, seed).install()
    gan.session.run(tf.variables_initializer(tf.global_variables()[before:]))
    return gan
