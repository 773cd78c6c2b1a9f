"""Completeness: does a map account for the whole difference between the image's score and the baseline's?"""

import math
from typing import ClassVar

import jax.numpy as jnp

from robust_saliency import baselines, checks, randomness
from robust_saliency.metrics import perturbed
from robust_saliency.metrics.sparsity import Relevance, relevance
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, spec


@spec
class Completeness(Relevance):
    """How far the sum of a map is from the score's rise over the baseline image, as a share of that rise."""

    title: ClassVar[str] = "Completeness error"
    direction: ClassVar[str] = "lower"
    range: ClassVar[tuple[float, float]] = (0.0, math.inf)

    sign: str = "raw"
    score: str = "logit"
    baseline: baselines.Baseline = baselines.Baseline()

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("score", self.score, perturbed.AMOUNTS)


def completeness(
    logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, maps: Maps, spec: Completeness | None = None
) -> Array:
    """``|sum_i a_i - (f(x) - f(b))| / |f(x) - f(b)|`` ``[B]``: 0 is complete, 1 that of a map near zero.

    f is the 'logit' or the 'probability' of the label, b the baseline image; both must be those of the map. Only signed
    maps whose channels were summed can be complete (saliency spec: channels='sum', sign='signed'). An error and no yes
    or no: of floating-point sums none is exact. NaN where the two scores are equal but for rounding.

    Source: Sundararajan, Taly, Yan 2017 (1703.01365), proposition 1.
    """
    spec = spec or Completeness()
    perturbed.check_shapes(images, maps)
    values = relevance(maps, spec.sign)
    baseline = baselines.fill(randomness.split(key)[1], images, spec.baseline)
    whole, empty = (perturbed.amount(logits_fn(x), labels, spec.score) for x in (images, baseline))
    rise = whole - empty
    rounding = 8 * jnp.finfo(rise.dtype).eps * jnp.maximum(jnp.abs(whole), jnp.abs(empty))
    error = jnp.abs(jnp.sum(values, axis=(1, 2)) - rise)
    return jnp.where(jnp.abs(rise) > rounding, error / jnp.abs(rise), jnp.nan)
