import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robust_saliency.metrics.sparsity import Entropy, Gini, entropy, gini, relevance

one_hot = np.zeros((1, 5, 7), np.float32)
one_hot[0, 2, 3] = 4.0
integer_maps = hnp.arrays(np.int32, (1, 4, 5), elements=st.integers(-30, 30)).map(lambda a: a.astype(np.float32))
jit_gini, jit_entropy = jax.jit(gini), jax.jit(entropy)


def pairwise_gini(values):
    """Mean absolute difference of all ordered pairs over twice the mean: no sorting."""
    values = np.abs(values).ravel().astype(np.float64)
    return np.abs(values[:, None] - values[None, :]).mean() / (2 * values.mean())


def test_gini_closed_forms():
    n = 35
    ramp = np.arange(1, n + 1, dtype=np.float32).reshape(1, 5, 7)
    np.testing.assert_allclose(jit_gini(one_hot), [1 - 1 / n], rtol=1e-6)
    np.testing.assert_array_equal(jit_gini(np.full((1, 5, 7), 0.3, np.float32)), [0.0])
    np.testing.assert_allclose(jit_gini(ramp), [(n - 1) / (3 * n)], rtol=1e-6)
    np.testing.assert_allclose(jit_gini(np.array([[[1.0, 3.0]]])), [0.25], rtol=1e-6)


def test_gini_of_a_share_of_equal_pixels_is_the_rest():
    mask = np.zeros((1, 10, 10), np.float32)
    mask[0, :3] = 1.0
    np.testing.assert_allclose(jit_gini(mask), [0.7], rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(integer_maps)
def test_gini_equals_the_mean_difference_of_pairs(maps):
    if not maps.any():
        assert np.isnan(jit_gini(maps)[0])
    else:
        np.testing.assert_allclose(jit_gini(maps)[0], pairwise_gini(maps), rtol=2e-6, atol=1e-7)


def test_gini_of_an_image_sized_map_keeps_its_digits(rng):
    maps = rng.exponential(size=(1, 224, 224)).astype(np.float32)
    ascending = np.sort(maps.ravel().astype(np.float64))
    n = ascending.size
    expected = ((2 * np.arange(1, n + 1) - n - 1) * ascending).sum() / (n * ascending.sum())
    np.testing.assert_allclose(jit_gini(maps), [expected], rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(integer_maps.filter(np.any), st.floats(-8, 8))
def test_scale_does_not_matter(maps, exponent):
    """The floor 1e-7 of other libraries drives a map of scale 1e-8 to a Gini index near 0."""
    scaled = (maps * 10.0**exponent).astype(np.float32)
    np.testing.assert_allclose(jit_gini(scaled), jit_gini(maps), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jit_entropy(scaled), jit_entropy(maps), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-36, 1e37])
def test_maps_at_the_ends_of_float32(scale, rng):
    maps = rng.uniform(0.1, 1.0, (2, 16, 16)).astype(np.float32)
    np.testing.assert_allclose(jit_gini(maps * np.float32(scale)), jit_gini(maps), rtol=1e-5)


def test_entropy_closed_forms():
    uniform = np.full((1, 5, 7), 2e-6, np.float32)
    np.testing.assert_allclose(jit_entropy(uniform), [1.0], rtol=1e-6)
    np.testing.assert_array_equal(jit_entropy(one_hot), [0.0])
    nats = jax.jit(lambda maps: entropy(maps, Entropy(normalised=False)))
    np.testing.assert_allclose(nats(np.array([[[1.0, -3.0]]])), [np.log(4) - 0.75 * np.log(3)], rtol=1e-6)
    np.testing.assert_allclose(nats(uniform), [np.log(35)], rtol=1e-6)
    four_equal = np.zeros((1, 4, 4), np.float32)
    four_equal[0, 0] = 5.0
    np.testing.assert_allclose(jit_entropy(four_equal), [0.5], rtol=1e-6)


def test_range_follows_the_option():
    assert Entropy.range == Entropy().range == (0.0, 1.0)
    assert Entropy(normalised=False).range == (0.0, np.inf)


def test_sign_policies():
    maps = jnp.array([[[3.0, -1.0, 0.0, -2.0]]])
    np.testing.assert_array_equal(relevance(maps, "abs")[0, 0], [3, 1, 0, 2])
    np.testing.assert_array_equal(relevance(maps, "positive")[0, 0], [3, 0, 0, 0])
    np.testing.assert_array_equal(relevance(maps, "negative")[0, 0], [0, 1, 0, 2])
    np.testing.assert_array_equal(relevance(maps, "raw")[0, 0], [3, -1, 0, -2])
    np.testing.assert_allclose(gini(maps, Gini(sign="positive")), [0.75])
    np.testing.assert_allclose(gini(maps, Gini(sign="negative")), gini(jnp.array([[[0.0, 1.0, 0.0, 2.0]]])))


def test_a_map_without_positive_relevance_has_no_positive_gini():
    maps = -jnp.ones((2, 3, 3)).at[1, 0, 0].set(-1.0)
    np.testing.assert_array_equal(np.isnan(gini(maps, Gini(sign="positive"))), [True, False])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_single_bad_pixel_makes_the_map_meaningless_and_no_other(bad):
    maps = np.ones((2, 3, 3), np.float32)
    maps[0, 1, 1] = bad
    assert np.isnan(relevance(jnp.asarray(maps), "abs")[0]).all()
    np.testing.assert_array_equal(np.isnan(jit_gini(maps)), [True, False])
    np.testing.assert_array_equal(np.isnan(jit_entropy(maps)), [True, False])


def test_half_precision_maps_are_widened():
    maps = jnp.linspace(0.0, 1.0, 64, dtype=jnp.bfloat16).reshape(1, 8, 8)
    assert gini(maps).dtype == jnp.float32
    np.testing.assert_allclose(gini(maps), gini(maps.astype(jnp.float32)))


def test_raw_signs_and_unknown_signs_are_refused():
    maps = jnp.ones((1, 2, 2))
    with pytest.raises(ValueError, match=r"got sign='raw', expected abs, positive or negative"):
        gini(maps, Gini(sign="raw"))
    with pytest.raises(ValueError, match=r"Unknown sign 'positiv'. Did you mean 'positive'"):
        entropy(maps, Entropy(sign="positiv"))
    with pytest.raises(ValueError, match=r"maps must have 3 axes, got shape \(1, 2, 2, 3\)"):
        gini(jnp.ones((1, 2, 2, 3)))
