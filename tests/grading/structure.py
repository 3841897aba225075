"""Checks of what the constructor promises: names, placeholders, sizes, a session ready to run."""

import numpy as np
import tensorflow as tf

from .checks import check, expect
from .specimen import NETS, owners, tf1, width

PLACEHOLDERS = ("x_placeholder", "z_placeholder", "learning_rate_placeholder")
OUTPUTS = ("x_hat", "d_loss", "g_loss", "d_optimizer", "g_optimizer", "session")
NETWORKS = ("_generator", "_discriminator", "_discriminator_loss", "_generator_loss")
METHODS = (*NETWORKS, "generate_samples")


@check(
    "The class cannot be imported and built by Gan(): begin with the error in brackets", gate=True
)
def builds(gan):
    """Building is all that it takes."""


@check(
    "Names of the article are missing, and whoever uses this class looks for exactly those",
    gate=True,
)
def has_the_articles_names(gan):
    missing = [name for name in PLACEHOLDERS + OUTPUTS if not hasattr(gan.model, name)]
    missing += [name for name in METHODS if not callable(getattr(gan.model, name, None))]
    expect(not missing, f"missing: {', '.join(missing)}")


@check(
    "The session is not ready when the constructor returns: think about what a variable holds "
    "before anything is put into it, and which variables exist by then",
    gate=True,
)
def session_is_ready(gan):
    empty = gan.model.session.run(tf1.report_uninitialized_variables(tf1.global_variables()))
    expect(not len(empty), f"{len(empty)} variables hold nothing")
    gan.run(gan.model.x_hat, latents=gan.latents(2))


@check(
    "A placeholder has the wrong type or shape: think about which numbers go in, which side of "
    "the array is known beforehand, and which depends on how many are fed at once",
    gate=True,
)
def placeholders_take_float32_batches(gan):
    for name in PLACEHOLDERS[:2]:
        placeholder = getattr(gan.model, name)
        seen = f"{name} is {placeholder.dtype.name} {placeholder.shape}"
        expect(placeholder.dtype == tf.float32 and placeholder.shape.rank == 2, seen)
        rows, columns = placeholder.shape.as_list()
        expect(rows is None and columns is not None, seen)
    rate = gan.model.learning_rate_placeholder
    seen = f"learning_rate_placeholder is {rate.dtype.name} {rate.shape}"
    expect(rate.dtype == tf.float32 and rate.shape.rank in (None, 0), seen)


@check(
    "Gan() works once but not again in a fresh graph: something outlives the graph it belongs to",
    gate=True,
)
def builds_again_in_a_fresh_graph(gan):
    with gan.bench.another() as second:
        second.run(second.model.x_hat, latents=second.latents(2))


@check(
    "Building a network once more with reuse=True makes new variables, so that the copy does not "
    "know what the original has learned",
    gate=True,
)
def reuse_makes_no_variables(gan):
    before = [v.name for v in tf1.global_variables()]
    gan.model._generator(gan.model.z_placeholder, reuse=True)
    gan.model._discriminator(gan.model.x_placeholder, reuse=True)
    new = [v.name for v in tf1.global_variables() if v.name not in before]
    expect(not new, f"new: {', '.join(new)}")


@check(
    "A trainable variable belongs to neither network or to both, so no optimizer can tell whether "
    "it is its own: think about the scope in which each is made"
)
def every_weight_belongs_to_one_net(gan):
    stray = [v.name for v in tf1.trainable_variables() if len(owners(v)) != 1]
    expect(not stray, f"{', '.join(stray)}")
    for net in NETS:
        expect(gan.variables(net), f"the scope {net} holds no trainable variable")


@check(
    "The model does not work for every number of images at once: look for a batch size that "
    "stands somewhere as a number, or an axis that got lost"
)
def takes_any_batch_size(gan):
    fetches = [gan.model.x_hat, gan.image_logits, gan.model.d_loss, gan.model.g_loss]
    for n in (1, 5, 64):
        samples, logits, *_ = gan.run(fetches, **gan.batch(n))
        seen = f"x_hat has shape {samples.shape}, D's output {logits.shape} for a batch of {n}"
        expect(samples.shape[0] == n and logits.shape == (n, 1), seen)


@check("Gan() has other sizes than the article's constructor has when nothing is passed to it")
def default_sizes(gan):
    seen = (width(gan.model.x_placeholder), width(gan.model.z_placeholder))
    expect(seen == (784, 2), f"images of {seen[0]} and latents of {seen[1]} numbers")


@check("The constructor's two arguments do not come in the article's order")
def arguments_come_in_order(gan):
    with gan.bench.another(784, 3) as other:
        sizes = (width(other.model.x_placeholder), width(other.model.z_placeholder))
        expect(sizes != (3, 784), "Gan(784, 3) takes images of 3 and latents of 784 numbers")


@check(
    "Images of another size than 28 x 28 do not work: look for a size that stands somewhere as a "
    "number although the constructor is told it",
    ndims=36,
)
def image_size_is_an_argument(gan):
    expect_sizes(gan, 36, width(gan.model.z_placeholder))


@check(
    "Latent vectors of another length do not work: look for a length that stands somewhere as a "
    "number although the constructor is told it",
    nlatent=3,
)
def latent_size_is_an_argument(gan):
    expect_sizes(gan, width(gan.model.x_placeholder), 3)
    with gan.bench.another(nlatent=10) as ten:
        expect_sizes(ten, width(ten.model.x_placeholder), 10)


def expect_sizes(gan, ndims, nlatent):
    """Expects that latents of that length give images of that size, and that D takes them."""
    asked = f"asked for images of {ndims} and latents of {nlatent} numbers"
    sizes = (width(gan.model.x_placeholder), width(gan.model.z_placeholder))
    expect(sizes == (ndims, nlatent), f"{asked}, the placeholders take {sizes[0]} and {sizes[1]}")
    images, latents = np.zeros([5, ndims]), np.zeros([5, nlatent])
    shapes = {
        "x_hat": gan.run(gan.model.x_hat, latents=latents).shape,
        "what generate_samples returns": np.shape(gan.model.generate_samples(latents)),
        "D's output": gan.run(gan.image_logits, images=images).shape,
    }
    wanted = ((5, ndims), (5, ndims), (5, 1))
    for (name, shape), want in zip(shapes.items(), wanted, strict=True):
        expect(shape == want, f"{asked}, {name} has shape {shape} for a batch of 5")
