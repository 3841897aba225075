"""Trains a run: builds the graph, then runs the loop."""

import contextlib
import itertools
import math
import signal
import time

import numpy as np
import tensorflow.compat.v1 as tf

from models import custom_class, recipes, summary
from models.inference import Inference
from support.errors import RunError, UserError
from support.files import write_json
from support.terminal import Bar, on_stop
from training import mpi
from training.batches import Batches
from training.callbacks import Callbacks, Run, make_callbacks
from training.engines import FusedEngine, StepEngine, has_convolutions
from training.own_updates import differ_from_ours
from training.run import digest
from training.schedule import learning_rates
from training.updates import Updates

_PRETRAINING_TEST_IMAGES = 512


def train(
    recipe, images, folder, options, gan_class=None, *, ranks=mpi.SINGLE, extra=(), log=print
):
    """Trains a run from its last checkpoint to `recipe.num_steps`.

    Args:
      recipe: `Recipe`.
      images: `Datasets`; the part `train` is trained on.
      folder: `RunFolder`, open for training.
      options: `RunOptions`.
      gan_class: Custom class that replaces the recipe's.
      ranks: The processes that train together.
      extra: Functions of a `callbacks.Run` that each return a further callback.
      log: Function of a line for the user.

    Returns:
      The signal that stopped the training, or None if it has finished.

    Raises:
      RunError: If losses or weights are not finite, or no checkpoint is valid.
    """
    with tf.Graph().as_default():
        train_set, shard = images.train, ranks.shard()
        batches = Batches(recipe, train_set.pixels, options.seed, train_set.file_labels, shard)
        engine = make_engine(recipe, batches, options, gan_class, ranks=ranks, log=log)
        run = Run(recipe, options, images, batches, engine, Inference(engine.gan), folder)
        callbacks = make_callbacks(run, extra) if ranks.is_chief else Callbacks([])
        step = _restore(run, log) if ranks.is_chief else 0
        step, state, callbacks.periods = ranks.broadcast((step, engine.state(), callbacks.periods))
        engine.load(state)
        if step >= recipe.num_steps:
            log(
                f"{folder} is finished: {step:,} steps are done. Continue with a larger "
                "--num_steps, or start again with --new, which renames the folder."
            )
            ranks.finish(digest(state))
            return None
        ranks.begin()
        if step:
            log(f"Continuing {folder} after step {step:,}.")
        else:
            log(f"{summary.of_gan(engine.gan)}\n")
            pretrain(run, log, ranks)

        start, began, stopped = step, time.monotonic(), None
        with stop_signals() as received, callbacks.running(start):
            while step < recipe.num_steps and not stopped:
                for block in engine.train(step, callbacks.next_interval(step, recipe.num_steps)):
                    callbacks.on_steps(list(itertools.takewhile(_is_finite, block)))
                    if ranks.is_chief:
                        _check_losses(block, run)
                    step = block[-1].step
                    stopped = ranks.agree_to_stop(received)
                    if stopped:
                        break
                if ranks.is_chief:
                    _check_weights(step, run)
                last = step == recipe.num_steps
                if last:  # before the last checkpoint, which says that the run is finished
                    ranks.finish(digest(engine.state()))
                callbacks.on_interval(step, last=last, stopping=bool(stopped))
                ranks.wait()
        seconds = time.monotonic() - began
        if ranks.is_chief:
            facts = {
                "steps": step,
                "steps_this_time": step - start,
                "seconds": round(seconds, 3),
                "engine": engine.name,
            }
            write_json(folder.file("summary.json"), facts)
    if step == recipe.num_steps:
        log(f"Done: {step:,} steps in {seconds:,.1f} s. Images and tables are in {folder}.")
        return None
    name = signal.Signals(stopped).name
    log(f"Stopped by {name} after step {step:,}; rerun the command to resume.")
    return stopped


