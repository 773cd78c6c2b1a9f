import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from robust_saliency.models import average_pool, max_pool

GEOMETRIES = [(2, 2, 0), (3, 2, 1), (3, 2, 0), (3, 1, 1), (2, 3, 0), (5, 5, 2)]


def flax_max_pool(x, window, stride, padding):
    return nn.max_pool(x, (window, window), (stride, stride), ((padding, padding), (padding, padding)))


def value_and_pullback(pool, x):
    value, vjp = jax.vjp(pool, x)
    return value, vjp(jnp.sin(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape))[0]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_max_pool_has_the_values_of_flax_and_its_gradient_up_to_ties(geometry, rng):
    @jax.jit
    def both(x):
        return [value_and_pullback(lambda x, f=f: f(x, *geometry), x) for f in (max_pool, flax_max_pool)]

    (value, gradient), (expected, flax_gradient) = both(rng.normal(size=(2, 7, 8, 3)).astype(np.float32))
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_allclose(gradient, flax_gradient, atol=1e-5)

    (value, gradient), (expected, flax_gradient) = both(np.ones((2, 7, 8, 3), np.float32))
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_allclose(gradient.sum((1, 2)), flax_gradient.sum((1, 2)), atol=1e-4)
    assert np.count_nonzero(gradient) > np.count_nonzero(flax_gradient)


def test_ties_by_hand():
    x = jnp.asarray([[3.0, 3.0], [3.0, 1.0]]).reshape(1, 2, 2, 1)
    tiled = jax.jit(jax.grad(lambda x: max_pool(x, 2).sum()))(x)
    np.testing.assert_allclose(tiled[0, ..., 0], [[1 / 3, 1 / 3], [1 / 3, 0]], rtol=1e-6)
    # Rows first: 3 and 3 share the left column's maximum, which then shares with the right one's.
    strided = jax.jit(jax.grad(lambda x: max_pool(x, 2, 1).sum()))(x)
    np.testing.assert_allclose(strided[0, ..., 0], [[1 / 4, 1 / 2], [1 / 4, 0]], rtol=1e-6)


def test_average_pool_by_hand_drops_the_incomplete_tile():
    x = jnp.arange(15.0).reshape(1, 3, 5, 1)
    np.testing.assert_allclose(jax.jit(lambda x: average_pool(x, 2))(x)[0, ..., 0], [[3.0, 5.0]])


@pytest.mark.parametrize("pool", [lambda x: max_pool(x, 3), lambda x: max_pool(x, 3, 1), lambda x: average_pool(x, 3)])
def test_a_pool_larger_than_its_input_is_refused(pool):
    with pytest.raises(ValueError, match="pool of 3x3 does not fit its input of 2x4 pixels"):
        pool(jnp.zeros((1, 2, 4, 1)))
