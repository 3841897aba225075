"""Trains small GANs on MNIST, and scores, draws, exports and shows what was trained.

`python main.py --help` lists the flags, which command_line.py defines. Each mode is a
function here.
"""

import signal

if __name__ == "__main__":  # until `main` has its own handler: Ctrl-C ends the imports in silence
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys
from pathlib import Path

from command_line import FLAGS, check_taken, define_flags, fail, parse
from models import hyperparameters, priors
from support import errors, terminal
from support.errors import UserError
from support.files import check_is_for_a_file
from training import job
from training.run_folder import RunFolder

_HYPERPARAMETERS = [field.name for field in hyperparameters.overridable()]
_JOB = (
    "run_dir", "seed", "dataset", "data_dir", "engine", "precision", "checkpoint_every",
    "image_every", "events", "new", "group_timeout",
)  # fmt: skip


def train():
    """-> exit code."""
    gan, given = _only_gan(), _given_hyperparameters()
    if FLAGS.summary:
        return _summary(job.recipe_for(FLAGS.recipe, gan, FLAGS.engine, **given), gan)
    _, stopped = job.run(
        FLAGS.recipe,
        **{name: FLAGS[name].value for name in _JOB},
        gan=gan,
        extra=_extra_callbacks(),
        **given,
    )
    return 128 + stopped if stopped else 0


def _given_hyperparameters():
    """-> {name: value} of the hyper-parameters that flags replace."""
    return {name: FLAGS[name].value for name in _HYPERPARAMETERS if FLAGS[name].value is not None}


def _only_gan():
    """-> the one --gan, or None."""
    if FLAGS.gan and len(FLAGS.gan) > 1:
        raise UserError(f"--gan={FLAGS.gan[1]}: a run has one class, give --gan once")
    return FLAGS.gan[0] if FLAGS.gan else None


def _extra_callbacks():
    """Yields functions of a `callbacks.Run` for the callbacks that the flags ask for."""
    if FLAGS.eval_every:
        import evaluation

        yield evaluation.scores_every(FLAGS.eval_every, FLAGS.dataset, FLAGS.data_dir)


def _summary(recipe, gan):
    terminal.import_tensorflow()
    from models import custom_class, summary

    with custom_class.user_errors(gan and custom_class.parse(gan)[0]):
        print(summary.of_recipe(recipe, gan and custom_class.load(gan).gan_class))


def evaluate():
    """Scores a run; writes metrics.json and report.png."""
    folder = _run_folder()
    import evaluation

    evaluation.evaluate(
        folder.path,
        num_samples=FLAGS.num_samples or 10_000,
        seed=FLAGS.seed,
        dataset=FLAGS.dataset,
        data_dir=FLAGS.data_dir,
        **_loading(),
    )
    print(f"\nWritten: {folder.file('metrics.json')} and {folder.file('report.png')}.")


def sample():
    """Draws samples of a run, or a walk."""
    from generation import sampling

    folder, draws = _run_folder(), FLAGS.interpolate
    if draws and FLAGS.num_samples:
        raise UserError("--num_samples and --interpolate exclude each other; omit one of them")
    out = FLAGS.out or str(folder.file("walk.gif" if draws else "sampled.png"))
    sampling.check_out(out, sampling.WALK_SUFFIXES if draws else sampling.SAMPLE_SUFFIXES)
    options = {"seed": FLAGS.seed, "truncation": FLAGS.truncation, "labels": _labels()}
    if FLAGS.truncation is not None:
        prior = folder.configuration().full_recipe().prior
        priors.get(prior).check_truncation(FLAGS.truncation)
    import generation

    generator = generation.load(folder.path, **_loading())
    if draws:
        sampling.save_walk(generator, out, draws, **options)
    else:
        sampling.save_samples(generator, out, FLAGS.num_samples or 100, **options)
    print(f"Written: {out}.")


def export():
    """Makes files for use without this project."""
    folder = _run_folder()
    out = FLAGS.out or str(folder.file("export"))
    terminal.import_tensorflow()
    from generation.export import export as export_to

    print(f"Written: {', '.join(export_to(folder.path, out, **_loading()))} in {out}.")


def explore():
    """Makes one HTML file that runs the generator."""
    folder = _run_folder()
    out = FLAGS.out or str(folder.file("explore.html"))
    terminal.import_tensorflow()
    from generation.explore import explore as explore_to

    explore_to(folder.path, out, **_loading())
    print(f"Written: {out}. Open it in a browser.")


def compare():
    """Lays runs side by side."""
    if not FLAGS.run_dirs:
        raise UserError(f"--mode=compare wants --run_dirs=A,B,...; {_known_runs()}")
    if not all(FLAGS.run_dirs):
        raise UserError(f"--run_dirs={','.join(FLAGS.run_dirs)}: one of its names is empty")
    folders = [RunFolder(path) for path in FLAGS.run_dirs]
    for folder in folders:
        folder.configuration()
    out = FLAGS.out or "comparison.png"
    if Path(out).suffix.lower() != ".png":
        raise UserError(f"--out={out}: wanted a name that ends in .png")
    check_is_for_a_file(Path(out))
    terminal.import_tensorflow()
    from evaluation import comparison

    comparison.compare([folder.path for folder in folders], out, FLAGS.seed, FLAGS.gan or ())
    print(f"\nWritten: {out}.")


def _labels():
    """--labels=3,7 -> [3, 7], None where it is not given; UserError for what is no label."""
    if FLAGS.labels is None:
        return None
    if not FLAGS.labels or not all(each in list("0123456789") for each in FLAGS.labels):
        raise UserError(f"--labels={','.join(FLAGS.labels)}: wanted labels from 0 to 9, as in 3,7")
    return [int(each) for each in FLAGS.labels]


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
    return {"checkpoint": FLAGS.checkpoint, "raw": FLAGS.raw, "gan": _only_gan()}


FUNCTIONS = {f.__name__: f for f in (train, evaluate, sample, export, explore, compare)}


def main(_):
    """Runs the mode; -> its exit code. What the user got wrong ends in one line."""
    try:
        check_taken(FLAGS.mode)
        with terminal.stoppable():
            code = FUNCTIONS[FLAGS.mode]()
        terminal.check_output()
        return code
    except Exception as error:
        told = errors.user_message(error)
        if told is None:
            raise
        fail(told, getattr(error, "exit_code", 1))


if __name__ == "__main__":
    terminal.open_streams()
    define_flags()
    sys.exit(main(parse(sys.argv)))
