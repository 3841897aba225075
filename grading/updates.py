"""Checks of the two optimizers: what moves, how far, and in which direction."""

import numpy as np

from grading import NETWORKS
from grading.checks import check, expect
from grading.losses import D_NUMBER, G_NUMBER

NUMBERS = D_NUMBER + G_NUMBER
WEIGHTS_ARE_NUMBERS = (*NUMBERS, "weights_stay_numbers")
MOVING = (*WEIGHTS_ARE_NUMBERS, "optimizers_move_all_of_their_own")


def moves(gan, net, rate):
    """Returns the largest change of each of the net's variables by one update.

    The changes are in the variables' order.

    Weights are drawn first: a layer that begins at 0 would hide those below it from the update.
    """
    for each in NETWORKS:
        gan.randomize_weights(each)
    return gan.update(net, rate, **gan.batch())[net]


@check(needs=NUMBERS)
def weights_stay_numbers(gan):
    """An update turns weights into NaN or infinity.

    Think about what its loss divides by, and whether a slope can be infinite where the loss
    itself is not.
    """
    for net in NETWORKS:
        fresh = gan.update(net, 0.001, **gan.batch())[net]
        spoilt = np.count_nonzero(~np.isfinite([*fresh, *moves(gan, net, 0.001)]))
        expect(not spoilt, f"{spoilt} of the {net}'s variables")
        gan.restore()


@check()
def d_optimizer_leaves_the_generator_alone(gan):
    """Training the discriminator changes the generator.

    The players must not touch each other's weights: think about which variables an
    optimizer takes when it is given none.
    """
    expect_untouched(gan, "generator", by="discriminator")


@check()
def g_optimizer_leaves_the_discriminator_alone(gan):
    """Training the generator changes the discriminator.

    The players must not touch each other's weights: think about which variables an
    optimizer takes when it is given none.
    """
    expect_untouched(gan, "discriminator", by="generator")


def expect_untouched(gan, net, by):
    """Expects the net's weights to stay the same to the bit while the other trains."""
    changes = gan.update(by, 0.01, **gan.batch(), steps=2)[net]
    changed = np.count_nonzero(changes)
    expect(not changed, f"{changed} of its {len(changes)} variables changed")


@check(needs=WEIGHTS_ARE_NUMBERS)
def optimizers_move_all_of_their_own(gan):
    """An optimizer leaves a part of its own network unchanged.

    Think about which variables it is given, and whether the loss can feel each of them.
    """
    for net in NETWORKS:
        still = moves(gan, net, rate=0.01).count(0)
        expect(not still, f"{still} of the {net}'s variables did not move")


@check(needs=MOVING)
def learning_rate_is_obeyed(gan):
    """The learning rate that is fed does not set the size of the step.

    Follow the placeholder to the place where it is used.
    """
    for net in NETWORKS:
        gan.restore()
        expect(not any(moves(gan, net, 0.0)), f"the {net} moves at a rate of 0")
        largest = []
        for rate in (0.002, 0.004):
            gan.restore()
            largest.append(max(moves(gan, net, rate)))
        once, twice = largest
        found = f"the {net} moves by {once:.2g} at a rate of 0.002, by {twice:.2g} at 0.004"
        expect(np.isclose(twice, 2 * once, rtol=0.05), found)


@check(needs=MOVING)
def first_step_is_adams(gan):
    """The first update does not move the weights as Adam's does.

    Its first step has nearly one length for all weights whatever their gradients: think
    about which optimizer this is.
    """
    rate = 0.001
    for net in NETWORKS:
        gan.restore()
        step = float(np.median(moves(gan, net, rate)))
        expect(0.9 < step / rate < 1.05, f"the {net} moves by {step:.2g} at a rate of {rate}")


@check(needs=("first_step_is_adams", "d_optimizer_leaves_the_generator_alone"))
def each_network_has_its_own_adam(gan):
    """The generator's first step depends on earlier training of the discriminator.

    Think about what Adam counts and remembers, and whether two networks can share that.
    """
    rate = 0.001
    gan.update("discriminator", rate, **gan.batch(), steps=5)
    step = float(np.median(moves(gan, "generator", rate)))
    found = f"it moves by {step:.2g} instead of {rate} after 5 updates of the discriminator"
    expect(0.95 < step / rate < 1.05, found)


@check()
def generator_trains_without_images(gan):
    """An update of the generator needs more than latent vectors and a learning rate.

    Think about which images its loss is about.
    """
    gan.run("g_optimizer", "g_loss", latents=gan.latents(16), rate=0.001)


@check(needs=(*WEIGHTS_ARE_NUMBERS, "g_loss_rewards_fooling"))
def generator_learns_to_fool(gan):
    """Training the generator does not make its samples look more real to the discriminator.

    The discriminator is frozen meanwhile: think about the direction in which the
    generator's loss pulls.
    """
    gan.randomize_weights("discriminator")
    batch = gan.batch()
    before = gan.run("sample_logits", **batch).mean()
    gan.update("generator", 0.01, **batch, steps=20)
    after = gan.run("sample_logits", **batch).mean()
    expect(after > before, f"D's mean logit for them went from {before:.2f} to {after:.2f}")


@check(
    needs=(
        *WEIGHTS_ARE_NUMBERS,
        "d_loss_listens_to_both_kinds",
        "d_loss_rewards_the_truth",
        "logits_are_not_squashed",
        "optimizers_move_all_of_their_own",
    )
)
def discriminator_learns_to_tell_apart(gan):
    """The discriminator does not learn to tell easy images from samples.

    Think about what its loss asks of each kind.
    """
    images = gan.images(16, high=0.1)
    images[:, ::2] += 0.9
    batch = {"images": images, "latents": gan.latents(16)}
    gan.update("discriminator", 0.01, **batch, steps=40)
    real, generated = (x.mean() for x in gan.run("image_logits", "sample_logits", **batch))
    found = f"mean logits after 40 updates: {real:.2f} for easy images, {generated:.2f} for samples"
    expect(real > 0 > generated, found)
