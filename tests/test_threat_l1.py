"""The l1 ball: the nearest point, where its starts lie, and its sparse steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robust_saliency import projections, threat
from robust_saliency.threat import Threat
from tests.perturbations import SHAPE, assert_feasible, pixels, project, radii, spread
from tests.test_threat_starts import draws, is_from

steepest = jax.jit(threat.steepest)


def by_bisection(images, origin, epsilon):
    """``sign(d) clip(|d| - t, 0, room)`` in float64, t by 200 halvings."""
    origin = np.asarray(origin, np.float64)
    delta = np.asarray(images, np.float64) - origin
    room = np.where(delta > 0, 1 - origin, origin)

    def inside(t):
        return np.clip(np.abs(delta) - t[:, None, None, None], 0, room)

    below, above = np.zeros(len(delta)), np.abs(delta).max((1, 2, 3))
    above = np.where(inside(below).sum((1, 2, 3)) <= epsilon, 0, above)
    for _ in range(200):
        middle = (below + above) / 2
        too_long = inside(middle).sum((1, 2, 3)) > epsilon
        below, above = np.where(too_long, middle, below), np.where(too_long, above, middle)
    return origin + np.sign(delta) * inside(above)


@settings(deadline=None, max_examples=100)
@given(pixels, spread, radii)
def test_the_projection_is_the_nearest_point(origin, delta, epsilon):
    images = origin + delta
    mine = project(images, origin, Threat(norm="l1", epsilon=jnp.asarray(epsilon)))
    assert_feasible(mine, origin, epsilon, "l1")
    best = by_bisection(images, origin, epsilon)
    mine_far, best_far = (np.sqrt(np.sum((np.float64(x) - images) ** 2, axis=(1, 2, 3))) for x in (mine, best))
    assert (mine_far <= best_far * (1 + 1e-6) + 1e-6).all()


@pytest.mark.parametrize("n", [12, 200, 3072])
def test_it_is_exact_for_chains_of_break_points(n):
    """Sizes over nine decades, thresholds between any two of them."""
    with jax.enable_x64(True):
        delta = (10.0 ** np.linspace(-6, 3, n)).reshape(1, 1, n, 1)
        for room in (np.full(delta.shape, 0.5), np.minimum(delta, 0.9) / 2, delta.min() / delta / 2):
            longest = np.minimum(delta, room).sum()
            epsilon = longest * np.array([1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999, 1 - 1e-6])
            origins = np.repeat(1 - room, len(epsilon), 0)
            mine = project(origins + delta, origins, Threat(norm="l1", epsilon=jnp.asarray(epsilon)))
            spent = np.abs(mine - origins).sum((1, 2, 3))
            assert (spent <= epsilon * (1 + 1e-9)).all()
            best = by_bisection(origins + delta, origins, epsilon)
            assert (np.abs(mine - best).sum((1, 2, 3)) <= 1e-9 * epsilon).all()


def test_a_hand_computed_projection():
    """d = (0.6, -0.3, 0.1), eps = 0.5, the first may go 0.35 only: t = 0.15."""
    origin = jnp.array([0.65, 0.5, 0.5]).reshape(1, 1, 3, 1)
    images = origin + jnp.array([0.6, -0.3, 0.1]).reshape(1, 1, 3, 1)
    moved = np.ravel(project(images, origin, Threat(norm="l1", epsilon=0.5)) - origin)
    np.testing.assert_allclose(moved, [0.35, -0.15, 0.0], atol=1e-6)


def test_rescaling_is_no_projection():
    origin = jnp.full((1, 1, 2, 1), 0.5)
    images = origin + jnp.array([0.4, 0.1]).reshape(1, 1, 2, 1)
    exact, scaled = (
        np.ravel(project(images, origin, Threat(norm="l1", epsilon=0.3, projection=projection)) - origin)
        for projection in ("exact", "scale_then_clip")
    )
    np.testing.assert_allclose(exact, [0.3, 0.0], atol=1e-6)
    np.testing.assert_allclose(scaled, [0.24, 0.06], atol=1e-6)


def test_uniform_starts_fill_the_ball():
    points = draws("uniform", "l1")
    lengths = np.abs(points).sum(1)
    assert is_from(lengths**4, "uniform")
    for column in points.T:
        # A share of a uniform point on the simplex of n = 4 is Beta(1, n - 1).
        assert is_from(np.abs(column) / lengths, "beta", 1, 3)
        assert abs((column > 0).mean() - 0.5) < 0.03


def test_sphere_starts_lie_on_the_sphere_and_count_only_free_pixels():
    points = draws("sphere", "l1", mask=jnp.array([1, 0, 1, 0]).reshape(1, 1, 2, 2))
    np.testing.assert_array_equal(points[:, [1, 3]], 0)
    np.testing.assert_allclose(np.abs(points).sum(1), 1, atol=2e-6)
    assert is_from(np.abs(points[:, 0]), "uniform")


def test_a_sparse_step_takes_the_largest_and_passes_over_what_the_box_blocks():
    gradient = jnp.array([5.0, -4.0, 3.0, -2.0, 1.0, 0.0]).reshape(1, 2, 3, 1)
    images = jnp.array([1.0, 0.5, 0.5, 0.0, 0.5, 0.5]).reshape(1, 2, 3, 1)
    model = Threat(norm="l1")
    np.testing.assert_allclose(np.ravel(steepest(gradient, model, None, 0.5)), [1 / 3, -1 / 3, 1 / 3, 0, 0, 0])
    np.testing.assert_allclose(np.ravel(steepest(gradient, model, images, 0.5)), [0, -1 / 3, 1 / 3, 0, 1 / 3, 0])
    np.testing.assert_allclose(np.ravel(steepest(gradient, model, None, 0.0)), [1, 0, 0, 0, 0, 0])
    several = steepest(jnp.repeat(gradient, 2, 0), model, None, jnp.array([1 / 6, 1 / 3]))
    assert np.count_nonzero(several, axis=(1, 2, 3)).tolist() == [1, 2]


@settings(deadline=None, max_examples=60)
@given(
    arrays(np.float32, SHAPE, elements=st.floats(0, 2.0**127, width=32, allow_subnormal=False)),
    st.integers(1, int(np.prod(SHAPE[1:]))),
)
def test_the_k_largest_are_those_of_a_sort(values, k):
    found = projections.largest(jnp.asarray(values), jnp.full((len(values), 1, 1, 1), k))
    kth = np.sort(values.reshape(len(values), -1), axis=1)[:, -k]
    np.testing.assert_array_equal(found, values >= kth.reshape(-1, 1, 1, 1))
