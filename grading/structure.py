"""Checks of what the constructor promises: names, placeholders, sizes, a session ready to run."""

import numpy as np

from grading import candidate
from grading.candidate import NETWORKS, owners
from grading.checks import check, expect

PLACEHOLDERS = ("x_placeholder", "z_placeholder", "learning_rate_placeholder")
OUTPUTS = ("x_hat", "d_loss", "g_loss", "d_optimizer", "g_optimizer", "session")
METHODS = (
    "_generator",
    "_discriminator",
    "_discriminator_loss",
    "_generator_loss",
    "generate_samples",
)


@check("The file cannot be imported: begin with the error in brackets", gate=True, bare="always")
def imports(gan):
    """Importing is all that it takes."""


@check("There are methods left to write", needs=("imports",), bare="always")
def methods_are_written(gan):
    empty = candidate.unimplemented(gan.bench.path, gan.bench.class_name)
    expect(not empty, "; ".join(empty))


@check(
    "The class cannot be built by Gan(): begin with the error in brackets",
    gate=True,
    needs=("imports", "methods_are_written"),
)
def builds(gan):
    """Building is all that it takes."""


@check(
    "Names of the article are missing, and whoever uses this class looks for exactly those",
    gate=True,
)
def has_the_articles_names(gan):
    missing = gan.missing(attributes=PLACEHOLDERS + OUTPUTS, methods=METHODS)
    expect(not missing, f"missing: {', '.join(missing)}")


@check(
    "The session is not ready when the constructor returns: think about what a variable holds "
    "before anything is put into it, and which variables exist by then",
    gate=True,
)
def session_is_ready(gan):
    empty = gan.num_uninitialized()
    expect(not empty, f"{empty} variables hold nothing")
    gan.run("x_hat", latents=gan.latents(2))


@check(
    "A placeholder has the wrong type or shape: think about which numbers go in, which side of "
    "the array is known beforehand, and which depends on how many are fed at once",
    gate=True,
)
def placeholders_take_float32_batches(gan):
    for name in PLACEHOLDERS[:2]:
        dtype, shape = gan.placeholder(name)
        seen = f"{name} is {dtype} of shape {shape}"
        expect(dtype == "float32" and shape is not None and len(shape) == 2, seen)
        expect(shape[0] is None and shape[1] is not None, seen)
    dtype, shape = gan.placeholder("learning_rate_placeholder")
    seen = f"learning_rate_placeholder is {dtype} of shape {shape}"
    expect(dtype == "float32" and not shape, seen)


@check(
    "Gan() works once but not again in a fresh graph: something outlives the graph it belongs to",
    gate=True,
)
def builds_again_in_a_fresh_graph(gan):
    with gan.bench.another() as second:
        second.run("x_hat", latents=second.latents(2))


@check(
    "Building a network once more with reuse=True makes new variables, so that the copy does not "
    "know what the original has learned",
    gate=True,
)
def reuse_makes_no_variables(gan):
    new = gan.new_variables_on_reuse()
    expect(not new, f"new: {', '.join(new)}")


@check(
    "A trainable variable belongs to neither network or to both, so no optimizer can tell whether "
    "it is its own: think about the scope in which each is made"
)
def every_weight_belongs_to_one_net(gan):
    names = gan.trainable_names()
    stray = [name for name in names if len(owners(name)) != 1]
    expect(not stray, f"{', '.join(stray)}")
    for net in NETWORKS:
        held = any(net in owners(name) for name in names)
        expect(held, f"the scope {net} holds no trainable variable")


@check(
    "The model does not work for every number of images at once: look for a batch size that "
    "stands somewhere as a number, or an axis that got lost"
)
def takes_any_batch_size(gan):
    for n in (1, 5, 64):
        samples, logits, *_ = gan.run("x_hat", "image_logits", "d_loss", "g_loss", **gan.batch(n))
        seen = f"x_hat has shape {samples.shape}, D's output {logits.shape} for a batch of {n}"
        expect(samples.shape[0] == n and logits.shape == (n, 1), seen)


@check("Gan() has other sizes than the article's constructor has when nothing is passed to it")
def default_sizes(gan):
    seen = (gan.width("x_placeholder"), gan.width("z_placeholder"))
    expect(seen == (784, 2), f"images of {seen[0]} and latents of {seen[1]} numbers")


@check("The constructor's two arguments do not come in the article's order")
def arguments_come_in_order(gan):
    with gan.bench.another(784, 3) as other:
        sizes = (other.width("x_placeholder"), other.width("z_placeholder"))
        expect(sizes != (3, 784), "Gan(784, 3) takes images of 3 and latents of 784 numbers")


@check(
    "Images of another size than 28 x 28 do not work: look for a size that stands somewhere as a "
    "number although the constructor is told it",
    ndims=36,
)
def image_size_is_an_argument(gan):
    expect_sizes(gan, 36, gan.width("z_placeholder"))


@check(
    "Latent vectors of another length do not work: look for a length that stands somewhere as a "
    "number although the constructor is told it",
    nlatent=3,
)
def latent_size_is_an_argument(gan):
    expect_sizes(gan, gan.width("x_placeholder"), 3)
    with gan.bench.another(nlatent=10) as ten:
        expect_sizes(ten, ten.width("x_placeholder"), 10)


def expect_sizes(gan, ndims, nlatent):
    """Expects that latents of that length give images of that size, and that D takes them."""
    asked = f"asked for images of {ndims} and latents of {nlatent} numbers"
    sizes = (gan.width("x_placeholder"), gan.width("z_placeholder"))
    expect(sizes == (ndims, nlatent), f"{asked}, the placeholders take {sizes[0]} and {sizes[1]}")
    images, latents = np.zeros([5, ndims]), np.zeros([5, nlatent])
    shapes = {
        "x_hat": gan.run("x_hat", latents=latents).shape,
        "what generate_samples returns": np.shape(gan.generate_samples(latents)[1]),
        "D's output": gan.run("image_logits", images=images).shape,
    }
    wanted = ((5, ndims), (5, ndims), (5, 1))
    for (name, shape), want in zip(shapes.items(), wanted, strict=True):
        expect(shape == want, f"{asked}, {name} has shape {shape} for a batch of 5")
