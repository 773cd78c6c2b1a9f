"""Distances of two activations of a layer, per example ``[B]``, at least float32: what a consistent loss lowers.

Each is 0 for equal activations. An activation that is zero has a distance and a gradient, never NaN.
"""

import jax
import jax.numpy as jnp

from robust_saliency.types import Array


def l2(first: Array, second: Array) -> Array:
    """``|a - b|_2^2 / n``, n the number of values of an example's activation: >= 0, in squared units of activation."""
    first, second = _flat(first), _flat(second)
    return jnp.mean(jnp.square(first - second), axis=-1)


def l2_sum(first: Array, second: Array) -> Array:
    """``|a - b|_2^2``: :func:`l2` without the division, so that a layer of more values weighs more."""
    first, second = _flat(first), _flat(second)
    return jnp.sum(jnp.square(first - second), axis=-1)


def normalised(first: Array, second: Array) -> Array:
    """``|a - b|_2^2 / (|a|_2^2 + |b|_2^2)``: in [0, 2], at most 1 after a ReLU; the scale of a layer does not count."""
    first, second = _flat(first), _flat(second)
    scale = jnp.maximum(_largest(first), _largest(second))
    zero = scale == 0
    unit = jnp.where(zero, 1, scale)
    size = jnp.sum(jnp.square(first / unit) + jnp.square(second / unit), axis=-1)
    return jnp.sum(jnp.square((first - second) / unit), axis=-1) / jnp.where(zero[:, 0], 1, size)


def cosine(first: Array, second: Array) -> Array:
    """``1 - <a, b> / (|a| |b|)``: in [0, 2]; lengths do not count.

    A zero activation has no direction: its distance to another is 1, to zero it is 0, and the gradient is zero.
    """
    (first, first_zero), (second, second_zero) = _direction(_flat(first)), _direction(_flat(second))
    # Half the squared chord is 1 - cosine without the cancellation.
    distance = jnp.sum(jnp.square(first - second), axis=-1) / 2
    return jnp.where(first_zero ^ second_zero, 1, jnp.where(first_zero & second_zero, 0, distance))


FEATURE_DISTANCES = {"cosine": cosine, "l2": l2, "l2_sum": l2_sum, "normalised": normalised}


def _flat(activation: Array) -> Array:
    wide = activation.astype(jnp.promote_types(activation.dtype, jnp.float32))
    return wide.reshape(wide.shape[0], -1)


def _largest(flat: Array) -> Array:
    """What to divide by, so that no square leaves the range of the dtype: ``[B, 1]``, a constant."""
    return jax.lax.stop_gradient(jnp.max(jnp.abs(flat), axis=-1, keepdims=True))


def _direction(flat: Array) -> tuple[Array, Array]:
    """``a / |a|_2``, and where it is no direction since ``a`` is zero, ``[B]``."""
    scale = _largest(flat)
    zero = scale == 0
    scaled = flat / jnp.where(zero, 1, scale)
    size = jnp.sum(jnp.square(scaled), axis=-1, keepdims=True)
    return scaled / jnp.sqrt(jnp.where(zero, 1, size)), zero[:, 0]
