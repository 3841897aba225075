"""The recipes: which nets, trained by which numbers. Importing it imports no TensorFlow.

A recipe is data. A variant is a recipe with some numbers replaced, see `override`; `build` turns
either into a `Gan`.
"""

import dataclasses
import importlib

from errors import UserError
from models import priors
from models.objective import Objective, number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Objective):
    """One GAN and how it is trained; the defaults are article 003's.

    gan: where the class is, `module:Class`.
    source: the article or paper behind it.
    convolutional: whether the nets have convolutions.
    """

    gan: str
    source: str
    nlatent: int = number(10, 1, 4096, text="dimensions of the latent space")
    prior: str = number("uniform", text=f"distribution of the latents: {', '.join(priors.PRIORS)}")
    num_steps: int = number(
        50_000, 1, 10**9, text="steps to train in all, each of d_iters + g_iters updates"
    )
    batch_size: int = number(16, 1, 65_536, text="images a batch")
    learning_rate: float = number(
        1e-3, high=1, above=0, text="rate of D's Adam, and of G's where that has none of its own"
    )
    g_learning_rate: float | None = number(None, high=1, above=0, text="rate of G's Adam")
    d_iters: int = number(1, 1, 100, text="updates of D a step")
    g_iters: int = number(1, 1, 100, text="updates of G a step")
    digit: int | None = number(None, 0, 9, text="train on the images of this digit alone")
    decay: float = number(0.0, 0, 1, text="both rates are divided by 1 + decay * step")
    pretraining: int = number(
        0, 0, 60_000, text="real images, and as many generated ones, that D learns from first"
    )
    pretraining_batch: int = number(
        64, 1, 60_000, text="images of each kind in a batch of the pre-training"
    )
    half_batches: bool = number(
        False, text="D sees half a batch of each kind of image, G a whole one (article 002)"
    )
    reuse_latents: bool = number(
        False, text="G trains on the latents that D has just seen (article 004)"
    )
    drops: tuple[int, ...] = number(
        (), 1, 10**9, text="a step at which both rates fall tenfold; may be given several times"
    )
    held_out: int = number(
        0, 0, 10_000, text="test images on which both losses are taken after each epoch, 0 for none"
    )
    validation_size: int = number(5_000, 0, 59_999, text="training images that are set aside")
    convolutional: bool = False

    @property
    def d_batch_size(self):
        """Images of each kind in a batch of D; pairs need as many as G has."""
        return (
            self.batch_size // 2 if self.half_batches and not self.relativistic else self.batch_size
        )

    def rates(self, step):
        """The learning rates (D's, G's) at a step."""
        factor = 0.1 ** sum(step >= drop for drop in self.drops) / (1 + self.decay * step)
        g_rate = self.learning_rate if self.g_learning_rate is None else self.g_learning_rate
        return self.learning_rate * factor, g_rate * factor


RECIPES = {
    "minimal": Recipe(gan="models.gan:Gan", source="article 003, Minimal GAN modeling on MNIST"),
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
        separate=True,
        reuse_latents=True,
        held_out=16,
        validation_size=0,
    ),
    "dcgan": Recipe(
        gan="models.dcgan:DcGan",
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
        decay=1e-6,
        separate=True,
        half_batches=True,
    ),
    "pretrained_cnn": Recipe(
        gan="models.pretrained_cnn:PretrainedCnn",
        convolutional=True,
        source="article 000, MNIST Generative Adversarial Model in Keras",
        nlatent=100,
        prior="uniform01",
        num_steps=10_000,
        batch_size=32,
        learning_rate=1e-3,
        g_learning_rate=1e-4,
        drops=(6_000, 8_000),
        pretraining=10_000,
        validation_size=0,
    ),
    "stable_mlp": Recipe(
        gan="models.stable_mlp:StableMlp",
        source="ours, after Mescheder et al. 2018 and Karras et al. 2018",
        nlatent=16,
        prior="normal",
        num_steps=12_000,
        batch_size=64,
        learning_rate=3e-3,
        decay=1e-4,
        beta1=0.0,
        beta2=0.99,
        r1_gamma=0.3,
        penalty_every=8,
        ema_decay=0.999,
        minibatch_stddev=True,
        windows=16,
        g_windows=32,
        validation_size=0,
    ),
}


def get(name):
    """The recipe of that name. Raises UserError that lists the names there are."""
    if name not in RECIPES:
        raise UserError(f"--recipe={name}: no such recipe, choose from {', '.join(RECIPES)}")
    return RECIPES[name]


