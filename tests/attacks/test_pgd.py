"""PGD on linear models, where the worst image is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from robust_saliency import attacks, threat
from robust_saliency.attacks import PGD
from robust_saliency.threat import Threat
from tests.attacks.linear import EPSILON, SHAPE, attack, linear_loss, unit_step
from tests.keys import fast_key


@pytest.mark.parametrize("unroll", [True, False])
def test_linf_finds_the_corner_from_any_start(images, weights, unroll):
    result = attack(linear_loss(weights), images, PGD(unroll=unroll))
    np.testing.assert_allclose(result, np.clip(images + EPSILON * np.sign(weights), 0, 1), atol=1e-7)


def test_crossing_the_ball_takes_twice_epsilon_over_step_size(middle, weights):
    loss_fn, best = linear_loss(weights), middle + EPSILON * np.sign(weights)
    spec = PGD(start="none", unroll=False)
    state = attacks.iterated(spec).start(fast_key(0), jnp.asarray(middle), spec)
    far = state._replace(images=jnp.asarray(middle - EPSILON * np.sign(weights)))
    advance = jax.jit(lambda s, n: attacks.iterated(spec).advance(loss_fn, s, spec, n), static_argnums=1)
    np.testing.assert_allclose(advance(far, 8).images, best, atol=1e-6)
    short = best - advance(far, 7).images
    np.testing.assert_allclose(short, np.broadcast_to(2 / 255 * np.sign(weights), SHAPE), atol=1e-6)


def test_l2_goes_along_the_weights(middle, weights):
    spec = PGD(threat=Threat(norm="l2", epsilon=0.2), step_size=0.05, start="none")
    expected = middle + 0.2 * weights / np.linalg.norm(weights)
    np.testing.assert_allclose(attack(linear_loss(weights), middle, spec), expected, atol=1e-6)
    from_a_start = dataclasses.replace(spec, start="uniform", step_size=0.2, num_steps=40, unroll=False)
    np.testing.assert_allclose(attack(linear_loss(weights), middle, from_a_start), expected, atol=1e-5)


def best_in_l2(origin, weights, epsilon):
    """Maximises ``<w, d>`` over l2 ball and box in float64: ``d = clip(r w)``, r by bisection."""
    below, above = 0.0, 1e6
    for _ in range(200):
        middle = (below + above) / 2
        short = np.linalg.norm(np.clip(middle * weights, -origin, 1 - origin)) <= epsilon
        below, above = (middle, above) if short else (below, middle)
    return origin + np.clip(below * weights, -origin, 1 - origin)


def test_l2_with_the_box_reaches_the_optimum_and_clipping_after_scaling_does_not(images, weights):
    spec = PGD(threat=Threat(norm="l2", epsilon=0.6), step_size=0.3, num_steps=60, unroll=False)
    best = np.stack([best_in_l2(image.astype(np.float64), weights, 0.6) for image in images])
    exact = attack(linear_loss(weights), images, spec)
    np.testing.assert_allclose(exact, best, atol=1e-4)
    clipped_spec = dataclasses.replace(
        spec, threat=dataclasses.replace(spec.threat, projection="scale_then_clip"), num_steps=1, start="none"
    )
    clipped = attack(linear_loss(weights), images, dataclasses.replace(clipped_spec, step_size=0.6))
    rise = {name: np.sum((x - images) * weights, (1, 2, 3)) for name, x in (("exact", exact), ("clipped", clipped))}
    assert (rise["exact"] > rise["clipped"] + 0.01).all()


def test_the_reference_optimum_is_that_of_a_general_solver(images, weights):
    origin, w = np.ravel(images[0]).astype(np.float64), np.ravel(weights).astype(np.float64)
    solved = optimize.minimize(
        lambda x: -w @ (x - origin),
        np.clip(origin, 0.1, 0.9),
        jac=lambda x: -w,
        bounds=[(0, 1)] * len(w),
        constraints={
            "type": "ineq",
            "fun": lambda x: 0.36 - np.sum((x - origin) ** 2),
            "jac": lambda x: -2 * (x - origin),
        },
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )
    np.testing.assert_allclose(best_in_l2(origin, w, 0.6), solved.x, atol=1e-4)


@pytest.mark.parametrize("norm", threat.NORMS)
def test_pixels_outside_the_mask_keep_their_bits(images, middle, weights, norm, rng):
    mask = rng.integers(0, 2, (4, 3, 2, 1)).astype(np.float32)
    model = Threat(norm=norm, epsilon=0.1, mask=jnp.asarray(mask))
    spec = PGD(threat=model, step_size=0.05, num_steps=4, start="none", unroll=False)
    result = attack(linear_loss(weights), middle, spec)
    fixed = np.broadcast_to(mask == 0, SHAPE)
    np.testing.assert_array_equal(result[fixed], middle[fixed])
    np.testing.assert_allclose(result, middle + 0.1 * unit_step(mask * weights, norm), atol=1e-6)
    at_the_bounds = attack(linear_loss(weights), images, dataclasses.replace(spec, start="uniform"))
    np.testing.assert_array_equal(at_the_bounds[fixed], images[fixed])


@pytest.mark.parametrize("norm", threat.NORMS)
def test_an_epsilon_and_a_step_size_an_example(middle, weights, norm):
    epsilon = np.array([0.0, 0.02, 0.1, 0.3], np.float32)
    model = Threat(norm=norm, epsilon=jnp.asarray(epsilon))
    spec = PGD(threat=model, step_size=jnp.asarray(epsilon / 4), num_steps=4, start="none", unroll=False)
    result = attack(linear_loss(weights), middle, spec)
    np.testing.assert_allclose(result, middle + epsilon[:, None, None, None] * unit_step(weights, norm), atol=1e-6)
    np.testing.assert_array_equal(result[0], middle[0])


def test_an_epsilon_a_pixel(images, weights, rng):
    epsilon = rng.uniform(0, 0.04, (4, 3, 2, 1)).astype(np.float32)
    result = attack(linear_loss(weights), images, PGD(threat=Threat(epsilon=jnp.asarray(epsilon)), unroll=False))
    np.testing.assert_allclose(result, np.clip(images + epsilon * np.sign(weights), 0, 1), atol=1e-7)


def test_a_batch_of_as_many_images_as_channels_does_not_confuse_a_step_size_an_example(weights):
    """``[B] * [B, H, W, C]`` would broadcast along the channels."""
    images, step_size = jnp.full((2, 3, 2, 2), 0.5), jnp.array([0.0, 0.01])
    result = attack(linear_loss(weights), images, PGD(step_size=step_size, num_steps=1, start="none"))
    np.testing.assert_allclose(result - 0.5, np.asarray(step_size)[:, None, None, None] * np.sign(weights), atol=1e-7)
