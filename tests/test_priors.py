"""The latent distributions against their closed formulas."""

from math import erf, pi, sqrt

import numpy as np
import pytest

from models import priors

MANY = 200_000
BOUNDED = ["uniform", "uniform01", "semicircle"]

normal_cdf = np.vectorize(lambda x: (1 + erf(x / sqrt(2))) / 2)
CDFS = {
    "uniform": lambda x: (x + 1) / 2,
    "uniform01": lambda x: x,
    "semicircle": lambda x: 1 / 2 + (x * np.sqrt(1 - x**2) + np.arcsin(x)) / pi,
    "normal": normal_cdf,
}


def draws(name, shape=MANY, seed=0):
    return priors.PRIORS[name].sample(np.random.default_rng(seed), shape)


def kolmogorov(values, cdf):
    """Returns the largest distance of empirical distribution and cdf, times sqrt(n)."""
    n = len(values)
    expected = cdf(np.sort(values).astype(np.float64))
    above, below = np.arange(1, n + 1) / n - expected, expected - np.arange(n) / n
    return max(above.max(), below.max()) * sqrt(n)


@pytest.mark.parametrize("name", CDFS)
def test_draws_have_the_distribution_and_are_independent(name):
    # The 0.1 % point of Kolmogorov's distribution; the draws are fixed by their seed.
    assert kolmogorov(draws(name), CDFS[name]) < 1.95
    z = draws(name, [MANY // 4, 4])
    assert np.abs(np.corrcoef(z.T) - np.eye(4)).max() < 5 / sqrt(MANY // 4)


@pytest.mark.parametrize("name", BOUNDED)
def test_bounded_support_is_the_range_of_figures(name):
    prior, z = priors.PRIORS[name], draws(name)
    assert prior.low <= z.min() < prior.low + 0.01
    assert prior.high - 0.01 < z.max() <= prior.high


def test_truncated_normal():
    limit = 0.7
    z = priors.PRIORS["normal"].truncate(np.random.default_rng(0), [MANY // 2, 2], limit)
    assert z.shape == (MANY // 2, 2) and z.dtype == np.float32
    assert np.abs(z).max() <= limit
    tail = normal_cdf(-limit)
    assert kolmogorov(z.ravel(), lambda x: (normal_cdf(x) - tail) / (1 - 2 * tail)) < 1.95


@pytest.mark.parametrize(
    "name, limit, message",
    [
        *(("normal", limit, r"must be at least 0\.01") for limit in (0, -1, 1e-9, float("nan"))),
        *((name, 0.5, f"but this run used {name}") for name in BOUNDED),
    ],
)
def test_truncation_that_would_never_end_or_has_no_effect_is_rejected(name, limit, message):
    with pytest.raises(ValueError, match=message):
        priors.PRIORS[name].truncate(np.random.default_rng(0), [4], limit)


def test_bounded_walk_is_the_straight_line_and_a_normal_one_an_arc():
    walk = priors.PRIORS["uniform"].interpolate([-1.0, 0.5], [1.0, 0.5], 0.25)
    np.testing.assert_allclose(walk, [-0.5, 0.5])
    assert walk.dtype == np.float32
    walk = priors.PRIORS["normal"].interpolate([2.0, 0.0], [0.0, 4.0], [1 / 3, 1 / 2])
    expected = [[8 / 3 * sqrt(3) / 2, 8 / 3 / 2], [3 * sqrt(1 / 2), 3 * sqrt(1 / 2)]]
    np.testing.assert_allclose(walk, expected, rtol=1e-6)


def test_normal_walk_between_special_points_is_finite():
    normal, t = priors.PRIORS["normal"], np.linspace(0, 1, 101)
    a = draws("normal", 10)
    np.testing.assert_allclose(normal.interpolate(a, a, t), np.tile(a, [101, 1]), rtol=1e-5)
    assert np.isfinite(normal.interpolate(a, 0 * a, t)).all()
    opposite = normal.interpolate(a, -a, t)
    assert np.abs(np.diff(opposite, axis=0)).max() < 0.05 * np.abs(a).max()