def overridable():
    """The fields that a flag or `override` may replace, in order: dataclass fields with help."""
    return [field for field in dataclasses.fields(Recipe) if "help" in field.metadata]


def override(recipe, **values):
    """The recipe with some numbers replaced.

    Raises UserError that names the flag, the value seen and the value wanted.
    """
    fields = {field.name: field for field in overridable()}
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    for name, value in values.items():
        if name not in fields:
            raise UserError(f"{name}: no such number in a recipe, choose from {', '.join(fields)}")
        _check(fields[name], value)
    replaced = dataclasses.replace(recipe, **values)
    _check_together(replaced)
    return replaced


def numbers(recipe):
    """A recipe -> {name: value} of all that can be replaced."""
    return {field.name: getattr(recipe, field.name) for field in overridable()}


def difference(name, recipe):
    """The numbers in which a recipe differs from the one of that name: dict of its own values."""
    standard = numbers(get(name))
    return {name: value for name, value in numbers(recipe).items() if value != standard[name]}


def gan_class(recipe):
    """The `Gan` (sub)class of a recipe; imports TensorFlow."""
    module, name = recipe.gan.split(":")
    return getattr(importlib.import_module(module), name)


def build(name, *, seed=None, **overrides):
    """The Gan of a recipe, with numbers replaced, in the current default graph."""
    return build_gan(override(get(name), **overrides), seed=seed)


def build_gan(recipe, **options):
    """A recipe -> its Gan in the current default graph; options as for `Gan`."""
    return gan_class(recipe)(nlatent=recipe.nlatent, objective=recipe, **options)


def bounds_text(field):
    """A field -> `0 to 9` or `above 0 to 1`, empty where any value of its type will do."""
    bounds = field.metadata
    if bounds["high"] is None:
        return ""
    start = bounds["low"] if bounds["above"] is None else f"above {bounds['above']}"
    return f"{start} to {bounds['high']}"


def _check(field, value):
    if field.name == "prior":
        priors.get(value)
    if not _is_of(field.type, value):
        raise UserError(f"--{field.name}={value!r}: wanted {_type_text(field.type)}")
    values = value if isinstance(value, tuple) else [] if value is None else [value]
    if bounds_text(field) and not all(_within(field.metadata, each) for each in values):
        raise UserError(f"--{field.name}={value}: wanted {bounds_text(field)}")


def _is_of(kind, value):
    """Whether a value is of a field's type; a whole number is a float too, but no bool is one."""
    if isinstance(value, bool):
        return kind is bool
    if kind == tuple[int, ...]:
        return isinstance(value, tuple) and all(_is_of(int, each) for each in value)
    return isinstance(value, kind) or (isinstance(value, int) and isinstance(1.0, kind))


def _type_text(kind):
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "a word"}
    return {**words, tuple[int, ...]: "whole numbers"}.get(kind, f"{kind}")


def _within(bounds, value):
    low, above = bounds["low"], bounds["above"]
    # Not a number compares false with everything.
    start = value >= low if above is None else value > above
    return start and value <= bounds["high"]


def _check_together(recipe):
    if recipe.relativistic and recipe.separate:
        raise UserError(
            "--relativistic=True: compares real images with generated ones, wanted --separate=False"
        )
    if recipe.relativistic and recipe.label_smoothing:
        raise UserError(
            f"--label_smoothing={recipe.label_smoothing}: --relativistic has no labels, wanted 0"
        )
    for name in ("windows", "g_windows"):
        if getattr(recipe, name) and recipe.convolutional:
            raise UserError(
                f"--{name}={getattr(recipe, name)}: goes with the dense recipes, wanted 0 with "
                "convolutions"
            )
    if recipe.half_batches and recipe.reuse_latents:
        raise UserError(
            "--half_batches=True: G needs more latents than D has, wanted --reuse_latents=False"
        )
    if 0 < recipe.pretraining < recipe.pretraining_batch:
        raise UserError(
            f"--pretraining={recipe.pretraining}: wanted 0 or at least {recipe.pretraining_batch}, "
            "one batch"
        )
    if recipe.pretraining and recipe.pretraining_batch % recipe.packing:
        raise UserError(
            f"--pretraining_batch={recipe.pretraining_batch}: D judges {recipe.packing} images "
            "together, wanted a batch that divides into such packs"
        )
    batch = recipe.d_batch_size
    if batch < 1 or batch % recipe.packing or recipe.batch_size % recipe.packing:
        raise UserError(
            f"--batch_size={recipe.batch_size}: D judges {recipe.packing} images together, "
            f"wanted a batch that divides into such packs"
            + (" by halves" if recipe.half_batches else "")
        )
