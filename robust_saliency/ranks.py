"""Where the pixels of a map stand when they are sorted, ties included.

The places come out of one sort together with the sorted values, and ties are looked for among those. To sort a map and
compare it with the result is not safe: XLA may compute the map once for each, a last bit apart.
"""

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.types import Array, Maps


def places(maps: Maps) -> tuple[Array, Array]:
    """First and last place that the ties of each pixel of ``maps [B, H, W]`` fill: int32 ``[B, H, W]``, from 0.

    Ascending, so the smallest pixel has place 0; without a tie the two are equal. No gradient flows.
    """
    checks.rank("maps", maps, 3)
    values = jax.lax.stop_gradient(maps).reshape(maps.shape[0], -1)
    place = jax.lax.broadcasted_iota(jnp.int32, values.shape, 1)
    ascending, pixel = jax.lax.sort((values, place), dimension=1, num_keys=1)
    edge = jnp.ones_like(ascending[:, :1], bool)
    differs = ascending[:, 1:] != ascending[:, :-1]
    is_first, is_last = (jnp.concatenate(parts, axis=1) for parts in ((edge, differs), (differs, edge)))
    first = jax.lax.cummax(jnp.where(is_first, place, 0), axis=1)
    last = jax.lax.cummin(jnp.where(is_last, place, values.shape[1] - 1), axis=1, reverse=True)
    _, first, last = jax.lax.sort((pixel, first, last), dimension=1, num_keys=1)
    return first.reshape(maps.shape), last.reshape(maps.shape)


def order(values: Array) -> tuple[Array, Array]:
    """Place of each of the ``values [B, n]`` when a row is sorted ascending, int32 ``[B, n]``; and the sorted values.

    Each of 0 .. n - 1 once: ties keep the order in which they stand; 0 and -0 are tied; NaN comes last. No gradient
    flows.
    """
    checks.rank("values", values, 2)
    place = jax.lax.broadcasted_iota(jnp.int32, values.shape, 1)
    operands = jax.lax.stop_gradient(values), place
    ascending, sorted_from = jax.lax.sort(operands, dimension=1, num_keys=1, is_stable=True)
    return jax.lax.sort((sorted_from, place), dimension=1, num_keys=1)[1], ascending


def stable(maps: Maps) -> tuple[Array, Array]:
    """:func:`order` of the pixels of ``maps [B, H, W]``, row by row: ``[B, H, W]``; and the sorted, ``[B, H W]``."""
    checks.rank("maps", maps, 3)
    rank, ascending = order(maps.reshape(maps.shape[0], -1))
    return rank.reshape(maps.shape), ascending


def centred(maps: Maps) -> Array:
    """Twice the average rank less its mean, ``first + last - (n - 1)``: int32 ``[B, H, W]``, exact, of sum zero."""
    first, last = places(maps)
    return first + last - (maps.shape[1] * maps.shape[2] - 1)


def top_share(maps: Maps, k: int) -> Array:
    """How much of each pixel is among the ``k`` largest of its map: ``[B, H, W]`` in [0, 1], summing to k.

    1 or 0, but pixels tied at the k-th value share the places left to them evenly. ValueError unless k is 1 to H W.
    """
    first, last = places(maps)
    count = maps.shape[1] * maps.shape[2]
    if not 1 <= k <= count:
        raise ValueError(f"k must be 1 to {count}, the pixels of a map of {maps.shape[1]}x{maps.shape[2]}, got {k}.")
    won = jnp.maximum(last + 1 - jnp.maximum(first, count - k), 0)
    dtype = jnp.promote_types(maps.dtype, jnp.float32)
    return won.astype(dtype) / (last + 1 - first).astype(dtype)
