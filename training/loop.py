"""Trains a run: builds the graph, then runs the loop."""

import contextlib
import dataclasses
import signal
import time

import numpy as np
import tensorflow.compat.v1 as tf

from models import custom_class, recipes
from models.inference import Inference
from models.losses import LOSSES
from support.errors import UserError
from support.terminal import Bar, on_stop
from training import mpi
from training.batches import Batches, learning_rates
from training.callbacks import Context, diverged, make_callbacks
from training.engines import FusedEngine, StepEngine, has_convolutions
from training.updates import Updates, training_loss

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
      extra: Functions of a `callbacks.Context` that each return a further callback.
      log: Function of a line for the user.

    Returns:
      The signal that stopped the training, or None if it has finished.

    Raises:
      RunError: If losses or weights are not finite, or no checkpoint is valid.
    """
    with tf.Graph().as_default(), contextlib.ExitStack() as stack:
        data = images.train
        batches = Batches(recipe, data.pixels, options.seed, data.file_labels, ranks.shard)
        engine = make_engine(recipe, batches, options, gan_class, ranks=ranks, log=log)
        hard_labels = dataclasses.replace(recipe, label_smoothing=0.0)
        inference = Inference(engine.gan, training_loss(engine.gan, hard_labels))
        start = 0
        if ranks.is_chief and (loaded := folder.load_checkpoint(log)):
            start, state = loaded
            engine.load(state)
            inference.load(state)  # which checks that the networks are the same
        start = ranks.synchronise(engine, start)
        if start >= recipe.num_steps:
            log(
                f"{folder} is finished: {start:,} steps are done. Continue with a larger "
                "--num_steps, or start again with --new, which renames the folder."
            )
            return None
        if start:
            log(f"Continuing {folder} after step {start:,}.")
        else:
            log(f"{inference.summary()}\n")
            if options.own_train_ops and not has_convolutions(engine.gan):
                log(
                    f"Note: the train ops of {gan_class.__name__} run. --engine=fused trains most "
                    "classes with this project's Adam several times as fast."
                )
            if recipe.pretraining:
                pretrain(recipe, images.test.pixels, engine, batches, inference, ranks, log)
        callbacks = []
        if ranks.is_chief:
            context = Context(recipe, options, images, batches, engine, inference, folder, start)
            stack.callback(context.close)
            callbacks = make_callbacks(context, extra)

        step, began, stopped = start, time.monotonic(), None
        received = stack.enter_context(stop_signals())
        while step < recipe.num_steps and not stopped:
            next_steps = [callback.next_step(step) for callback in callbacks]
            # The other ranks wait here while rank 0 draws, scores and saves.
            until = ranks.broadcast(min([recipe.num_steps, *next_steps]))
            for block in engine.train(step, until):
                finite = block
                if not np.isfinite(block).all():
                    finite = block[: np.isfinite(block).all(axis=1).argmin()]
                for callback in callbacks:
                    callback.on_steps(finite)
                if ranks.is_chief and len(finite) < len(block):
                    step, d_loss, g_loss = block[len(finite)]
                    raise diverged(folder, step, f"d_loss is {d_loss}, g_loss {g_loss}")
                step = block[-1].step
                stopped = ranks.agree_to_stop(received)
                if stopped:
                    break
            last = step == recipe.num_steps
            if last:  # before the last checkpoint, which says that the run is finished
                ranks.finish(engine)
            if ranks.is_chief:
                context.load_weights(step)
            for callback in callbacks:
                is_due = callback.next_step(step - 1) == step
                if is_due or last or (stopped and callback.when_stopping):
                    callback.on_interval(step)
        seconds = time.monotonic() - began
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
      UserError: If the class does not have the required interface, or the options do not suit it.
    """
    own_train_ops = options.own_train_ops
    if gan_class and not own_train_ops:
        log(
            f"Note: --engine=fused trains {gan_class.__name__}'s networks and losses with this "
            "project's Adam. Another optimizer, clipping or a penalty in its train ops has no "
            "effect; --engine=step keeps them."
        )
    if own_train_ops and ranks.count > 1:
        raise UserError(
            "--gan: a class's own train ops cannot train with several processes; add --engine=fused"
        )
    tf.set_random_seed(options.seed)
    gan = recipes.build_gan(recipe, gan_class)
    if gan_class:
        custom_class.check(gan, recipe)
    with contextlib.closing(gan.session):  # each engine opens its own
        if options.precision == "bfloat16" and not has_convolutions(gan):
            raise UserError(
                "--precision=bfloat16 requires TensorFlow's convolutions, such as dcgan's; use "
                "float32, in which XLA compiles the others"
            )
        if own_train_ops:
            custom_class.check_own_train_ops(gan, recipe)
            for variable in custom_class.untrained_variables(gan):
                message = (
                    f"the train ops of {gan_class.__name__} never change {variable.op.name}, which "
                    "its networks use; create it in the scope that var_list names"
                )
                log(f"Warning: {custom_class.error_at(variable, message)}.")
            return StepEngine(gan, batches, options.precision)
        if gan_class:
            custom_class.check_for_our_updates(gan)
        updates = Updates(gan, recipe, options.seed, ranks.shard)
        # On a CPU, XLA is many times slower on convolutions than TensorFlow's kernels.
        slow_under_xla = has_convolutions(gan) and not tf.config.list_physical_devices("GPU")
        if options.engine == "step" or (options.engine == "auto" and slow_under_xla):
            updates.install()
            return StepEngine(gan, batches, options.precision)
        if recipe.pretraining:
            updates.install()
        return FusedEngine(
            updates,
            batches,
            jit=not slow_under_xla and ranks.count == 1,
            precision=options.precision,
            other_ops=[gan.d_optimizer] if recipe.pretraining else [],
        )


def pretrain(recipe, test_pixels, engine, batches, inference, ranks=mpi.SINGLE, log=print):
    """Trains D before G on real and on generated images.

    D sees `recipe.pretraining` real images and as many of an untrained G, once, in whole batches.
    Then D's accuracy on test images, uint8 [n, 784], is logged.
    """
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
    boundary = LOSSES[recipe.loss].boundary
    if not ranks.is_chief or boundary is None or not len(test_pixels):
        return
    count = min(_PRETRAINING_TEST_IMAGES, len(test_pixels))
    test = batches.held_out(test_pixels, count, epoch=0)
    inference.load(engine.state(), average=False)
    right = []
    for x, z in _whole_batches(*test, min(size, count)):
        y, y_hat = inference.logits(x, z)
        right += [y > boundary, y_hat < boundary]
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
