"""Activation functions by name: a field of the model's spec, so that trained weights run with another one."""

import jax
import jax.numpy as jnp

from robust_saliency.types import Array


@jax.custom_vjp
def guided(x: Array) -> Array:
    """ReLU whose gradient passes only where it is positive and ``x`` is positive: guided backpropagation.

    Springenberg et al. 2015, *Striving for simplicity: the all convolutional net* (1412.6806), section 3.4.
    """
    return jax.nn.relu(x)


def _forward(x):
    return jax.nn.relu(x), x


def _backward(x, gradient):
    return (jnp.where((x > 0) & (gradient > 0), gradient, jnp.zeros_like(gradient)),)


guided.defvjp(_forward, _backward)


def gelu(x: Array) -> Array:
    """``x * Phi(x)``, exact."""
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS = {"relu": jax.nn.relu, "softplus": jax.nn.softplus, "gelu": gelu, "guided": guided}
