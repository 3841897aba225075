"""One run, from where its folder stands to its last step.

The engine yields progress; callbacks watch it and act every so many steps: tables, pictures,
checkpoints.
"""

import contextlib
import itertools
import math
import signal
import time
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from models import custom_class, fingerprint, recipes, summary
from support.errors import TemporaryError, UserError
from support.files import write_json
from support.terminal import on_stop
from training import callbacks, collectives
from training.batches import Batches
from training.engines import FusedEngine, StepEngine
from training.group import ALONE
from training.model import TrainingModel, has_convolutions, session_config
from training.pretraining import pretrain
from training.run_folder import RunError, digest
from training.updates import Updates


class Settings(NamedTuple):
    """How a run is carried out; but for the seed and precision, what is learnt stays the same.

    checkpoint_every, image_every: steps; None for the default, 0 for no pictures on the way.
    gan_class: a class of one's own in the place of the recipe's.
    """

    seed: int = 0
    engine: str = "auto"
    precision: str = "float32"
    checkpoint_every: int | None = None
    image_every: int = 0
    gan_class: type | None = None


def train(recipe, data, folder, settings, extra=(), log=print, group=ALONE):
    """Trains to `recipe.num_steps` in a locked run folder; -> the signal that stopped it, or None.

    data: Datasets whose `train` is what to learn from. extra: further callbacks, as functions of a
    `callbacks.Run`. log: takes lines for the user. group: the formed Group of which this process
    is the chief.
    Raises RunError where losses or weights are no longer finite or no checkpoint is whole,
    TemporaryError where another process of the group fails.
    """
    with tf.Graph().as_default():
        workers = collectives.of(group)
        batches, model, engine = _assembled(recipe, data, settings, workers)
        networks = fingerprint.of_gan(model.gan)
        start = _restore(model, folder, log)
        folder.check_networks(networks) if start else folder.note_networks(networks)
        run = callbacks.Run(model, batches, data, folder, settings)
        watching = callbacks.make(run, extra)
        checksum = fingerprint.checksum(networks)
        group.begin(start=start, periods=watching.periods, networks=checksum)
        workers.equalise(model)
        if start >= recipe.num_steps:
            log(_finished(folder, start))
            return group.finish(digest(model.state()))
        _prepare(run, start, log)
        began = time.monotonic()
        with watching.begun(start):
            steps = start, recipe.num_steps
            done, stopped = _run(engine, model, steps, watching, folder.last_checkpoint, group)
        seconds = time.monotonic() - began
        _write_summary(folder, engine, start, done, seconds)
        _part(group, model, done, stopped, recipe.num_steps)
    log(_ending(folder, done, stopped, seconds))
    return stopped


def follow(recipe, data, settings, group, log=print):
    """Trains beside the chief of a formed Group, to the end of its run; writes nothing.

    Raises UserError where the chief's networks are others, TemporaryError where another process
    fails.
    """
    with tf.Graph().as_default():
        workers = collectives.of(group)
        batches, model, engine = _assembled(recipe, data, settings, workers)
        plan = group.begin()
        if plan["networks"] != fingerprint.checksum(fingerprint.of_gan(model.gan)):
            raise UserError("the networks here compute something else than the chief's do")
        start, stop = plan["start"], recipe.num_steps
        workers.equalise(model)
        if start < stop:
            if not start:
                pretrain(model, batches, data.test.pixels, log)
            watching = callbacks.of_worker(stop, plan["periods"])
            with watching.begun(start):
                _run(engine, model, (start, stop), watching, _chief_knows, group)
        group.finish(digest(model.state()))
    log("Done: the chief has written the run.")


def _assembled(recipe, data, settings, workers):
    """-> Batches, TrainingModel and engine, of this process's share of each batch."""
    pixels, labels = data.train.pixels, data.train.file_labels
    batches = Batches(recipe, pixels, settings.seed, labels, workers.share)
    return batches, *assemble(recipe, batches, settings, workers)


def _prepare(run, start, log):
    """Says what is trained; before the first step D is pre-trained, where the recipe says so."""
    if start:
        log(f"Continuing {run.folder} after step {start:,}.")
        return
    log(f"{summary.of_gan(run.model.gan)}\n")
    _note_random_ops(run.model.gan, run.settings, log)
    pretrain(run.model, run.batches, run.data.test.pixels, log)


def _note_random_ops(gan, settings, log):
    names = custom_class.random_ops(gan) if settings.gan_class else []
    if names:
        log(
            f"Note: {names[0]} draws random numbers that no checkpoint holds: a run that was "
            "stopped and goes on ends in other bytes than one that was not."
        )


