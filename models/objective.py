"""What a GAN's two nets are trained on: the numbers of the losses, penalties and optimizers."""

import dataclasses


def number(default, low=None, high=None, *, above=None, text):
    """A field that a flag may set: `text` for its help, values in [low, high] or (above, high]."""
    bounds = {"low": low, "high": high, "above": above, "help": text}
    return dataclasses.field(default=default, metadata=bounds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """The defaults are article 003's plain GAN; each other field is one trick, off by default.

    Each field's metadata holds its `help`, with the paper behind it, and its bounds.
    """

    beta1: float = number(0.9, 0, 0.9999, text="Adam's decay of first moments (Kingma & Ba 2015)")
    beta2: float = number(0.999, 0, 0.999999, text="Adam's decay of second moments")
    separate: bool = number(
        False, text="D moves on the real batch, then on the generated one, not once on both"
    )
    label_smoothing: float = number(
        0.0,
        0,
        0.5,
        text="real images count as 1 minus this for D: one-sided label smoothing "
        "(Salimans et al. 2016)",
    )
    relativistic: bool = number(
        False,
        text="each real logit is compared with a generated one: RpGAN "
        "(Jolicoeur-Martineau 2019, Huang et al. 2024)",
    )
    r1_gamma: float = number(
        0.0,
        0,
        1e6,
        text="weight of half D's squared gradient at real images: R1 (Mescheder et al. 2018)",
    )
    r2_gamma: float = number(0.0, 0, 1e6, text="the same at generated images: R2")
    penalty_every: int = number(
        1,
        1,
        1000,
        text="updates of D from one R1 and R2 penalty to the next; its weight grows by the same "
        "factor (lazy regularisation, Karras et al. 2020)",
    )
    ema_decay: float = number(
        0.0,
        0,
        0.999999,
        text="greatest decay of the average of G's weights that samples come from, 0 for none; "
        "after t updates min(ema_decay, (1 + t) / (10 + t)) (Yazici et al. 2019)",
    )
    minibatch_stddev: bool = number(
        False,
        text="D also sees how much its last features vary over the batch (Karras et al. 2018)",
    )
    windows: int = number(
        0,
        0,
        256,
        text="features of each 8 x 8 window, 4 pixels apart, then twice as many of each 3 x 3 "
        "windows, that D's dense layers see in the place of pixels, 0 for pixels (LeCun et al. "
        "1998)",
    )
    g_windows: int = number(
        0,
        0,
        256,
        text="features of each such window that G sums its pixels from, 0 for a dense layer in the "
        "place of that (Zeiler et al. 2010)",
    )
    packing: int = number(1, 1, 64, text="images that D judges together: PacGAN (Lin et al. 2018)")
    spectral_norm: bool = number(
        False, text="D's kernels are divided by their largest singular value (Miyato et al. 2018)"
    )
    instance_noise: float = number(
        0.0,
        0,
        10,
        text="standard deviation of normal noise on all that D sees, in units of the pixel range "
        "(Sonderby et al. 2017)",
    )
