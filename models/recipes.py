"""The recipes: which networks, trained with which hyperparameters.

To add a recipe, add an entry to `RECIPES`; to add a hyperparameter, add a field to `Recipe`.
Its flag, help, validation and place in `config.json` follow from the field, made by `option`.
Fields of the group UPDATES are ignored by a custom class's own train ops; those of the group
NETWORKS are arguments of the networks' constructors.
Importing this module does not import TensorFlow.
"""

import dataclasses
import importlib
import os
import types
import typing

import numpy as np

from models import custom_class, priors
from models.losses import LOSSES
from support.data_sets import NUM_PIXELS
from support.errors import UserError

# Groups of options, in the order in which `python main.py --help` shows them.
EVERYDAY = "Everyday"
BATCHES = "Hyperparameters: latents and batches"
LEARNING_RATES = "Hyperparameters: learning rates"
UPDATES = "Hyperparameters: losses, updates and averages"
NETWORKS = "Hyperparameters: networks"

_PRIORS = ", ".join(f"{name} {prior.formula}" for name, prior in priors.PRIORS.items())
_RATES = (1e-12, 1)


def option(
    default, group, text, *, bounds=None, choices=None, modes=("train",), value=None, unset=None
):
    """Returns a dataclass field that is also a command-line flag.

    Args:
      default: Value of the flag if it is not given.
      group: Heading under which --help shows it.
      text: Its help, a noun phrase or imperative.
      bounds: Smallest and largest valid value.
      choices: The valid values, if they can be listed.
      modes: Values of --mode with which the flag is valid.
      value: Placeholder shown in --help, such as `DIR`.
      unset: Meaning of None, for --help.
    """
    metadata = {
        "group": group,
        "help": text,
        "bounds": bounds,
        "choices": choices,
        "modes": modes,
        "value": value,
        "unset": unset,
    }
    return dataclasses.field(default=default, metadata=metadata)


def check_value(field: dataclasses.Field, value) -> None:
    """Checks that `value` has the type and bounds of an `option` field.

    Raises:
      UserError: If it does not.
    """
    if value is None and type(None) in typing.get_args(field.type):
        return
    kind, is_tuple = value_type(field)
    values = value if is_tuple else [value]
    if not isinstance(values, (tuple, list)) or not all(
        _is_valid(each, kind, field.metadata) for each in values
    ):
        raise UserError(f"--{field.name} must be {describe_values(field)}, got {value}")


def _is_valid(value, kind, limits):
    types_of_kind = (int, float) if kind is float else kind
    if not isinstance(value, types_of_kind) or isinstance(value, bool) != (kind is bool):
        return False
    if limits["choices"] is not None:
        return value in limits["choices"]
    low, high = limits["bounds"] or (value, value)
    return low <= value <= high  # False for NaN


def value_type(field: dataclasses.Field) -> tuple[type, bool]:
    """Returns the type of a field's value, and whether the value is a tuple.

    Of a tuple, it is the type of the values in it.
    """
    kind: typing.Any = field.type
    if isinstance(kind, types.UnionType):
        kind = next(each for each in typing.get_args(kind) if each is not type(None))
    is_tuple = typing.get_origin(kind) is tuple
    return (typing.get_args(kind)[0] if is_tuple else kind), is_tuple


def describe_values(field: dataclasses.Field) -> str:
    """Returns a field's valid values as text, such as `an integer from 0 to 9`."""
    if field.metadata["choices"] is not None:
        return f"one of {', '.join(field.metadata['choices'])}"
    nouns = {bool: "True or False", str: "text", int: "an integer", float: "a number"}
    bounds = bounds_text(field)
    return nouns[value_type(field)[0]] + (f" from {bounds}" if bounds else "")


