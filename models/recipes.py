"""The recipes: which class, and its hyper-parameters. Importing it imports no TensorFlow.

A recipe is data. A variant is a recipe with some of them replaced, see `override`; `build` turns
either into a `Gan`.
"""

import importlib
import inspect

from input_data import NUM_PIXELS
from models import custom_class
from models.hyperparameters import NETWORK_FIELDS, Recipe, override, values_of
from support.errors import UserError

RECIPES = {
    "minimal": Recipe(
        gan="models.gan:Gan",
        conditional_gan="models.conditional:ConditionalGan",
        source="article 003, Minimal GAN modeling on MNIST (Naman Shukla, 2018)",
    ),
    "leaky_mlp": Recipe(
        gan="models.leaky_mlp:LeakyMlp",
        source="article 004, Using GAN for Generating Hand-written Digit Images",
        nlatent=100,
        prior="normal",
        num_steps=93_700,
        batch_size=64,
        learning_rate=1e-3,
        g_learning_rate=1e-4,
        label_smoothing=0.1,
        separate_updates=True,
        reuse_latents=True,
        held_out=16,
        validation_size=0,
    ),
    "dcgan": Recipe(
        gan="models.dcgan:DcGan",
        conditional_gan="models.conditional:ConditionalDcGan",
        convolutional=True,
        source="article 001, Generative Adversarial Networks",
        nlatent=100,
        prior="normal",
        batch_size=256,
        learning_rate=2e-4,
        beta1=0.5,
    ),
    "upsampling_cnn": Recipe(
        gan="models.upsampling_cnn:UpsamplingCnn",
        convolutional=True,
        source="article 002, Yet Another Generative Adversarial Network (GAN) Guide in Keras",
        nlatent=64,
        prior="semicircle",
        num_steps=20_000,
        batch_size=64,
        learning_rate=2e-4,
        g_learning_rate=1e-4,
        lr_decay=1e-6,
        separate_updates=True,
        half_batches=True,
    ),
    "pretrained_cnn": Recipe(
        gan="models.pretrained_cnn:PretrainedCnn",
        convolutional=True,
        source="article 000, MNIST Generative Adversarial Model in Keras (Tim O'Shea)",
        nlatent=100,
        prior="uniform01",
        num_steps=10_000,
        batch_size=32,
        learning_rate=1e-3,
        g_learning_rate=1e-4,
        lr_milestones=(6_000, 8_000),
        pretraining=10_000,
        validation_size=0,
    ),
    "stable_cnn": Recipe(
        gan="models.stable_cnn:StableCnn",
        conditional_gan="models.conditional:ConditionalStableCnn",
        source="ours, after Mescheder et al. 2018 and Karras et al. 2018",
        nlatent=16,
        prior="normal",
        num_steps=8_500,
        batch_size=64,
        learning_rate=3e-3,
        lr_decay=1e-4,
        lr_cooldown=0.125,
        beta1=0.0,
        beta2=0.99,
        r1_gamma=0.3,
        penalty_every=8,
        ema_decay=0.999,
        validation_size=0,
    ),
}


def get(name):
    """The recipe of that name. Raises UserError that lists the names there are."""
    if name not in RECIPES:
        raise UserError(f"--recipe={name}: no such recipe, choose from {', '.join(RECIPES)}")
    return RECIPES[name]


def difference(name, recipe):
    """The hyper-parameters in which a recipe differs from the one of that name: its own values."""
    standard = values_of(get(name))
    return {name: value for name, value in values_of(recipe).items() if value != standard[name]}


def build(name, **overrides):
    """The Gan of a recipe, with hyper-parameters replaced, in the current default graph.

    Its train ops are the plain ones of `Gan`; `training.build` gives those of the recipe.
    """
    return build_gan(override(get(name), **overrides))


def build_gan(recipe, gan_class=None):
    """A recipe -> its Gan, or one of another class, in the current default graph.

    UserError for a hyper-parameter that the class's constructor does not take, and for labels
    where its networks take none.
    """
    own, gan_class = gan_class is not None, gan_class or class_of(recipe)
    if recipe.conditional:
        _check_networks_take_labels(gan_class)
    given = {name: getattr(recipe, name) for name in NETWORK_FIELDS}
    given = {name: value for name, value in given.items() if value is not None}
    for name in sorted(given.keys() - _constructor_parameters(gan_class)):
        raise UserError(
            f"--{name}={given[name]}: {gan_class.__name__} takes no {name}; leave it out"
        )
    arguments = {"ndims": NUM_PIXELS, "nlatent": recipe.nlatent, **given}
    gan = custom_class.build(gan_class, **arguments) if own else gan_class(**arguments)
    if recipe.conditional:
        _check_placeholders_of_labels(gan)
    return gan


def class_of(recipe):
    """The `Gan` (sub)class of a recipe; imports TensorFlow."""
    check_takes_labels(recipe)
    module, name = (recipe.conditional_gan if recipe.conditional else recipe.gan).split(":")
    return getattr(importlib.import_module(module), name)


def check_takes_labels(recipe):
    """UserError for a conditional recipe whose own class has no form with labels."""
    if recipe.conditional and recipe.conditional_gan is None:
        able = [name for name, each in RECIPES.items() if each.conditional_gan]
        raise UserError(
            f"--conditional: the networks of {recipe.source} take no labels; those of "
            f"{', '.join(able)} do"
        )


def _check_networks_take_labels(gan_class):
    for method in ("_generator", "_discriminator"):
        network = getattr(gan_class, method, None)
        if network and "labels" not in inspect.signature(network).parameters:
            raise UserError(
                f"--conditional: {gan_class.__name__}.{method} takes no labels; give it the "
                "parameter labels=None, one-hot rows, or leave --conditional out"
            )


def _check_placeholders_of_labels(gan):
    for name in ("labels_placeholder", "x_labels_placeholder"):
        if not hasattr(gan, name):
            raise UserError(
                f"--conditional: {type(gan).__name__} has no {name}; give it one, float32 "
                "[None, 10], before its networks are built, or leave --conditional out"
            )


def _constructor_parameters(gan_class):
    """-> the names that a class's constructor takes, those of its bases' included."""
    constructors = [base.__init__ for base in gan_class.__mro__ if "__init__" in vars(base)]
    return {name for each in constructors[:-1] for name in inspect.signature(each).parameters}
