"""Trains small GANs on MNIST, and scores, draws, exports and shows the results.

`python main.py --help` lists the flags, which command_line.py defines. Each mode is a function
here.
"""

import signal
import sys

if __name__ == "__main__":
    if sys.version_info < (3, 10):  # noqa: UP036 - they would print a traceback
        sys.exit(f"main.py: use Python 3.10 to 3.13, not {sys.version.split()[0]}")
    # Until `main` has its own handler, Ctrl-C ends the imports quietly.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import dataclasses
import os
from pathlib import Path

from support import errors
from support.errors import UserError

with errors.imports_of("main.py"):
    import training
    from command_line import FLAGS, define_flags, fail, given, parse
    from models import recipes
    from support import terminal
    from support.files import check_writable
    from training import mpi
    from training.options import RunOptions
    from training.run import RunFolder


def train():
    """Trains a run; returns the exit code."""
    overrides = given(recipes.hyperparameters())
    options = given(dataclasses.fields(RunOptions))
    if FLAGS.summary:
        terminal.import_tensorflow()
        import tensorflow.compat.v1 as tf

        from models import custom_class
        from models.inference import Inference

        recipe = training.recipe_for(FLAGS.recipe, RunOptions(**options), **overrides)
        gan_class = custom_class.load(FLAGS.gan) if FLAGS.gan else None
        with custom_class.user_errors(), tf.Graph().as_default():
            gan = recipes.build_gan(recipe, gan_class)
            custom_class.check(gan, recipe)
            print(Inference(gan).summary())
            gan.session.close()
        return 0
    extra = []
    if FLAGS.eval_every:
        import evaluation

        extra.append(evaluation.scores_every(FLAGS.eval_every))
    _, stopped = training.start(FLAGS.recipe, extra=extra, **options, **overrides)
    return 128 + stopped if stopped else 0


def evaluate():
    """Scores a run; writes metrics.json and report.png."""
    folder = _run_folder()
    import evaluation

    evaluation.evaluate(
        folder.path,
        num_samples=FLAGS.num_samples or 10_000,
        seed=FLAGS.seed,
        truncation=FLAGS.truncation,
        dataset=FLAGS.dataset,
        data_dir=FLAGS.data_dir,
        **_loading(),
    )
    print(f"\nSaved {folder.file('metrics.json')} and {folder.file('report.png')}.")


def sample():
    """Draws samples of a run, or a walk."""
    from generation import sampling

    folder, draws = _run_folder(), FLAGS.interpolate
    if draws and FLAGS.num_samples:
        raise UserError("--num_samples is not valid with --interpolate, which walks between draws")
    names = folder.configuration().label_names()
    labels = None if FLAGS.labels is None else [_label(text, names) for text in FLAGS.labels]
    out = _out() or str(folder.file("walk.gif" if draws else "sampled.png"))
    sampling.check_out(out, bool(draws))
    import generation

    generator = generation.load(folder.path, **_loading())
    options = {"seed": FLAGS.seed, "truncation": FLAGS.truncation, "labels": labels}
    sampling.save(generator, out, draws or FLAGS.num_samples or 100, walk=bool(draws), **options)
    print(f"Saved {out}.")


def export():
    """Makes files for use without this project."""
    folder = _run_folder()
    out = _out() or str(folder.file("export"))
    if Path(out).suffix[1:2].isalpha() and not Path(out).is_dir():
        raise UserError(f"--out must be a folder for --mode=export, got {out}")
    terminal.import_tensorflow()
    from generation.export import export as export_to

    print(f"Saved {', '.join(export_to(folder.path, out, **_loading()))} in {out}.")


def explore():
    """Makes one HTML file that runs the generator."""
    folder = _run_folder()
    out = _out() or str(folder.file("explore.html"))
    terminal.import_tensorflow()
    from generation.explore import explore as explore_to

    explore_to(folder.path, out, **_loading())
    print(f"Saved {out}. Open it in a browser.")


def compare():
    """Puts runs side by side."""
    if not FLAGS.run_dirs:
        raise UserError(f"--mode=compare requires --run_dirs; {_known_runs()}")
    out = _out() or "comparison.png"
    if Path(out).suffix.lower() != ".png":
        raise UserError(f"--out must end in .png, got {out}")
    check_writable(Path(out))
    terminal.import_tensorflow()
    from evaluation import comparison

    gans = [each.strip() for each in FLAGS.gan.split(",")] if FLAGS.gan else []
    comparison.compare(FLAGS.run_dirs, out, FLAGS.seed, gans)
    print(f"\nSaved {out}.")


def _label(text, names):
    if text in names:
        return names.index(text)
    if text not in list("0123456789"):
        raise UserError(
            f"--labels must be labels from 0 to 9, such as 3,7, or names of classes, got {text}"
        )
    return int(text)


def _out():
    return FLAGS.out and os.path.expanduser(FLAGS.out)


def _run_folder():
    """Returns the RunFolder of --run_dir.

    Raises:
      UserError: If it is not a run.
    """
    if not FLAGS.run_dir:
        raise UserError(f"--mode={FLAGS.mode} requires --run_dir; {_known_runs()}")
    folder = RunFolder(FLAGS.run_dir)
    folder.configuration()
    return folder


def _known_runs():
    runs = sorted(str(path.parent) for path in Path("runs").glob("*/config.json"))
    return f"runs: {', '.join(runs)}" if runs else "no runs in runs/"


def _loading():
    return {"checkpoint": FLAGS.checkpoint, "raw": FLAGS.raw, "gan": FLAGS.gan}


FUNCTIONS = {f.__name__: f for f in (train, evaluate, sample, export, explore, compare)}


def main(_):
    """Runs the mode and returns its exit code; errors of the user end in one line."""
    try:
        if (FLAGS.mode != "train" or FLAGS.summary) and mpi.launched_count(os.environ) != 1:
            with mpi.connect().together():
                mode = "--summary" if FLAGS.summary else f"--mode={FLAGS.mode}"
                raise UserError(f"{mode} runs in one process; start it without mpirun")
        with terminal.stoppable():
            code = FUNCTIONS[FLAGS.mode]()
        terminal.check_output()
        return code
    except Exception as error:
        message = errors.user_message(error)
        if message is None:
            raise
        fail(message)


if __name__ == "__main__":
    terminal.open_streams()
    define_flags()
    sys.exit(main(parse(sys.argv)))
