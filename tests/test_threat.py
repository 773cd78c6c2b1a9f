"""Threat models as data: distances, what is traced and what is static, and what is refused."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import threat
from robust_saliency.threat import Threat
from tests.perturbations import SHAPE, project


def test_distance_by_hand():
    delta = jnp.array([0.3, 0.0, -0.4]).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(threat.distance(delta, 0 * delta, Threat()), [0.4])
    np.testing.assert_allclose(threat.distance(delta, 0 * delta, Threat(norm="l2")), [0.5], rtol=1e-6)


def test_epsilon_bounds_and_mask_are_data_and_statics():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def moved(model):
        return threat.project(jnp.ones(SHAPE), jnp.zeros(SHAPE), model)

    for epsilon in (0.1, 0.2, 0.3):
        np.testing.assert_allclose(moved(Threat(epsilon=epsilon)), np.full(SHAPE, epsilon), rtol=1e-6)
    with pytest.raises(AssertionError, match="traced"):
        moved(Threat(bounds=(0.0, 2.0)))


def test_a_traced_negative_epsilon_counts_as_zero():
    origin = jnp.full(SHAPE, 0.5)
    for norm in threat.NORMS:
        np.testing.assert_array_equal(project(origin + 1, origin, Threat(norm=norm, epsilon=jnp.array(-1.0))), origin)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm": "l_inf"}, "Unknown norm 'l_inf'. Did you mean 'linf'"),
        ({"projection": "exactly"}, "Unknown projection 'exactly'. Did you mean 'exact'"),
        ({"bounds": (1.0, 0.0)}, r"low < high, got \(1.0, 0.0\)"),
        ({"epsilon": -0.1}, "epsilon must be at least 0, got -0.1"),
        ({"epsilon": float("nan")}, "epsilon must be at least 0, got nan"),
    ],
)
def test_errors_of_the_spec(fields, message):
    with pytest.raises(ValueError, match=message):
        Threat(**fields)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(Threat(), **fields)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Threat(epsilon=jnp.ones(3)), "Threat.epsilon has 3 entries for a batch of 2 images"),
        (Threat(epsilon=jnp.ones((2, 3))), r"epsilon of shape \(2, 3\) does not fit images of shape \(2, 2, 3, 2\)"),
        (Threat(epsilon=jnp.ones((2, 2, 2, 1))), r"epsilon of shape \(2, 2, 2, 1\) does not fit"),
        (Threat(norm="l2", epsilon=jnp.ones(SHAPE)), "per pixel needs norm 'linf', got norm 'l2'"),
        (Threat(mask=jnp.ones((2, 3))), r"Threat.mask must have 4 axes, got shape \(2, 3\)"),
        (Threat(mask=jnp.ones((5, 2, 3, 1))), r"mask of shape \(5, 2, 3, 1\) does not fit images of shape"),
    ],
)
def test_errors_of_shape(model, message):
    with pytest.raises(ValueError, match=message):
        threat.project(jnp.zeros(SHAPE), jnp.zeros(SHAPE), model)


def test_error_of_the_start(key):
    with pytest.raises(ValueError, match=r"Unknown start 'unifrom'\. Did you mean 'uniform'"):
        threat.start(key, jnp.zeros(SHAPE), Threat(), "unifrom")
