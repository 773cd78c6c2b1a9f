"""How much of a score hangs on a known part of the image: the truth that a map's mass in that part is held against."""

import math
from typing import ClassVar

from robust_saliency import checks
from robust_saliency.metrics import imputation, perturbed
from robust_saliency.metrics.localisation import Masks, inside_of, unless_empty
from robust_saliency.metrics.sparsity import by_option
from robust_saliency.types import Array, Images, Labels, LogitsFn, spec


@spec
class MaskReliance:
    """Score that the network loses when a masked part of the image is filled in from what surrounds it."""

    title = by_option(lambda self: f"Reliance on the {self.mask}")
    direction: ClassVar[str] = "none"
    range = by_option(lambda self: (-1.0, 1.0) if self.score == "probability" else (-math.inf, math.inf))

    mask: str = "lesion"
    score: str = "probability"

    def __post_init__(self):
        checks.one_of("score", self.score, perturbed.AMOUNTS)


def mask_reliance(
    logits_fn: LogitsFn, images: Images, labels: Labels, masks: Masks, spec: MaskReliance | None = None
) -> Array:
    """``f(x) - f(x with the mask imputed)`` ``[B]``, f the 'probability' or the 'logit' of the label: in units of f.

    Above 0 the part speaks for the label; no saliency method enters. The masked pixels become the weighted means of
    their neighbours (:func:`imputation.linear`), all channels, so that a thin part (a ruler, a hair) is gone without a
    trace, and a large one is a smooth blot. NaN for an empty mask, and for one that fills the image.

    A reconstruction: prediction difference analysis (Zintgraf et al. 2017, 1702.04595) of a part that is known.
    """
    spec = spec or MaskReliance()
    checks.rank("images", images, 4)
    checks.floating("images", images)
    inside = inside_of(masks, spec.mask, images[..., 0])
    without = imputation.linear(images, inside)
    before, after = (perturbed.amount(logits_fn(x), labels, spec.score) for x in (images, without))
    return unless_empty(inside, before - after)
