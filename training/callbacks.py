"""Callbacks of a run: the progress bar, tables, pictures and checkpoints.

Each has four moments: `on_train_begin`, `on_steps`, `on_interval`, `on_train_end`.
"""

import contextlib
from typing import NamedTuple

import numpy as np

from models import priors
from support import pictures
from support.terminal import Bar
from training.model import has_convolutions
from training.run_folder import LOSSES, Table

_GRID_SIDE = 20
# Steps, for dense and for convolutional recipes, whose steps take a hundred times longer.
_CHECKPOINT_EVERY = {False: 5000, True: 100}
_FRAME_SIDE = 8


class Callback:
    """What happens at four moments of a run; each does nothing unless overridden.

    every: steps from one `on_interval` to the next; 0 for the run's end alone, where every callback
    has one. order: of two callbacks the one with the lower number has its `on_interval` first.
    when_stopping: whether a run that is stopped early has an `on_interval` there.
    """

    every = 0
    order = 0
    when_stopping = False

    def on_train_begin(self, step):
        """The run starts after this many steps."""

    def on_steps(self, block):
        """Steps were done: a list of Progress, maybe empty."""

    def on_interval(self, step):
        """The model's variables are those after this many steps."""

    def on_train_end(self):
        """The run has ended, well or not."""

    def flush(self):
        """Puts on the disk all that a checkpoint of now must find there."""


class Callbacks:
    """All callbacks of a run, in any order."""

    def __init__(self, callbacks):
        self._callbacks = sorted(callbacks, key=lambda callback: callback.order)

    @contextlib.contextmanager
    def begun(self, step):
        """Within it the run goes on from this step."""
        with contextlib.ExitStack() as stack:
            for callback in self._callbacks:
                callback.on_train_begin(step)
                stack.callback(callback.on_train_end)
            yield

    def on_steps(self, block):
        """As of a Callback."""
        for callback in self._callbacks:
            callback.on_steps(block)

    def on_interval(self, step, *, last, stopping):
        """For the callbacks that have one after this step; before a checkpoint all is flushed."""
        for callback in self._callbacks:
            due = callback.every and step % callback.every == 0
            if due or last or (stopping and callback.when_stopping):
                if isinstance(callback, Checkpoints):
                    self._flush()
                callback.on_interval(step)

    @property
    def periods(self):
        """The steps from one `on_interval` to the next, of all callbacks that have some."""
        return [callback.every for callback in self._callbacks if callback.every]

    def marks(self, start, stop):
        """Yields the spans (first, mark) that end where some callback has its interval."""
        while start < stop:
            mark = min([stop, *(start - start % period + period for period in self.periods)])
            yield start, mark
            start = mark

    def _flush(self):
        for callback in self._callbacks:
            callback.flush()


