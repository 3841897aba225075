"""Latent distributions: draws of the generator's input, and walks among them.

`priors.PRIORS["normal"].sample(rng, [16, 10])` draws 16 latents. To add a prior, put a `Prior` with
a `sample` into `PRIORS`; exported generators draw by its quantiles, computed from `sample`.
"""

from dataclasses import dataclass

import numpy as np

from support.errors import UserError

# Below this, resampling would reject more than 99 of 100 draws.
SMALLEST_TRUNCATION = 0.01

# The number of draws that quantiles are taken from, and their levels, denser towards 0 and 1.
_DRAWS = 2**22
_LEVELS = (1 - np.cos(np.linspace(0, np.pi, 1025))) / 2


@dataclass(frozen=True)
class Prior:
    """A distribution of independent, identically distributed latent coordinates.

    Attributes:
      low, high: The range that figures of the latent space span; the support of a bounded prior.
      spherical: Whether all directions are equally likely, so that walks follow great circles.
      formula: The usual sign of the distribution, or its density, for a line of help.
    """

    name: str
    low: float
    high: float
    formula: str = ""
    spherical = False

    def sample(self, rng, shape):
        """Returns independent draws, a float32 array of that shape.

        Args:
          rng: np.random.Generator.
        """
        raise NotImplementedError

    def quantiles(self):
        """Returns levels from 0 to 1 and the quantiles at them.

        Both are float32 `[k]` and increasing. Linear interpolation at a uniform random level is a
        draw, which needs no other definition of the prior: exported generators draw in this way.
        """
        draws = self.sample(np.random.default_rng(0), _DRAWS)
        return _LEVELS.astype(np.float32), np.quantile(draws, _LEVELS).astype(np.float32)

    def truncate(self, rng, shape, limit):
        """Like `sample`, but redraws values outside [-limit, limit].

        This is the truncation trick of Brock et al. 2019: a smaller limit makes samples more
        typical and less varied.

        Raises:
          UserError: For a bounded prior, or a limit below 0.01.
        """
        if not self.spherical:
            raise UserError(f"--truncation requires --prior=normal, but this run used {self.name}")
        if not limit >= SMALLEST_TRUNCATION:
            raise UserError(f"--truncation must be at least {SMALLEST_TRUNCATION}, got {limit}")
        z = self.sample(rng, shape)
        while (outside := np.abs(z) > limit).any():
            z[outside] = self.sample(rng, np.count_nonzero(outside))
        return z

    def interpolate(self, a, b, t):
        """Walks from a to b in a straight line, which stays in a bounded prior's support.

        Args:
          a, b: Latents `[..., nlatent]`.
          t: Position from 0 to 1; broadcast against the leading dimensions of a and b.

        Returns:
          Latents, float32 `[..., nlatent]`; two latents and t of shape `[k]` return `[k, nlatent]`.
        """
        t = np.asarray(t, np.float64)[..., None]
        return ((1 - t) * a + t * b).astype(np.float32)


class Uniform(Prior):
    """Uniform on [low, high)."""

    def sample(self, rng, shape):
        z = rng.random(shape, np.float32)
        z *= self.high - self.low
        z += self.low
        return z


class Semicircle(Prior):
    """Wigner's semicircle on [-1, 1]: density 2 / pi sqrt(1 - x^2), variance 1/4."""

    def sample(self, rng, shape):
        # The first coordinate of a uniform point in the unit disc, in polar coordinates.
        radius = np.sqrt(rng.random(shape, np.float32))
        return radius * np.cos(np.float32(np.pi) * rng.random(shape, np.float32))


class Normal(Prior):
    """Standard normal. Figures span +-2, the middle 95 % of each coordinate's draws."""

    spherical = True

    def sample(self, rng, shape):
        return rng.standard_normal(shape, np.float32)

    def interpolate(self, a, b, t):
        """Like `Prior.interpolate`, but along a great circle at constant speed (slerp).

        The norm changes linearly from |a| to |b|. Draws lie near the sphere of radius
        sqrt(nlatent); a straight line would cross its inside, where the generator had hardly any
        training.
        """
        t = np.asarray(t, np.float64)[..., None]
        (norm_a, unit_a), (norm_b, unit_b) = _polar(a), _polar(b)
        cosine = np.sum(unit_a * unit_b, axis=-1, keepdims=True)
        # Between opposite points every great circle is shortest; avoid a division by 0.
        angle = np.minimum(np.arccos(np.clip(cosine, -1, 1)), np.pi - 1e-6)
        direction = _turn(1 - t, angle) * unit_a + _turn(t, angle) * unit_b
        return (direction * ((1 - t) * norm_a + t * norm_b)).astype(np.float32)


def _polar(z):
    """Returns the norm `[..., 1]` and the direction `[..., nlatent]`, 0 if z is 0."""
    z = np.asarray(z, np.float64)
    norm = np.linalg.norm(z, axis=-1, keepdims=True)
    return norm, z / np.maximum(norm, np.finfo(np.float64).tiny)


def _turn(t, angle):
    """Returns sin(t angle) / sin(angle), and its limit t at angle 0."""
    return t * np.sinc(t * angle / np.pi) / np.sinc(angle / np.pi)


PRIORS = {
    "uniform": Uniform("uniform", low=-1.0, high=1.0, formula="U(-1, 1)"),  # article 003
    "uniform01": Uniform("uniform01", low=0.0, high=1.0, formula="U(0, 1)"),  # article 000
    "normal": Normal("normal", low=-2.0, high=2.0, formula="N(0, 1)"),  # articles 001 and 004
    "semicircle": Semicircle(  # article 002
        "semicircle", low=-1.0, high=1.0, formula="density 2/pi sqrt(1 - z^2)"
    ),
}
