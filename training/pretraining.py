"""D's lessons before training: real images and those of a generator that has learnt nothing."""

import contextlib

import numpy as np

from terminal import Bar

_EXAMINED = 512  # eight batches


def pretrain(model, draws, test_pixels, say):
    """Moves D once over `recipe.pretraining` real images and as many generated ones, in whole
    batches, without what is left over; then says how many other images it tells apart.

    draws: the run's Draws, from which all of it follows. test_pixels: uint8 [n, 784] for the
    examination. say: takes the line. Does nothing for a recipe without pretraining.
    """
    recipe = draws.recipe
    if not recipe.pretraining:
        return
    real, latents = draws.pretraining(recipe.pretraining)
    _teach(model, real, latents, rate=recipe.rates(0)[0], half=recipe.pretraining_batch)
    count = min(_EXAMINED, len(test_pixels))
    right, seen = _examine(
        model, *draws.held_out(test_pixels, count, epoch=0), recipe.pretraining_batch
    )
    say(f"After pre-training D tells {right:,} of {seen:,} other images right.")


def _teach(model, real, latents, *, rate, half):
    with contextlib.closing(Bar(len(real) - len(real) % half, unit="image")) as bar:
        for x, z in _batches(real, latents, half):
            feed = {model.x_placeholder: x, model.z_placeholder: z}
            feed[model.learning_rate_placeholder] = rate
            loss, _ = model.session.run([model.d_loss, model.d_optimizer], feed)
            bar.advance(len(x), f"d_loss {loss:.3f}")


def _examine(model, real, latents, half):
    """-> the numbers of right judgements and of judgements."""
    right = []
    for x, z in _batches(real, latents, half):
        y, y_hat = model.judge(x, z)
        right += [y > 0, y_hat < 0]
    return np.count_nonzero(right), np.size(right)


def _batches(real, latents, half):
    """Yields whole batches of images in [0, 1] and latents."""
    for start in range(0, len(real) - half + 1, half):
        x = real[start : start + half].astype(np.float32) / np.float32(255)
        yield x, latents[start : start + half]
