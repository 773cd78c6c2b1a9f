"""A map as a detector of a mask at every threshold: area under the ROC curve, and the best intersection over union.

Masks as in :mod:`localisation`. One fixed threshold would not do: the best one differs from mask to mask.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp

from robust_saliency import ranks
from robust_saliency.metrics.localisation import Masks, inside_of, unless_empty
from robust_saliency.metrics.sparsity import Relevance, by_option, relevance
from robust_saliency.types import Array, Maps, spec


@spec
class MaskAUC(Relevance):
    """Probability that a pixel of the mask has more relevance than one beside it, ties counting half."""

    title = by_option(lambda self: f"ROC AUC of the {self.mask}")
    ties: ClassVar[str] = "count half"
    direction: ClassVar[str] = "higher"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    mask: str = "lesion"


def mask_auc(maps: Maps, masks: Masks, spec: MaskAUC | None = None) -> Array:
    """``P(a_i > a_j) + P(a_i = a_j) / 2``, i drawn in and j out of the mask, ``[B]``: in [0, 1], higher is better.

    A constant map has 1/2. NaN for an empty mask and for one that fills the image, of which nothing is beside.
    Source: the area under the ROC curve as a rank sum, Hanley and McNeil 1982.
    """
    spec = spec or MaskAUC()
    values = relevance(maps, spec.sign)
    inside = inside_of(masks, spec.mask, values)
    count, pixels = jnp.sum(inside, axis=(1, 2)), maps.shape[1] * maps.shape[2]
    # Twice the sum of the ranks, less its mean.
    above = jnp.sum(jnp.where(inside, ranks.centred(values), 0).astype(values.dtype) / pixels, axis=(1, 2))
    pairs = 2 * count.astype(values.dtype) * (pixels - count) / pixels
    auc = jnp.clip(0.5 + above / pairs, 0, 1)
    return unless_empty(inside & ~jnp.all(inside, axis=(1, 2), keepdims=True), auc + 0 * values[:, 0, 0])


@spec
class BestIoU(Relevance):
    """Greatest intersection over union of the mask and the pixels above a threshold, over all thresholds."""

    title = by_option(lambda self: f"Best IoU with the {self.mask}")
    ties: ClassVar[str] = "are above a threshold together"
    direction: ClassVar[str] = "higher"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    mask: str = "lesion"


def best_iou(maps: Maps, masks: Masks, spec: BestIoU | None = None) -> Array:
    """``max_t |{a >= t} and mask| / |{a >= t} or mask|`` ``[B]``: in [0, 1], higher is better.

    Tied pixels are above a threshold together. A constant map has the mask's share of the image, which is also the
    least that any map has: with the lowest threshold everything is above.
    Source: the Jaccard index; the best threshold an image, as no fixed one suits all lesions (Nunnari et al. 2021).
    """
    spec = spec or BestIoU()
    values = relevance(maps, spec.sign)
    inside = inside_of(masks, spec.mask, values)
    flat, members = (array.reshape(array.shape[0], -1) for array in (-values, inside.astype(values.dtype)))
    ascending, members = jax.lax.sort((flat, members), dimension=1, num_keys=1)
    hits = jnp.cumsum(members, axis=-1)
    above = jnp.arange(1, flat.shape[-1] + 1, dtype=values.dtype)[None]
    ends_ties = jnp.concatenate([ascending[:, 1:] != ascending[:, :-1], jnp.ones_like(flat[:, :1], bool)], axis=-1)
    overlaps = jnp.where(ends_ties, hits / (above + hits[:, -1:] - hits), 0)
    return unless_empty(inside, jnp.max(overlaps, axis=-1) + 0 * values[:, 0, 0])
