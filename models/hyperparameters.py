"""What a recipe's hyper-parameters are: their meaning, bounds and how they go together.

Importing it imports no TensorFlow.
"""

import dataclasses

from models import priors
from support.errors import UserError

# The groups that --help shows the fields in.
EVERYDAY = "Everyday"
BATCHES = "Latents and batches"
OPTIMIZERS = "Optimizers"
REGULARISATION = "Losses, updates and averages"
NETWORKS = "Networks"


def number(default, low, high, group, text, *, above=None):
    """A field that a flag may set to values in [low, high], or in (above, high] if low is None.

    group: one of those above; text: for its help.
    """
    bounds = {"low": low, "high": high, "above": above}
    return dataclasses.field(default=default, metadata={"help": text, "group": group, **bounds})


def option(default, group, text):
    """A field that a flag may set to any value of its type."""
    return number(default, None, None, group, text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One GAN and how it is trained; the defaults are those of `minimal`.

    gan: where the class is, `module:Class`; conditional_gan: its form with labels, if it has one;
    source: the article or paper behind it; convolutional: whether TensorFlow's kernels compute
    the networks' convolutions, not XLA. Every other field is a hyper-parameter with a flag; its
    metadata holds its help, with the paper behind it, its group there and its bounds.
    """

    gan: str
    source: str
    conditional_gan: str | None = None
    convolutional: bool = False
    # Latents, images and steps.
    nlatent: int = number(10, 1, 4096, EVERYDAY, "dimensions of the latent vector z, G's input")
    prior: str = option(
        "uniform", BATCHES, f"distribution of each coordinate of z: {priors.described()}"
    )
    num_steps: int = number(
        50_000, 1, 10**9, EVERYDAY, "steps in all, each d_iters updates of D and g_iters of G"
    )
    batch_size: int = number(16, 1, 65_536, EVERYDAY, "images in a batch")
    d_iters: int = number(1, 1, 100, BATCHES, "updates of D in a step")
    g_iters: int = number(1, 1, 100, BATCHES, "updates of G in a step")
    digit: int | None = number(None, 0, 9, EVERYDAY, "train on the images of this label alone")
    conditional: bool = option(
        False, EVERYDAY, "show both networks the label: a conditional GAN (Mirza & Osindero 2014)"
    )
    validation_size: int = number(5_000, 0, 59_999, BATCHES, "training images that are set aside")
    half_batches: bool = option(
        False, BATCHES, "D sees batch_size / 2 images of each kind, G draws batch_size"
    )
    reuse_latents: bool = option(
        False, BATCHES, "G trains on the latents that D has just seen, not on new ones"
    )
    pretraining: int = number(
        0, 0, 60_000, BATCHES,
        "real images, and as many generated ones, that D learns from before G starts, 0 for none",
    )  # fmt: skip
    pretraining_batch: int = number(
        64, 1, 60_000, BATCHES, "images of each kind in a batch of the pre-training"
    )
    held_out: int = number(
        0, 0, 10_000, BATCHES,
        "test images on which both losses are computed after each epoch, 0 for none",
    )  # fmt: skip
    # The optimizers.
    learning_rate: float = number(
        1e-3, None, 1, OPTIMIZERS, "Adam's step size for D, and for G", above=0
    )
    g_learning_rate: float | None = number(
        None, None, 1, OPTIMIZERS, "Adam's step size for G, if not the same as D's", above=0
    )
    lr_decay: float = number(0.0, 0, 1, OPTIMIZERS, "both rates are divided by 1 + lr_decay * step")
    lr_milestones: tuple[int, ...] = number(
        (), 1, 10**9, OPTIMIZERS, "a step at which both rates fall tenfold; may be given repeatedly"
    )
    lr_cooldown: float = number(
        0.0, 0, 1, OPTIMIZERS, "share of all steps at the end that runs at a tenth of both rates"
    )
    beta1: float = number(
        0.9, 0, 0.9999, OPTIMIZERS,
        "Adam's first moment: m = beta1 * m + (1 - beta1) * grad (Kingma & Ba 2015)",
    )  # fmt: skip
    beta2: float = number(
        0.999, 0, 0.999999, OPTIMIZERS,
        "Adam's second moment: v = beta2 * v + (1 - beta2) * grad^2; weights move by rate * m / "
        "sqrt(v), both corrected for their start at 0",
    )  # fmt: skip
    # What is added to the plain losses and updates; 0 or False: nothing.
    separate_updates: bool = option(
        False, REGULARISATION,
        "two updates of D, on mean ce(1, D(x)) and on mean ce(0, D(G(z))), in the place of one on "
        "their sum",
    )  # fmt: skip
    label_smoothing: float = number(
        0.0, 0, 0.5, REGULARISATION,
        "D's target for real images is 1 - label_smoothing: one-sided (Salimans et al. 2016)",
    )  # fmt: skip
    r1_gamma: float = number(
        0.0, 0, 1e6, REGULARISATION,
        "R1 penalty: adds gamma/2 * mean ||grad D(x)||^2 on real images x to D's loss (Mescheder "
        "et al. 2018)",
    )  # fmt: skip
    penalty_every: int = number(
        1, 1, 1000, REGULARISATION,
        "R1 at every N-th update of D alone, with N times the weight: lazy regularisation (Karras "
        "et al. 2020)",
    )  # fmt: skip
    ema_decay: float = number(
        0.0, 0, 0.999999, REGULARISATION,
        "samples come from an exponential moving average of G's weights, avg = d * avg + (1 - d) * "
        "w with d = min(ema_decay, (1 + t) / (10 + t)) at update t, 0 for none (Yazici et al. "
        "2019)",
    )  # fmt: skip
    # The networks of the classes whose constructor takes them; unset: the class's own.
    conditioning: str | None = option(
        None, NETWORKS,
        "how D of a conditional GAN sees the label: projection, embedding(label) . features(x) is "
        "added to its logit (Miyato & Koyama 2018); concat, the label is beside the pixels",
    )  # fmt: skip
    d_channels: int | None = number(
        None, 0, 256, NETWORKS, "channels of stable_cnn's first convolution in D, 0 for none"
    )
    g_channels: int | None = number(
        None, 0, 256, NETWORKS, "channels before stable_cnn's last convolution in G, 0 for none"
    )
    minibatch_stddev: bool | None = option(
        None, NETWORKS,
        "stable_cnn's D also sees its last features' standard deviation over the batch (Karras et "
        "al. 2018)",
    )  # fmt: skip

    @property
    def d_batch_size(self):
        """Images of each kind in a batch of D."""
        return self.batch_size // 2 if self.half_batches else self.batch_size

    def rates(self, step):
        """The learning-rate schedule: a step -> the rates of D's and of G's optimizer."""
        factor = 0.1 ** sum(step >= milestone for milestone in self.lr_milestones)
        if step >= (1 - self.lr_cooldown) * self.num_steps:
            factor *= 0.1
        factor /= 1 + self.lr_decay * step
        g_rate = self.learning_rate if self.g_learning_rate is None else self.g_learning_rate
        return self.learning_rate * factor, g_rate * factor


# Fields that a class's own train ops have no place for, and those that its constructor may take.
UPDATE_FIELDS = (
    "beta1", "beta2", "separate_updates", "label_smoothing", "r1_gamma", "penalty_every",
    "ema_decay",
)  # fmt: skip
NETWORK_FIELDS = ("conditioning", "d_channels", "g_channels", "minibatch_stddev")


def overridable():
    """The fields that a flag or `override` may replace, in order: dataclass fields with help."""
    return [field for field in dataclasses.fields(Recipe) if "help" in field.metadata]


def override(recipe, **values):
    """The recipe with some hyper-parameters replaced.

    Raises UserError that names the flag, the value seen and the value wanted.
    """
    fields = {field.name: field for field in overridable()}
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    for name, value in values.items():
        if name not in fields:
            raise UserError(f"{name}: no such hyper-parameter, choose from {', '.join(fields)}")
        _check(fields[name], value)
    replaced = dataclasses.replace(recipe, **values)
    _check_together(replaced)
    return replaced


def without_updates(recipe):
    """The recipe for a class that is trained by its own train ops, and the names left out there."""
    plain = {field.name: field.default for field in overridable() if field.name in UPDATE_FIELDS}
    lost = [name for name, value in plain.items() if getattr(recipe, name) != value]
    return dataclasses.replace(recipe, **plain), lost


def values_of(recipe):
    """A recipe -> {name: value} of all that can be replaced."""
    return {field.name: getattr(recipe, field.name) for field in overridable()}


def bounds_text(field):
    """A field -> `0 to 9` or `above 0 to 1`, empty where any value of its type will do."""
    bounds = field.metadata
    if bounds["high"] is None:
        return ""
    start = bounds["low"] if bounds["above"] is None else f"above {bounds['above']}"
    return f"{start} to {bounds['high']:.12g}"


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
        return kind in (bool, bool | None)
    if kind == tuple[int, ...]:
        return isinstance(value, tuple) and all(_is_of(int, each) for each in value)
    return isinstance(value, kind) or (isinstance(value, int) and isinstance(1.0, kind))


def _type_text(kind):
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "a word"}
    known = (text for each, text in words.items() if kind in (each, each | None))
    return next(known, "whole numbers")


def _within(bounds, value):
    low, above = bounds["low"], bounds["above"]
    # Not a number compares false with everything.
    start = value >= low if above is None else value > above
    return start and value <= bounds["high"]


def _check_together(recipe):
    if recipe.half_batches and recipe.reuse_latents:
        raise UserError(
            "--half_batches=True: G needs more latents than D has, wanted --reuse_latents=False"
        )
    if recipe.half_batches and recipe.batch_size < 2:
        raise UserError(f"--batch_size={recipe.batch_size}: wanted at least 2 with --half_batches")
    if 0 < recipe.pretraining < recipe.pretraining_batch:
        raise UserError(
            f"--pretraining={recipe.pretraining}: wanted 0 or at least {recipe.pretraining_batch}, "
            "one batch"
        )
    if recipe.conditioning not in (None, "projection", "concat"):
        raise UserError(f"--conditioning={recipe.conditioning}: wanted projection or concat")
    if recipe.conditional and recipe.pretraining:
        raise UserError("--conditional: not with --pretraining, which knows no labels")
    if recipe.conditional and recipe.digit is not None:
        raise UserError(
            f"--digit={recipe.digit}: --conditional learns every label, leave one of the two out"
        )
