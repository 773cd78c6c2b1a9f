"""The least step onto a hyperplane inside the box, against solvers and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from robust_saliency.attacks import hyperplane
from robust_saliency.attacks.hyperplane import Hyperplane
from robust_saliency.threat import NORMS, Threat

SHAPE = (2, 2, 2)
NUM = 200


def size(step, norm):
    """Per example, in float64."""
    flat = np.abs(np.asarray(step, np.float64).reshape(len(step), -1))
    return {"l1": flat.sum(1), "l2": np.sqrt((flat**2).sum(1)), "linf": flat.max(1)}[norm]


def gain(normal, step):
    return np.sum(np.asarray(normal, np.float64) * np.asarray(step, np.float64), (1, 2, 3))


def room_of(images, normal, gap, mask=1.0):
    """How far each value may go towards the plane in the box [0, 1]."""
    sign = np.sign(normal) * np.sign(gap)[:, None, None, None] * mask
    return np.where(sign > 0, 1.0 - images, images) * (sign != 0)


def least_norm(images, normal, gap, norm, mask=1.0):
    """The norm of the least step, infinite where the plane lies outside the box: linear programmes, and a bisection."""
    weight, need = np.abs(normal).reshape(len(images), -1).astype(np.float64), np.abs(gap)
    room = room_of(images, normal, gap, mask).reshape(weight.shape).astype(np.float64)
    found = np.full(len(images), np.inf)
    for i in np.flatnonzero((weight * room).sum(1) > need):
        w, r, n = weight[i], room[i], need[i]
        if norm == "l1":
            found[i] = optimize.linprog(np.ones(w.size), A_eq=w[None], b_eq=[n], bounds=np.c_[0 * r, r]).fun
        elif norm == "linf":
            # Minimise t over (d, t) with d <= t.
            below = np.c_[np.eye(w.size), -np.ones(w.size)]
            bounds = [*np.c_[0 * r, r], (0, None)]
            cost = np.r_[0 * w, 1]
            solved = optimize.linprog(cost, below, np.zeros(w.size), np.r_[w, 0][None], [n], bounds)
            found[i] = solved.fun
        else:
            reach = lambda t, w=w, r=r: np.minimum(t * w, r)  # noqa: E731
            above = (r / np.where(w > 0, w, np.inf)).max()
            t = optimize.brentq(lambda t, w=w, n=n, reach=reach: w @ reach(t) - n, 0, above, xtol=1e-14)
            found[i] = np.linalg.norm(reach(t))
    return found


@pytest.fixture
def cases(rng):
    """Images at the edges of the box too, weights of many scales and zero, planes in and out of reach."""
    images = rng.choice([0.0, 0.01, 0.3, 0.5, 0.9, 1.0], (NUM, *SHAPE)).astype(np.float32)
    normal = rng.normal(size=images.shape) * 10.0 ** rng.integers(-2, 2, images.shape)
    normal = (normal * rng.integers(0, 5, images.shape).clip(0, 1)).astype(np.float32)
    normal[:40] = np.sign(normal[:40])  # ties
    sign = rng.choice([-1.0, 1.0], NUM)
    furthest = gain(np.abs(normal), room_of(images, normal, sign))
    gap = (sign * furthest * rng.uniform(0, 1.3, NUM)).astype(np.float32)
    gap[::50] = 0
    return images, normal, gap


@jax.jit
def run(images, normal, gap, model):
    return hyperplane.least_step(images, Hyperplane(normal, gap), model)


@pytest.mark.parametrize("norm", NORMS)
def test_it_is_the_least_step_of_a_solver(norm, cases, rng):
    images, normal, gap = cases
    mask = rng.integers(0, 4, images.shape).clip(0, 1).astype(np.float32)
    for free in (None, mask):
        step = np.asarray(run(images, normal, gap, Threat(norm=norm, mask=free)))
        best = least_norm(images, normal, gap, norm, 1 if free is None else free)
        reached = np.isfinite(best)
        assert 0.4 < reached.mean() < 0.95
        scale = np.abs(normal).max((1, 2, 3))
        np.testing.assert_allclose(gain(normal, step)[reached], gap[reached], atol=3e-6 * scale.max())
        assert (np.abs(gain(normal, step) - gap)[reached] <= 2e-6 * scale[reached]).all()
        np.testing.assert_allclose(size(step, norm)[reached], best[reached], rtol=2e-5, atol=2e-6)
        corner = (
            np.sign(normal)
            * np.sign(gap)[:, None, None, None]
            * room_of(images, normal, gap, mask if free is not None else 1)
        )
        np.testing.assert_allclose(step[~reached], corner[~reached], atol=1e-6)
        assert (images + step).min() >= -1e-7 and (images + step).max() <= 1 + 1e-7
        if free is not None:
            assert (step[free == 0] == 0).all()


def test_l2_is_the_point_of_a_solver_of_quadratic_programmes(cases):
    images, normal, gap = (a[60:160] for a in cases)
    step = np.asarray(run(images, normal, gap, Threat(norm="l2"))).reshape(100, -1)
    compared = 0
    for d, x, w, g in zip(step, images.reshape(100, -1), normal.reshape(100, -1).astype(float), gap, strict=True):
        w, g = w / np.abs(w).max(), g / np.abs(w).max()
        solved = optimize.minimize(
            lambda d: d @ d,
            np.zeros(8),
            jac=lambda d: 2 * d,
            bounds=np.c_[-x, 1 - x],
            constraints={"type": "eq", "fun": lambda d, w=w, g=g: w @ d - g, "jac": lambda d, w=w: w},
            method="SLSQP",
            options={"ftol": 1e-14},
        )
        if solved.success:
            np.testing.assert_allclose(d, solved.x, atol=1e-4)
            compared += 1
    assert compared > 50


def test_by_hand():
    """x = 0.5 and 0.9, w = (1, 2), gap 0.5: the second value has room for 0.1 only; and a third of weight 0."""
    images, normal = (jnp.array([v], jnp.float32).reshape(1, 1, 3, 1) for v in ([0.5, 0.9, 0.5], [1.0, 2.0, 0.0]))
    for norm, expected in {"l1": [0.3, 0.1, 0], "l2": [0.3, 0.1, 0], "linf": [0.3, 0.1, 0]}.items():
        np.testing.assert_allclose(np.ravel(run(images, normal, jnp.array([0.5]), Threat(norm=norm))), expected, 1e-5)
    for norm, expected in {"l1": [0, -0.25, 0], "l2": [-0.1, -0.2, 0], "linf": [-1 / 6, -1 / 6, 0]}.items():
        np.testing.assert_allclose(np.ravel(run(images, normal, jnp.array([-0.5]), Threat(norm=norm))), expected, 1e-5)
    images = jnp.full((1, 1, 3, 1), 0.5)
    plane = Hyperplane(jnp.array([3.0, -4.0, 0.0]).reshape(1, 1, 3, 1), jnp.array([-2.0]))
    for norm, expected in {"l1": 0.5, "l2": 0.4, "linf": 2 / 7}.items():
        np.testing.assert_allclose(hyperplane.distance(plane, Threat(norm=norm)), [expected], 1e-6)
    only_first = Threat(norm="l1", mask=jnp.array([1.0, 0, 1]).reshape(1, 1, 3, 1))
    np.testing.assert_allclose(hyperplane.distance(plane, only_first), [2 / 3], 1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_no_plane_gives_no_step_and_other_scales_the_same_one(norm, cases):
    images, normal, gap = (a[100:108].copy() for a in cases)
    normal += 0.1
    whole = np.asarray(run(images, normal, gap, Threat(norm=norm)))
    for scale in (1e-30, 1e30):
        scaled = run(images, normal * np.float32(scale), gap * np.float32(scale), Threat(norm=norm))
        np.testing.assert_allclose(scaled, whole, atol=1e-6)
    normal[0], normal[1, 0, 0, 0], normal[2, 1, 1, 0], gap[3] = 0, np.nan, np.inf, np.nan
    step = np.asarray(run(images, normal, gap, Threat(norm=norm)))
    np.testing.assert_array_equal(step[:4], 0)
    np.testing.assert_array_equal(step[4:], whole[4:])
    far = np.asarray(hyperplane.distance(Hyperplane(jnp.asarray(normal), jnp.asarray(gap)), Threat(norm=norm)))
    np.testing.assert_array_equal(np.isinf(far), np.arange(8) < 4)


@pytest.mark.parametrize("norm", NORMS)
def test_a_large_image_loses_nothing_to_rounding(norm, rng):
    images = rng.uniform(0, 1, (4, 32, 32, 3)).astype(np.float32)
    normal = rng.normal(size=images.shape).astype(np.float32)
    gap = (gain(np.abs(normal), room_of(images, normal, np.ones(4))) * [1e-4, 0.1, 0.5, 0.99]).astype(np.float32)
    step = np.asarray(run(images, normal, gap, Threat(norm=norm)))
    np.testing.assert_allclose(gain(normal, step), gap, rtol=2e-6)
    if norm != "l2":
        return
    np.testing.assert_allclose(size(step, norm), least_norm(images, normal, gap, norm), rtol=1e-5)
