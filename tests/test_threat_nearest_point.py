"""The exact l2 projection gives the nearest point of ball and box, by bisection, by a solver and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import optimize

from robust_saliency.threat import Threat
from tests.perturbations import SHAPE, assert_feasible, by_bisection, l2, pixels, project, radii, spread


@settings(deadline=None, max_examples=100)
@given(pixels, spread, radii)
def test_exact_l2_is_the_nearest_point(origin, delta, epsilon):
    images = origin + delta
    mine = project(images, origin, Threat(norm="l2", epsilon=jnp.asarray(epsilon)))
    best = by_bisection(images, origin, epsilon)
    assert_feasible(mine, origin, epsilon, "l2")
    assert (l2(mine - images) <= l2(best - images) * (1 + 1e-6) + 1e-6).all()


def test_exact_l2_in_float64_is_that_of_the_bisection_to_eight_digits(rng):
    """In float32 the nearest point is ill-conditioned where the clipped pixels alone nearly spend epsilon."""
    with jax.enable_x64(True):
        for low, high in [(-6, 3), (-3, 0), (-1, 1)]:
            for room in (rng.uniform(0, 1, (7, 5, 6, 3)), 10.0 ** rng.uniform(-7, 0, (7, 5, 6, 3))):
                delta = 10.0 ** rng.uniform(low, high, room.shape)
                longest = l2(np.minimum(delta, room))
                epsilon = longest * np.array([1e-3, 0.1, 0.5, 0.9, 0.99, 0.9999, 0.999999])
                origin = 1 - room
                mine = project(origin + delta, origin, Threat(norm="l2", epsilon=jnp.asarray(epsilon)))
                best = by_bisection(origin + delta, origin, epsilon)
                assert (l2(mine - best) <= 1e-8 * epsilon).all()


def test_exact_l2_on_images_is_that_of_the_bisection_to_six_digits(rng):
    origin = rng.uniform(0, 1, (6, 32, 32, 3)).astype(np.float32)
    images = (origin + rng.normal(0, [[[[0.01]]], [[[0.1]]], [[[1]]]] * 2, origin.shape)).astype(np.float32)
    epsilon = np.array([0.5, 0.5, 0.5, 3.0, 3.0, 20.0], np.float32)
    mine = project(images, origin, Threat(norm="l2", epsilon=jnp.asarray(epsilon)))
    assert (l2(mine - by_bisection(images, origin, epsilon)) <= 1e-6 * epsilon + 1e-6).all()


@pytest.mark.parametrize("n", [12, 40, 200, 3072])
def test_the_newton_steps_suffice_for_chains_of_break_points(n):
    """Geometric deltas make Newton's method clip a few pixels a step: its slowest case, and still exact."""
    with jax.enable_x64(True):
        delta = (10.0 ** np.linspace(-6, 3, n)).reshape(1, 1, n, 1)
        for room in (np.full(delta.shape, 0.5), delta / delta.max() / 2, delta.min() / delta / 2):
            longest = l2(np.minimum(delta, room))
            origins = np.repeat(1 - room, 6, 0)
            epsilon = longest * (1 - 10.0 ** -np.arange(1.0, 7))
            mine = project(origins + delta, origins, Threat(norm="l2", epsilon=jnp.asarray(epsilon)))
            best = by_bisection(origins + delta, origins, epsilon)
            assert (l2(mine - best) <= 1e-6 * epsilon).all()


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_a_thousand_random_cases_against_a_solver_of_quadratic_programmes(norm, rng):
    """With the signs of d, ``min |p - |d||^2`` over ``0 <= p <= room`` and ``|p| <= eps``."""
    origin = rng.uniform(0, 1, (1000, 1, 2, 2)) * rng.integers(0, 2, (1000, 1, 2, 2))
    delta, epsilon = rng.normal(0, 0.7, origin.shape), rng.uniform(0.05, 1.5, 1000)
    model = Threat(norm=norm, epsilon=jnp.asarray(epsilon, jnp.float32))
    mine = np.asarray(project(jnp.asarray(origin + delta, jnp.float32), jnp.asarray(origin, jnp.float32), model))
    size = np.abs(delta).reshape(1000, 4)
    room = np.where(delta > 0, 1 - origin, origin).reshape(1000, 4)
    left = {"l1": lambda p, e: e - p.sum(), "l2": lambda p, e: e**2 - p @ p}[norm]
    slope = {"l1": lambda p, e: -np.ones(4), "l2": lambda p, e: -2 * p}[norm]
    for p, d, r, e in zip(np.abs(mine - origin).reshape(1000, 4), size, room, epsilon, strict=True):
        solved = optimize.minimize(
            lambda x, d=d: np.sum((x - d) ** 2),
            np.minimum(r, e / 8),
            jac=lambda x, d=d: 2 * (x - d),
            bounds=[(0, high) for high in r],
            constraints={"type": "ineq", "fun": left, "jac": slope, "args": (e,)},
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 200},
        )
        # The solver stops a little before its optimum; ours is feasible, so it must be at least as near.
        assert np.sum((p - d) ** 2) <= solved.fun + 1e-5
        if solved.success:
            np.testing.assert_allclose(p, solved.x, atol=1e-3)


@settings(deadline=None, max_examples=100)
@given(pixels, spread, pixels, radii)
def test_no_feasible_point_lies_on_the_far_side_of_the_projection(origin, delta, other, epsilon):
    """``<x - p, q - p> <= 0`` for all feasible q characterises the projection p onto a convex set.

    A p known to one rounding of d = x - o, which l1 subtracts a threshold from, moves the product by ``ulp |x - p|_1``.
    """
    for norm in ("l1", "l2", "linf"):
        model = Threat(norm=norm, epsilon=jnp.asarray(epsilon))
        images = origin + delta
        p, q = (np.asarray(project(x, origin, model), np.float64) for x in (images, other))
        outward = np.sum((images - p) * (q - p), axis=(1, 2, 3))
        largest = np.abs(delta).max((1, 2, 3))
        rounding = np.finfo(np.float32).eps * largest * np.sum(np.abs(images - p), axis=(1, 2, 3))
        assert (outward <= 1e-6 * (1 + largest) * (1 + l2(q - p)) + rounding).all()


def test_a_blocked_pixel_passes_its_share_on_when_exact_and_not_when_scaled_then_clipped():
    """d = (3, 4) with no room for the 3: exact goes 0.5 along the second axis, the other only 0.4."""
    origin = jnp.array([1.0, 0.2]).reshape(1, 1, 2, 1)
    images = origin + jnp.array([3.0, 4.0]).reshape(1, 1, 2, 1)
    exact, scaled = (
        np.ravel(project(images, origin, Threat(norm="l2", epsilon=0.5, projection=projection)))
        for projection in ("exact", "scale_then_clip")
    )
    np.testing.assert_allclose(exact, [1.0, 0.7], rtol=1e-6)
    np.testing.assert_allclose(scaled, [1.0, 0.6], rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(
    arrays(np.float32, SHAPE, elements=st.floats(0, 255, width=32, allow_subnormal=False)),
    arrays(np.float32, SHAPE, elements=st.floats(-900, 900, width=32, allow_subnormal=False)),
)
def test_other_bounds(origin, delta):
    model = Threat(norm="l2", epsilon=128.0, bounds=(0.0, 255.0))
    result = np.asarray(project(origin + delta, origin, model))
    np.testing.assert_allclose(result, by_bisection(origin + delta, origin, np.full(2, 128.0), high=255.0), atol=0.1)
    assert result.min() >= 0 and result.max() <= 255
    assert (l2(result - origin) <= 128 * (1 + 1e-6)).all()
