"""Trains a run: builds the graph, then runs the loop."""

import contextlib
import dataclasses
import itertools
import math
import signal
import time

import numpy as np
import tensorflow.compat.v1 as tf

from models import custom_class, recipes, summary
from models.inference import Inference, assign
from support.errors import RunError, UserError
from support.files import write_json
from support.terminal import Bar, on_stop
from training import callbacks, mpi
from training.batches import Batches
from training.engines import FusedEngine, StepEngine, has_convolutions, run_step
from training.run import digest
from training.updates import Updates

_PRETRAINING_TEST_IMAGES = 512
# Of the test whether a class's own train ops do the same as ours: the learning rate, and the
# relative difference of the changes of all weights.
_TEST_RATE, _TEST_TOLERANCE = 1e-3, 1e-3


def train(recipe, images, folder, options, *, ranks=mpi.SINGLE, extra=(), log=print):
    """Trains a run from its last checkpoint to `recipe.num_steps`.

    Args:
      recipe: `Recipe`.
      images: `Datasets`; the part `train` is trained on.
      folder: `RunFolder`, open for training.
      options: `RunOptions`.
      ranks: the processes that train together.
      extra: functions of a `callbacks.Run` that each return a further callback.
      log: function of a line for the user.

    Returns:
      The signal that stopped the training, or None if it has finished.

    Raises:
      RunError: losses or weights are not finite, or no checkpoint is valid.
    """
    with tf.Graph().as_default():
        train_set, shard = images.train, ranks.shard()
        batches = Batches(recipe, train_set.pixels, options.seed, train_set.file_labels, shard)
        gan_class = custom_class.load(options.gan).gan_class if options.gan else None
        engine = make_engine(recipe, batches, options, gan_class, ranks=ranks, log=log)
        inference = Inference(engine.gan)
        run = callbacks.Run(recipe, options, images, batches, engine, inference, folder)
        watching = callbacks.make(run, extra) if ranks.is_chief else callbacks.Callbacks([])
        step = _restore(run, log) if ranks.is_chief else 0
        step, state, watching.periods = ranks.broadcast((step, engine.state(), watching.periods))
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
        with stop_signals() as received, watching.running(start):
            while step < recipe.num_steps and not stopped:
                for block in engine.train(step, watching.next_interval(step, recipe.num_steps)):
                    watching.on_steps(list(itertools.takewhile(_is_finite, block)))
                    if ranks.is_chief:
                        _check_losses(block, run)
                    step = block[-1].step
                    stopped = ranks.agree_to_stop(received)
                    if stopped:
                        break
                if ranks.is_chief:
                    _check_weights(step, run)
                last = step == recipe.num_steps
                watching.on_interval(step, last=last, stopping=bool(stopped))
                ranks.wait()
        seconds = time.monotonic() - began

        if step == recipe.num_steps:
            ranks.finish(digest(engine.state()))
            stopped = None
        if ranks.is_chief:
            facts = {
                "steps": step,
                "steps_this_time": step - start,
                "seconds": round(seconds, 3),
                "engine": engine.name,
            }
            write_json(folder.file("summary.json"), facts)
    if stopped:
        name = signal.Signals(stopped).name
        log(f"Stopped by {name} after step {step:,}; rerun the command to resume.")
    else:
        log(f"Done: {step:,} steps in {seconds:,.1f} s. Images and tables are in {folder}.")
    return stopped


def make_engine(recipe, batches, options, gan_class=None, *, ranks=mpi.SINGLE, log=print):
    """Builds a recipe's Gan, or a custom class, and the engine that trains it.

    A custom class is trained by its own train ops unless the engine is `fused`.

    Raises:
      UserError: the class does not have the required interface.
    """
    if gan_class and options.engine == "fused":
        _note_other_updates(recipe, batches, gan_class, log)
    tf.set_random_seed(options.seed)
    gan = recipes.build_gan(recipe, gan_class)
    if gan_class:
        custom_class.check(gan, recipe)
    # On a CPU, XLA is many times slower on convolutions than TensorFlow's kernels.
    slow_under_xla = has_convolutions(gan) and not tf.config.list_physical_devices("GPU")
    kind = options.engine
    if kind == "auto":
        kind = "step" if gan_class or slow_under_xla else "fused"

    if kind == "step" and gan_class:
        if ranks.count > 1:
            raise UserError(
                "--gan: a class's own train ops cannot train with several processes; add "
                "--engine=fused"
            )
        custom_class.check_own_train_ops(gan, recipe)
        for name in custom_class.random_ops(gan)[:1]:
            log(
                f"Note: {name} draws random numbers that no checkpoint holds; a run that was "
                "stopped and resumed ends in other bytes than an unbroken one."
            )
        return StepEngine(gan, batches, precision=options.precision)

    if gan_class:
        custom_class.check_generator(gan)
    updates = Updates(gan, recipe, options.seed, ranks.shard())
    if kind == "step":
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


def _note_other_updates(recipe, batches, gan_class, log):
    """Logs a note if a class's own train ops change its weights in another way than ours.

    That is so if it has an optimizer, clipping or a penalty of its own. Both take two steps from
    the same weights on the same batches, ours without the recipe's additions.
    """
    plain, _ = recipes.without_update_fields(recipe)
    plain = dataclasses.replace(plain, learning_rate=_TEST_RATE, g_learning_rate=None)
    with tf.Graph().as_default():
        gan = recipes.build_gan(plain, gan_class)
        custom_class.check(gan, plain)
        custom_class.check_generator(gan)
        try:
            custom_class.check_own_train_ops(gan, plain)
        except UserError:  # its own train ops could not train it
            gan.session.close()
            return
        own = gan.d_loss, gan.d_optimizer, gan.g_loss, gan.g_optimizer
        Updates(gan, plain, seed=0).install()
        ours = gan.d_loss, gan.d_optimizer, gan.g_loss, gan.g_optimizer
        variables = {variable.op.name: variable for variable in tf.global_variables()}
        trained = [variable.op.name for variable in tf.trainable_variables()]
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            before = session.run(variables)
            changes = []
            for gan.d_loss, gan.d_optimizer, gan.g_loss, gan.g_optimizer in (own, own, ours):
                assign(session, variables, before)
                for i in (0, 1):
                    inputs = batches.block(i, i + 1)
                    inputs = inputs._replace(rates=np.full_like(inputs.rates, _TEST_RATE))
                    run_step(session, gan, inputs.map(lambda array: array[0]))
                after = session.run(variables)
                moved = [np.ravel(after[name] - before[name]) for name in trained]
                changes.append(np.concatenate(moved))
        gan.session.close()
    own_change, own_again, our_change = changes
    scale = np.linalg.norm(own_change)
    if np.linalg.norm(own_again - own_change) > _TEST_TOLERANCE * scale:
        return  # it draws random numbers
    if np.linalg.norm(our_change - own_change) > _TEST_TOLERANCE * scale:
        log(
            f"Note: --engine=fused trains {gan_class.__name__}'s networks and losses with this "
            "project's Adam; its own train ops do something else (another optimizer, clipping or "
            "a penalty). Use --engine=step to keep its own."
        )


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
                gan.learning_rate_placeholder: recipe.rates(0)[0],
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
    """Context manager that collects the first SIGINT or SIGTERM; a second one acts as usual."""
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
