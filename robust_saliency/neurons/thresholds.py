"""From which activation on a unit is active: an exact quantile over all places of a data set, also batch by batch.

Source: Bau, Zhou, Khosla, Oliva, Torralba 2017 (1704.05796), section 2.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.types import Array, Scalar, spec


@spec
class Dissection:
    """When a unit is active, and when it is a detector.

    quantile: share of all places of the data set at which a unit is active.
    least_iou: a unit detects its best concept where their IoU is above this.
    """

    quantile: Scalar = 0.005
    least_iou: Scalar = 0.04

    def __post_init__(self):
        checks.known_within("Dissection.quantile", self.quantile, 0, 1)
        checks.known_within("Dissection.least_iou", self.least_iou, 0, 1)


class Thresholds(NamedTuple):
    """``values [U]``, NaN for a unit that is dead; ``not_finite``: int32 ``[U]``, the activations left out."""

    values: Array
    not_finite: Array


class Tail(NamedTuple):
    """The upper tail of the activations of each of U units: all that a quantile near the top needs to know of them.

    ``highest [U, m]``: the m highest finite ones, falling, -inf where there were fewer. ``lowest [U]``: of all, inf
    where there was none. ``finite``, ``not_finite``: int32 ``[U]``, how many there were.
    """

    highest: Array
    lowest: Array
    finite: Array
    not_finite: Array


def thresholds(activations: Array, spec: Dissection | None = None) -> Thresholds:
    """T with P(a > T) = quantile over all places of all images ``[N, h, w, U]``, by unit.

    The quantile of the sorted activations, linear between neighbours, as ``numpy.quantile(a, 1 - quantile)``: exact, of
    the whole data set at once; batch by batch: :func:`tail`. What is NaN or infinite is left out and counted. A unit
    whose activation is the same everywhere is dead and has no threshold.
    """
    checks.rank("activations", activations, 4)
    return tail_thresholds(tail(activations, math.prod(activations.shape[:3])), spec)


def tail_size(places: int, spec: Dissection | None = None) -> int:
    """How many of the highest of ``places`` activations (images x rows x columns) must be kept for the quantile."""
    spec = spec or Dissection()
    # The place of the quantile is computed in float32, which rounds it where there are many millions.
    return min(places, math.floor(spec.quantile * places * (1 + 1e-6)) + 3)


def tail(activations: Array, most: int, valid: Array | None = None) -> Tail:
    """The ``most`` highest of ``activations [B, h, w, U]``; an example that is not ``valid [B]`` does not count."""
    checks.rank("activations", activations, 4)
    checks.at_least(1, most=most, where="tail")
    counted = jnp.ones(len(activations), bool) if valid is None else jnp.asarray(valid, bool)
    finite = jnp.isfinite(activations) & counted[:, None, None, None]
    flat = jnp.moveaxis(jnp.where(finite, activations, -jnp.inf), -1, 0).reshape(activations.shape[-1], -1)
    highest, _ = jax.lax.top_k(flat, min(most, flat.shape[1]))
    highest = jnp.pad(highest, ((0, 0), (0, most - highest.shape[1])), constant_values=-jnp.inf)
    count = finite.sum((0, 1, 2))
    all_places = counted.sum() * math.prod(activations.shape[1:3])
    return Tail(highest, jnp.where(finite, activations, jnp.inf).min((0, 1, 2)), count, all_places - count)


def merge_tails(first: Tail, second: Tail) -> Tail:
    """The tail of the activations of both, which are of one layer and one ``most``."""
    if first.highest.shape != second.highest.shape:
        raise ValueError(f"Tails of one size are merged, got {first.highest.shape} and {second.highest.shape}.")
    both = jnp.concatenate([first.highest, second.highest], axis=1)
    highest, _ = jax.lax.top_k(both, first.highest.shape[1])
    lowest = jnp.minimum(first.lowest, second.lowest)
    return Tail(highest, lowest, first.finite + second.finite, first.not_finite + second.not_finite)


def tail_thresholds(tail: Tail, spec: Dissection | None = None) -> Thresholds:
    """:func:`thresholds` of all activations whose ``tail`` this is; it must be of :func:`tail_size` at least."""
    spec = spec or Dissection()
    falling = tail.highest
    last = jnp.maximum(tail.finite - 1, 0)
    # From the top, where a place is a small number: of a million places float32 is exact to a thousandth of one.
    place = last.astype(falling.dtype) * spec.quantile
    below = jnp.floor(place)
    upper, lower = (
        jnp.take_along_axis(falling, index.astype(jnp.int32)[:, None], axis=-1)[:, 0]
        for index in (below, jnp.minimum(below + 1, last))
    )
    between = place - below
    values = jnp.where(between > 0, upper + between * (lower - upper), upper)
    return Thresholds(jnp.where(falling[:, 0] > tail.lowest, values, jnp.nan), tail.not_finite)