class Run(NamedTuple):
    """What callbacks are made from.

    model: TrainingModel; batches: Batches; data: Datasets; folder: RunFolder; settings: Settings;
    bar: the run's ProgressBar; listeners: functions of (step, {tag: number}) that want to hear of
    scores.
    """

    model: object
    batches: object
    data: object
    folder: object
    settings: object
    bar: object = None
    listeners: list = None

    def report(self, step, scores):
        """Tells the listeners {tag: number} as of a step."""
        for listener in self.listeners:
            listener(step, scores)

    @property
    def recipe(self):
        return self.batches.recipe

    def draw(self, count):
        """-> the latents of the run's pictures and, for a conditional GAN, their labels in turn."""
        prior = priors.get(self.recipe.prior)
        latents = prior.sample(self.batches.picture_rng(), [count, self.recipe.nlatent])
        return latents, self.labels(count)

    def labels(self, count):
        """-> [count], as many of each label that occurs, sorted; None without labels."""
        classes = self.batches.classes
        return None if classes is None else classes[np.arange(count) * len(classes) // count]


class ProgressBar(Callback):
    """The steps done, their rate and the latest losses on the terminal.

    note: what other callbacks want shown beside the losses.
    """

    def __init__(self, total):
        self._total = total
        self._bar = None
        self.step = 0
        self.note = ""

    def on_train_begin(self, step):
        self.step = step
        self._bar = Bar(self._total, start=step)

    def on_steps(self, block):
        if block:
            self.step = block[-1].step
            d_loss, g_loss = np.mean([(p.d_loss, p.g_loss) for p in block], axis=0)
            note = f"d_loss {d_loss:.3f}, g_loss {g_loss:.3f}"
            self._bar.advance(len(block), ", ".join(filter(None, [note, self.note])))

    def line(self, text):
        """Shows a line above the bar."""
        self._bar.line(text)

    def on_train_end(self):
        self._bar.close()


class Losses(Callback):
    """losses.csv, and losses.png at the end."""

    def __init__(self, run):
        self._picture = run.folder.file("losses.png")
        self._table = Table(run.folder.file("losses.csv"), LOSSES, every=1)
        self._rows = []

    def on_train_begin(self, step):
        self._rows = self._table.open(step)

    def on_steps(self, block):
        self._rows.extend(block)
        self._table.append(block)

    def on_interval(self, step):
        self._table.flush()
        _draw(self._picture, self._rows)

    def flush(self):
        self._table.flush()

    def on_train_end(self):
        self._table.close()


def _draw(path, rows, note=""):
    """Rows (step, d_loss, g_loss) -> a picture, the same of rows that a table gives back.

    Those are not the very numbers that were written, but the same float32 ones.
    """
    steps, d_losses, g_losses = zip(*rows, strict=True)
    pictures.curves(path, steps, np.float32(d_losses), np.float32(g_losses), note)


class Pictures(Callback):
    """samples.png and latent_grid.png at the end, from latents that never change."""

    def __init__(self, run):
        self._run = run

    def on_interval(self, step):
        run = self._run
        samples = run.model.generate(*run.draw(_GRID_SIDE**2))
        pictures.save_png(run.folder.file("samples.png"), pictures.tiles(samples, _GRID_SIDE))
        pictures.save_png(run.folder.file("latent_grid.png"), self._latent_grid())

    def _latent_grid(self):
        run, labels = self._run, self._run.labels(_GRID_SIDE**2)
        return pictures.latent_grid(
            lambda z: run.model.generate(z, labels),
            priors.get(run.recipe.prior),
            run.recipe.nlatent,
            _GRID_SIDE,
            rng=run.batches.picture_rng(),
        )


class HeldOut(Callback):
    """held_out.csv: both losses on a few test images and samples after each epoch of D's data.

    Labels 1 and 0 without smoothing, both networks in inference; a line on the terminal for each,
    as article 004 prints them, and held_out.png at the end.
    """

    def __init__(self, run):
        self.every = run.batches.steps_per_epoch
        self._run = run
        self._last = run.recipe.num_steps
        self._picture = run.folder.file("held_out.png")
        self._table = Table(run.folder.file("held_out.csv"), LOSSES)
        self._rows = []

    def on_train_begin(self, step):
        self._rows = self._table.open(step)

    def on_interval(self, step):
        if step % self.every == 0:
            self._measure(step)
        if step == self._last and self._rows:
            _draw(self._picture, self._rows, "on held-out images")

    def flush(self):
        self._table.flush()

    def on_train_end(self):
        self._table.close()

    def _measure(self, step):
        epoch, epochs = step // self.every, self._last // self.every
        d_loss, g_loss = self._losses(epoch)
        self._rows.append((step, d_loss, g_loss))
        self._table.append(self._rows[-1:])
        self._run.bar.line(
            f"Epoch: {epoch:>3}/{epochs} Discriminator Loss: {d_loss:>6.4f} "
            f"Generator Loss: {g_loss:>6.4f}"
        )

    def _losses(self, epoch):
        """-> the discriminator's and the generator's loss."""
        run = self._run
        test = run.data.test.pixels
        pixels, latents = run.batches.held_out(test, run.recipe.held_out, epoch)
        return run.model.losses(pixels / np.float32(255), latents)


class Frames(Callback):
    """progress/step-N.png: the same latents as they learn; training.gif of them at the end."""

    def __init__(self, run):
        self.every = run.settings.image_every
        self._run = run
        self._drawn = run.draw(_FRAME_SIDE**2)

    def on_interval(self, step):
        frames = self._run.folder.file("progress")
        frames.mkdir(exist_ok=True)
        picture = pictures.tiles(self._run.model.generate(*self._drawn), _FRAME_SIDE)
        pictures.save_png(frames / f"step-{step:09d}.png", picture)
        if step == self._run.recipe.num_steps:
            film = self._run.folder.file("training.gif")
            pictures.film(film, sorted(frames.glob("step-*.png")))


class Checkpoints(Callback):
    """Checkpoints, each after all that the other callbacks wrote up to its step is on the disk."""

    order = 100
    when_stopping = True

    def __init__(self, run):
        self.every = (
            run.settings.checkpoint_every or _CHECKPOINT_EVERY[has_convolutions(run.model.gan)]
        )
        self._run = run

    def on_interval(self, step):
        self._run.folder.save_checkpoint(step, self._run.model.state())


class Pause(Callback):
    """An interval in which this process does nothing, but the chief does."""

    def __init__(self, every):
        self.every = every


def of_worker(total, periods):
    """The Callbacks of a worker, which writes nothing: the bar, and the chief's intervals."""
    return Callbacks([ProgressBar(total), *map(Pause, periods)])


def make(run, extra=()):
    """A Run without its bar -> its Callbacks. extra: functions of a Run -> Callback."""
    bar = ProgressBar(run.recipe.num_steps)
    run = run._replace(bar=bar, listeners=[])
    chosen = [Losses, Pictures, Checkpoints]
    if run.settings.image_every:
        chosen.append(Frames)
    if run.recipe.held_out:
        chosen.append(HeldOut)
    return Callbacks([bar, *(make_one(run) for make_one in [*chosen, *extra])])
