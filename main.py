"""Trains small GANs on MNIST, and uses what was trained.

  python main.py --nlatent=10 --num_steps=50000          train the article's minimal GAN
  python main.py --mode=evaluate --run_dir=runs/minimal  score its samples
  python main.py --mode=sample --run_dir=runs/minimal --out=samples.png
  python main.py --help                                  every flag: unit, range, default

Numbers of a recipe that no flag sets stay as the recipe has them.
"""

import errno
import signal
import sys
from pathlib import Path

import numpy as np
from absl import app, flags

import input_data
import terminal
from errors import UserError
from models import priors, recipes
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
    tuple[int, ...]: flags.DEFINE_multi_integer,
}
_MANY = 10**9
# What a disk or a folder may have against being written to.
_USERS_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


def define_flags():
    """Registers every flag; those of a recipe's numbers follow from the recipe's fields."""
    flags.DEFINE_enum("mode", "train", list(MODES), "what to do")
    flags.DEFINE_integer("seed", 0, "what weights, batches and latents follow from", 0, 2**31 - 1)
    flags.DEFINE_string(
        "run_dir", None,
        "folder of the run (default: for train, one under runs/ named by the recipe and what "
        "overrides it)",
    )  # fmt: skip
    flags.DEFINE_string(
        "data_dir", str(Path(__file__).parent / "MNIST_data"),
        "folder of the four IDX files; what is missing is downloaded into it",
    )  # fmt: skip
    _define_training_flags()
    _define_flags_of_use()


def _define_training_flags():
    flags.DEFINE_enum("recipe", "minimal", list(recipes.RECIPES), "which GAN to train")
    for field in recipes.overridable():
        _FLAG_KINDS[field.type](field.name, None, _help(field))
    flags.DEFINE_integer(
        "checkpoint_every", None,
        "steps between checkpoints (default: 5000; 100 with convolutions)",
        1, _MANY,
    )  # fmt: skip
    flags.DEFINE_integer(
        "image_every", 0, "steps between pictures of the same latents, 0 for none", 0, _MANY
    )
    flags.DEFINE_integer("eval_every", 0, "steps between scores, 0 for none", 0, _MANY)
    flags.DEFINE_boolean("events", True, "write TensorBoard events")
    flags.DEFINE_boolean("new", False, "start afresh; an old run is kept under another name")
    flags.DEFINE_boolean("summary", False, "print the nets' layers and parameters, and end")
    flags.DEFINE_enum(
        "engine", "auto", ["auto", "fused", "step"],
        "fused: blocks of steps in one call, compiled by XLA where that is fast; step: one call "
        "an update; auto: the faster one",
    )  # fmt: skip
    flags.DEFINE_enum(
        "precision", "float32", ["float32", "bfloat16"],
        "of the convolutions' products; bfloat16 needs a CPU with AVX512-BF16 or AMX",
    )  # fmt: skip


def _define_flags_of_use():
    flags.DEFINE_integer(
        "num_samples", None, "samples to take (default: 10,000 to score, 100 to show)", 1, 10**6
    )
    flags.DEFINE_string(
        "out",
        None,
        "file, or folder for export, to write (default: in the run's folder; for compare "
        "comparison.png)",
    )
    flags.DEFINE_float(
        "truncation", None, "greatest latent of a normal prior (default: none)", 0.01, 100
    )
    flags.DEFINE_integer(
        "interpolate", None, "walk through this many draws (default: no walk)", 2, 1000
    )
    flags.DEFINE_boolean("raw", False, "use the weights themselves, not their average")
    flags.DEFINE_string(
        "checkpoint", None, "use checkpoints/NAME.npz, such as best (default: the last step's)"
    )
    flags.DEFINE_list(
        "run_dirs", None, "comma-separated folders of the runs to compare (default: none)"
    )


def _help(field):
    bounds = recipes.bounds_text(field)
    standard = getattr(recipes.get("minimal"), field.name)
    return (
        f"{field.metadata['help']}{f'; {bounds}' if bounds else ''} (default: the recipe's; "
        f"minimal: {'unset' if standard in (None, ()) else standard})"
    )


def mode(*names):
    """Registers a function as the mode of its name, which takes these flags beside --mode."""

    def register(function):
        MODES[function.__name__] = function, {"mode", *names}
        return function

    return register


_NUMBERS = [field.name for field in recipes.overridable()]
_LOADING = ("run_dir", "checkpoint", "raw")


@mode(
    "recipe", "seed", "run_dir", "data_dir", "checkpoint_every", "image_every", "eval_every",
    "events", "new", "summary", "engine", "precision", *_NUMBERS,
)  # fmt: skip
def train():
    """-> exit code."""
    given = {name: FLAGS[name].value for name in _NUMBERS if FLAGS[name].value is not None}
    recipe = recipes.override(recipes.get(FLAGS.recipe), **given)
    if FLAGS.summary:
        return _summary(recipe)
    data = input_data.read_data_sets(FLAGS.data_dir, validation_size=recipe.validation_size)
    if FLAGS.eval_every:
        _mnist_training_pixels(data)
    if recipe.digit is not None:
        train, test = (
            input_data.only_digit(part, recipe.digit) for part in (data.train, data.test)
        )
        data = data._replace(train=train, test=test)
    configuration = Configuration.of(
        FLAGS.recipe, recipe, FLAGS.seed, FLAGS.engine, FLAGS.precision, data.train
    )
    folder = RunFolder(FLAGS.run_dir or Path("runs") / configuration.folder_name())
    with folder.prepared(configuration, new=FLAGS.new, say=print):
        return _train_in(folder, recipe, data)


