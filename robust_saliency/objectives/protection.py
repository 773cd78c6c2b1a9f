"""Which pixels an adversary may change, and how far: from a map, as a threat model.

*Room* ``[B, H, W]`` in [0, 1] is the share of epsilon that each pixel may move; 0 protects it. Maps count by their
size, ``s = |map|``; one that is not finite counts as zero everywhere. No gradient flows.
"""

import dataclasses

import jax
import jax.numpy as jnp

from robust_saliency import ranks, threat
from robust_saliency.threat import Threat
from robust_saliency.types import Array, Images, Maps, Scalar


def least_salient(maps: Maps, quantile: Scalar) -> Array:
    """The ``round(quantile n)`` smallest of the n pixels of each map, bool ``[B, H, W]``: exactly so many, always.

    Ties go by :func:`ranks.stable`, the earlier rows first, so a map with zeros is cut among them. A half is rounded to
    the even number. quantile: in [0, 1], a scalar or ``[B]``; 1 is every pixel.
    """
    rank, _ = ranks.stable(_size(maps))
    return rank < jnp.round(_each(quantile, maps) * (maps.shape[1] * maps.shape[2])).astype(jnp.int32)


def outside_energy(maps: Maps, energy: Scalar) -> Array:
    """All but the smallest set of pixels whose s sum to at least ``energy`` times the map's sum, bool ``[B, H, W]``.

    That set is the largest pixels, ties by :func:`ranks.stable`, the later rows first. It never holds a pixel of 0.
    Sums are rounded, so an energy within rounding of a step may have one pixel more or less. energy: in [0, 1], a
    scalar or ``[B]``; 0 protects no pixel.
    """
    rank, ascending = ranks.stable(_scaled(maps))
    of_this_and_larger = jnp.cumsum(ascending[:, ::-1], axis=1)[:, ::-1]
    of_larger = jnp.concatenate([of_this_and_larger[:, 1:], jnp.zeros_like(ascending[:, :1])], axis=1)
    needed = of_larger < _each(energy, maps)[:, :, 0] * of_this_and_larger[:, :1]
    count = jnp.sum(needed & (ascending > 0), axis=1)
    return rank < maps.shape[1] * maps.shape[2] - count[:, None, None]


def headroom(maps: Maps) -> Array:
    """``1 - s / max s`` of each map, ``[B, H, W]``: 1 where the map is 0, and 0 at its largest pixel."""
    size = _size(maps)
    largest = jnp.max(size, axis=(1, 2), keepdims=True)
    return 1 - size / jnp.where(largest > 0, largest, 1)


def confined(model: Threat, room: Array, images: Images, strength: Scalar = 1.0) -> Threat:
    """``model`` around ``images`` with no pixel outside ``room``, and epsilon times ``strength``, a scalar or ``[B]``.

    In linf epsilon is also multiplied by ``room`` pixel by pixel; in other norms room only says which pixels may
    change. A mask that ``model`` has keeps protecting what it protects.
    """
    room = jax.lax.stop_gradient(room)[..., None].astype(images.dtype)
    free = (room > 0).astype(images.dtype)
    epsilon = threat.radius(model, images) * threat.expand("strength", strength, images)
    if model.norm == "linf":
        epsilon = jnp.where(room > 0, epsilon * room, 0)  # an infinite epsilon times no room is NaN
    mask = free if model.mask is None else free * threat.expand("Threat.mask", model.mask, images)
    return dataclasses.replace(model, epsilon=epsilon, mask=mask)


def _size(maps: Maps) -> Array:
    size = jnp.abs(jax.lax.stop_gradient(maps))
    return jnp.where(jnp.all(jnp.isfinite(size), axis=(1, 2), keepdims=True), size, 0)


def _scaled(maps: Maps) -> Array:
    """s times the power of two that brings it below 1: no sum overflows or underflows, and no value is rounded."""
    size = _size(maps)
    _, exponent = jnp.frexp(jnp.max(size, axis=(1, 2), keepdims=True))
    return jnp.ldexp(size, -exponent)


def _each(value: Scalar, maps: Maps) -> Array:
    """A scalar or ``[B]`` in the dtype of ``maps`` and with three axes."""
    return jnp.reshape(jnp.asarray(value, maps.dtype), (-1, 1, 1))
