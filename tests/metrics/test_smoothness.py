import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency.metrics.smoothness import Smoothness, TotalVariation, smoothness, total_variation
from robust_saliency.metrics.sparsity import gini

jit_total_variation = jax.jit(total_variation)


def test_closed_forms():
    checkerboard = (np.indices((6, 6)).sum(0) % 2)[None].astype(np.float32)
    np.testing.assert_allclose(jit_total_variation(checkerboard), [2.0], rtol=1e-6)
    step = np.zeros((1, 6, 6), np.float32)
    step[0, :, 3:] = 7.0
    np.testing.assert_allclose(jit_total_variation(step), [6 / 60 / 0.5], rtol=1e-6)
    np.testing.assert_array_equal(jit_total_variation(np.full((1, 6, 6), 0.1, np.float32)), [0.0])
    np.testing.assert_allclose(jit_total_variation(np.array([[[1.0, 2.0, 4.0]]])), [1.5 / (7 / 3)], rtol=1e-6)


def test_one_pixel_alone_differs_from_as_many_neighbours_as_it_has():
    maps = np.eye(20, dtype=np.float32).reshape(20, 4, 5)
    rows, columns = np.indices((4, 5)).reshape(2, -1)
    neighbours = 4 - (rows % 3 == 0) - (columns % 4 == 0)
    np.testing.assert_allclose(jit_total_variation(maps), neighbours / 31 * 20, rtol=1e-6)


def test_borders_do_not_wrap():
    edge = np.zeros((1, 1, 8), np.float32)
    edge[0, 0, 0] = 1.0
    np.testing.assert_allclose(jit_total_variation(edge), [1 / 7 * 8], rtol=1e-6)


def test_the_centre_of_three_by_three_reaches_the_upper_end_of_the_range():
    centre = np.zeros((1, 3, 3), np.float32)
    centre[0, 1, 1] = 1.0
    np.testing.assert_allclose(jit_total_variation(centre), [TotalVariation.range[1]], rtol=1e-6)
    for shape in [(1, 3), (2, 2), (2, 3), (3, 4), (5, 5), (1, 2)]:
        height, width = shape
        pairs = height * (width - 1) + (height - 1) * width
        neighbours = min(height - 1, 2) + min(width - 1, 2)
        assert neighbours * height * width / pairs <= TotalVariation.range[1]


def test_random_arrangements_have_twice_the_gini_index(rng):
    """Sparser maps vary more by arrangement alone: a robust net had TV 1.08 at Gini .70, a standard one 1.06 at .55."""
    values = rng.exponential(size=64) ** 2
    shuffled = np.stack([rng.permutation(values) for _ in range(1000)]).reshape(-1, 8, 8).astype(np.float32)
    expected = 2 * 64 / 63 * float(gini(shuffled[:1])[0])
    np.testing.assert_allclose(np.mean(jit_total_variation(shuffled)), expected, rtol=0.01)


def test_raw_keeps_the_differences_between_signs():
    maps = jnp.array([[[1.0, -1.0], [-1.0, 1.0]]])
    np.testing.assert_array_equal(total_variation(maps), [0.0])
    np.testing.assert_allclose(total_variation(maps, TotalVariation(sign="raw")), [2.0])


@pytest.mark.parametrize("exponent", [-8, -3, 8])
def test_scale_does_not_matter(exponent, rng):
    maps = rng.normal(size=(3, 6, 5)).astype(np.float32)
    scaled = maps * np.float32(10.0**exponent)
    np.testing.assert_allclose(jit_total_variation(scaled), jit_total_variation(maps), rtol=1e-5)


def test_zero_maps_and_single_pixels_are_nan():
    assert np.isnan(jit_total_variation(np.zeros((1, 4, 4), np.float32))).all()
    assert np.isnan(jit_total_variation(np.ones((1, 1, 1), np.float32))).all()


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("unit", ["mean", "map"])
def test_smoothness_is_that_of_the_shifted_map(rng, power, unit):
    maps = rng.normal(size=(3, 6, 5))
    values = np.abs(maps) / (np.abs(maps).mean(axis=(1, 2), keepdims=True) if unit == "mean" else 1)
    above = np.concatenate([values[:, -1:], values[:, :-1]], 1)
    left = np.concatenate([values[..., -1:], values[..., :-1]], 2)
    expected = (np.abs(values - above) ** power + np.abs(values - left) ** power).mean(axis=(1, 2))
    found = jax.jit(smoothness, static_argnums=1)(maps.astype(np.float32), Smoothness(power=power, unit=unit))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_smoothness_as_published_counts_the_size_of_the_gradient():
    maps = np.eye(4, dtype=np.float32)[None]
    published, free = Smoothness(unit="map"), Smoothness()
    assert smoothness(0.1 * maps, published) < 0.11 * smoothness(maps, published)
    np.testing.assert_allclose(smoothness(0.1 * maps, free), smoothness(maps, free), rtol=1e-6)
    assert (published.title, free.title) == ("Smoothness (l1, in the map's unit)", "Smoothness (l1)")


def test_smoothness_wraps_at_the_border():
    """One pixel has two neighbours before it and two behind, wherever it lies: 4 differences over n pixels."""
    maps = np.eye(20, dtype=np.float32).reshape(20, 4, 5)
    np.testing.assert_allclose(smoothness(maps, Smoothness(unit="map")), 4 / 20, rtol=1e-6)


@pytest.mark.parametrize("wrong", [{"power": 3}, {"unit": "max"}])
def test_a_smoothness_that_nobody_defined_is_refused(wrong):
    with pytest.raises(ValueError, match="|".join(wrong)):
        Smoothness(**wrong)
