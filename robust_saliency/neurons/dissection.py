"""Network dissection: which concept, drawn by a mask, each unit of a layer detects.

Source: Bau, Zhou, Khosla, Oliva, Torralba 2017 (1704.05796), section 2; the quantile, the strict comparison and the
places of the cells as in the authors' NetDissect-Lite.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.neurons.thresholds import Dissection
from robust_saliency.types import Array


class Overlaps(NamedTuple):
    """Counted pixels, int32 (so of at most 2^31 pixels): where unit and concept meet, and where each is by itself.

    ``intersection [..., U, K]``, ``active [..., U, K]``, ``shown [..., 1, K]``. ``+`` adds the counts of two batches.
    """

    intersection: Array
    active: Array
    shown: Array

    def __add__(self, other: "Overlaps") -> "Overlaps":
        return Overlaps(*(first + second for first, second in zip(self, other, strict=True)))


class Detectors(NamedTuple):
    """Of each unit: its best concept, int32 ``[U]``, -1 where it has none; their ``iou [U]``; whether it ``detects``
    it, bool ``[U]``. And ``unique``, bool ``[K]``: the concepts that one unit at least detects."""

    concepts: Array
    iou: Array
    detects: Array
    unique: Array


def upsample(activations: Array, size: tuple[int, int]) -> Array:
    """Maps ``[N, h, w, U]`` at ``size``, bilinear: ``[N, H, W, U]``. Maps of that size stay as they are.

    The cells of a map are taken to tile the image, so the centre of cell i is at ``(i + 1/2) H / h``; beyond the outer
    centres the value stays. The paper anchors at the centres of receptive fields: the two differ by a constant,
    which grows with each strided convolution of odd kernel (half a pixel in ``small_cnn``, 3.5 at stride 8 in
    ``resnet18``). A place that is not finite is NaN, as far as it reaches and no further.
    """
    shape = (len(activations), *size, activations.shape[-1])
    finite = jnp.isfinite(activations)
    values = jax.image.resize(jnp.where(finite, activations, 0), shape, "bilinear")
    lost = jax.image.resize((~finite).astype(activations.dtype), shape, "bilinear")
    return jnp.where(lost > 0, jnp.nan, values)


def overlaps(activations: Array, threshold: Array, masks: Array, labelled: Array | None = None) -> Overlaps:
    """The counts of each image, ``[N, U, K]``: sum them over images, and over batches, to have those of a data set.

    activations: ``[N, h, w, U]``. threshold: ``[U]``, such as the values of :func:`thresholds`; a unit is active where
    its map at the size of the masks is above. masks: ``[N, H, W, K]``, 0 or 1, one a concept. labelled: ``[N]`` or
    ``[N, K]``, whether an image was searched for a concept; one that was not, or that is padding, does not count.
    None = all were.

    ValueError for masks that are not binary, of another batch, or smaller than the maps.
    """
    checks.rank("activations", activations, 4)
    checks.rank("masks", masks, 4)
    checks.same_batch(activations=activations, masks=masks)
    checks.known_binary("masks", masks)
    if any(large < small for large, small in zip(masks.shape[1:3], activations.shape[1:3], strict=True)):
        raise ValueError(
            f"masks must be of the size of the images, [N, H, W, K], got shape {masks.shape} for maps of shape "
            f"{activations.shape}."
        )
    active = upsample(activations, masks.shape[1:3]) > jnp.asarray(threshold)[None, None, None]
    inside = jnp.asarray(masks) > 0
    counted = jnp.ones((1, 1), bool) if labelled is None else jnp.asarray(labelled, bool).reshape(len(masks), -1)
    # Of one image the sum of zeros and ones is exact in float32, and a matrix product is fast in no other type.
    both = jnp.einsum("nhwu,nhwk->nuk", active.astype(jnp.float32), inside.astype(jnp.float32))
    counts = jnp.round(both), active.sum((1, 2))[..., None], inside.sum((1, 2))[:, None]
    counts = (jnp.where(counted[:, None], count, 0).astype(jnp.int32) for count in counts)
    concepts = inside.shape[-1]  # of active, too, the images count that were searched for the concept
    return Overlaps(*(jnp.broadcast_to(count, (*count.shape[:2], concepts)) for count in counts))


def accumulate(totals: Overlaps | None, activations: Array, threshold: Array, masks: Array, labelled=None) -> Overlaps:
    """``totals`` and the counts of a batch (:func:`overlaps`, summed over its images); None to begin with."""
    counts = Overlaps(*(count.sum(0) for count in overlaps(activations, threshold, masks, labelled)))
    return counts if totals is None else totals + counts


def iou(totals: Overlaps) -> Array:
    """``|unit and concept| / |unit or concept|`` over all pixels, ``[U, K]``: in [0, 1], higher is more alike.

    NaN where the unit is nowhere active (a dead one) or the concept nowhere shown.
    """
    union = totals.active + totals.shown - totals.intersection
    known = (totals.active > 0) & (totals.shown > 0)
    return jnp.where(known, totals.intersection / jnp.where(known, union, 1), jnp.nan)


def detectors(iou: Array, spec: Dissection | None = None) -> Detectors:
    """The best concept of each unit of ``iou [U, K]`` (the first of equals), and the units that detect theirs."""
    spec = spec or Dissection()
    checks.rank("iou", iou, 2)
    known = jnp.where(jnp.isnan(iou), -1, iou)
    best = known.max(-1)
    concepts = jnp.where(best >= 0, known.argmax(-1), -1).astype(jnp.int32)
    detects = best > spec.least_iou
    is_own = concepts[:, None] == jnp.arange(iou.shape[1])[None]
    return Detectors(concepts, jnp.where(best >= 0, best, jnp.nan), detects, (is_own & detects[:, None]).any(0))