def bounds_text(field: dataclasses.Field) -> str:
    """Returns a field's bounds, such as `0 to 9`, or an empty text if it has none."""
    if field.metadata["bounds"] is None:
        return ""
    low, high = field.metadata["bounds"]
    return f"{low:.12g} to {high:.12g}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One GAN and how it is trained; the defaults are those of `minimal`.

    All attributes except these are hyperparameters; their metadata has the flag's help and bounds.

    Attributes:
      gan: Location of the class, `module:Class`.
      conditional_gan: Location of its conditional form, or None.
      source: The article or paper it follows.
    """

    gan: str
    source: str
    conditional_gan: str | None = None

    # Latents, images and steps.
    nlatent: int = option(
        10, EVERYDAY, "dimensions of the latent vector z, G's input", bounds=(1, 4096)
    )
    prior: str = option(
        "uniform", BATCHES, f"of each coordinate of z: {_PRIORS}", choices=priors.PRIORS
    )
    num_steps: int = option(
        50_000, EVERYDAY, "steps, each of d_iters updates of D and g_iters of G", bounds=(1, 10**9)
    )
    batch_size: int = option(16, EVERYDAY, "images per batch", bounds=(1, 65_536))
    d_iters: int = option(1, BATCHES, "updates of D per step", bounds=(1, 100))
    g_iters: int = option(1, BATCHES, "updates of G per step", bounds=(1, 100))
    digit: int | None = option(
        None, EVERYDAY, "train only on the images with this label", bounds=(0, 9), unset="all"
    )
    conditional: bool = option(
        False, EVERYDAY, "give both networks the label: a conditional GAN (Mirza & Osindero 2014)"
    )
    validation_size: int = option(
        5_000, BATCHES, "training images held out for validation", bounds=(0, 59_999)
    )
    half_batches: bool = option(
        False, BATCHES, "D sees batch_size / 2 real and as many generated images, G whole batches"
    )
    reuse_latents: bool = option(
        False, BATCHES, "train G on the latents that D has just seen instead of new ones"
    )
    pretraining: int = option(
        0, BATCHES, "real images on which D is trained before G; 0 for none", bounds=(0, 60_000)
    )
    pretraining_batch: int = option(
        64, BATCHES, "real images per batch of the pre-training", bounds=(1, 60_000)
    )
    held_out: int = option(
        0, BATCHES, "test images for both losses after each epoch; 0 for none", bounds=(0, 10_000)
    )

    # The learning rates.
    learning_rate: float = option(
        1e-3, LEARNING_RATES, "Adam's step size, of D and of G", bounds=_RATES
    )
    g_learning_rate: float | None = option(
        None,
        LEARNING_RATES,
        "Adam's step size of G, if it differs from D's",
        bounds=_RATES,
        unset="that of D",
    )
    lr_decay: float = option(
        0.0, LEARNING_RATES, "divide both learning rates by 1 + lr_decay * step", bounds=(0, 1)
    )
    lr_milestones: tuple[int, ...] = option(
        (), LEARNING_RATES, "step at which both fall tenfold; may be repeated", bounds=(1, 10**9)
    )
    lr_cooldown: float = option(
        0.0, LEARNING_RATES, "fraction of the steps, at the end, at a tenth of both", bounds=(0, 1)
    )

    # Adam, and additions to the plain losses and updates; 0 or False for none.
    # A weight changes by rate * m / sqrt(v), both moments corrected for their start at 0.
    beta1: float = option(
        0.9,
        UPDATES,
        "Adam's first moment: m = beta1 * m + (1 - beta1) * grad (Kingma & Ba 2015)",
        bounds=(0, 0.9999),
    )
    beta2: float = option(
        0.999,
        UPDATES,
        "Adam's second moment: v = beta2 * v + (1 - beta2) * grad^2",
        bounds=(0, 0.999999),
    )
    loss: str = option(
        "cross_entropy",
        UPDATES,
        f"loss of both networks: {', '.join(f'{k} ({v.source})' for k, v in LOSSES.items())}",
        choices=LOSSES,
    )
    separate_updates: bool = option(
        False, UPDATES, "update D twice, on its loss at real, then on that at generated images"
    )
    # Only the real images': Salimans et al. 2016.
    label_smoothing: float = option(
        0.0, UPDATES, "D's target for real images is 1 - label_smoothing", bounds=(0, 0.5)
    )
    # R1: Mescheder et al. 2018; not at every update: Karras et al. 2020.
    r1_gamma: float = option(
        0.0, UPDATES, "R1: add gamma/2 * mean ||grad D(x)||^2 to D's loss", bounds=(0, 1e6)
    )
    r2_gamma: float = option(0.0, UPDATES, "R2: like R1, but at generated images", bounds=(0, 1e6))
    gradient_penalty: float = option(
        0.0,
        UPDATES,
        "add this times mean (||grad D(x)|| - 1)^2 to D's loss, at random points x between real "
        "and generated images; usually 10 (Gulrajani et al. 2017)",
        bounds=(0, 1e6),
    )
    weight_clip: float = option(
        0.0,
        UPDATES,
        "clip D's weights to [-weight_clip, weight_clip] after each of its updates; usually 0.01 "
        "(Arjovsky et al. 2017)",
        bounds=(0, 1e6),
    )
    penalty_every: int = option(
        1,
        UPDATES,
        "apply penalties at every N-th update of D, with N times the weight",
        bounds=(1, 1000),
    )
    # With d = min(ema_decay, (1 + t) / (10 + t)) at update t.
    ema_decay: float = option(
        0.0,
        UPDATES,
        "sample from an average of G's weights, avg = d * avg + (1 - d) * w (Yazici et al. 2019)",
        bounds=(0, 0.999999),
    )

    # Arguments of the networks' constructors; None: the class's own default.
    # Projection adds embedding(label) . features(x) to D's logit.
    conditioning: str | None = option(
        None,
        NETWORKS,
        "how D sees the label: projection (Miyato & Koyama 2018), or concat, after the pixels",
        choices=("projection", "concat"),
        unset="projection, if conditional",
    )
    d_channels: int | None = option(
        None,
        NETWORKS,
        "channels of stable_cnn's first convolution in D; 0 for none",
        bounds=(0, 256),
        unset="32 in stable_cnn",
    )
    g_channels: int | None = option(
        None,
        NETWORKS,
        "channels before stable_cnn's last convolution in G; 0 for none",
        bounds=(0, 256),
        unset="48 in stable_cnn",
    )
    minibatch_stddev: bool | None = option(
        None,
        NETWORKS,
        "stable_cnn's D also sees the standard deviation of its last features over the batch "
        "(Karras et al. 2018)",
        unset="on in stable_cnn",
    )

    @property
    def d_batch_size(self) -> int:
        """Number of real images, and of generated ones, per update of D."""
        return self.batch_size // 2 if self.half_batches else self.batch_size


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
        source="article 001, Generative Adversarial Networks",
        nlatent=100,
        prior="normal",
        batch_size=256,
        learning_rate=2e-4,
        beta1=0.5,
    ),
    "upsampling_cnn": Recipe(
        gan="models.upsampling_cnn:UpsamplingCnn",
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
        source="ours, after Mescheder et al. 2018, Karras et al. 2018 and Brock et al. 2019",
        nlatent=16,
        prior="normal",
        num_steps=13_500,
        batch_size=64,
        learning_rate=3e-3,
        lr_decay=1e-4,
        lr_cooldown=0.125,
        beta1=0.0,
        beta2=0.99,
        r1_gamma=0.3,
        penalty_every=8,
        ema_decay=0.999,
        reuse_latents=True,
        validation_size=0,
    ),
}


def get(name: str) -> Recipe:
    """Returns the recipe of that name.

    Raises:
      UserError: If there is none; the message lists the known names.
    """
    if name not in RECIPES:
        raise UserError(f"--recipe must be one of {', '.join(RECIPES)}, got {name}")
    return RECIPES[name]


def hyperparameters(group: str | None = None) -> list[dataclasses.Field]:
    """Returns the fields of `Recipe`, all or one group's, that can be overridden.

    Flags and `override` may set them.
    """
    fields = [field for field in dataclasses.fields(Recipe) if "group" in field.metadata]
    return [field for field in fields if group in (None, field.metadata["group"])]


def values_of(recipe: Recipe) -> dict:
    """Returns {name: value} of all hyperparameters."""
    return {field.name: getattr(recipe, field.name) for field in hyperparameters()}


def plain_value(value):
    """Returns a NumPy number as Python's, a list as a tuple, and a path as text."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list):
        return tuple(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def override(recipe: Recipe, **values) -> Recipe:
    """Returns the recipe with some hyperparameters replaced.

    Raises:
      UserError: For an unknown name, a value out of bounds, or values that exclude each other.
    """
    fields = {field.name: field for field in hyperparameters()}
    for name, value in values.items():
        if name not in fields:
            raise UserError(
                f"{name} is neither a hyperparameter nor an option of a run; see python main.py "
                "--help"
            )
        value = plain_value(value)
        check_value(fields[name], value)
        if value_type(fields[name])[0] is float and value is not None:
            value = float(value)  # so that 1 and 1.0 are the same run
        values[name] = value
    loss = LOSSES[values.get("loss", recipe.loss)]
    if not loss.has_targets:
        values.setdefault("label_smoothing", 0.0)
    interval, pretraining_batch = recipe.penalty_every, recipe.pretraining_batch
    recipe = dataclasses.replace(recipe, **values)
    has_penalty = recipe.r1_gamma or recipe.r2_gamma or recipe.gradient_penalty
    if recipe.penalty_every != interval and not has_penalty:
        raise UserError("--penalty_every requires --r1_gamma, --r2_gamma or --gradient_penalty")
    if recipe.pretraining_batch != pretraining_batch and not recipe.pretraining:
        raise UserError("--pretraining_batch requires --pretraining")
    if recipe.label_smoothing and not loss.has_targets:
        raise UserError(
            f"--label_smoothing is not valid with --loss={recipe.loss}, which has no targets"
        )
    for name in ("half_batches", "separate_updates"):
        if loss.compares_pairs and getattr(recipe, name):
            raise UserError(
                f"--loss={recipe.loss} is not valid with --{name}: it compares each real image "
                f"with a generated one; add --no{name}"
            )
    for name in ("weight_clip", "separate_updates"):
        if recipe.gradient_penalty and getattr(recipe, name):
            raise UserError(f"--gradient_penalty is not valid with --{name}; omit one of the two")
    if recipe.half_batches and recipe.reuse_latents:
        raise UserError("--half_batches is not valid with --reuse_latents: G needs more latents")
    if recipe.half_batches and recipe.batch_size % 2:
        raise UserError(f"--batch_size must be even with --half_batches, got {recipe.batch_size}")
    if 0 < recipe.pretraining < recipe.pretraining_batch:
        raise UserError(
            f"--pretraining must be 0 or at least one batch, {recipe.pretraining_batch}, "
            f"got {recipe.pretraining}"
        )
    if recipe.conditional and recipe.digit is not None:
        raise UserError(
            f"--conditional is not valid with --digit={recipe.digit}: it learns every label"
        )
    for name in ("pretraining", "held_out"):
        if recipe.conditional and getattr(recipe, name):
            raise UserError(f"--conditional is not valid with --{name}; set --{name}=0")
    return recipe


def without_update_fields(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """Returns the recipe as a custom class's own train ops follow it.

    Returns:
      The recipe without the hyperparameters that such train ops ignore, and their names.
    """
    plain: dict[str, typing.Any] = {field.name: field.default for field in hyperparameters(UPDATES)}
    ignored = [name for name, value in plain.items() if getattr(recipe, name) != value]
    return dataclasses.replace(recipe, **plain), ignored


def check_has_conditional_form(recipe: Recipe) -> None:
    """Checks that a conditional recipe's networks support labels.

    Raises:
      UserError: If they do not.
    """
    if recipe.conditional and recipe.conditional_gan is None:
        able = [name for name, each in RECIPES.items() if each.conditional_gan]
        raise UserError(
            f"--conditional requires networks that take labels, those of {', '.join(able)}; the "
            f"networks of {recipe.source} take none"
        )


def build_gan(recipe: Recipe, gan_class: type | None = None):
    """Builds a recipe's Gan, or a custom class's, in the current default graph.

    Raises:
      UserError: If the constructor does not take one of the recipe's hyperparameters, or a
        conditional recipe meets networks without labels; or for any error of a custom class.
    """
    if gan_class is None:
        check_has_conditional_form(recipe)
        location = recipe.conditional_gan if recipe.conditional else recipe.gan
        module, _, name = str(location).partition(":")
        gan_class = getattr(importlib.import_module(module), name)
    networks = {field.name: getattr(recipe, field.name) for field in hyperparameters(NETWORKS)}
    chosen = {name: value for name, value in networks.items() if value is not None}
    with custom_class.user_errors(gan_class):
        return gan_class(ndims=NUM_PIXELS, nlatent=recipe.nlatent, **chosen)
