"""Where the pixels of a map stand when they are sorted, ties included.

To sort a map and compare it with the result is not safe: XLA may merge the comparison with what computes the map, which
is then computed once for each, a last bit apart. Here only sorts and loops read a map, which merge with nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.types import Array, Maps

_ALL, _SIGN, _DIGIT = 0xFFFFFFFF, 0x80000000, 0xFFFF


class Order(NamedTuple):
    """Rows as they are when sorted ascending, all ``[B, n]``: the place ``rank`` of each entry, which entry stands
    ``at`` each place, int32, and the ``ascending`` values."""

    rank: Array
    at: Array
    ascending: Array


def places(maps: Maps) -> tuple[Array, Array]:
    """First and last place that the ties of each pixel of ``maps [B, H, W]`` fill: int32 ``[B, H, W]``, from 0.

    Ascending, so the smallest pixel has place 0; without a tie the two are equal. 0 and -0 are tied, and so are NaN,
    which come last. No gradient flows.
    """
    checks.rank("maps", maps, 3)
    keys = _keys(maps.reshape(maps.shape[0], -1))
    ascending = jnp.sort(keys, axis=1)

    def found(side):
        return jax.vmap(lambda row, wanted: jnp.searchsorted(row, wanted, side=side))(ascending, keys)

    return found("left").reshape(maps.shape), found("right").reshape(maps.shape) - 1


def order(values: Array, lots: Array | None = None) -> Order:
    """The rows of ``values [B, n]`` sorted, each place 0 .. n - 1 taken once.

    Ties go by ``lots [B, n]``, integers below 2^16, the smaller first, and without them, or where they too are tied,
    keep the order in which they stand; 0 and -0 are tied; NaN comes last. No gradient flows.
    """
    checks.rank("values", values, 2)
    keys, count = _keys(values), values.shape[1]
    if keys.dtype == jnp.uint32 and count <= _DIGIT + 1:
        rank, at, ascending = _by_digits(keys, lots)
        return Order(rank.astype(jnp.int32), at.astype(jnp.int32), _values(ascending, values.dtype))
    place = jax.lax.broadcasted_iota(jnp.int32, keys.shape, 1)
    ascending, *_, at = jax.lax.sort(
        (keys, *([] if lots is None else [lots]), place), dimension=1, num_keys=1 + (lots is not None)
    )
    return Order(jax.lax.sort((at, place), dimension=1, num_keys=1)[1], at, _values(ascending, values.dtype))


def stable(maps: Maps) -> tuple[Array, Array]:
    """:func:`order` of the pixels of ``maps [B, H, W]``, row by row: ``[B, H, W]``; and the sorted, ``[B, H W]``."""
    checks.rank("maps", maps, 3)
    found = order(maps.reshape(maps.shape[0], -1))
    return found.rank.reshape(maps.shape), found.ascending


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


def _keys(values: Array) -> Array:
    """Numbers that are sorted as the ``values`` are: uint32, which XLA sorts five times faster, or else as they are."""
    values = jax.lax.stop_gradient(values)
    if not jnp.issubdtype(values.dtype, jnp.floating) or values.dtype.itemsize > 4:
        return values
    values = values.astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(jnp.where(jnp.isnan(values), jnp.nan, values), jnp.uint32)
    bits = jnp.where(bits == jnp.uint32(_SIGN), jnp.uint32(0), bits)  # -0; as floats the least numbers would be 0 too
    return bits ^ jnp.where(bits >> 31 == 1, jnp.uint32(_ALL), jnp.uint32(_SIGN))


def _values(keys: Array, dtype: jnp.dtype) -> Array:
    """The values whose :func:`_keys` these are; 0 for -0."""
    if keys.dtype != jnp.uint32 or dtype == jnp.uint32:
        return keys
    bits = keys ^ jnp.where(keys >> 31 == 1, jnp.uint32(_SIGN), jnp.uint32(_ALL))
    return jax.lax.bitcast_convert_type(bits, jnp.float32).astype(dtype)


def _by_digits(keys: Array, lots: Array | None) -> Order:
    """The ``keys [B, n]`` ranked by one sort for each 16 bits, the lowest first, with the place in the other 16 bits.

    Several sorts of single numbers are faster than one of pairs.
    """
    # Of the type of the keys, which inside shard_map says that it differs between the devices.
    place = jnp.zeros_like(keys) + jnp.arange(keys.shape[1], dtype=jnp.uint32)[None]

    def sorted_by(digit, at):
        packed = jnp.sort(jnp.take_along_axis(digit, at, axis=1) << 16 | place, axis=1)
        return jnp.take_along_axis(at, packed & _DIGIT, axis=1)

    def step(carry, shift):
        at = sorted_by(keys >> shift & _DIGIT, carry[0])
        return (at, jnp.take_along_axis(keys, at, axis=1)), None

    first = place if lots is None else sorted_by(lots.astype(jnp.uint32), place)
    # A loop, so that both steps and the result read one array of keys, and not one that was computed again.
    (at, ascending), _ = jax.lax.scan(step, (first, keys), jnp.arange(0, 32, 16, dtype=jnp.uint32))
    return Order(jnp.sort(at << 16 | place, axis=1) & _DIGIT, at, ascending)


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
