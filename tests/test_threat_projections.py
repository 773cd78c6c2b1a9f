"""What every projection does: it ends inside, stays inside, and keeps the pixels it may not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from robust_saliency import threat
from robust_saliency.threat import Threat
from tests.perturbations import SHAPE, assert_feasible, by_bisection, pixels, project, radii, spread


@settings(deadline=None, max_examples=100)
@given(pixels, spread, radii, st.sampled_from(["l2", "linf"]), st.sampled_from(threat.PROJECTIONS))
def test_feasible_idempotent_and_the_identity_inside(origin, delta, epsilon, norm, projection):
    model = Threat(norm=norm, epsilon=jnp.asarray(epsilon), projection=projection)
    once = project(origin + delta, origin, model)
    assert_feasible(once, origin, epsilon, norm)
    np.testing.assert_allclose(project(once, origin, model), once, atol=1e-6)
    inside = origin + 0.5 * (np.asarray(once) - origin)
    np.testing.assert_allclose(project(inside, origin, model), inside, atol=1e-7)


@settings(deadline=None, max_examples=50)
@given(pixels, spread, radii)
def test_linf_is_pixel_by_pixel(origin, delta, epsilon):
    images, room = origin + delta, epsilon[:, None, None, None]
    expected = np.clip(np.clip(images, origin - room, origin + room), 0, 1)
    for projection in threat.PROJECTIONS:
        mine = project(images, origin, Threat(epsilon=jnp.asarray(epsilon), projection=projection))
        np.testing.assert_array_equal(mine, expected)


@settings(deadline=None, max_examples=50)
@given(pixels, spread)
@example(np.full(SHAPE, 1e-30, np.float32), np.full(SHAPE, -1, np.float32))  # its square is zero
def test_epsilon_zero_gives_the_origin_bitwise(origin, delta):
    for norm in ("l2", "linf"):
        for projection in threat.PROJECTIONS:
            model = Threat(norm=norm, epsilon=jnp.zeros(2), projection=projection)
            np.testing.assert_array_equal(project(origin + delta, origin, model), origin)


@settings(deadline=None, max_examples=50)
@given(pixels, spread)
def test_an_epsilon_larger_than_the_box_leaves_only_the_box(origin, delta):
    for norm in ("l2", "linf"):
        for projection in threat.PROJECTIONS:
            model = Threat(norm=norm, epsilon=jnp.full(2, 1e5), projection=projection)
            np.testing.assert_allclose(
                project(origin + delta, origin, model), np.clip(origin + delta, 0, 1), atol=1.2e-7
            )


def test_zero_delta_and_pixels_without_room():
    corner = jnp.ones(SHAPE)
    for projection in threat.PROJECTIONS:
        model = Threat(norm="l2", epsilon=0.5, projection=projection)
        np.testing.assert_array_equal(project(corner, corner, model), corner)
        np.testing.assert_array_equal(project(corner + 3, corner, model), corner)


@pytest.mark.parametrize("norm", threat.NORMS)
@pytest.mark.parametrize("mask_shape", [SHAPE, (1, 2, 3, 1)])
def test_pixels_outside_the_mask_keep_their_bits(norm, mask_shape, rng):
    mask = rng.integers(0, 2, mask_shape).astype(bool)
    mask[:, 0, 0], mask[:, 0, 1] = True, False
    origin, images = rng.uniform(0, 1, SHAPE).astype(np.float32), rng.normal(0, 3, SHAPE).astype(np.float32)
    for projection in threat.PROJECTIONS:
        model = Threat(norm=norm, epsilon=0.4, mask=jnp.asarray(mask), projection=projection)
        result = np.asarray(project(images, origin, model))
        fixed = np.broadcast_to(~mask, SHAPE)
        np.testing.assert_array_equal(result[fixed], origin[fixed])
        assert (result != origin)[~fixed].mean() > (0.2 if norm == "l1" else 0.5)
        if norm == "l2" and projection == "exact":
            expected = by_bisection(np.where(mask, images, origin), origin, np.full(2, 0.4))
            np.testing.assert_allclose(result, expected, atol=1e-6)


def test_epsilon_per_pixel(rng):
    origin, images = rng.uniform(0, 1, SHAPE), rng.normal(0, 2, SHAPE)
    for shape in (SHAPE, (2, 2, 3, 1), (1, 2, 3, 1)):
        room = rng.uniform(0, 0.3, shape)
        result = project(*(jnp.asarray(x, jnp.float32) for x in (images, origin)), Threat(epsilon=jnp.asarray(room)))
        np.testing.assert_allclose(result, np.clip(np.clip(images, origin - room, origin + room), 0, 1), atol=1e-6)


def test_one_bad_image_does_not_touch_its_neighbour(rng):
    origin, images = rng.uniform(0, 1, SHAPE), rng.normal(0, 2, SHAPE)
    spoilt = images.copy()
    spoilt[1, 0, 0, 0] = np.nan
    for norm in threat.NORMS:
        model = Threat(norm=norm, epsilon=0.3)
        whole, partly = (project(jnp.asarray(x), jnp.asarray(origin), model) for x in (images, spoilt))
        np.testing.assert_array_equal(whole[0], partly[0])
        assert np.isnan(partly[1]).any()


def test_float64_in_float64_out():
    with jax.enable_x64(True):
        origin = jnp.full(SHAPE, 0.5)
        for norm in threat.NORMS:
            result = project(origin + 1e-3, origin, Threat(norm=norm, epsilon=1e-10))
            assert result.dtype == jnp.float64
            np.testing.assert_allclose(threat.distance(result, origin, Threat(norm=norm)), 1e-10, rtol=1e-5)


def test_an_infinite_epsilon_keeps_only_box_and_mask(rng):
    origin = rng.uniform(0, 1, (2, 3, 2, 1)).astype(np.float32)
    images = (origin + rng.normal(size=origin.shape)).astype(np.float32)
    mask = rng.integers(0, 2, (1, 3, 2, 1)).astype(np.float32)
    for norm in ("l1", "l2", "linf"):
        model = Threat(norm=norm, epsilon=float("inf"), mask=jnp.asarray(mask))
        expected = np.where(mask > 0, np.clip(images, 0, 1), origin)
        np.testing.assert_allclose(project(images, origin, model), expected, atol=1e-6)
