"""Checks of what the constructor promises.

It promises names, placeholders, sizes, and a session ready to run.
"""

import ast

import numpy as np

from grading import NETWORKS
from grading.checks import ALWAYS, check, expect

PLACEHOLDERS = ("x_placeholder", "z_placeholder", "learning_rate_placeholder")
OUTPUTS = ("x_hat", "d_loss", "g_loss", "d_optimizer", "g_optimizer", "session")
METHODS = (
    "_generator",
    "_discriminator",
    "_discriminator_loss",
    "_generator_loss",
    "generate_samples",
)
# What reading and parsing a student's file may raise.
UNREADABLE = (SyntaxError, ValueError, OSError, RecursionError, MemoryError)


@check(gate=True, without_constructor=ALWAYS)
def imports(gan):
    """The file cannot be imported.

    Begin with the error in brackets.
    """


@check(needs=("imports",), without_constructor=ALWAYS)
def methods_are_written(gan):
    """There are methods left to write."""
    path = gan.source.path
    empty = unimplemented(path, gan.source.class_name)
    expect(not empty, "; ".join(f"{name}, line {line} of {path.name}" for name, line in empty))


def unimplemented(path, class_name):
    """Returns (name, line) of methods that do nothing or are not implemented.

    The latter only raise NotImplementedError.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    except UNREADABLE:
        return []
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name]
    methods = [n for c in classes for n in c.body if isinstance(n, ast.FunctionDef)]
    return [(each.name, each.lineno) for each in methods if all(map(does_nothing, each.body))]


def does_nothing(statement):
    match statement:
        case ast.Pass() | ast.Expr(ast.Constant()) | ast.Return(None | ast.Constant(None)):
            return True
        case ast.Raise(ast.Name(name) | ast.Call(ast.Name(name))):
            return name == "NotImplementedError"
    return False


@check(gate=True, needs=("imports", "methods_are_written"))
def builds(gan):
    """The class cannot be built by Gan().

    Begin with the error in brackets.
    """


@check(gate=True)
def has_the_articles_names(gan):
    """Names of the article are missing.

    Programs that use this class look for exactly those.
    """
    missing = gan.measure("missing", attributes=PLACEHOLDERS + OUTPUTS, methods=METHODS)
    expect(not missing, f"missing: {', '.join(missing)}")


@check(gate=True)
def session_is_ready(gan):
    """The session is not ready when the constructor returns.

    Think about what a variable contains before it gets a value, and which variables exist
    by then.
    """
    empty = gan.measure("num_uninitialized")
    expect(not empty, f"{empty} variables have no value")
    gan.run("x_hat", latents=gan.latents(2))


@check(gate=True)
def placeholders_take_float32_batches(gan):
    """A placeholder has the wrong type or shape.

    Think about which numbers go in, which side of the array is known beforehand, and which
    depends on how many are fed at once.
    """
    for name in PLACEHOLDERS[:2]:
        dtype, shape = gan.measure("placeholder", name=name)
        found = f"{name} is {dtype} of shape {shape}"
        expect(dtype == "float32" and shape is not None and len(shape) == 2, found)
        expect(shape[0] is None and shape[1] is not None, found)
    dtype, shape = gan.measure("placeholder", name="learning_rate_placeholder")
    found = f"learning_rate_placeholder is {dtype} of shape {shape}"
    expect(dtype == "float32" and not shape, found)


@check(gate=True)
def builds_again_in_a_fresh_graph(gan):
    """Gan() works once but not again in a fresh graph.

    Something outlives the graph it belongs to.
    """
    second = gan.another()
    second.run("x_hat", latents=second.latents(2))


@check(gate=True)
def reuse_makes_no_variables(gan):
    """Building a network once more with reuse=True makes new variables.

    So the copy does not know what the original has learned.
    """
    new = gan.measure("new_variables_on_reuse")
    expect(not new, f"new: {', '.join(new)}")


@check()
def every_weight_belongs_to_one_net(gan):
    """A trainable variable belongs to neither network or to both.

    So no optimizer can tell whether it is its own: think about the scope in which each is
    made.
    """
    owners = gan.measure("owners")
    stray = [name for name, networks in owners.items() if len(networks) != 1]
    expect(not stray, ", ".join(stray))
    for net in NETWORKS:
        found = f"the scope {net} contains no trainable variable"
        expect([net] in owners.values(), found)


@check()
def takes_any_batch_size(gan):
    """The outputs do not have a row of the right width for each item of a batch.

    Look for a batch size that is written somewhere as a number, an axis that got lost, or the
    width of a last layer.
    """
    for n in (1, 5, 64):
        samples, logits, *_ = gan.run("x_hat", "image_logits", "d_loss", "g_loss", **gan.batch(n))
        found = f"x_hat has shape {samples.shape}, D's output {logits.shape} for a batch of {n}"
        expect(samples.shape[0] == n and logits.shape == (n, 1), found)


@check()
def default_sizes(gan):
    """Gan() without arguments does not have the sizes of the article's constructor."""
    sizes = (gan.width("x_placeholder"), gan.width("z_placeholder"))
    expect(sizes == (784, 2), f"images of {sizes[0]} and latents of {sizes[1]} numbers")


@check()
def arguments_come_in_order(gan):
    """The constructor's two arguments do not come in the article's order."""
    other = gan.another(784, 3)
    sizes = (other.width("x_placeholder"), other.width("z_placeholder"))
    expect(sizes != (3, 784), "Gan(784, 3) takes images of 3 and latents of 784 numbers")


@check(ndims=36)
def image_size_is_an_argument(gan):
    """Images of a size other than 28 x 28 do not work.

    Look for a size that is written somewhere as a number although the constructor gets it.
    """
    expect_sizes(gan, 36, gan.width("z_placeholder"))


@check(nlatent=3)
def latent_size_is_an_argument(gan):
    """Latent vectors of another length do not work.

    Look for a length that is written somewhere as a number although the constructor gets
    it.
    """
    expect_sizes(gan, gan.width("x_placeholder"), 3)
    ten = gan.another(nlatent=10)
    expect_sizes(ten, ten.width("x_placeholder"), 10)


def expect_sizes(gan, ndims, nlatent):
    """Expects images of that size for latents of that length, and that D takes them."""
    asked = f"asked for images of {ndims} and latents of {nlatent} numbers"
    sizes = (gan.width("x_placeholder"), gan.width("z_placeholder"))
    expect(sizes == (ndims, nlatent), f"{asked}, the placeholders take {sizes[0]} and {sizes[1]}")
    images, latents = np.zeros([5, ndims]), np.zeros([5, nlatent])
    shapes = {
        "x_hat": gan.run("x_hat", latents=latents).shape,
        "what generate_samples returns": gan.generate_samples(latents)[1].shape,
        "D's output": gan.run("image_logits", images=images).shape[:1],
    }
    expected = ((5, ndims), (5, ndims), (5,))
    for (name, shape), each in zip(shapes.items(), expected, strict=True):
        expect(shape == each, f"{asked}, {name} has shape {shape} for a batch of 5")
