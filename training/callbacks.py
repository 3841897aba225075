"""Callbacks of a run: progress bar, tables, images and checkpoints.

Each can act at four moments: `on_train_begin`, `on_steps`, `on_interval`, `on_train_end`.
"""

import contextlib
import dataclasses
import operator

import numpy as np

from input_data import Datasets
from models import priors
from models.inference import Inference
from models.recipes import Recipe
from support import pictures
from support.terminal import Bar
from training.batches import Batches
from training.engines import has_convolutions
from training.options import RunOptions
from training.run import LOSSES, RunFolder, Table

_GRID_SIDE = 20
_FRAME_SIDE = 8
# Steps between checkpoints; a step of a convolutional recipe takes a hundred times longer.
_CHECKPOINT_EVERY, _CHECKPOINT_EVERY_CONVOLUTIONAL = 5000, 100


class Callback:
    """Actions at four moments of a run; each does nothing unless overridden.

    Attributes:
      every: Steps between two calls of `on_interval`, which is also called at the end of a run;
        0: only there.
      order: Of two callbacks, the one with the lower number acts first.
      when_stopping: Whether `on_interval` is also called when a run is stopped early.
    """

    every = 0
    order = 0
    when_stopping = False

    def on_train_begin(self, step):
        """Called once, after `step` steps."""

    def on_steps(self, block):
        """Called after some steps with a list of Progress, which may be empty."""

    def on_interval(self, step):
        """Called when the variables are those after `step` steps."""

    def on_train_end(self):
        """Called at the end, also after an error."""


class Callbacks:
    """All callbacks of a run."""

    def __init__(self, callbacks):
        self._callbacks = sorted(callbacks, key=operator.attrgetter("order"))
        self.periods = [callback.every for callback in callbacks if callback.every]

    @contextlib.contextmanager
    def running(self, step):
        """Context manager for a training that starts after `step` steps."""
        with contextlib.ExitStack() as stack:
            for callback in self._callbacks:
                callback.on_train_begin(step)
                stack.callback(callback.on_train_end)
            yield

    def next_interval(self, step, stop):
        """Returns the step, at most `stop`, at which some callback acts next."""
        return min([stop, *(step - step % period + period for period in self.periods)])

    def on_steps(self, block):
        """Calls all callbacks after some steps."""
        for callback in self._callbacks:
            callback.on_steps(block)

    def on_interval(self, step, *, last, stopping):
        """Calls the callbacks that act after this step."""
        for callback in self._callbacks:
            is_due = callback.every and step % callback.every == 0
            if is_due or last or (stopping and callback.when_stopping):
                callback.on_interval(step)


