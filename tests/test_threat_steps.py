"""Steepest steps: no unit step rises faster, and only sound gradients make one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robust_saliency import threat
from robust_saliency.threat import Threat
from tests.perturbations import SHAPE, l2, spread

steepest = jax.jit(threat.steepest)


@settings(deadline=None, max_examples=60)
@given(spread, arrays(np.int8, SHAPE, elements=st.integers(-9, 9)))
def test_no_unit_step_rises_faster(gradient, other):
    for norm in ("l2", "linf"):
        step = np.asarray(steepest(gradient, Threat(norm=norm)), np.float64)
        sizes = l2(other) if norm == "l2" else np.abs(other).max((1, 2, 3))
        other_step = other / np.maximum(sizes, 1)[:, None, None, None]
        rise, other_rise = (np.sum(gradient * s, axis=(1, 2, 3), dtype=np.float64) for s in (step, other_step))
        dual = l2(gradient) if norm == "l2" else np.abs(gradient).sum((1, 2, 3), dtype=np.float64)
        np.testing.assert_allclose(rise, dual, rtol=1e-5)
        assert (other_rise <= rise * (1 + 1e-5)).all()


def test_steps_by_hand():
    gradient = jnp.array([3.0, 0.0, -4.0]).reshape(1, 1, 3, 1)
    np.testing.assert_array_equal(np.ravel(steepest(gradient, Threat())), [1, 0, -1])
    np.testing.assert_allclose(np.ravel(steepest(gradient, Threat(norm="l2"))), [0.6, 0, -0.8], rtol=1e-6)


@pytest.mark.parametrize("factor", [1e-35, 1e-20, 1e20, 1e37])
def test_the_size_of_the_gradient_does_not_matter(factor, rng):
    """|g|^2 would underflow or overflow float32."""
    gradient = rng.uniform(0.1, 1, SHAPE) * rng.choice([-1, 1], SHAPE)
    for norm in threat.NORMS:
        small, plain = (steepest(jnp.asarray(gradient * f, jnp.float32), Threat(norm=norm)) for f in (factor, 1))
        np.testing.assert_allclose(small, plain, atol=1e-6)


@pytest.mark.parametrize("norm", threat.NORMS)
def test_zero_nan_and_infinite_gradients_give_no_step_and_leave_the_others_alone(norm, rng):
    gradient = rng.normal(size=(4, 2, 3, 2)).astype(np.float32)
    spoilt = gradient.copy()
    spoilt[0], spoilt[1, 0, 0, 0], spoilt[2, 1, 1, 1] = 0, np.nan, -np.inf
    step = steepest(spoilt, Threat(norm=norm))
    np.testing.assert_array_equal(step[:3], np.zeros((3, 2, 3, 2)))
    np.testing.assert_array_equal(step[3], steepest(gradient, Threat(norm=norm))[3])


def test_only_pixels_that_may_change_count():
    gradient = jnp.array([3.0, 100.0, -4.0]).reshape(1, 1, 3, 1)
    mask = jnp.array([1, 0, 1]).reshape(1, 1, 3, 1)
    np.testing.assert_array_equal(np.ravel(steepest(gradient, Threat(mask=mask))), [1, 0, -1])
    step = steepest(gradient, Threat(norm="l2", mask=mask))
    np.testing.assert_allclose(np.ravel(step), [0.6, 0, -0.8], rtol=1e-6)
