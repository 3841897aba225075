"""Small trainings: an engine on a few images, and `main.py` in this process."""

import contextlib
import io
import subprocess
import sys

import numpy as np
import tensorflow.compat.v1 as tf
from absl.testing import flagsaver

import main as program
from models import recipes
from models.inference import Inference
from training.batches import Batches
from training.engines import FusedEngine, StepEngine
from training.loop import make_engine
from training.options import RunOptions
from training.updates import Updates

SEED = 3
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 784), np.uint8)
LABELS = np.arange(64) % 10


@contextlib.contextmanager
def assembled(
    recipe, engine="step", *, seed=SEED, pixels=PIXELS, gan_class=None, log=print, **options
):
    """Context manager for an engine, whose graph is the default one.

    Args:
      engine: `auto`, `step`, `fused`, `fused without XLA`, or `our updates` in the step engine,
        also of a custom class.
      **options: Further fields of RunOptions.
    """
    batches = Batches(recipe, pixels, seed, np.resize(LABELS, len(pixels)))
    with tf.Graph().as_default():
        if engine in ("fused without XLA", "our updates"):
            tf.set_random_seed(seed)
            gan = recipes.build_gan(recipe, gan_class)
            updates = Updates(gan, recipe, seed)
            if engine == "our updates":
                updates.install()
                built = StepEngine(gan, batches)
            else:
                built = FusedEngine(updates, batches, jit=False)
            gan.session.close()
        else:
            gan = gan_class and f"{gan_class.__module__}.py:{gan_class.__name__}"
            options = RunOptions(seed=seed, engine=engine, gan=gan, **options)
            built = make_engine(recipe, batches, options, gan_class, log=log)
        yield built
        built.session.close()


def progress(engine, *spans):
    """Trains those spans (start, stop); returns the list of Progress."""
    return [p for span in spans for block in engine.train(*span) for p in block]


def trained(recipe, steps, engine="step", **options):
    """Trains from the start; returns the list of Progress and the state at the end."""
    with assembled(recipe, engine, **options) as built:
        return progress(built, (0, steps)), built.state()


def changed(before, after):
    """Returns the names under which two states differ in at least one bit."""
    assert before.keys() == after.keys()
    return {name for name in before if before[name].tobytes() != after[name].tobytes()}


def generate(engine, z):
    """Returns images by the average of G's weights, if one is kept."""
    inference = Inference(engine.gan)
    inference.load(engine.state())
    images = inference.generate(z)
    inference.session.close()
    return images


def update(engine, network, x, z, rate=1e-3):
    """Runs one update of a network; returns its loss before."""
    gan = engine.gan
    ops = {
        "discriminator": [gan.d_loss, gan.d_optimizer],
        "generator": [gan.g_loss, gan.g_optimizer],
    }
    feed = {gan.x_placeholder: x, gan.z_placeholder: z, gan.learning_rate_placeholder: rate}
    return engine.session.run(ops[network], feed)[0]


def main(*flags):
    """Runs main.py in this process; returns its exit code, stdout and stderr."""
    if "mode" not in program.FLAGS:
        program.define_flags()
    out, err = io.StringIO(), io.StringIO()
    with flagsaver.flagsaver(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = program.main(program.parse(["main.py", *map(str, flags)])) or 0
        except SystemExit as end:
            code = end.code or 0
    return code, out.getvalue(), err.getvalue()


def python(*words, **options):
    """Runs Python in another process, which must succeed; returns its stdout."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout
