"""Which pixels are protected, against sets counted and grown by hand in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import threat
from robust_saliency.objectives import protection
from robust_saliency.threat import Threat

least_salient, outside_energy, headroom = (
    jax.jit(f) for f in (protection.least_salient, protection.outside_energy, protection.headroom)
)


def maps_of(kind, rng, shape):
    """Whole numbers, whose sums are exact: distinct, tied, or 70 % zeros."""
    size = shape[1] * shape[2]
    if kind == "distinct":
        return np.stack([rng.permutation(size) for _ in range(shape[0])]).reshape(shape).astype(np.float32)
    maps = rng.integers(0, 4, shape).astype(np.float32)
    if kind == "sparse":
        maps.reshape(shape[0], -1)[:, rng.permutation(size)[: round(0.7 * size)]] = 0
    return maps


def greedy(values, energy):
    """The largest pixels, later ones first where tied, until they hold the share: flat indices."""
    order = np.argsort(values, kind="stable")[::-1]
    chosen, held = set(), 0.0
    for pixel in order:
        if held >= energy * values.sum():
            break
        chosen.add(int(pixel))
        held += values[pixel]
    return chosen


@pytest.mark.parametrize("kind", ["distinct", "tied", "sparse"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 7, 9), (1, 1, 8)])
def test_exactly_the_quantile_of_pixels_may_change_and_none_is_larger_than_a_protected_one(kind, shape, rng):
    maps, size = maps_of(kind, rng, shape), shape[1] * shape[2]
    for quantile in (0.0, 0.01, 0.1, 1 / 3, 0.5, 0.62, 0.75, 0.99, 1.0):
        free = np.asarray(least_salient(maps, quantile))
        np.testing.assert_array_equal(free.sum((1, 2)), np.round(np.float32(quantile) * np.float32(size)))
        for values, mask in zip(maps, free, strict=True):
            assert not mask.any() or mask.all() or values[mask].max() <= values[~mask].min()


def test_ties_are_cut_by_position():
    maps = np.float32([[[0, 5, 0], [0, 1, 0]]])
    np.testing.assert_array_equal(least_salient(maps, 0.5), [[[1, 0, 1], [1, 0, 0]]])
    np.testing.assert_array_equal(least_salient(-maps, 5 / 6), [[[1, 0, 1], [1, 1, 1]]])


def test_the_quantile_is_data_and_may_be_one_an_example(rng):
    maps = rng.random((3, 4, 4)).astype(np.float32)
    free = least_salient(maps, jnp.array([0.0, 0.25, 1.0]))
    np.testing.assert_array_equal(np.sum(free, (1, 2)), [0, 4, 16])
    assert least_salient._cache_size() <= 8 and jax.eval_shape(least_salient, maps, 0.5).dtype == bool


@pytest.mark.parametrize("kind", ["distinct", "tied", "sparse"])
def test_the_smallest_set_that_holds_the_share_is_protected(kind, rng):
    maps = maps_of(kind, rng, (4, 5, 6))
    for energy in (0.0, 0.05, 0.3, 0.5, 0.77, 0.95, 1.0):
        protected = ~np.asarray(outside_energy(maps, energy))
        for values, mask in zip(maps.reshape(4, -1), protected.reshape(4, -1), strict=True):
            assert set(np.flatnonzero(mask)) == greedy(values, np.float64(np.float32(energy)))
            assert mask.sum() == 0 or values[mask].min() > 0


def test_energy_by_hand():
    maps = np.float32([[[4, 3], [2, 1]]])
    for energy, protected in ((0.4, 1), (0.41, 2), (0.7, 2), (0.9, 3), (0.91, 4)):
        assert np.sum(~np.asarray(outside_energy(maps, energy))) == protected
    tied = np.float32([[[1, 1, 0], [1, 1, 0]]])
    np.testing.assert_array_equal(outside_energy(tied, 0.5), [[[1, 1, 1], [0, 0, 1]]])


def test_the_scale_of_a_map_does_not_count(rng):
    maps = rng.random((2, 4, 4)).astype(np.float32)
    for scale in (1e-30, 1e30, 2.0**120):
        scaled = (maps * np.float32(scale)).astype(np.float32)
        np.testing.assert_array_equal(outside_energy(scaled, 0.6), outside_energy(maps, 0.6))
        np.testing.assert_allclose(headroom(scaled), headroom(maps), atol=1e-6)


def test_headroom_by_hand():
    np.testing.assert_allclose(headroom(np.float32([[[-4, 3], [0, 1]]])), [[[0, 0.25], [1, 0.75]]])


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_map_without_content_protects_by_position_or_not_at_all(value):
    maps = np.full((1, 2, 3), 1, np.float32)
    maps[0, 0, 1] = value
    maps = maps if value != 0 else 0 * maps
    np.testing.assert_array_equal(least_salient(maps, 0.5), [[[1, 1, 1], [0, 0, 0]]])
    np.testing.assert_array_equal(outside_energy(maps, 0.5), np.ones((1, 2, 3)))
    np.testing.assert_array_equal(headroom(maps), np.ones((1, 2, 3)))


def test_a_confined_threat_by_hand():
    images = jnp.full((2, 1, 3, 2), 0.5)
    room = jnp.array([[[0.0, 0.5, 1.0]], [[1.0, 1.0, 0.0]]])
    own = jnp.array([1.0, 1.0, 0.0]).reshape(1, 1, 3, 1)
    model = protection.confined(Threat(epsilon=jnp.array([0.1, 0.2]), mask=own), room, images, jnp.array([1.0, 0.5]))
    reached = threat.project(images + 1, images, model) - images
    np.testing.assert_allclose(reached[..., 0], [[[0, 0.05, 0]], [[0.1, 0.1, 0]]], atol=1e-7)
    np.testing.assert_array_equal(reached[..., 0], reached[..., 1])


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_in_other_norms_room_is_a_mask_and_strength_scales_the_ball(norm):
    images = jnp.full((2, 1, 3, 1), 0.5)
    room = jnp.array([[[0.0, 0.5, 1.0]], [[1.0, 1.0, 0.0]]])
    model = protection.confined(Threat(norm=norm, epsilon=0.2), room, images, jnp.array([1.0, 0.5]))
    reached = threat.project(images + 0.4, images, model)
    np.testing.assert_allclose(threat.distance(reached, images, model), [0.2, 0.1], atol=1e-6)
    np.testing.assert_array_equal(np.asarray(reached != images)[..., 0], np.asarray(room) > 0)
    assert float(threat.distance(reached, images, model)[0]) <= 0.2 + 1e-6


def test_an_infinite_epsilon_stays_out_of_protected_pixels(key):
    images = jnp.full((1, 1, 2, 1), 0.5)
    model = protection.confined(Threat(epsilon=jnp.inf), jnp.array([[[0.0, 1.0]]]), images)
    np.testing.assert_array_equal(threat.project(images + 9, images, model)[0, 0, :, 0], [0.5, 1.0])
