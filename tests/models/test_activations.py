import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from robust_saliency.models import ACTIVATIONS, activation, softplus

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


@pytest.mark.parametrize(
    ("name", "beta"), [("softplus0.5", 0.5), ("softplus1", 1), ("softplus30", 30), ("softplus2.5", 2.5)]
)
def test_softplus_of_a_sharpness_by_its_formula_slope_and_curvature(name, beta):
    function = activation(name)
    x = X.astype(np.float64)
    slope = 1 / (1 + np.exp(-beta * x))
    each = lambda f: jax.jit(jax.vmap(f))(X)  # noqa: E731
    np.testing.assert_allclose(each(function), np.logaddexp(0, beta * x) / beta, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(each(jax.grad(function)), slope, rtol=1e-5, atol=1e-6)
    # Where the slope rounds to one the curvature rounds to zero.
    curvature = beta * slope * (1 - slope)
    np.testing.assert_allclose(each(jax.grad(jax.grad(function))), curvature, rtol=1e-4, atol=5e-7 * beta)


def test_softplus_tends_to_relu_from_above_and_stays_finite():
    x = jnp.asarray([-1e4, -3.0, -1e-3, 0.0, 1e-3, 3.0, 1e4])
    for beta in (1.0, 10.0, 100.0, 1e4):
        excess = np.asarray(softplus(beta)(x) - jax.nn.relu(x))
        assert (excess >= -1e-3).all() and (excess <= np.log(2) / beta + 1e-3).all()
        np.testing.assert_allclose(excess[3], np.log(2) / beta, rtol=1e-5)
        curvature = jax.vmap(jax.grad(jax.grad(softplus(beta))))(x)
        assert np.isfinite(curvature).all() and float(curvature.max()) <= beta / 4 * (1 + 1e-5)


def test_names_of_activations():
    assert activation("softplus30") is activation("softplus30.0") is softplus(30.0)
    assert all(activation(name) is function for name, function in ACTIVATIONS.items())
    for name in ("softplus0", "softplus-1", "softplus1e3", "relu6"):
        with pytest.raises(
            ValueError, match=rf"Unknown SmallCNN.activation '{name}'.* softplus<beta> as in softplus30"
        ):
            activation(name, "SmallCNN.activation")
