"""Pre-training: D learns from real images and those of an untrained generator before G does."""

import contextlib

import numpy as np

from support.terminal import Bar

_EVALUATED = 512  # eight batches


def pretrain(model, batches, test_pixels, log):
    """Moves D once over `recipe.pretraining` real images and as many generated ones, in whole
    batches, without what is left over; then logs how many other images it tells apart.

    model: TrainingModel; batches: the run's Batches, from which all of it follows. test_pixels:
    uint8 [n, 784] to evaluate D on. Does nothing for a recipe without pre-training.
    """
    recipe = batches.recipe
    if not recipe.pretraining:
        return
    _train(model, batches)
    count = min(_EVALUATED, len(test_pixels))
    others = batches.held_out(test_pixels, count, epoch=0)
    right, seen = _evaluate(model, *others, min(recipe.pretraining_batch, count))
    log(f"After pre-training D tells {right:,} of {seen:,} other images right.")


def _train(model, batches):
    gan, recipe = model.gan, batches.recipe
    half, rate = recipe.pretraining_batch, recipe.rates(0)[0]
    real, latents = batches.pretraining(recipe.pretraining)
    with contextlib.closing(Bar(len(real) - len(real) % half, unit="image")) as bar:
        for x, z in _batches(real, latents, half):
            feed = {
                gan.x_placeholder: batches.part(x),
                gan.z_placeholder: batches.part(z),
                gan.learning_rate_placeholder: rate,
            }
            loss, _ = model.session.run([gan.d_loss, gan.d_optimizer], feed)
            bar.advance(len(x), f"d_loss {loss:.3f}")


def _evaluate(model, real, latents, half):
    """-> how many logits are on the right side of 0, and how many there are."""
    right = []
    for x, z in _batches(real, latents, half):
        y, y_hat = model.discriminate(x, z)
        right += [y > 0, y_hat < 0]
    return np.count_nonzero(right), np.size(right)


def _batches(real, latents, half):
    """Yields whole batches of images in [0, 1] and latents."""
    for start in range(0, len(real) - half + 1, half):
        x = real[start : start + half].astype(np.float32) / np.float32(255)
        yield x, latents[start : start + half]
