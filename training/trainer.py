"""One run, from where its folder stands to its last step.

The engine yields progress; readers watch it and act at their marks: tables, pictures, checkpoints.
"""

import contextlib
import math
import signal
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from models import recipes
from training import readers
from training.draws import Draws
from training.engines import make_engine
from training.run_folder import RunError


class Settings(NamedTuple):
    """How a run is carried out; none of it changes what is learnt, but for the seed.

    checkpoint_every, image_every: steps; 0 for no pictures on the way.
    """

    seed: int = 0
    engine: str = "auto"
    checkpoint_every: int = 5000
    image_every: int = 0


def train(recipe, data, folder, settings, say=print):
    """Trains to `recipe.num_steps` in a locked run folder; -> the signal that stopped it, or None.

    data: Datasets whose `train` is what to learn from. say: takes lines for the user.
    Raises RunError where losses are no longer finite or no checkpoint is whole.
    """
    with tf.Graph().as_default():
        model = recipes.build_gan(recipe, seed=settings.seed)
        draws = Draws(recipe, data.train.pixels, settings.seed)
        start = _restore(model, folder, say)
        if start >= recipe.num_steps:
            say(_finished(folder, start))
            return None
        engine = make_engine(settings.engine, model, draws)
        watching = readers.make(model, recipe, draws, data, folder, settings)
        with contextlib.ExitStack() as stack:
            for reader in watching:
                stack.callback(reader.close)
                reader.open(start)
            stopped = _run(engine, start, recipe.num_steps, watching)
    say(_ending(folder, recipe, watching[0].step, stopped))
    return stopped


def _restore(model, folder, say):
    """Loads the newest whole checkpoint, if any; -> the steps that it has behind it."""
    loaded = folder.load_checkpoint(say)
    if loaded is None:
        return 0
    step, state = loaded
    model.load_state(state)
    say(f"Continuing {folder} after step {step:,}.")
    return step


def _run(engine, start, stop, watching):
    """Trains steps start + 1 ... stop; -> the signal that stopped it early, or None."""
    with stop_signals() as received:
        for first, mark in _marks(start, stop, [reader.every for reader in watching]):
            for block in engine.blocks(first, mark):
                _see(block, watching)
                if received:
                    watching[-1].act(block[-1].step)
                    return received[0]
            for reader in watching:
                if mark == stop or (reader.every and mark % reader.every == 0):
                    reader.act(mark)
    return None


def _marks(start, stop, every):
    """Yields the spans (first, mark) that end where some reader acts, or at the stop."""
    while start < stop:
        mark = min([stop, *(start - start % period + period for period in every if period)])
        yield start, mark
        start = mark


def _see(block, watching):
    """Shows finite progress to all readers; RunError at the first step that is not."""
    finite = [p for p in block if math.isfinite(p.d_loss) and math.isfinite(p.g_loss)]
    for reader in watching:
        reader.see(finite)
    if len(finite) < len(block):
        bad = next(p for p in block if p not in finite)
        raise RunError(
            f"training broke down at step {bad.step}: d_loss is {bad.d_loss}, g_loss {bad.g_loss}; "
            "the last checkpoint is kept. Try a lower --learning_rate in another --run_dir"
        )


@contextlib.contextmanager
def stop_signals():
    """Collects the first SIGINT or SIGTERM in the list it yields; a second one acts as usual."""
    received, old = [], {}

    def note(number, _):
        received.append(number)
        _reset(old)

    for number in (signal.SIGINT, signal.SIGTERM):
        old[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        _reset(old)


def _reset(handlers):
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _finished(folder, step):
    return (
        f"{folder} is finished: {step:,} steps are done. Go on with a larger --num_steps, "
        "or start afresh with --new (the folder is kept under another name)."
    )


def _ending(folder, recipe, step, stopped):
    if stopped:
        name = signal.Signals(stopped).name
        return f"Stopped by {name} after step {step:,}; the same command goes on from there."
    return f"Done: {recipe.num_steps:,} steps. Pictures and tables are in {folder}."
