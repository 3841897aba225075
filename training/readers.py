"""Readers of a run's progress: each sees every block of steps and acts every so many steps."""

import numpy as np

import images
from models import priors
from terminal import Bar
from training.run_folder import Table

_GRID_SIDE = 20
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

    def close(self):
        """The run has ended, well or not."""


class ProgressBar(Reader):
    """The steps done, their rate and the latest losses on the terminal."""

    def __init__(self, total):
        self._total = total
        self._bar = None
        self.step = 0

    def open(self, step):
        self.step = step
        self._bar = Bar(self._total, start=step)

    def see(self, block):
        if block:
            self.step = block[-1].step
            d_loss, g_loss = np.mean([(p.d_loss, p.g_loss) for p in block], axis=0)
            self._bar.advance(len(block), f"d_loss {d_loss:.3f}, g_loss {g_loss:.3f}")

    def close(self):
        self._bar.close()


class Losses(Reader):
    """losses.csv, and losses.png at the end."""

    def __init__(self, folder):
        self._picture = folder.file("losses.png")
        self._table = Table(folder.file("losses.csv"), ["step", "d_loss", "g_loss"])
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


class Frames(Reader):
    """progress/step-N.png: the same latents as they learn."""

    def __init__(self, model, draws, folder, every):
        self.every = every
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


class Checkpoints(Reader):
    """Checkpoints, each after the tables' rows up to its step are on the disk."""

    def __init__(self, model, folder, tables, every):
        self.every = every
        self._model = model
        self._folder = folder
        self._tables = tables

    def act(self, step):
        for table in self._tables:
            table.flush()
        self._folder.save_checkpoint(step, self._model.state())


def make(model, recipe, draws, data, folder, settings):
    """-> the readers of a run; the bar first and the checkpoints last, after all they stand for."""
    losses = Losses(folder)
    watching = [ProgressBar(recipe.num_steps), losses, Pictures(model, draws, folder)]
    if settings.image_every:
        watching.append(Frames(model, draws, folder, settings.image_every))
    return [*watching, Checkpoints(model, folder, [losses], settings.checkpoint_every)]
