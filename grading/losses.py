"""Checks of the two losses by value, against closed forms in NumPy.

They run even if the class cannot be built, because students write the losses first.
"""

import functools
import itertools
import operator

import numpy as np

from grading.checks import BEHIND_A_GATE, Unclear, check, expect

D_NUMBER, G_NUMBER = ("d_loss_is_a_number",), ("g_loss_is_a_number",)
loss_check = functools.partial(check, needs=("imports",), without_constructor=BEHIND_A_GATE)
d_check = functools.partial(loss_check, needs=D_NUMBER)
g_check = functools.partial(loss_check, needs=G_NUMBER)
# Of both signs and within a few units of 0.
LOGITS = np.random.default_rng(3).normal(0, 2, 16)


def softplus(x):
    """Returns log(1 + exp(x)), the cross-entropy of logits x and the label 0."""
    return np.logaddexp(0.0, x)


@loss_check()
def losses_are_scalars(gan):
    """A loss is not one number.

    An update needs one for the whole batch.
    """
    logits = [0.0, 1.0, -1.0, 2.0]
    for name, inputs in (("_discriminator_loss", 2 * [logits]), ("_generator_loss", [logits])):
        shape = np.shape(gan.measure("loss", name=name, logits=inputs))
        expect(shape == (), f"{name} on 4 logits has shape {shape}")


@loss_check()
def d_loss_is_a_number(gan):
    """The discriminator's loss is not a number for quite ordinary logits.

    Think about which numbers a logit can be, and which ones a logarithm can take.
    """
    expect_numbers(gan.d_loss_at, 2)


@loss_check()
def g_loss_is_a_number(gan):
    """The generator's loss is not a number for quite ordinary logits.

    Think about which numbers a logit can be, and which ones a logarithm can take.
    """
    expect_numbers(gan.g_loss_at, 1)


def expect_numbers(loss_at, arity):
    """Expects finite values for logits within a few units of 0."""
    for logits in itertools.product((-3, -0.5, 0, 1, 4), repeat=arity):
        value = loss_at(*logits)
        expect(np.isfinite(value), f"{value} for {' and '.join(map(str, logits))}")


@d_check()
def d_loss_has_the_articles_value(gan):
    """The discriminator's loss does not have the article's value.

    Go through its parts by hand for a logit of 0, and ask of each what it is compared with.
    """
    for y, y_hat in [(0.0, 0.0), *itertools.pairwise(LOGITS)]:
        expect_close(gan.d_loss_at(y, y_hat), softplus(-y) + softplus(y_hat), (y, y_hat))


@g_check()
def g_loss_has_the_articles_value(gan):
    """The generator's loss does not have the article's value.

    Work it out by hand for a logit of 0, and ask what the generator wants the discriminator
    to say.
    """
    for y_hat in [0.0, *LOGITS]:
        expect_close(gan.g_loss_at(y_hat), softplus(-y_hat), (y_hat,))


def expect_close(actual, expected, logits):
    """Expects agreement in float32."""
    at = " and ".join(f"{logit:.2f}" for logit in logits)
    close = np.allclose(actual, expected, rtol=1e-4, atol=1e-5)
    expect(close, f"{actual:.4f} instead of {expected:.4f} for logits {at}")


@d_check()
def d_loss_is_a_mean(gan):
    """The discriminator's loss depends on how many images come at once.

    A batch of twice the size should not push twice as hard.
    """
    expect_mean(gan.d_loss_at, LOGITS, LOGITS[::-1])


@g_check()
def g_loss_is_a_mean(gan):
    """The generator's loss depends on how many samples come at once.

    A batch of twice the size should not push twice as hard.
    """
    expect_mean(gan.g_loss_at, LOGITS)


def expect_mean(loss_at, *logits):
    """Expects the loss of a batch to be the mean of the losses of its items."""
    singles = [loss_at(*items) for items in zip(*logits, strict=True)]
    for n in (2, 7, 16):
        batch, mean = loss_at(*(each[:n] for each in logits)), np.mean(singles[:n])
        found = f"{batch:.3f} for a batch of {n} whose items have {mean:.3f} on average"
        expect(np.allclose(batch, mean, rtol=1e-4), found)