def make_engine(recipe, batches, options, gan_class=None, *, ranks=mpi.SINGLE, log=print):
    """Builds a recipe's Gan, or a custom class, and the engine that trains it.

    A custom class is trained by its own train ops unless the engine is `fused`.

    Raises:
      UserError: If the class does not have the required interface.
    """
    own_train_ops = gan_class is not None and options.engine != "fused"
    if gan_class and not own_train_ops and differ_from_ours(recipe, batches, gan_class):
        log(
            f"Note: --engine=fused trains {gan_class.__name__}'s networks and losses with this "
            "project's Adam; its own train ops do something else (another optimizer, clipping or "
            "a penalty). Use --engine=step to keep its own."
        )
    tf.set_random_seed(options.seed)
    gan = recipes.build_gan(recipe, gan_class)
    with contextlib.ExitStack() as stack:
        stack.callback(custom_class.close_session, gan)  # each engine opens its own
        if gan_class:
            custom_class.check(gan, recipe)
            for name in custom_class.random_ops(gan)[:1]:
                log(
                    f"Note: {name} draws random numbers that no checkpoint holds; a run that was "
                    "stopped and resumed will not be bit-identical to an uninterrupted one."
                )
        if own_train_ops:
            return _own_engine(gan, recipe, batches, options, ranks, log)
        if gan_class:
            custom_class.check_generator(gan)
        updates = Updates(gan, recipe, options.seed, ranks.shard())
        # On a CPU, XLA is many times slower on convolutions than TensorFlow's kernels.
        slow_under_xla = has_convolutions(gan) and not tf.config.list_physical_devices("GPU")
        if options.engine == "step" or (options.engine == "auto" and slow_under_xla):
            updates.install()
            return StepEngine(gan, batches, updates.averages(), options.precision)
        if recipe.pretraining:
            updates.install()
        return FusedEngine(
            updates,
            batches,
            jit=not slow_under_xla and ranks.count == 1,
            precision=options.precision,
            other_ops=[gan.d_optimizer] if recipe.pretraining else [],
        )


def _own_engine(gan, recipe, batches, options, ranks, log):
    """Returns the engine that runs a custom class's own train ops."""
    if ranks.count > 1:
        raise UserError(
            "--gan: a class's own train ops cannot train with several processes; add --engine=fused"
        )
    custom_class.check_own_train_ops(gan, recipe)
    return StepEngine(gan, batches, precision=options.precision)


def _restore(run, log):
    """Loads the newest valid checkpoint, if there is one, and returns its step."""
    loaded = run.folder.load_checkpoint(log)
    if loaded is None:
        return 0
    step, state = loaded
    run.engine.load(state)
    run.inference.load(state)  # which checks that the networks are the same
    return step


def pretrain(run, log, ranks=mpi.SINGLE):
    """Trains D before G, if the recipe says so, on real and on generated images.

    D sees `recipe.pretraining` real images and as many of an untrained G, once, in whole batches.
    Then D's accuracy on test images is logged.
    """
    recipe, batches, engine = run.recipe, run.batches, run.engine
    if not recipe.pretraining:
        return
    gan, size = engine.gan, recipe.pretraining_batch
    real, latents = batches.pretraining(recipe.pretraining)
    with contextlib.ExitStack() as stack:
        if ranks.is_chief:
            bar = Bar(len(real) - len(real) % size, unit="image")
            stack.callback(bar.close)
        for x, z in _whole_batches(real, latents, size):
            feed = {
                gan.x_placeholder: batches.part(x),
                gan.z_placeholder: batches.part(z),
                gan.learning_rate_placeholder: learning_rates(recipe, 0)[0],
            }
            loss, _ = engine.session.run([gan.d_loss, gan.d_optimizer], feed)
            if ranks.is_chief:
                bar.advance(len(x), f"d_loss {loss:.3f}")
    if not ranks.is_chief:
        return
    count = min(_PRETRAINING_TEST_IMAGES, len(run.images.test.pixels))
    test = batches.held_out(run.images.test.pixels, count, epoch=0)
    run.inference.load(engine.state(), average=False)
    right = []
    for x, z in _whole_batches(*test, min(size, count)):
        y, y_hat = run.inference.logits(x, z)
        right += [y > 0, y_hat < 0]
    log(
        f"After pre-training, D classifies {np.count_nonzero(right):,} of {np.size(right):,} test "
        "and generated images correctly."
    )


def _whole_batches(pixels, latents, size):
    """Yields batches of images in [0, 1] and latents, without what is left over."""
    for start in range(0, len(pixels) - size + 1, size):
        x = pixels[start : start + size].astype(np.float32) / np.float32(255)
        yield x, latents[start : start + size]


@contextlib.contextmanager
def stop_signals():
    """Context manager that collects the first signal to stop.

    A second one acts as usual.
    """
    received = []
    with contextlib.ExitStack() as handlers:

        def note(number):
            received.append(number)
            handlers.close()

        handlers.enter_context(on_stop(note))
        yield received


def _is_finite(progress):
    return math.isfinite(progress.d_loss) and math.isfinite(progress.g_loss)


def _check_losses(block, run):
    for progress in block:
        if not _is_finite(progress):
            losses = f"d_loss is {progress.d_loss}, g_loss {progress.g_loss}"
            raise _diverged(run, progress.step, losses)


def _check_weights(step, run):
    # The losses are those before the step's updates, so they do not show this.
    for name, values in run.engine.state().items():
        if not np.isfinite(values).all():
            raise _diverged(run, step, f"{name} is no longer finite")


def _diverged(run, step, what):
    return RunError(
        f"training diverged at step {step:,}: {what}; {run.folder.last_checkpoint()}. Try a lower "
        "--learning_rate in another --run_dir"
    )
