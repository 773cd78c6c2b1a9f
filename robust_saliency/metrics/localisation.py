"""Whether a map points at, lies in and ranks first the pixels of a known mask.

``masks`` is one array ``[B, H, W]``, or a mapping from names ('lesion', 'evidence', ...) to such arrays, from which the
spec's ``mask`` chooses. Masks are 0 or 1, float, integer or bool: ValueError for others where their values can be seen,
and for another shape than that of the maps. An empty mask gives NaN, as does a map that is zero or not finite. Ties
count by expectation: a constant map scores the mask's share of the image, whatever the mask's place.
"""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import checks
from robust_saliency.metrics.sparsity import Relevance, Shares, amounts, by_option, relevance
from robust_saliency.types import Array, Maps, spec

Masks = Array | Mapping[str, Array]


@spec
class PointingGame(Relevance):
    """Share of the map's greatest pixels that lie in the mask, or within `tolerance` pixels of it."""

    title: ClassVar[str] = "Pointing game"
    ties: ClassVar[str] = "share the hit evenly"
    direction: ClassVar[str] = "higher"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    mask: str = "lesion"
    tolerance: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.tolerance < 0:
            raise ValueError(f"tolerance must be at least 0, got {self.tolerance}.")


def pointing_game(maps: Maps, masks: Masks, spec: PointingGame | None = None) -> Array:
    """Probability ``[B]`` that a greatest pixel, drawn evenly among ties, is a hit: in [0, 1], higher is better.

    A hit lies in the mask, or within ``tolerance`` pixels (Euclidean) of one that does (Zhang et al. 2016, who allow
    15 pixels). Without ties it is 0 or 1.
    """
    spec = spec or PointingGame()
    values = relevance(maps, spec.sign)
    inside = inside_of(masks, spec.mask, values)
    greatest = _tied(values, jnp.max(values, axis=(1, 2), keepdims=True)).astype(values.dtype)
    hits = _sum(greatest * _dilated(inside, spec.tolerance)) / _sum(greatest)
    return unless_empty(inside, hits)


@spec
class RelevanceMass(Shares):
    """Share of the relevance that lies in the mask."""

    title = by_option(lambda self: f"Relevance mass in the {self.mask}")
    direction: ClassVar[str] = "higher"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    mask: str = "lesion"


def relevance_mass(maps: Maps, masks: Masks, spec: RelevanceMass | None = None) -> Array:
    """``sum_{i in mask} a_i / sum_i a_i`` per example ``[B]``: in [0, 1], higher is better (Arras et al. 2022)."""
    spec = spec or RelevanceMass()
    values = amounts(maps, spec.sign)
    inside = inside_of(masks, spec.mask, values)
    return unless_empty(inside, _sum(values * inside) / _sum(values))


@spec
class RelevanceMassGiven(Shares):
    """Share of the relevance within one mask (the lesion) that lies in another (the evidence)."""

    title = by_option(lambda self: f"Relevance mass in the {self.mask} given the {self.within}")
    direction: ClassVar[str] = "higher"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    mask: str = "evidence"
    within: str = "lesion"


def relevance_mass_given(maps: Maps, masks: Mapping[str, Array], spec: RelevanceMassGiven | None = None) -> Array:
    """``sum_{i in mask and within} a_i / sum_{i in within} a_i`` per example ``[B]``: in [0, 1], higher is better.

    Takes out the reward for merely finding the lesion, which a blind map at the image's centre collects too. It is 1
    for every map where the mask fills the other, so report it by class. NaN where the two masks do not meet or the map
    has no relevance within. ValueError unless ``masks`` is a mapping that holds both names.
    """
    spec = spec or RelevanceMassGiven()
    if not isinstance(masks, Mapping):
        raise ValueError(f"Two masks by name are needed, {spec.mask!r} and {spec.within!r}; got one array.")
    values = amounts(maps, spec.sign)
    within = inside_of(masks, spec.within, values)
    both = inside_of(masks, spec.mask, values) & within
    return unless_empty(both, _sum(values * both) / _sum(values * within))


@spec
class RankAccuracy(Relevance):
    """Share of the K most relevant pixels that lie in the mask, K being the mask's number of pixels."""

    title: ClassVar[str] = "Relevance rank accuracy"
    ties: ClassVar[str] = "share the places left to them evenly"
    direction: ClassVar[str] = "higher"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    mask: str = "lesion"


def rank_accuracy(maps: Maps, masks: Masks, spec: RankAccuracy | None = None) -> Array:
    """``|top-K and mask| / K`` with ``K = |mask|`` per example ``[B]``: in [0, 1], higher is better.

    Pixels tied at the K-th value share the places left to them evenly. (Arras et al. 2022, who break ties by place.)
    """
    spec = spec or RankAccuracy()
    values = relevance(maps, spec.sign)
    inside = inside_of(masks, spec.mask, values)
    size = jnp.sum(inside, axis=(1, 2))
    ascending = jnp.sort(values.reshape(values.shape[0], -1), axis=-1)
    last = jnp.minimum(ascending.shape[-1] - size, ascending.shape[-1] - 1)
    threshold = jnp.take_along_axis(ascending, last[:, None], axis=-1)[:, :, None]
    tied = _tied(values, threshold)
    above = (values > threshold) & ~tied
    places = size - _sum(above)
    hits = _sum(above & inside) + places * _sum(tied & inside).astype(values.dtype) / _sum(tied)
    return unless_empty(inside, hits / size)


def _tied(values: Array, value: Array) -> Array:
    """Where ``values`` equal ``value`` but for rounding.

    XLA may compute a map twice in one program, for the maximum and for the comparison, some last bits apart; compared
    exactly, nothing would reach the maximum.
    """
    return jnp.abs(values - value) <= 4 * jnp.finfo(values.dtype).eps * jnp.abs(value)


def inside_of(masks: Masks, name: str, values: Array) -> Array:
    """Which pixels of ``values [B, H, W]`` are in the mask called ``name``: bool."""
    mask = checks.lookup("mask", name, masks) if isinstance(masks, Mapping) else masks
    if mask.shape != values.shape:
        raise ValueError(f"Masks must have the shape of the maps: got {mask.shape}, expected {values.shape}.")
    checks.known_binary("masks", mask)
    return mask.astype(values.dtype) > 0.5


def _dilated(inside: Array, radius: int) -> Array:
    if radius == 0:
        return inside
    offsets = np.arange(-radius, radius + 1)
    disc = (offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2).astype(np.float32)
    within_reach = jax.lax.conv_general_dilated(
        inside[..., None].astype(jnp.float32),
        disc[:, :, None, None],
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return within_reach[..., 0] > 0.5


def _sum(values: Array) -> Array:
    return jnp.sum(values, axis=(1, 2))


def unless_empty(inside: Array, scores: Array) -> Array:
    """``scores [B]``, NaN where nothing is inside."""
    return jnp.where(jnp.any(inside, axis=(1, 2)), scores, jnp.nan)
