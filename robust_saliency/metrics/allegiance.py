"""Black and white deletion of a prediction's allegiance, exactly as Llorente et al. 2023 (2309.12913) measure it.

Their positive and active maps say where brighter pixels would raise the score of the predicted class, so these pixels
are painted black; their negative and inactive maps where darker ones would, so these are painted white.
"""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from robust_saliency import checks, ranks
from robust_saliency.metrics import perturbed
from robust_saliency.metrics.shared import Shared
from robust_saliency.metrics.sparsity import Shares, by_option, relevance
from robust_saliency.types import Array, Images, LogitsFn, Maps, spec

FRACTIONS = (0.0, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
COLOURS = {"black": 0.0, "white": 1.0}


@spec
class Allegiance(Shares):
    """Area under the share of images that keep their predicted class as the most salient pixels are painted over."""

    title = by_option(lambda self: f"Allegiance AUC, {self.colour} deletion")
    ties: ClassVar[str] = "all go or none"
    direction: ClassVar[str] = "lower"
    range: ClassVar[tuple[float, float]] = (0.0, 0.9)

    colour: str = "black"

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("colour", self.colour, tuple(COLOURS))


def allegiance_curve(logits_fn: LogitsFn, images: Images, maps: Maps, spec: Allegiance | None = None) -> Array:
    """1 where the argmax is that of the whole image, else 0: ``[B, 13]`` at ``FRACTIONS`` of the pixels.

    At a fraction p the pixels are painted whose value exceeds that of rank ``round(p H W)`` (from 0, descending), all
    channels at once. So of tied pixels all go or none, pixels of value zero never go, and a constant map paints
    nothing. colour: 'black' (0) or 'white' (1). A map that is zero or not finite gives NaN.
    """
    spec = spec or Allegiance()
    perturbed.check_shapes(images, maps)
    values = relevance(maps, spec.sign)
    first_place, _ = ranks.places(values)
    pixels = maps.shape[1] * maps.shape[2]
    thresholds = jnp.asarray(pixels - 1 - np.round(np.array(FRACTIONS) * pixels).astype(int))

    def painted(point):
        return jnp.where((first_place > thresholds[point])[..., None], COLOURS[spec.colour], images)

    logits = perturbed.logits_of(logits_fn, painted, len(FRACTIONS), perturbed.is_meaningless(values))
    return perturbed.scores(logits, None, logits[:, 0], "allegiance")


def allegiance_auc(logits_fn: LogitsFn, images: Images, maps: Maps, spec: Allegiance | None = None) -> Array:
    """Area ``[B]`` under :func:`allegiance_curve` by the trapezoid rule over [0, 0.9]: at most 0.9, lower is better.

    Not divided by 0.9, as published, so that the mean over images compares with the paper's tables.
    """
    return _area(allegiance_curve(logits_fn, images, maps, spec))


def _area(curve: Array) -> Array:
    steps = jnp.asarray(np.diff(FRACTIONS), curve.dtype)
    return jnp.sum(steps[None] * (curve[:, 1:] + curve[:, :-1]) / 2, axis=-1)


SHARED = {
    Allegiance: Shared(
        needs=("logits_fn", "images", "maps"),
        runs=lambda spec: (spec,),
        make=allegiance_curve,
        read=lambda made, given, spec: made[0],
        fractions=lambda spec, pixels: np.array(FRACTIONS),
        value=lambda curve, pixels: _area(curve),
    )
}
