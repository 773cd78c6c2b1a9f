import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from robust_saliency.models import ACTIVATIONS

X = np.asarray([-2.0, -0.5, 0.0, 0.5, 2.0], np.float32)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relu", np.maximum(X, 0)),
        ("guided", np.maximum(X, 0)),
        ("softplus", np.log1p(np.exp(X))),
        ("gelu", X * norm.cdf(X)),
    ],
)
def test_values_by_their_formula(name, expected):
    np.testing.assert_allclose(jax.jit(ACTIVATIONS[name])(X), expected, rtol=1e-5, atol=1e-6)


def test_guided_passes_positive_gradients_at_positive_inputs_only():
    cotangent = jnp.asarray([1.0, -1.0, 1.0, -3.0, 4.0])
    backward = {name: jax.jit(jax.vjp(ACTIVATIONS[name], X)[1]) for name in ("relu", "guided")}
    np.testing.assert_array_equal(backward["relu"](cotangent)[0], [0, 0, 0, -3, 4])
    np.testing.assert_array_equal(backward["guided"](cotangent)[0], [0, 0, 0, 0, 4])


def test_guided_backpropagation_of_two_layers_by_hand():
    first, second = jnp.asarray([[1.0, 2.0], [-1.0, 1.0]]), jnp.asarray([1.0, -1.0])

    def network(x):
        return second @ ACTIVATIONS["guided"](first @ x)

    # Both units are active; the second sends back -1, which is stopped, so that only the first row is left.
    np.testing.assert_array_equal(jax.grad(network)(jnp.asarray([1.0, 3.0])), [1.0, 2.0])
