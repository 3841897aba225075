"""One run, from where its folder stands to its last step.

The engine yields progress; readers watch it and act at their marks: tables, pictures, checkpoints.
"""

import contextlib
import itertools
import math
import signal
import time
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from models import recipes, summary
from terminal import on_stop
from training import readers
from training.draws import Draws
from training.engines import make_engine, session_opener
from training.pretraining import pretrain
from training.run_folder import RunError, load_state


class Settings(NamedTuple):
    """How a run is carried out; but for the seed and precision, what is learnt stays the same.

    checkpoint_every, image_every: steps; None for the default, 0 for no pictures on the way.
    """

    seed: int = 0
    engine: str = "auto"
    precision: str = "float32"
    checkpoint_every: int | None = None
    image_every: int = 0


def train(recipe, data, folder, settings, extra=(), say=print):
    """Trains to `recipe.num_steps` in a locked run folder; -> the signal that stopped it, or None.

    data: Datasets whose `train` is what to learn from. extra: further readers, as `readers.make`
    takes them. say: takes lines for the user.
    Raises RunError where losses or weights are no longer finite or no checkpoint is whole.
    """
    with tf.Graph().as_default():
        model = recipes.build_gan(
            recipe,
            seed=settings.seed,
            open_session=session_opener(settings.precision),
        )
        draws = Draws(recipe, data.train.pixels, settings.seed)
        start = _restore(model, folder, say)
        if start >= recipe.num_steps:
            say(_finished(folder, start))
            return None
        if start:
            say(f"Continuing {folder} after step {start:,}.")
        else:
            _begin(model, draws, data, say)
        engine = make_engine(settings.engine, model, draws)
        watching = readers.make(model, draws, data, folder, settings, extra)
        with contextlib.ExitStack() as stack:
            for reader in watching:
                reader.open(start)
                stack.callback(reader.close)
            began = time.monotonic()
            stopped = _run(engine, start, recipe.num_steps, watching, _Guard(model, folder))
    say(_ending(folder, watching[0].step, stopped, time.monotonic() - began))
    return stopped


def _restore(model, folder, say):
    """Loads the newest whole checkpoint, if any; -> the steps that it has behind it."""
    loaded = folder.load_checkpoint(say)
    if loaded is None:
        return 0
    step, state = loaded
    load_state(model, state)
    return step


def _begin(model, draws, data, say):
    """What comes before the first step: both nets' layers and parameters, D's lessons."""
    say(f"{summary.of_model(model)}\n")
    pretrain(model, draws, data.test.pixels, say)


def _run(engine, start, stop, watching, guard):
    """Trains steps start + 1 ... stop; -> the signal that stopped it early, or None."""
    with stop_signals() as received:
        for first, mark in _marks(start, stop, [reader.every for reader in watching]):
            for block in engine.blocks(first, mark):
                _see(block, watching)
                guard.check_losses(block)
                if received:
                    break
            step = block[-1].step
            guard.check_weights(step)
            for reader in _acting(watching, step, last=step == stop, stopping=bool(received)):
                reader.act(step)
            if received and step < stop:
                return received[0]
    return None


def _acting(watching, step, *, last, stopping):
    """-> the readers that act after a step: all after the last one, else those with a mark there.

    The checkpoints, which come last, also act where the run is stopping.
    """
    return [
        reader
        for reader in watching
        if last
        or (reader.every and step % reader.every == 0)
        or (stopping and reader is watching[-1])
    ]


def _marks(start, stop, every):
    """Yields the spans (first, mark) that end where some reader acts, or at the stop."""
    while start < stop:
        mark = min([stop, *(start - start % period + period for period in every if period)])
        yield start, mark
        start = mark


def _see(block, watching):
    """Shows readers the progress up to the first step whose losses are not finite."""
    finite = list(itertools.takewhile(_is_finite, block))
    for reader in watching:
        reader.see(finite)


def _is_finite(progress):
    return math.isfinite(progress.d_loss) and math.isfinite(progress.g_loss)


class _Guard:
    """RunError where the numbers of a run are no longer finite."""

    def __init__(self, model, folder):
        self._model = model
        self._folder = folder

    def check_losses(self, block):
        for progress in itertools.filterfalse(_is_finite, block):
            self._fail(progress.step, f"d_loss is {progress.d_loss}, g_loss {progress.g_loss}")

    def check_weights(self, step):
        """The losses do not tell, for they are those before the step's updates."""
        for name, values in self._model.state().items():
            if not np.isfinite(values).all():
                self._fail(step, f"{name} is no longer finite")

    def _fail(self, step, what):
        raise RunError(
            f"training broke down at step {step:,}: {what}; {self._folder.last_checkpoint()}. "
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