@dataclasses.dataclass
class Run:
    """Everything that callbacks need to know of a run.

    Attributes:
      engine: One of `training.engines`; its `state()` has the current weights.
      inference: Both networks in inference, for images and losses.
      listeners: Functions of (step, {tag: number}) that are called with scores.
      files: Tables and the like; each has `flush`, which is called before a checkpoint.
    """

    recipe: Recipe
    options: RunOptions
    images: Datasets
    batches: Batches
    engine: object
    inference: Inference
    folder: RunFolder
    bar: object = None
    listeners: list = dataclasses.field(default_factory=list)
    files: list = dataclasses.field(default_factory=list)

    def save_checkpoint(self, step, name=None):
        """Writes the current weights, and what the networks return for a few fixed inputs.

        All tables are on the disk before, so that a checkpoint never has more steps than they.
        """
        for file in self.files:
            file.flush()
        state = self.engine.state()
        self.folder.save_checkpoint(step, state | self.inference.outputs(state), name)

    def generate(self, z, labels=None):
        """Returns images [n, 784] in [0, 1] by the average of G's weights, if one is kept."""
        self.inference.load(self.engine.state())
        return self.inference.generate(z, labels)

    def losses(self, x, z):
        """Returns D's and G's loss of images [n, 784] and latents, by the current weights."""
        self.inference.load(self.engine.state(), average=False)
        return self.inference.losses(x, z)

    def report(self, step, scores):
        """Passes scores, {tag: number}, to the listeners."""
        for listener in self.listeners:
            listener(step, scores)

    def draw(self, count):
        """Returns the latents of the run's images and, if conditional, their labels."""
        prior = priors.get(self.recipe.prior)
        latents = prior.sample(self.batches.picture_rng(), [count, self.recipe.nlatent])
        return latents, self.labels(count)

    def labels(self, count):
        """Returns `count` labels, sorted, each equally often; None without labels."""
        classes = self.batches.classes
        return None if classes is None else classes[np.arange(count) * len(classes) // count]


class ProgressBar(Callback):
    """The steps done, their rate and the latest losses on the terminal.

    Attributes:
      note: Text that other callbacks add to the line.
    """

    def __init__(self, total):
        self._total = total
        self._bar = None
        self.note = ""

    def on_train_begin(self, step):
        self._bar = Bar(self._total, start=step)

    def on_steps(self, block):
        if block:
            d_loss, g_loss = np.mean([(p.d_loss, p.g_loss) for p in block], axis=0)
            note = f"d_loss {d_loss:.3f}, g_loss {g_loss:.3f}"
            self._bar.advance(len(block), ", ".join(filter(None, [note, self.note])))

    def line(self, text):
        """Prints a line above the bar."""
        self._bar.line(text)

    def on_train_end(self):
        self._bar.close()


class Losses(Callback):
    """losses.csv, and losses.png at the end."""

    def __init__(self, run):
        self._figure = run.folder.file("losses.png")
        self._table = Table(run.folder.file("losses.csv"), LOSSES, every=1)
        run.files.append(self._table)
        self._rows = []

    def on_train_begin(self, step):
        self._rows = self._table.open(step)

    def on_steps(self, block):
        self._rows.extend(block)
        self._table.append(block)

    def on_interval(self, step):
        self._table.flush()
        _draw_curves(self._figure, self._rows)

    def on_train_end(self):
        self._table.close()


class Images(Callback):
    """samples.png and latent_grid.png at the end, always from the same latents."""

    def __init__(self, run):
        self._run = run

    def on_interval(self, step):
        run, count = self._run, _GRID_SIDE**2
        samples = run.generate(*run.draw(count))
        pictures.save_png(run.folder.file("samples.png"), pictures.tiles(samples, _GRID_SIDE))
        grid = pictures.latent_grid(
            lambda z: run.generate(z, run.labels(count)),
            priors.get(run.recipe.prior),
            run.recipe.nlatent,
            _GRID_SIDE,
            rng=run.batches.picture_rng(),
        )
        pictures.save_png(run.folder.file("latent_grid.png"), grid)


class HeldOut(Callback):
    """held_out.csv: both losses on a few test images and samples after each epoch.

    Both networks are in inference, and labels are 1 and 0 without smoothing. After each epoch a
    line is printed as article 004 prints it; held_out.png is drawn at the end.
    """

    def __init__(self, run):
        self.every = run.batches.steps_per_epoch
        self._run = run
        self._last = run.recipe.num_steps
        self._figure = run.folder.file("held_out.png")
        self._table = Table(run.folder.file("held_out.csv"), LOSSES)
        run.files.append(self._table)
        self._rows = []

    def on_train_begin(self, step):
        self._rows = self._table.open(step)

    def on_interval(self, step):
        if step % self.every == 0:
            self._measure(step)
        if step == self._last and self._rows:
            _draw_curves(self._figure, self._rows, "on held-out images")

    def on_train_end(self):
        self._table.close()

    def _measure(self, step):
        run = self._run
        epoch, epochs = step // self.every, self._last // self.every
        test = run.images.test.pixels
        pixels, latents = run.batches.held_out(test, run.recipe.held_out, epoch)
        d_loss, g_loss = run.losses(pixels / np.float32(255), latents)
        self._rows.append((step, d_loss, g_loss))
        self._table.append(self._rows[-1:])
        run.bar.line(
            f"Epoch: {epoch:>3}/{epochs} Discriminator Loss: {d_loss:>6.4f} "
            f"Generator Loss: {g_loss:>6.4f}"
        )


class Frames(Callback):
    """progress/step-N.png: the same latents as they learn; training.gif at the end."""

    def __init__(self, run):
        self.every = run.options.image_every
        self._run = run
        self._drawn = run.draw(_FRAME_SIDE**2)

    def on_interval(self, step):
        frames = self._run.folder.file("progress")
        frames.mkdir(exist_ok=True)
        image = pictures.tiles(self._run.generate(*self._drawn), _FRAME_SIDE)
        pictures.save_png(frames / f"step-{step:09d}.png", image)
        if step == self._run.recipe.num_steps:
            pictures.film(self._run.folder.file("training.gif"), sorted(frames.glob("step-*.png")))


class Checkpoints(Callback):
    """Checkpoints, each written after everything that the other callbacks wrote."""

    order = 100
    when_stopping = True

    def __init__(self, run):
        default = (
            _CHECKPOINT_EVERY_CONVOLUTIONAL
            if has_convolutions(run.engine.gan)
            else _CHECKPOINT_EVERY
        )
        self.every = run.options.checkpoint_every or default
        self._run = run

    def on_interval(self, step):
        self._run.save_checkpoint(step)


def make_callbacks(run, extra=()):
    """Returns the callbacks of a run, and sets its bar.

    Args:
      extra: Functions of a `Run` that each return a further callback.
    """
    run.bar = ProgressBar(run.recipe.num_steps)
    chosen = [Losses, Images, Checkpoints]
    if run.options.image_every:
        chosen.append(Frames)
    if run.recipe.held_out:
        chosen.append(HeldOut)
    return Callbacks([run.bar, *(make_one(run) for make_one in [*chosen, *extra])])


def _draw_curves(path, rows, title=""):
    # Tables hold float32 values, so that the figure is the same after a run was resumed.
    steps, d_losses, g_losses = zip(*rows, strict=True)
    pictures.curves(path, steps, np.float32(d_losses), np.float32(g_losses), title)