@d_check()
def d_loss_listens_to_both_kinds(gan):
    """The discriminator's loss ignores one of its two inputs.

    The discriminator has to learn from both kinds of images.
    """
    for images, place in ("real", 0), ("generated", 1):
        values = [gan.d_loss_at(*np.roll([logit, 0.0], place)) for logit in (-2, 0.5, 3)]
        found = f"it stays the same whatever D says of {images} images"
        expect(np.ptp(values), found)


@d_check()
def d_loss_rewards_the_truth(gan):
    """The discriminator's loss rises when the discriminator gets better.

    Ask for each kind of image what a good discriminator says of it.
    """
    expect(gan.d_loss_at(2, 0) <= gan.d_loss_at(-2, 0), "real images taken for real cost more")
    found = "generated images taken for generated cost more"
    expect(gan.d_loss_at(0, -2) <= gan.d_loss_at(0, 2), found)


@g_check()
def g_loss_rewards_fooling(gan):
    """The generator's loss does not fall when its samples are taken for real.

    So training does not make them better: think about whom the generator wants to fool.
    """
    fooled, caught = gan.g_loss_at(2), gan.g_loss_at(-2)
    expect(fooled < caught, f"{fooled:.3f} when taken for real, {caught:.3f} when found out")


@loss_check(needs=(*G_NUMBER, "g_loss_rewards_fooling"))
def g_loss_is_steep_for_a_loser(gan):
    """The generator's loss is almost flat if the discriminator detects every sample.

    So a generator that loses has nothing to learn from: think about where its slope is
    needed most.
    """
    slope = abs(gan.g_loss_at(-8) - gan.g_loss_at(-9))
    expect(slope > 0.5, f"it changes by {slope:.4f} from logit -9 to -8")


@d_check()
def d_loss_is_never_negative(gan):
    """The discriminator's loss falls below 0, which no cross-entropy does.

    Ask which of its inputs is the truth and which is the network's opinion.
    """
    expect_not_negative(gan.d_loss_at, 2)


@g_check()
def g_loss_is_never_negative(gan):
    """The generator's loss falls below 0, which no cross-entropy does.

    Ask which of its inputs is the truth and which is the network's opinion.
    """
    expect_not_negative(gan.g_loss_at, 1)


def expect_not_negative(loss_at, arity):
    """Expects no negative value for confident logits, right or wrong."""
    values = {logits: loss_at(*logits) for logits in itertools.product((-8, 8), repeat=arity)}
    logits, lowest = min(values.items(), key=operator.itemgetter(1))
    expect(lowest > -1e-6, f"{lowest:.3f} for {' and '.join(map(str, logits))}")


@d_check()
def d_loss_survives_sure_mistakes(gan):
    """The discriminator's loss fails for a discriminator that is sure and wrong.

    Think about what float32 makes of a probability so near 0 or 1, and of its logarithm.
    """
    expect_large(gan.d_loss_at, 2)


@g_check()
def g_loss_survives_sure_mistakes(gan):
    """The generator's loss fails for a discriminator that is very sure.

    Think about what float32 makes of a probability so near 0 or 1, and of its logarithm.
    """
    expect_large(gan.g_loss_at, 1)


def expect_large(loss_at, arity):
    """Expects large values for sure mistakes.

    That is, finite values for logits of +-50 and +-200, the worst about as large as they are. A
    loss that is smaller at 4 already does not have the article's value.
    """
    for size in (4.0, 50.0, 200.0):
        values = [loss_at(*logits) for logits in itertools.product((-size, size), repeat=arity)]
        found = ", ".join(f"{value:.1f}" for value in values)
        large = np.all(np.isfinite(values)) and np.max(np.abs(values)) > 0.98 * size
        if size == 4 and not large:
            raise Unclear
        expect(large, f"{found} for logits of {-size:.0f} and {size:.0f}")
