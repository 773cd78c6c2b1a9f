import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from robust_saliency import map_distances
from robust_saliency.map_distances import centre_of_mass, mass_centre, region_mass, shares, target_map, top_k_mass

MAPS = np.float32([[[4, -2, 1], [0, 2, -1]]])  # shares: 0.4 0.2 0.1 / 0 0.2 0.1
CLEAN = np.float32([[[1, 5, 0], [-3, 0, 0]]])
OF_CLEAN = {
    "top_k": lambda maps: top_k_mass(maps, jnp.broadcast_to(CLEAN, maps.shape), 2),
    "mass_centre": lambda maps: mass_centre(maps, jnp.broadcast_to(CLEAN, maps.shape)),
    "region": lambda maps: region_mass(maps, jnp.broadcast_to(np.float32([[[1, 0, 0.5], [0, 0, 1]]]), maps.shape)),
    "target_map": lambda maps: target_map(maps, jnp.broadcast_to(CLEAN, maps.shape)),
}
every_distance = pytest.mark.parametrize("distance", OF_CLEAN.values(), ids=OF_CLEAN)


def test_hand_computed():
    np.testing.assert_allclose(shares(MAPS), [[[0.4, 0.2, 0.1], [0, 0.2, 0.1]]], rtol=1e-6)
    np.testing.assert_allclose(centre_of_mass(shares(MAPS)), [[0.3, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(jax.jit(OF_CLEAN["top_k"])(MAPS), [-0.2], rtol=1e-6)
    np.testing.assert_allclose(jax.jit(OF_CLEAN["region"])(MAPS), [0.55], rtol=1e-6)
    clean = np.float32([1, 5, 0, 3, 0, 0]) / 9
    np.testing.assert_allclose(jax.jit(OF_CLEAN["mass_centre"])(MAPS), [np.hypot(0.3 - 3 / 9, 0.8 - 5 / 9)], rtol=1e-5)
    difference = np.float32([0.4, 0.2, 0.1, 0, 0.2, 0.1]) - clean
    np.testing.assert_allclose(jax.jit(OF_CLEAN["target_map"])(MAPS), [-np.mean((6 * difference) ** 2)], rtol=1e-5)


def test_ties_at_the_kth_clean_pixel_share_its_place():
    clean = np.float32([[[3, 1, 1], [1, 0, 0]]])
    np.testing.assert_allclose(top_k_mass(MAPS, clean, 2), [-(0.4 + (0.2 + 0.1 + 0) / 3)], rtol=1e-6)


def test_the_bounds_are_reached_where_they_are_said():
    corner, opposite = (np.float32(np.arange(12).reshape(1, 3, 4) == place) for place in (0, 11))
    assert (top_k_mass(corner, corner, 1)[0], top_k_mass(opposite, corner, 1)[0]) == (-1, 0)
    assert (region_mass(corner, corner)[0], region_mass(opposite, corner)[0]) == (1, 0)
    assert mass_centre(corner, corner)[0] == target_map(corner, corner)[0] == 0
    np.testing.assert_allclose(mass_centre(opposite, corner), [np.hypot(2, 3)], rtol=1e-6)
    np.testing.assert_allclose(target_map(opposite, corner), [-2 * 12], rtol=1e-6)


@every_distance
@pytest.mark.parametrize("exponent", [-20, 20])
def test_the_scale_and_the_sign_of_a_map_do_not_matter(distance, exponent):
    run = jax.jit(distance)
    np.testing.assert_allclose(run(-MAPS * np.float32(10.0**exponent)), run(MAPS), rtol=1e-5)


@every_distance
def test_the_gradient_is_that_of_the_formula(distance):
    with jax.enable_x64(True):
        maps = jnp.asarray(MAPS.astype(np.float64) + 0.1)
        check_grads(distance, (maps,), order=1, modes=["rev"], rtol=1e-5)
        assert distance(maps).dtype == jnp.float64


@every_distance
@pytest.mark.parametrize("bad", ["zero", np.nan, np.inf])
def test_a_map_without_shares_is_nan_with_a_zero_gradient_and_no_neighbour_is_touched(distance, bad):
    maps = np.repeat(MAPS, 2, axis=0)
    maps[0] = 0 if bad == "zero" else maps[0]
    if bad != "zero":
        maps[0, 1, 1] = bad
    values, pull = jax.vjp(distance, jnp.asarray(maps))
    np.testing.assert_array_equal(np.isnan(values), [True, False])
    gradient = pull(jnp.ones(2))[0]
    np.testing.assert_array_equal(gradient[0], np.zeros((2, 3)))
    np.testing.assert_allclose(gradient[1:], jax.grad(lambda m: distance(m).sum())(MAPS), rtol=1e-6)


def test_the_mass_centre_has_a_finite_gradient_at_the_clean_map():
    gradient = jax.grad(lambda maps: mass_centre(maps, MAPS).sum())(MAPS)
    np.testing.assert_array_equal(gradient, np.zeros_like(MAPS))


def test_no_gradient_flows_to_the_reference():
    for distance in (lambda m, r: top_k_mass(m, r, 2), mass_centre, region_mass, target_map):
        gradient = jax.grad(lambda r, distance=distance: distance(MAPS, r).sum())(jnp.asarray(CLEAN))
        np.testing.assert_array_equal(gradient, np.zeros_like(CLEAN))


def test_half_precision_is_widened():
    assert map_distances.shares(jnp.asarray(MAPS, jnp.bfloat16)).dtype == jnp.float32


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"target must have the shape of the maps, \(1, 2, 3\), got \(2, 3\)"):
        target_map(MAPS, CLEAN[0])
    with pytest.raises(ValueError, match=r"maps must have 3 axes, got shape \(1, 2, 3, 1\)"):
        shares(jnp.asarray(MAPS)[..., None])