def assemble(recipe, batches, settings, workers=collectives.ALONE):
    """-> the recipe's TrainingModel and its engine, in the current default graph.

    A class of one's own is trained by its own train ops unless the engine is `fused`. workers:
    those that share each batch.
    """
    tf.set_random_seed(settings.seed)
    gan = recipes.build_gan(recipe, settings.gan_class)
    custom_class.check(gan, recipe)
    slow = _slow_under_xla(gan)
    choice = _engine_choice(slow, settings)
    if choice == "step" and settings.gan_class:
        _check_alone(workers)
        custom_class.check_own_train_ops(gan, recipe)
        engine, train_ops, averages = StepEngine(gan, batches), [], {}
    else:
        custom_class.check_generator(gan)
        updates = Updates(gan, recipe, settings.seed, workers.share)
        if choice == "step" or recipe.pretraining:
            updates.install()
        engine = (
            StepEngine(gan, batches)
            if choice == "step"
            else FusedEngine(updates, batches, jit=not slow and workers.jit)
        )
        train_ops = [gan.d_optimizer] if recipe.pretraining else []
        averages = updates.averages()
    gan.session.close()
    session = workers.open_session(tf.get_default_graph(), session_config(settings.precision))
    return TrainingModel(gan, [*engine.train_ops, *train_ops], averages, session), engine


def _check_alone(workers):
    if workers.share.count > 1:
        raise UserError(
            "--gan: a class's own train ops know of no other workers; let this project's updates "
            "train its networks, --engine=fused"
        )


def _engine_choice(slow, settings):
    """-> `fused` or `step`: what was asked for, or else the faster one."""
    if settings.engine != "auto":
        return settings.engine
    return "step" if settings.gan_class or slow else "fused"


def _slow_under_xla(gan):
    """Whether XLA would be many times slower than TensorFlow's kernels: convolutions on a CPU."""
    return has_convolutions(gan) and not tf.config.list_physical_devices("GPU")


def _restore(model, folder, log):
    """Loads the newest whole checkpoint, if any; -> the steps that it has behind it."""
    loaded = folder.load_checkpoint(log)
    if loaded is None:
        return 0
    step, state = loaded
    model.load_state(state)
    return step


def _run(engine, model, steps, watching, last_checkpoint, group):
    """Trains from the first of two steps to the other; -> steps done, the signal that ended it.

    last_checkpoint: () -> words, where training breaks down.
    """
    start, stop = steps
    with stop_signals() as received:
        for first, mark in watching.marks(start, stop):
            for block in engine.blocks(model.session, first, mark):
                watching.on_steps(list(itertools.takewhile(_is_finite, block)))
                _check_losses(block, last_checkpoint)
                if group.should_stop(received):
                    break
            step = block[-1].step
            _check_weights(model, step, last_checkpoint)
            # What comes in an interval waits for the next step.
            stopping = group.should_stop(received)
            watching.on_interval(step, last=step == stop, stopping=stopping)
            if stopping and step < stop:
                return step, next(iter(received), None)
    return stop, None


def _chief_knows():
    return "the chief says where the last good checkpoint is"


def _part(group, model, done, stopped, last):
    """Ends a group's work: after the last step, or where a signal to one of them has stopped it."""
    if done == last:
        group.finish(digest(model.state()))
    elif stopped:
        name = signal.Signals(stopped).name
        group.leave(f"was stopped by {name} after step {done:,}; run the same command to go on")
    else:
        raise TemporaryError(
            f"{group.stopped_by}: all stopped after step {done:,}; run the same command to go on"
        )


def _is_finite(progress):
    return math.isfinite(progress.d_loss) and math.isfinite(progress.g_loss)


def _check_losses(block, last_checkpoint):
    for progress in itertools.filterfalse(_is_finite, block):
        losses = f"d_loss is {progress.d_loss}, g_loss {progress.g_loss}"
        raise _breakdown(last_checkpoint, progress.step, losses)


def _check_weights(model, step, last_checkpoint):
    """The losses do not tell, for they are those before the step's updates."""
    for name, values in model.state().items():
        if not np.isfinite(values).all():
            raise _breakdown(last_checkpoint, step, f"{name} is no longer finite")


def _breakdown(last_checkpoint, step, what):
    return RunError(
        f"training broke down at step {step:,}: {what}; {last_checkpoint()}. "
        "Try a lower --learning_rate in another --run_dir"
    )


@contextlib.contextmanager
def stop_signals():
    """Collects the first SIGINT or SIGTERM in the list it yields; a second one acts as usual."""
    received = []
    with contextlib.ExitStack() as handlers:

        def note(number):
            received.append(number)
            handlers.close()

        handlers.enter_context(on_stop(note))
        yield received


def _write_summary(folder, engine, start, done, seconds):
    """summary.json: what this command did, for other programs to read."""
    facts = {
        "steps": done,
        "steps_this_time": done - start,
        "seconds": round(seconds, 3),
        "engine": engine.name,
    }
    write_json(folder.file("summary.json"), facts)


def _finished(folder, step):
    return (
        f"{folder} is finished: {step:,} steps are done. Go on with a larger --num_steps, "
        "or start afresh with --new (the folder is kept under another name)."
    )


def _ending(folder, step, stopped, seconds):
    if stopped:
        name = signal.Signals(stopped).name
        return f"Stopped by {name} after step {step:,}; the same command goes on from there."
    return f"Done: {step:,} steps in {seconds:,.1f} s. Pictures and tables are in {folder}."
