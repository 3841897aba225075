"""Trains small GANs on MNIST, and uses what was trained.

  python main.py --nlatent=10 --num_steps=50000     the article's minimal GAN
  python main.py --help                             every flag, with its range and default

Numbers of a recipe that no flag sets stay as the recipe has them.
"""

import sys
from pathlib import Path

from absl import app, flags

import input_data
import terminal
from errors import UserError
from models import recipes
from training.configuration import Configuration
from training.run_folder import RunFolder

FLAGS = flags.FLAGS
MODES = {}

_FLAG_KINDS = {
    int: flags.DEFINE_integer,
    int | None: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    float | None: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
    str: flags.DEFINE_string,
}


def define_flags():
    """Registers every flag; those of a recipe's numbers follow from the recipe's fields."""
    flags.DEFINE_enum("mode", "train", list(MODES), "what to do")
    flags.DEFINE_enum("recipe", "minimal", list(recipes.RECIPES), "which GAN to train")
    for field in recipes.overridable():
        _FLAG_KINDS[field.type](field.name, None, _help(field))
    flags.DEFINE_integer("seed", 0, "what weights, batches and latents follow from", 0, 2**31 - 1)
    flags.DEFINE_string(
        "data_dir", str(Path(__file__).parent / "MNIST_data"),
        "folder of the four IDX files; what is missing is downloaded into it",
    )  # fmt: skip
    flags.DEFINE_string(
        "run_dir", None,
        "folder of the run (default: one under runs/ named by the recipe and what overrides it)",
    )  # fmt: skip
    flags.DEFINE_integer("checkpoint_every", 5000, "steps between checkpoints", 1, 10**9)
    flags.DEFINE_integer(
        "image_every", 0, "steps between pictures of the same latents, 0 for none", 0, 10**9
    )
    flags.DEFINE_boolean("new", False, "start afresh; an old run is kept under another name")
    flags.DEFINE_enum(
        "engine", "auto", ["auto", "fused", "step"],
        "fused: blocks of steps in one call, compiled by XLA where that is fast; step: one call "
        "an update; auto: the faster one",
    )  # fmt: skip


def _help(field):
    bounds = recipes.bounds_text(field)
    return f"{field.metadata['help']}{f'; {bounds}' if bounds else ''} (default: the recipe's)"


def chosen_recipe():
    """The flags -> the recipe with what they override."""
    given = {
        field.name: FLAGS[field.name].value
        for field in recipes.overridable()
        if FLAGS[field.name].value is not None
    }
    return recipes.override(recipes.get(FLAGS.recipe), **given)


def train():
    """--mode=train; -> exit code."""
    recipe = chosen_recipe()
    data = input_data.read_data_sets(FLAGS.data_dir, validation_size=recipe.validation_size)
    if recipe.digit is not None:
        data = data._replace(train=input_data.only_digit(data.train, recipe.digit))
    configuration = Configuration.of(FLAGS.recipe, recipe, FLAGS.seed, FLAGS.engine, data.train)
    folder = RunFolder(FLAGS.run_dir or Path("runs") / configuration.folder_name())
    with folder.prepared(configuration, new=FLAGS.new, say=print):
        return _train_in(folder, recipe, data)


def _train_in(folder, recipe, data):
    terminal.import_tensorflow()
    from training import trainer

    settings = trainer.Settings(FLAGS.seed, FLAGS.engine, FLAGS.checkpoint_every, FLAGS.image_every)
    stopped = trainer.train(recipe, data, folder, settings)
    return 128 + stopped if stopped else 0


MODES["train"] = train


def parse(argv):
    """argv -> its positional words; a wrong flag ends the program with one line."""
    try:
        rest = FLAGS(argv)
    except flags.Error as error:
        _fail(f"{error}. See python main.py --help")
    except SystemExit:
        sys.exit(0)  # absl has shown the help that was asked for, which it counts as a failure
    if len(rest) > 1:
        _fail(f"{rest[1]}: no such argument, every option is a flag. See python main.py --help")
    return rest


def main(_):
    """Runs the mode; what the user got wrong ends in one line."""
    try:
        with terminal.on_stop(terminal.interrupt):
            return MODES[FLAGS.mode]()
    except UserError as error:
        _fail(error)
    except KeyboardInterrupt as stop:
        terminal.leave(*stop.args)


def _fail(message):
    print(f"main.py: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    define_flags()
    app.run(main, flags_parser=parse)
