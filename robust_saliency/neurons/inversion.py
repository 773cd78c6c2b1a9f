"""Representation inversion: an image that a network cannot tell from another.

Source: Engstrom et al. 2019 (1906.00945), equation 2 and the authors' code: steps of normalised gradients, no
regulariser. Of a robust network the images look alike; of another one they need not.
"""

import jax
import jax.numpy as jnp

from robust_saliency.neurons.ascent import Ascent, ascend
from robust_saliency.neurons.units import activations
from robust_saliency.types import Array, Images, Key, LogitsFn


def inversion_error(logits_fn: LogitsFn, images: Images, targets: Images, layer: str) -> Array:
    """``|phi(x') - phi(x)|_2 / |phi(x)|_2`` of ``images`` x' and ``targets`` x, ``[B]``: at least 0, lower is closer.

    phi: all activations of ``layer``. NaN where phi(x) is zero. Errors as for :func:`activations`.
    """
    return _error(_flat(activations(logits_fn, images, layer)), _flat(activations(logits_fn, targets, layer)))


def invert(logits_fn: LogitsFn, key: Key, images: Images, targets: Images, layer: str, spec: Ascent) -> Images:
    """``images [B, H, W, C]``, other ones or noise, changed until ``layer`` answers as to ``targets [B, H, W, C]``.

    Lowers :func:`inversion_error` by :func:`ascend` of its negative. Steps of one length end within that length of the
    best image; ``decay=1`` comes closer. An image that is there already stays. Errors as for both.
    """
    if images.shape != targets.shape:
        raise ValueError(f"Images and targets must have one shape, got {images.shape} and {targets.shape}.")
    wanted = jax.lax.stop_gradient(_flat(activations(logits_fn, targets, layer)))
    return ascend(lambda x: -_error(_flat(activations(logits_fn, x, layer)), wanted), key, images, spec)


def _error(reached: Array, wanted: Array) -> Array:
    size = jnp.linalg.norm(wanted, axis=-1)
    return jnp.linalg.norm(reached - wanted, axis=-1) / jnp.where(size == 0, jnp.nan, size)


def _flat(values: Array) -> Array:
    return values.reshape(len(values), -1)
