"""Activation functions by name: a field of the model's spec, so that trained weights run with another one."""

import functools
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp

from robust_saliency import checks
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


def relu(x: Array) -> Array:
    """``max(x, 0)``, NaN of NaN.

    Written as a choice, because XLA on CPU computes a maximum, and what led to it, anew for each of its readers: in a
    network of residual blocks all the blocks before. A gradient of ResNet-18 (width 16) took a sixth longer.
    """
    return jnp.where(x <= 0, jnp.zeros_like(x), x)


def gelu(x: Array) -> Array:
    """``x * Phi(x)``, exact."""
    return jax.nn.gelu(x, approximate=False)


@functools.cache
def softplus(beta: float) -> Callable[[Array], Array]:
    """``x -> log(1 + exp(beta x)) / beta``: smooth, above ReLU by at most ``log(2) / beta``, which it is at 0.

    Its slope is ``sigmoid(beta x)``, its curvature at most ``beta / 4``. Dombrowski et al. 2019 (1906.07983).
    """
    return lambda x: jax.nn.softplus(beta * x) / beta


ACTIVATIONS = {"relu": relu, "softplus": jax.nn.softplus, "gelu": gelu, "guided": guided}
_SHARPNESS = re.compile(r"softplus(\d+(?:\.\d+)?)")


def activation(name: str, kind: str = "activation") -> Callable[[Array], Array]:
    """The function of a name of :data:`ACTIVATIONS`, or of 'softplus' and its beta: 'softplus30' is ``softplus(30)``.

    ValueError, which calls the field ``kind``, for any other name.
    """
    sharp = _SHARPNESS.fullmatch(str(name))
    if sharp and float(sharp[1]) > 0:
        return softplus(float(sharp[1]))
    if name not in ACTIVATIONS:
        checks.one_of(kind, name, (*ACTIVATIONS, "softplus<beta> as in softplus30"))
    return ACTIVATIONS[name]
