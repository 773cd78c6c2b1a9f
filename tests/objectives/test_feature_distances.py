"""Distances of activations against NumPy, at zero, and at the ends of float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance

from robust_saliency.objectives.feature_distances import FEATURE_DISTANCES

FUNCTIONS = {name: jax.jit(function) for name, function in FEATURE_DISTANCES.items()}
BY_HAND = {
    "l2": lambda a, b: np.mean((a - b) ** 2),
    "l2_sum": lambda a, b: np.sum((a - b) ** 2),
    "normalised": lambda a, b: np.sum((a - b) ** 2) / (np.sum(a**2) + np.sum(b**2)),
    "cosine": distance.cosine,
}
AT_ZERO = {  # of zero and zero, of zero and (3, 4)
    "l2": (0.0, 12.5),
    "l2_sum": (0.0, 25.0),
    "normalised": (0.0, 1.0),
    "cosine": (0.0, 1.0),
}
every_distance = pytest.mark.parametrize("name", FEATURE_DISTANCES)


def two(rng, dtype=np.float32, shape=(3, 4, 5, 2)):
    return rng.normal(size=shape).astype(dtype), rng.normal(size=shape).astype(dtype)


@every_distance
def test_by_hand(name, rng):
    a, b = two(rng)
    expected = [BY_HAND[name](*(x.astype(np.float64).ravel() for x in pair)) for pair in zip(a, b, strict=True)]
    np.testing.assert_allclose(FUNCTIONS[name](a, b), expected, rtol=2e-6)
    np.testing.assert_allclose(FUNCTIONS[name](b, a), expected, rtol=2e-6)


@every_distance
def test_equal_activations_have_none_and_no_gradient(name, rng):
    a, _ = two(rng)
    # XLA contracts the two equal directions of the cosine differently: squares of 1e-8.
    np.testing.assert_allclose(FUNCTIONS[name](a, a), 0.0, atol=1e-14 if name == "cosine" else 0.0)
    slope = jax.jit(jax.grad(lambda b: FUNCTIONS[name](a, b).sum()))(a)
    np.testing.assert_allclose(slope, 0.0, atol=1e-7)


@every_distance
def test_zero_activations_have_a_distance_and_a_gradient(name):
    a, b = np.zeros((2, 2), np.float32), np.array([[0.0, 0.0], [3.0, 4.0]], np.float32)
    np.testing.assert_allclose(FUNCTIONS[name](a, b), AT_ZERO[name], rtol=1e-6)
    for first, second in ((a, b), (b, a)):
        slopes = jax.jit(jax.grad(lambda x, y: FUNCTIONS[name](x, y).sum(), argnums=(0, 1)))(first, second)
        assert np.isfinite(slopes).all()
        if name == "cosine":
            np.testing.assert_array_equal(slopes, 0.0)


@every_distance
def test_the_gradient_is_that_of_finite_differences(name, rng):
    with jax.enable_x64(True):
        a, b = (jnp.asarray(x) for x in two(rng, np.float64))
        directions = [jnp.asarray(x) for x in two(rng, np.float64)]
        slopes = jax.jit(jax.grad(lambda a, b: FEATURE_DISTANCES[name](a, b).sum(), argnums=(0, 1)))(a, b)
        slope = sum(np.vdot(g, d) for g, d in zip(slopes, directions, strict=True))
        moved = [(a + step * directions[0], b + step * directions[1]) for step in (1e-6, -1e-6)]
        ahead, behind = (np.sum(jax.jit(FEATURE_DISTANCES[name])(*pair)) for pair in moved)
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=1e-7)


@pytest.mark.parametrize("name", ["normalised", "cosine"])
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_the_scale_does_not_count_even_where_squares_leave_float32(name, scale, rng):
    a, b = two(rng)
    tiny = np.float32(scale)
    np.testing.assert_allclose(FUNCTIONS[name](tiny * a, tiny * b), FUNCTIONS[name](a, b), rtol=1e-5)
    slopes = jax.jit(jax.grad(lambda a, b: FUNCTIONS[name](a, b).sum(), argnums=(0, 1)))
    for scaled, plain in zip(slopes(tiny * a, tiny * b), slopes(a, b), strict=True):
        np.testing.assert_allclose(np.asarray(scaled, np.float64) * scale, plain, rtol=1e-4, atol=1e-7)


def test_lengths_count_for_normalised_and_not_for_cosine(rng):
    a, _ = two(rng)
    np.testing.assert_allclose(FUNCTIONS["normalised"](a, 3 * a), 0.4, rtol=1e-6)
    np.testing.assert_allclose(FUNCTIONS["normalised"](a, -a), 2.0, rtol=1e-6)
    np.testing.assert_allclose(FUNCTIONS["cosine"](a, 3 * a), 0.0, atol=1e-12)
    np.testing.assert_allclose(FUNCTIONS["cosine"](a, -2 * a), 2.0, rtol=1e-6)


@every_distance
def test_half_precision_is_widened_and_float64_kept(name, rng):
    a, b = (jnp.asarray(x, jnp.bfloat16) for x in two(rng))
    wide = FUNCTIONS[name](a.astype(jnp.float32), b.astype(jnp.float32))
    result = FUNCTIONS[name](a, b)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, wide)
    with jax.enable_x64(True):
        assert FEATURE_DISTANCES[name](jnp.zeros((1, 2), jnp.float64), jnp.ones((1, 2), jnp.float64)).dtype == "float64"
