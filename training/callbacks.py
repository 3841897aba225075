"""Callbacks of a run: losses, images, warnings, checkpoints and events.

Each can act at two moments: after a block of steps, and after certain steps.
"""

import contextlib
import math
import os
import time

import numpy as np
import tensorflow.compat.v1 as tf

from models import priors
from support import pictures
from support.errors import RunError
from support.files import write_json
from support.terminal import Bar
from training.engines import has_convolutions
from training.run import LOSS_COLUMNS, Table

_GRID_SIDE = 20
_FRAME_SIDE = 8
# Steps between checkpoints; a step of a convolutional recipe takes a hundred times longer.
_CHECKPOINT_EVERY, _CHECKPOINT_EVERY_CONVOLUTIONAL = 5000, 100
# Steps with a frame of the film and a check of G, each about 1.4 times the one before.
_GROWING_STEPS = [round(10 * 2 ** (k / 2)) for k in range(56)]
# G learns nothing with a gradient below Adam's epsilon, 1e-8, or from one image for all latents.
_SMALLEST_GRADIENT = 1e-7
_SMALLEST_DEVIATION = 1e-3  # of a pixel in [0, 1] over the latents, a mean
# A scalar for each step would make the events larger than the checkpoints.
_SCALARS_EVERY = 100


class Context:
    """The run that is trained, as far as callbacks may use it.

    Attributes:
      recipe: `Recipe`.
      options: `RunOptions`.
      images: `Datasets`.
      batches: `Batches`.
      engine: One of `training.engines`.
      inference: `Inference` with the weights of the last `load_weights`.
      folder: `RunFolder`.
      start: Number of steps that were done before.
      bar: Progress bar.
      note: Text that callbacks add to the bar.
      report: Function of (step, {tag: number}) that is called with scores.
      files: Tables and the like, each flushed before a checkpoint and closed at the end.
    """

    def __init__(self, recipe, options, images, batches, engine, inference, folder, start):
        self.recipe, self.options, self.images, self.batches = recipe, options, images, batches
        self.engine, self.inference, self.folder, self.start = engine, inference, folder, start
        self.bar = Bar(recipe.num_steps, start=start)
        self.note = ""
        self.report = lambda step, scores: None
        self._state = {}
        self.files = []

    def table(self, name, columns):
        """Returns an open `Table` in the run folder."""
        table = Table(self.folder.file(name), columns, self.start)
        self.files.append(table)
        return table

    def load_weights(self, step):
        """Loads the current weights, and the average of G's, into `inference`.

        Raises:
          RunError: If they are not finite. The losses do not show this yet: they are those before
            the step's updates.
        """
        state = self.engine.state()
        for name, values in state.items():
            if not np.isfinite(values).all():
                raise diverged(self.folder, step, f"the weights {name} are no longer finite")
        self._state = state | self.inference.load(state)

    def save_checkpoint(self, step, name=None):
        """Writes the loaded weights, and what the networks return for a few fixed inputs.

        All tables are on the disk before, so that a checkpoint never has more steps than they.
        """
        for file in self.files:
            file.flush()
        self.folder.save_checkpoint(step, self._state, name)

    def losses(self, x, z):
        """Returns D's and G's loss of images [n, 784] and latents, without an average."""
        self.inference.load(self._state, average=False)
        losses = self.inference.losses(x, z)
        self.inference.load(self._state)
        return losses

    def draw(self, count):
        """Returns the same latents at every call, and sorted labels.

        The labels are None unless the run is conditional.
        """
        prior, classes = priors.PRIORS[self.recipe.prior], self.batches.classes
        latents = prior.sample(self.batches.picture_rng(), [count, self.recipe.nlatent])
        labels = None if classes is None else classes[np.arange(count) * len(classes) // count]
        return latents, labels

    def close(self):
        """Closes the bar and all files."""
        self.bar.close()
        for file in self.files:
            file.close()


class Callback:
    """Actions at two moments of a run; each does nothing unless overridden.

    Attributes:
      context: `Context`.
      every: Steps between two calls of `on_interval`, which is also called at the end of a run.
        0: only there; None: at some twenty steps, at distances that grow.
      when_stopping: Whether `on_interval` is also called when a run is stopped early.
    """

    when_stopping = False

    def __init__(self, context, every=0):
        self.context = context
        self.every = every

    def next_step(self, step):
        """Returns the first step above `step` for `on_interval`; infinity for none."""
        if self.every is None:
            return next(each for each in _GROWING_STEPS if each > step)
        return step - step % self.every + self.every if self.every else math.inf

    def on_steps(self, block):
        """Called after some steps with a list of Progress, which may be empty."""

    def on_interval(self, step):
        """Called when the loaded weights are those after `step` steps."""


class Losses(Callback):
    """losses.csv and the progress bar; losses.png at the end."""

    def __init__(self, context):
        super().__init__(context)
        self._table = context.table("losses.csv", LOSS_COLUMNS)

    def on_steps(self, block):
        self._table.append(block)
        if block:
            _, d_loss, g_loss = np.mean(block, axis=0)
            note = f"d_loss {d_loss:.3f}, g_loss {g_loss:.3f}"
            self.context.bar.advance(len(block), ", ".join(filter(None, [note, self.context.note])))
            # Not before the first steps, but a broken one is reported before hours of work.
            pictures.import_matplotlib()

    def on_interval(self, step):
        figure = self.context.folder.file("losses.png")
        pictures.curves(figure, *zip(*self._table.rows, strict=True))


class Images(Callback):
    """samples.png and latent_grid.png at the end, always from the same latents."""

    def on_interval(self, step):
        context, recipe = self.context, self.context.recipe
        latents, labels = context.draw(_GRID_SIDE**2)
        grid = pictures.grid_latents(
            priors.PRIORS[recipe.prior], recipe.nlatent, _GRID_SIDE, context.batches.picture_rng()
        )
        for name, z in [("samples", latents), ("latent_grid", grid)]:
            sheet = pictures.tiles(context.inference.generate(z, labels), _GRID_SIDE)
            pictures.save_png(context.folder.file(f"{name}.png"), sheet)


class Frames(Callback):
    """progress/step-N.png: the same latents as they learn; training.gif at the end."""

    def on_interval(self, step):
        folder = self.context.folder
        frames = folder.file("progress")
        frames.mkdir(exist_ok=True)
        images = self.context.inference.generate(*self.context.draw(_FRAME_SIDE**2))
        pictures.save_png(frames / f"step-{step:09d}.png", pictures.tiles(images, _FRAME_SIDE))
        if step == self.context.recipe.num_steps:
            pngs = sorted(frames.glob("step-*.png"))
            captions = [f"step {int(png.stem.removeprefix('step-')):,}" for png in pngs]
            film = zip(captions, pngs, strict=True)
            pictures.film(folder.file("training.gif"), list(film))


class Health(Callback):
    """A line, once, that says why G cannot learn any more and what to try."""

    def __init__(self, context):
        super().__init__(context, every=None)
        self._has_warned = False

    def on_interval(self, step):
        if self._has_warned:
            return
        context = self.context
        latents, labels = context.draw(min(_FRAME_SIDE**2, len(context.batches.pixels)))
        pixels = context.batches.pixels[: len(latents)] / np.float32(255)
        images = context.inference.generate(latents, labels)
        gradient = context.inference.generator_gradient(pixels, latents, labels)
        if images.std(axis=0).mean() < _SMALLEST_DEVIATION:
            symptom = "G makes the same image from all latents"
        elif gradient < _SMALLEST_GRADIENT:
            symptom = f"G's gradient has vanished: no weight's is above {gradient:.0e}"
        else:
            return
        context.bar.line(
            f"Warning: step {step:,}: {symptom}. Try a lower --learning_rate, --r1_gamma=1 or "
            "another --loss in a new run."
        )
        self._has_warned = True


class HeldOut(Callback):
    """held_out.csv: both losses on a few test images and samples after each epoch.

    Both networks are in inference, and labels are 1 and 0 without smoothing. After each epoch a
    line is printed as article 004 prints it; held_out.png is drawn at the end.
    """

    def __init__(self, context):
        super().__init__(context, every=context.batches.steps_per_epoch)
        self._table = context.table("held_out.csv", LOSS_COLUMNS)

    def on_interval(self, step):
        context, last = self.context, self.context.recipe.num_steps
        if step % self.every == 0:
            epoch, epochs = step // self.every, last // self.every
            pixels, latents = context.batches.held_out(
                context.images.test.pixels, context.recipe.held_out, epoch
            )
            d_loss, g_loss = context.losses(pixels / np.float32(255), latents)
            self._table.append([(step, d_loss, g_loss)])
            context.bar.line(
                f"Epoch: {epoch:>3}/{epochs} Discriminator Loss: {d_loss:>6.4f} "
                f"Generator Loss: {g_loss:>6.4f}"
            )
        if step == last and self._table.rows:
            figure = context.folder.file("held_out.png")
            columns = zip(*self._table.rows, strict=True)
            pictures.curves(figure, *columns, "on held-out images")


class Events(Callback):
    """TensorBoard events, for `tensorboard --logdir=runs`.

    They have both losses every 100 steps, scores, and at the end the run's images.
    """

    def __init__(self, context):
        super().__init__(context)
        self._folder = context.folder.file("events")
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"events.out.tfevents.{time.time():.6f}"
        self._writer = tf.io.TFRecordWriter(os.fsencode(path))
        self._waiting = []
        context.files.append(self)
        context.report = self.scalars
        self._add(file_version="brain.Event:2")
        # TensorBoard then ignores what a killed run had written after this step.
        start = tf.SessionLog(status=tf.SessionLog.START)
        self._add(step=context.start + 1, session_log=start)

    def on_steps(self, block):
        for step, d_loss, g_loss in block:
            if step % _SCALARS_EVERY == 0:
                self.scalars(step, {"loss/discriminator": d_loss, "loss/generator": g_loss})

    def on_interval(self, step):
        for name in ("samples", "latent_grid"):
            encoded = self.context.folder.file(f"{name}.png").read_bytes()
            image = tf.Summary.Image(encoded_image_string=encoded, colorspace=1)
            self._add(step=step, summary=tf.Summary(value=[{"tag": name, "image": image}]))

    def scalars(self, step, values):
        """Adds {tag: number} of a step."""
        summary = tf.Summary(value=[{"tag": t, "simple_value": v} for t, v in values.items()])
        self._add(step=step, summary=summary)

    def flush(self):
        """Writes all events to the disk."""
        try:
            for event in self._waiting:
                self._writer.write(event.SerializeToString())
            self._writer.flush()
        except tf.errors.OpError as error:
            raise RunError(
                f"cannot write {self._folder} ({error.message}); "
                f"{self.context.folder.last_checkpoint()}; free some space, or use --noevents, and "
                "rerun the command"
            ) from error
        self._waiting = []

    def close(self):
        """Closes the file; all events up to the last checkpoint are already flushed."""
        with contextlib.suppress(RunError, tf.errors.OpError):
            self.flush()
            self._writer.close()

    def _add(self, **content):
        self._waiting.append(tf.Event(wall_time=time.time(), **content))


class Checkpoints(Callback):
    """Checkpoints, each written after all else, and summary.json."""

    when_stopping = True

    def __init__(self, context):
        default = _CHECKPOINT_EVERY
        if has_convolutions(context.engine.gan):
            default = _CHECKPOINT_EVERY_CONVOLUTIONAL
        super().__init__(context, context.options.checkpoint_every or default)
        self._began = time.monotonic()

    def on_interval(self, step):
        context = self.context
        facts = {
            "steps": step,
            "steps_this_time": step - context.start,
            "seconds": round(time.monotonic() - self._began, 3),
            "engine": context.engine.name,
        }
        write_json(context.folder.file("summary.json"), facts)
        context.save_checkpoint(step)


def make_callbacks(context, extra=()):
    """Returns the callbacks of a run, in the order in which they act.

    Args:
      extra: Functions of a `Context` that each return a further callback.
    """
    callbacks = [Losses(context), Images(context), Health(context)]
    if context.options.image_every != 0:
        callbacks.append(Frames(context, context.options.image_every))
    if context.recipe.held_out and context.images.test.num_examples:
        callbacks.append(HeldOut(context))
    if context.options.events:
        callbacks.append(Events(context))
    return [*callbacks, *(make_one(context) for make_one in extra), Checkpoints(context)]


def diverged(folder, step, what):
    """Returns the error of a run whose losses or weights are no longer finite."""
    remedy = "Try a lower --learning_rate in another --run_dir"
    if step <= 2:
        remedy = (
            "It happens from the first steps on: look for a logarithm or quotient of 0, or for the "
            "slope of a root or norm at 0, in the networks and losses"
        )
    return RunError(
        f"training diverged at step {step:,}: {what}; {folder.last_checkpoint()}. {remedy}"
    )
