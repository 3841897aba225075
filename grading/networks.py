"""Checks of the two networks.

They cover the range of the samples, D's logits, losses read with an update, and one D for both
paths.
"""

import numpy as np

from grading.checks import check, expect
from grading.losses import D_NUMBER, G_NUMBER
from grading.process import Raised


@check()
def pixels_stay_in_range(gan):
    """Samples leave the range of pixels when the weights are large.

    Pixels are 0 for black to 1 for white: think about what keeps the generator's last layer
    within it.
    """
    samples = wild_samples(gan)
    found = f"from {samples.min():.2f} to {samples.max():.2f}"
    expect(samples.min() >= 0 and samples.max() <= 1, found)


@check()
def pixels_reach_black_and_white(gan):
    """Samples use only a part of the range of pixels, whatever the weights are.

    A digit has many black pixels and many white ones: think about the shape of the last
    layer's function.
    """
    samples = wild_samples(gan)
    black, white = np.mean(samples < 0.1), np.mean(samples > 0.9)
    found = f"{black:.1%} of the pixels are below 0.1 and {white:.1%} above 0.9"
    expect(min(black, white) > 0.02, found)


def wild_samples(gan):
    """Returns `[64, ndims]` from a generator with large random weights."""
    gan.randomize_weights("generator", gain=30)
    return gan.run("x_hat", latents=gan.latents(64))


@check()
def logits_are_not_squashed(gan):
    """The discriminator's output stays within bounds however large its weights are.

    Both losses need any number, of either sign: think about where it becomes a probability.
    """
    draws = []
    for _ in range(3):
        gan.randomize_weights("discriminator", gain=30)
        draws.append(gan.run("image_logits", images=gan.images(64, low=-10, high=10)))
    logits = np.concatenate(draws)
    found = f"from {logits.min():.2f} to {logits.max():.2f}"
    expect(logits.min() < -10 and logits.max() > 10, found)


@check(needs=D_NUMBER + G_NUMBER)
def losses_are_values_before_the_update(gan):
    """A loss fetched with an update is not the one that the update started from.

    Or it changes from one reading to the next: a loss should follow from the weights and the
    batch.
    """
    batch = gan.batch()
    for name, optimizer in {"d_loss": "d_optimizer", "g_loss": "g_optimizer"}.items():
        before, again = (np.mean(gan.run(name, rate=0.1, **batch)) for _ in range(2))
        together = np.mean(gan.run(name, optimizer, rate=0.1, **batch)[0])
        expect(np.isclose(before, again, rtol=1e-5), f"reading {name} twice gives two values")
        found = f"{name} is {before:.4f} before the update and {together:.4f} with it"
        expect(np.isclose(before, together, rtol=1e-5), found)


@check(needs=(*D_NUMBER, *G_NUMBER, "losses_are_values_before_the_update"))
def one_discriminator_for_both_kinds(gan):
    """The discriminator judges the same images in two ways, as real and as samples.

    Think about how many discriminators there are, and which of them the generator plays
    against.
    """
    latents = gan.latents(8)
    gan.randomize_weights("discriminator")
    images = gan.run("x_hat", latents=latents)
    expect_own_losses(gan, images, latents)


@check(needs=("one_discriminator_for_both_kinds",))
def losses_come_from_the_right_logits(gan):
    """d_loss or g_loss is not its loss function's value for the discriminator.

    Follow what the constructor passes to each of the two functions, and in which order.
    """
    gan.randomize_weights("discriminator")
    expect_own_losses(gan, gan.images(8), gan.latents(8))


def expect_own_losses(gan, images, latents):
    """Expects d_loss and g_loss to be the loss functions' values on D's logits.

    D's logits are for these inputs.
    """
    fetches = ["d_loss", "g_loss", "image_logits", "sample_logits"]
    *losses, y, y_hat = gan.run(*fetches, images=images, latents=latents)
    d_loss, g_loss = map(np.mean, losses)
    own_d_loss, own_g_loss = gan.d_loss_at(y, y_hat), gan.g_loss_at(y_hat)
    found = f"d_loss is {d_loss:.4f}, its function returns {own_d_loss:.4f}"
    expect(np.allclose(d_loss, own_d_loss, rtol=1e-4), found)
    found = f"g_loss is {g_loss:.4f}, its function returns {own_g_loss:.4f}"
    expect(np.allclose(g_loss, own_g_loss, rtol=1e-4), found)


@check()
def samples_are_x_hat(gan):
    """generate_samples does not return x_hat for the latent vectors passed to it."""
    latents = gan.latents(5)
    type_name, samples = gan.generate_samples(latents)
    expect(type_name == "ndarray", f"a {type_name} instead of an ndarray")
    images = gan.run("x_hat", latents=latents)
    expect(samples.shape == images.shape, f"shape {samples.shape} instead of {images.shape}")
    gap = np.abs(samples - images).max()
    expect(gap < 1e-6, f"pixels differ by up to {gap:.3f}")


@check()
def samples_follow_the_latents(gan):
    """The samples do not follow the latent vectors.

    The same vector should give the same image again, another vector another image, whatever
    else is in the batch.
    """
    gan.randomize_weights("generator")
    latents = gan.latents(6)
    first, again, turned = (gan.generate_samples(z)[1] for z in (latents, latents, latents[::-1]))
    expect(np.array_equal(first, again), "the same vectors returned other images the second time")
    expect(np.ptp(first, axis=0).max() > 1e-4, "different vectors returned the same image")
    expect(np.allclose(first[::-1], turned, atol=1e-5), "images did not change places with them")


@check()
def wrong_latents_are_refused(gan):
    """generate_samples accepts latent vectors of the wrong length without an error."""
    columns = gan.width("z_placeholder") + 1
    try:
        gan.generate_samples(np.zeros([4, columns]))
    # Any error is an answer: TensorFlow's own will do.
    except Raised:
        return
    expect(False, f"vectors of {columns} numbers where {columns - 1} are right")
