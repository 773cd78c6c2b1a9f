"""The running average of weights, against the sum written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import averaging


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.995])
def test_the_average_is_the_sum_written_out(decay, rng):
    values = rng.normal(size=(8, 3)).astype(np.float32)
    average = {"w": jnp.asarray(values[0])}
    expected = values[0].astype(np.float64)
    for step, value in enumerate(values[1:]):
        average = jax.jit(averaging.updated)(average, {"w": jnp.asarray(value)}, step, decay)
        rate = min(decay, (1 + step) / (10 + step))
        expected = rate * expected + (1 - rate) * value
    np.testing.assert_allclose(average["w"], expected, rtol=1e-5)
    assert average["w"].dtype == jnp.float32


def test_a_constant_stays_itself_and_a_half_keeps_its_type():
    same = {"w": jnp.full(4, 0.25, jnp.bfloat16)}
    average = averaging.updated(same, same, 3, 0.5)
    assert average["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(average["w"], same["w"])


def test_what_never_changes_stays_bitwise(rng):
    """Frozen parameters are in the average too."""
    value = {"w": jnp.asarray(rng.normal(size=2000), jnp.float32)}

    def step(average, number):
        return averaging.updated(average, value, number, 0.995), None

    average = jax.jit(lambda: jax.lax.scan(step, value, jnp.arange(2000))[0])()
    np.testing.assert_array_equal(np.asarray(average["w"]).view(np.int32), np.asarray(value["w"]).view(np.int32))
