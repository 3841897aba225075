"""Readers of a run's progress: each sees every block of steps and acts every so many steps."""

import numpy as np

import images
from models import priors
from terminal import Bar
from training.run_folder import LOSSES, Table

_GRID_SIDE = 20
# Steps, for dense and for convolutional recipes, whose steps take a hundred times longer.
_CHECKPOINT_EVERY = {False: 5000, True: 100}
_FRAME_SIDE = 8


class Reader:
    """`open` at the step where the run starts, `see` each block, `act` at marks, `close`.

    every: steps from one `act` to the next; 0 for the run's end alone, where every reader acts.
    """

    every = 0

    def open(self, step):
        """The run starts after this many steps."""

    def see(self, block):
        """A list of Progress, maybe empty."""

    def act(self, step):
        """The model's variables are those after this many steps."""

    def flush(self):
        """Puts on the disk all that a checkpoint of now must find there."""

    def close(self):
        """The run has ended, well or not."""


class ProgressBar(Reader):
    """The steps done, their rate and the latest losses on the terminal.

    note: what other readers want shown beside the losses.
    """

    def __init__(self, total):
        self._total = total
        self._bar = None
        self.step = 0
        self.note = ""

    def open(self, step):
        self.step = step
        self._bar = Bar(self._total, start=step)

    def see(self, block):
        if block:
            self.step = block[-1].step
            d_loss, g_loss = np.mean([(p.d_loss, p.g_loss) for p in block], axis=0)
            note = f"d_loss {d_loss:.3f}, g_loss {g_loss:.3f}"
            self._bar.advance(len(block), ", ".join(filter(None, [note, self.note])))

    def line(self, text):
        """Shows a line above the bar."""
        self._bar.line(text)

    def close(self):
        self._bar.close()


class Losses(Reader):
    """losses.csv, and losses.png at the end."""

    def __init__(self, folder):
        self._picture = folder.file("losses.png")
        self._table = Table(folder.file("losses.csv"), LOSSES)
        self._rows = []

    def open(self, step):
        self._rows = self._table.open(step)

    def see(self, block):
        self._rows.extend(block)
        self._table.append(block)

    def act(self, step):
        self._table.flush()
        images.curves(self._picture, *zip(*self._rows, strict=True))

    def flush(self):
        self._table.flush()

    def close(self):
        self._table.close()


class Pictures(Reader):
    """samples.png and latent_grid.png at the end, from latents that never change."""

    def __init__(self, model, draws, folder):
        self._model = model
        self._draws = draws
        self._folder = folder

    def act(self, step):
        recipe, rng = self._draws.recipe, self._draws.picture_rng()
        prior, generate = priors.get(recipe.prior), self._model.generate_samples
        latents = prior.sample(rng, [_GRID_SIDE**2, recipe.nlatent])
        images.save_png(
            self._folder.file("samples.png"), images.tiles(generate(latents), _GRID_SIDE)
        )
        grid = images.latent_grid(generate, prior, recipe.nlatent, _GRID_SIDE, rng=rng)
        images.save_png(self._folder.file("latent_grid.png"), grid)


class HeldOut(Reader):
    """held_out.csv: both losses on a few test images and samples after each epoch of D's data.

    Labels 1 and 0 without smoothing, both nets in inference; a line on the terminal for each, as
    article 004 prints them, and held_out.png at the end.
    """

    def __init__(self, model, draws, test_pixels, folder, bar):
        self.every = draws.steps_per_epoch
        self._last = draws.recipe.num_steps
        self._model, self._draws, self._bar = model, draws, bar
        self._pixels = test_pixels
        self._picture = folder.file("held_out.png")
        self._table = Table(folder.file("held_out.csv"), LOSSES)
        self._rows = []

    def open(self, step):
        self._rows = self._table.open(step)

    def act(self, step):
        if step % self.every == 0:
            self._measure(step)
        if step == self._last and self._rows:
            images.curves(self._picture, *zip(*self._rows, strict=True), "on held-out images")

    def flush(self):
        self._table.flush()

    def close(self):
        self._table.close()

    def _measure(self, step):
        epoch, epochs = step // self.every, self._last // self.every
        d_loss, g_loss = self._losses(epoch)
        self._rows.append((step, d_loss, g_loss))
        self._table.append(self._rows[-1:])
        self._bar.line(
            f"Epoch: {epoch:>3}/{epochs} Discriminator Loss: {d_loss:>6.4f} "
            f"Generator Loss: {g_loss:>6.4f}"
        )

    def _losses(self, epoch):
        """-> the discriminator's and the generator's cross-entropy, in nats."""
        recipe = self._draws.recipe
        count = -(-recipe.held_out // recipe.packing) * recipe.packing
        pixels, latents = self._draws.held_out(self._pixels, count, epoch)
        y, y_hat = self._model.judge(pixels / np.float32(255), latents)
        d_loss = np.logaddexp(0, -y).mean() + np.logaddexp(0, y_hat).mean()
        return d_loss, np.logaddexp(0, -y_hat).mean()


class Frames(Reader):
    """progress/step-N.png: the same latents as they learn; training.gif of them at the end."""

    def __init__(self, model, draws, folder, every):
        self.every = every
        self._last = draws.recipe.num_steps
        self._model = model
        self._folder = folder
        prior = priors.get(draws.recipe.prior)
        shape = [_FRAME_SIDE**2, draws.recipe.nlatent]
        self._latents = prior.sample(draws.picture_rng(), shape)

    def act(self, step):
        frames = self._folder.file("progress")
        frames.mkdir(exist_ok=True)
        picture = images.tiles(self._model.generate_samples(self._latents), _FRAME_SIDE)
        images.save_png(frames / f"step-{step:09d}.png", picture)
        if step == self._last:
            images.film(self._folder.file("training.gif"), sorted(frames.glob("step-*.png")))


class Checkpoints(Reader):
    """Checkpoints, each after all that the other readers wrote up to its step is on the disk."""

    def __init__(self, model, folder, others, every):
        self.every = every
        self._model = model
        self._folder = folder
        self._others = others

    def act(self, step):
        for reader in self._others:
            reader.flush()
        self._folder.save_checkpoint(step, self._model.state())


def make(model, draws, data, folder, settings, extra=()):
    """-> the readers of a run; the bar first and the checkpoints last, after all they stand for.

    extra: functions of (model, draws, folder, bar) -> Reader.
    """
    bar = ProgressBar(draws.recipe.num_steps)
    watching = [bar, Losses(folder), Pictures(model, draws, folder)]
    if settings.image_every:
        watching.append(Frames(model, draws, folder, settings.image_every))
    if draws.recipe.held_out:
        watching.append(HeldOut(model, draws, data.test.pixels, folder, bar))
    watching += [make_one(model, draws, folder, bar) for make_one in extra]
    every = settings.checkpoint_every or _CHECKPOINT_EVERY[draws.recipe.convolutional]
    return [*watching, Checkpoints(model, folder, watching, every)]
