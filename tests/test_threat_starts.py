"""Starts: drawn from the distributions their names say, inside the threat model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from robust_saliency import randomness, threat
from robust_saliency.threat import Threat
from tests.keys import fast_key
from tests.perturbations import SHAPE, assert_feasible

WIDE = (-1e6, 1e6)

# Code that runs once for a millisecond need not be optimised for seconds.
start = jax.jit(threat.start, static_argnames="kind", compiler_options={"xla_backend_optimization_level": 0})


def draws(kind, norm="l2", mask=None, scale=0.001):
    """4000 starts of 1x2x2 pixels around 0 in a box too wide to clip, divided by epsilon = 0.25."""
    origin = jnp.zeros((4000, 1, 2, 2))
    model = Threat(norm=norm, epsilon=0.25, bounds=WIDE, mask=mask)
    return np.asarray(start(fast_key(3), origin, model, kind, scale), np.float64).reshape(4000, 4) / 0.25


def is_from(sample, distribution, *args):
    return stats.kstest(sample, distribution, args).pvalue > 1e-3


def test_none_is_the_image_itself(rng):
    origin = jnp.asarray(rng.uniform(0, 1, SHAPE), jnp.float32)
    for norm in threat.NORMS:
        np.testing.assert_array_equal(start(fast_key(0), origin, Threat(norm=norm), "none"), origin)


def test_l2_sphere():
    points = draws("sphere")
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=2e-6)
    # One coordinate of a uniform point on the sphere in n = 4 dimensions: (1 + u) / 2 ~ Beta(3/2, 3/2).
    for column in points.T:
        assert is_from((1 + column) / 2, "beta", 1.5, 1.5)


def test_l2_uniform_fills_the_ball():
    points = draws("uniform")
    lengths = np.linalg.norm(points, axis=1)
    assert is_from(lengths**4, "uniform")
    for column in (points / lengths[:, None]).T:
        assert is_from((1 + column) / 2, "beta", 1.5, 1.5)
    assert abs(stats.spearmanr(lengths, points[:, 0] / lengths).statistic) < 0.05


def test_l2_uniform_counts_only_pixels_that_may_change():
    points = draws("uniform", mask=jnp.array([1, 0, 1, 0]).reshape(1, 1, 2, 2))
    np.testing.assert_array_equal(points[:, [1, 3]], 0)
    assert is_from(np.linalg.norm(points, axis=1) ** 2, "uniform")


def test_linf_uniform():
    points = draws("uniform", "linf")
    for column in points.T:
        assert is_from(column, "uniform", -1, 2)
    assert np.abs(np.corrcoef(points.T) - np.eye(4)).max() < 0.06


def test_linf_sphere_is_uniform_on_the_faces_of_the_cube():
    points = draws("sphere", "linf")
    np.testing.assert_allclose(np.abs(points).max(1), 1, atol=1e-6)
    face = np.abs(points).argmax(1) + 4 * (points.max(1) < np.abs(points).max(1))
    assert stats.chisquare(np.bincount(face, minlength=8)).pvalue > 1e-3
    assert is_from(points[face % 4 != 0, 0], "uniform", -1, 2)


@pytest.mark.parametrize("norm", threat.NORMS)
def test_gaussian(norm):
    points = draws("gaussian", norm, scale=0.01) * 0.25 / 0.01
    for column in points.T:
        assert is_from(column, "norm")


@pytest.mark.parametrize("norm", threat.NORMS)
@pytest.mark.parametrize("kind", ["gaussian", "sphere", "uniform"])
def test_starts_lie_in_the_threat_model(norm, kind, rng):
    origin = rng.choice([0.0, 0.05, 0.5, 1.0], (40, 2, 3, 2)).astype(np.float32)
    mask = rng.integers(0, 2, (40, 2, 3, 1)).astype(np.float32)
    mask[0] = 0
    epsilon = np.linspace(0, 3, 40, dtype=np.float32)
    model = Threat(norm=norm, epsilon=jnp.asarray(epsilon), mask=jnp.asarray(mask))
    points = np.asarray(start(fast_key(1), origin, model, kind, 0.7))
    assert_feasible(points, origin, epsilon, norm)
    fixed = np.broadcast_to(mask == 0, origin.shape)
    np.testing.assert_array_equal(points[fixed], origin[fixed])
    np.testing.assert_array_equal(points[0], origin[0])
    assert (points != origin)[~fixed].mean() > 0.4


def test_a_start_scale_an_example():
    origin, scale = jnp.full((3, 4, 4, 3), 0.5), jnp.array([0.0, 0.01, 0.02])
    points = start(fast_key(1), origin, Threat(epsilon=1.0), "gaussian", scale)
    whole = start(fast_key(1), origin, Threat(epsilon=1.0), "gaussian", jnp.full(3, 0.02))
    np.testing.assert_array_equal(points[0], origin[0])
    np.testing.assert_allclose(points[1] - 0.5, (whole[1] - 0.5) / 2, atol=1e-6)
    np.testing.assert_array_equal(points[2], whole[2])


@pytest.mark.parametrize("norm", threat.NORMS)
def test_with_one_key_an_example_a_start_does_not_depend_on_the_others(norm, key):
    origin = jnp.linspace(0, 1, 6 * 12).reshape(6, 2, 3, 2)

    def starts(rows):
        keys = randomness.per_example_keys(key, rows)
        return start(keys, origin[rows], Threat(norm=norm, epsilon=0.4), "uniform")

    whole, rows = starts(jnp.arange(6)), jnp.array([4, 1, 1, 0, 5, 2])
    np.testing.assert_array_equal(starts(rows), whole[rows])
    assert len(np.unique(np.asarray(whole - origin).reshape(6, -1).round(3), axis=0)) == 6