def _train_in(folder, recipe, data):
    terminal.import_tensorflow()
    from training import trainer

    settings = trainer.Settings(
        FLAGS.seed, FLAGS.engine, FLAGS.precision, FLAGS.checkpoint_every, FLAGS.image_every
    )
    stopped = trainer.train(recipe, data, folder, settings, list(_extra_readers(folder)))
    return 128 + stopped if stopped else 0


def _extra_readers(folder):
    """Yields what `readers.make` takes for the readers that the flags ask for."""
    from training.events import Events

    events = Events(folder) if FLAGS.events else None
    if FLAGS.eval_every:
        from evaluation.monitor import Monitor

        log = events.scalars if events else lambda step, values: None
        yield lambda *run: Monitor(*run, FLAGS.eval_every, log)
    if events:
        yield lambda *run: events


def _mnist_training_pixels(data):
    """Datasets -> uint8 [60000, 784] that the judge compares with; UserError for other images."""
    pixels = np.concatenate([data.validation.pixels, data.train.pixels])
    if not input_data.is_mnist(pixels):
        raise UserError(
            f"--data_dir={FLAGS.data_dir} is not MNIST: the judge knows its digits alone, so there "
            "are no scores for other images"
        )
    return pixels


def _summary(recipe):
    terminal.import_tensorflow()
    from models import summary

    print(summary.of_recipe(recipe))


@mode("seed", "data_dir", "num_samples", *_LOADING)
def evaluate():
    """Scores a run."""
    folder = _run_folder()
    real = _mnist_training_pixels(input_data.read_data_sets(FLAGS.data_dir))
    terminal.import_tensorflow()
    from evaluation import report

    print(report.evaluate(folder, real, FLAGS.num_samples or 10_000, FLAGS.seed, **_loading()))
    print(f"\nWritten: {folder.file('metrics.json')} and {folder.file('report.png')}.")


@mode("seed", "num_samples", "out", "truncation", "interpolate", *_LOADING)
def sample():
    """Draws samples of a run, or a walk."""
    import sampling

    folder, draws = _run_folder(), FLAGS.interpolate
    if draws and FLAGS.num_samples:
        raise UserError("--num_samples: --interpolate walks between draws, give one of the two")
    out = FLAGS.out or str(folder.file("walk.gif" if draws else "sampled.png"))
    take = sampling.walk(out, draws) if draws else sampling.sample(out, FLAGS.num_samples or 100)
    if FLAGS.truncation is not None:
        prior = folder.configuration().full_recipe().prior
        priors.get(prior).check_truncation(FLAGS.truncation)
    terminal.import_tensorflow()
    import trained

    take(trained.load(folder.path, **_loading()), FLAGS.seed, FLAGS.truncation)
    print(f"Written: {out}.")


@mode("out", *_LOADING)
def export():
    """Makes files for use without this project."""
    folder = _run_folder()
    out = FLAGS.out or str(folder.file("export"))
    terminal.import_tensorflow()
    from export import export as export_to

    print(f"Written: {', '.join(export_to(folder.path, out, **_loading()))} in {out}.")


@mode("run_dirs", "out", "seed")
def compare():
    """Lays runs side by side."""
    if not FLAGS.run_dirs:
        raise UserError(f"--mode=compare wants --run_dirs=A,B,...; {_known_runs()}")
    folders = [RunFolder(path) for path in FLAGS.run_dirs]
    for folder in folders:
        folder.configuration()
    out = FLAGS.out or "comparison.png"
    if Path(out).suffix.lower() != ".png":
        raise UserError(f"--out={out}: wanted a name that ends in .png")
    terminal.import_tensorflow()
    from evaluation import comparison

    print(comparison.compare([folder.path for folder in folders], out, FLAGS.seed))
    print(f"\nWritten: {out}.")


def _run_folder():
    """--run_dir -> the RunFolder of a run; UserError if there is none."""
    if not FLAGS.run_dir:
        raise UserError(f"--mode={FLAGS.mode} wants --run_dir; {_known_runs()}")
    folder = RunFolder(FLAGS.run_dir)
    folder.configuration()
    return folder


def _known_runs():
    runs = sorted(str(path.parent) for path in Path("runs").glob("*/config.json"))
    return f"there are {', '.join(runs)}" if runs else "there is none under runs/ yet"


def _loading():
    return {"checkpoint": FLAGS.checkpoint, "raw": FLAGS.raw}


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
    function, taken = MODES[FLAGS.mode]
    try:
        _check_taken(taken)
        with terminal.on_stop(terminal.interrupt):
            return function()
    except UserError as error:
        _fail(error)
    except OSError as error:
        if error.errno not in _USERS_ERRNOS:
            raise
        _fail(f"{error.filename or 'cannot write'}: {error.strerror}")
    except KeyboardInterrupt as stop:
        terminal.leave(*stop.args or [signal.SIGINT])


def _check_taken(taken):
    """UserError for a flag that was given but means nothing in this mode."""
    for name in sorted(set().union(*(names for _, names in MODES.values()))):
        if FLAGS[name].present and name not in taken:
            modes = [mode for mode, (_, names) in MODES.items() if name in names]
            raise UserError(f"--{name} goes with --mode={' or '.join(modes)}, not {FLAGS.mode}")


def _fail(message):
    print(f"main.py: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    define_flags()
    app.run(main, flags_parser=parse)
