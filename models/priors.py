"""Latent distributions: where the generator's z comes from, and how to move among its draws.

`priors.get("normal").sample(rng, [16, 10])`. NumPy only. A new prior is a `Prior` with a `sample`
in `PRIORS`: what is exported draws by its quantiles, which come from `sample` too.
"""

from dataclasses import dataclass

import numpy as np

from support.errors import UserError

# Below this, resampling would throw away more than 99 of 100 draws.
SMALLEST_TRUNCATION = 0.01

# Draws that quantiles are taken from, and levels from 0 to 1 at which, the closer the further out.
_DRAWS = 2**22
_LEVELS = (1 - np.cos(np.linspace(0, np.pi, 1025))) / 2


@dataclass(frozen=True)
class Prior:
    """One distribution, the same and independent for each latent coordinate.

    low, high: the range that pictures of the latent space span; a bounded prior's whole support.
    spherical: whether all directions are alike, so that a walk turns instead of going straight.
    formula: of the density or the distribution's usual sign, for a line of help.
    """

    name: str
    low: float
    high: float
    formula: str = ""
    spherical = False

    def sample(self, rng, shape):
        """np.random.Generator, shape -> float32 array of that shape, independent draws."""
        raise NotImplementedError

    def quantiles(self):
        """-> levels from 0 to 1 and the values that so large a share of draws is below, [k] each.

        Both float32 and rising. A uniform number's value between them, in a straight line, is a
        draw: that is how it is done where this module is not, without another definition of it.
        """
        draws = self.sample(np.random.default_rng(0), _DRAWS)
        return _LEVELS.astype(np.float32), np.quantile(draws, _LEVELS).astype(np.float32)

    def truncate(self, rng, shape, limit):
        """Like `sample`, with every value in [-limit, limit]; UserError for a bounded prior."""
        self.check_truncation(limit)

    def check_truncation(self, limit):
        """UserError if `truncate` refuses this limit."""
        raise UserError(
            f"--truncation={limit}: the prior '{self.name}' is bounded already, wanted 'normal'"
        )

    def interpolate(self, a, b, t):
        """[..., latent] x 2 and t in [0, 1] -> float32 [..., latent], a walk from a to b.

        t broadcasts against the leading dimensions: two latents and t `[k]` give `[k, latent]`.
        A straight line, which cannot leave a bounded prior's support.
        """
        t = np.asarray(t, np.float64)[..., None]
        return ((1 - t) * a + t * b).astype(np.float32)

    def axis(self, count):
        """count -> float32 `[count]`, evenly spaced from low to high, both included."""
        return np.linspace(self.low, self.high, count, dtype=np.float32)

    def plane(self, side):
        """side -> float32 `[side * side, 2]`, row by row: first latent right, second upwards."""
        x, y = np.meshgrid(self.axis(side), self.axis(side)[::-1])
        return np.stack([x, y], axis=-1).reshape(side * side, 2)


class Uniform(Prior):
    """Uniform on [low, high)."""

    def sample(self, rng, shape):
        z = rng.random(shape, np.float32)
        z *= self.high - self.low
        z += self.low
        return z


class Semicircle(Prior):
    """Wigner's semicircle of radius 1: density 2 / pi sqrt(1 - x^2) on [-1, 1]; variance 1/4."""

    def sample(self, rng, shape):
        # The first coordinate of a uniform point in the unit disc, in polar coordinates.
        radius = np.sqrt(rng.random(shape, np.float32))
        return radius * np.cos(np.float32(np.pi) * rng.random(shape, np.float32))


class Normal(Prior):
    """Standard normal. Pictures span +-2, the middle 95 % of each coordinate's draws."""

    spherical = True

    def sample(self, rng, shape):
        return rng.standard_normal(shape, np.float32)

    def truncate(self, rng, shape, limit):
        """Draws outside [-limit, limit] are drawn again: the truncation trick, Brock et al. 2019.

        A smaller limit gives more typical and less varied samples. UserError below 0.01.
        """
        self.check_truncation(limit)
        z = self.sample(rng, shape)
        while (outside := np.abs(z) > limit).any():
            z[outside] = self.sample(rng, np.count_nonzero(outside))
        return z

    def check_truncation(self, limit):
        if not limit >= SMALLEST_TRUNCATION:
            raise UserError(f"--truncation={limit}: wanted at least {SMALLEST_TRUNCATION}")

    def interpolate(self, a, b, t):
        """As `Prior.interpolate`, along a great circle: the direction turns evenly (slerp).

        The norm goes straight from |a| to |b|. Draws lie near the sphere of radius sqrt(latent);
        a straight line would cut through its inside, where the generator was hardly trained.
        """
        t = np.asarray(t, np.float64)[..., None]
        (norm_a, unit_a), (norm_b, unit_b) = _polar(a), _polar(b)
        cosine = np.sum(unit_a * unit_b, axis=-1, keepdims=True)
        # Between opposite points every circle is a shortest way: stop just short of dividing by 0.
        angle = np.minimum(np.arccos(np.clip(cosine, -1, 1)), np.pi - 1e-6)
        direction = _turn(1 - t, angle) * unit_a + _turn(t, angle) * unit_b
        return (direction * ((1 - t) * norm_a + t * norm_b)).astype(np.float32)


def _polar(z):
    """`[..., latent]` -> norm `[..., 1]` and direction `[..., latent]` (0 where z is 0)."""
    z = np.asarray(z, np.float64)
    norm = np.linalg.norm(z, axis=-1, keepdims=True)
    return norm, z / np.maximum(norm, np.finfo(np.float64).tiny)


def _turn(t, angle):
    """sin(t angle) / sin(angle), also at angle 0, where it is t."""
    return t * np.sinc(t * angle / np.pi) / np.sinc(angle / np.pi)


PRIORS = {
    prior.name: prior
    for prior in (
        Uniform("uniform", low=-1.0, high=1.0, formula="U(-1, 1)"),  # article 003
        Uniform("uniform01", low=0.0, high=1.0, formula="U(0, 1)"),  # article 000
        Normal("normal", low=-2.0, high=2.0, formula="N(0, 1)"),  # articles 001 and 004
        Semicircle(  # article 002
            "semicircle", low=-1.0, high=1.0, formula="density 2/pi sqrt(1 - z^2)"
        ),
    )
}


def described():
    """-> every name with its formula, for a line of help."""
    return ", ".join(f"{prior.name} {prior.formula}".strip() for prior in PRIORS.values())


def get(name):
    """Name -> Prior; UserError with the known names for any other."""
    if name not in PRIORS:
        raise UserError(f"prior: '{name}', wanted one of {', '.join(PRIORS)}")
    return PRIORS[name]
