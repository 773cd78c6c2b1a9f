"""Adam (Kingma and Ba 2015, 1412.6980, algorithm 1): for attacks that descend on a sum of a loss and a distance."""

from typing import NamedTuple

import jax.numpy as jnp

from robust_saliency.types import Array

MEAN_DECAY, SQUARE_DECAY, EPSILON = 0.9, 0.999, 1e-8


class Moments(NamedTuple):
    """Running means of the gradient and of its square, both of its shape and biased towards the zero they start at."""

    mean: Array
    square: Array


def start(like: Array) -> Moments:
    """The moments before the first step."""
    return Moments(jnp.zeros_like(like), jnp.zeros_like(like))


def descend(gradient: Array, moments: Moments, count: Array) -> tuple[Array, Moments]:
    """The direction to add ``step_size`` times, and the moments after it; ``count`` is 1 in the first step.

    ``-m / (sqrt(v) + 1e-8)`` with m and v the moments over ``1 - decay^count``: about -1 to 1 a value, whatever the
    scale of the gradient. Every value is alone with its own history. The gradient must be finite.
    """
    mean = MEAN_DECAY * moments.mean + (1 - MEAN_DECAY) * gradient
    square = SQUARE_DECAY * moments.square + (1 - SQUARE_DECAY) * gradient**2
    mean_bias, square_bias = ((1 - decay**count).astype(gradient.dtype) for decay in (MEAN_DECAY, SQUARE_DECAY))
    return -(mean / mean_bias) / (jnp.sqrt(square / square_bias) + EPSILON), Moments(mean, square)
