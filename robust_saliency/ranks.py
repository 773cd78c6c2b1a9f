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
    is_first = _starts(ascending)
    is_last = jnp.concatenate([is_first[:, 1:], jnp.ones_like(is_first[:, :1])], axis=1)
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


def concordance(maps: Maps, other_maps: Maps) -> tuple[Array, Array, Array]:
    """Of the pairs of pixels: concordant less discordant ones, those untied in ``maps``, in ``other_maps``; ``[B]``.

    Floating counts, exact below 2^24 pairs in float32 and to its rounding above. Time n log^2 n and memory n, not n^2:
    with the pixels sorted by both maps the discordant pairs are the inversions of the other (Knight 1966), which are
    counted bit by bit of the rank. No gradient flows.
    """
    dtype = jnp.promote_types(jnp.result_type(maps, other_maps), jnp.float32)
    x, y = (places(values)[0].reshape(values.shape[0], -1) for values in (maps, other_maps))
    x, y = jax.lax.sort((x, y), dimension=1, num_keys=2)
    tied_x, tied_both = _earlier_in_run(_starts(x)), _earlier_in_run(_starts(x) | _starts(y))
    discordant, y = _inversions(y)
    tied_x, tied_y, tied_both, discordant = (
        _exact_sum(counts, dtype) for counts in (tied_x, _earlier_in_run(_starts(y)), tied_both, discordant)
    )
    pairs = x.shape[1] * (x.shape[1] - 1) / 2
    return (pairs - tied_x) - (tied_y - tied_both) - 2 * discordant, pairs - tied_x, pairs - tied_y


def _inversions(ranks: Array) -> tuple[Array, Array]:
    """Counts that add up to the pairs of a row in which the larger rank stands first; and the sorted rows.

    Two ranks differ first in one bit. Among those alike above that bit, each 0 is passed by the 1s before it.
    """
    bits = (ranks.shape[1] - 1).bit_length()

    def split(carry, bit):
        ranks, counts = carry
        one = (ranks >> bit) & 1
        before = jnp.cumsum(one, axis=1) - one
        outside = jax.lax.cummax(jnp.where(_starts(ranks >> (bit + 1)), before, 0), axis=1)
        counts += jnp.where(one == 0, before - outside, 0)
        _, ranks = jax.lax.sort((ranks >> bit, ranks), dimension=1, num_keys=1, is_stable=True)
        return (ranks, counts), None

    down = jnp.arange(bits - 1, -1, -1, dtype=ranks.dtype)
    (ranks, counts), _ = jax.lax.scan(split, (ranks, jnp.zeros_like(ranks)), down)
    return counts, ranks


def _starts(values: Array) -> Array:
    """Where a run of equal neighbours begins."""
    return jnp.concatenate([jnp.ones_like(values[:, :1], bool), values[:, 1:] != values[:, :-1]], axis=1)


def _earlier_in_run(starts: Array) -> Array:
    """How many of its run stand before each entry; in all as many as there are pairs within runs."""
    place = jax.lax.broadcasted_iota(jnp.int32, starts.shape, 1)
    return place - jax.lax.cummax(jnp.where(starts, place, 0), axis=1)


def _exact_sum(counts: Array, dtype: jnp.dtype) -> Array:
    """The sum of each row as one rounded number; in two parts, which no map overflows."""
    high, low = (jnp.sum(part, axis=1).astype(dtype) for part in (counts >> 8, counts & 255))
    return 256 * high + low
