"""Deletion and insertion curves: what becomes of the score as pixels go or come in the map's order.

Pixels are spatial positions, all channels together. MoRF takes the most relevant first, LeRF the least (Samek et al.
2017; deletion and insertion AUC after Petsiuk et al. 2018). Forward passes only, one batch at a time, so memory does
not grow with the number of points. Deletion in LeRF order shows the same images as insertion in MoRF order, backwards.

Deletion follows the confidence of a network and favours robust ones, insertion favours standard ones (Nourelahi et al.
2022): between networks compare the normalised curves too, and each with its own random order (`blind.random_map`).
"""

import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from robust_saliency import baselines, checks, randomness
from robust_saliency.metrics import perturbed
from robust_saliency.metrics.shared import Shared
from robust_saliency.metrics.sparsity import Relevance, by_option, relevance
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, spec


@spec
class Perturbation(Relevance):
    """What deletion and insertion share: order, number of points with both ends, score and baseline image."""

    ties: ClassVar[str] = "in random order"

    order: str = "morf"
    points: int = 11
    score: str = "probability"
    normalised: bool = False
    least_change: float = 0.0
    baseline: baselines.Baseline = baselines.Baseline()

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("order", self.order, perturbed.ORDERS)
        checks.one_of("score", self.score, perturbed.SCORES)
        if self.points < 2:
            raise ValueError(f"points must be at least 2, got {self.points}.")
        if not 0 <= self.least_change < math.inf or (self.least_change and not self.normalised):
            raise ValueError(
                f"least_change must be at least 0, and 0 unless the curve is normalised, got {self.least_change}."
            )

    @by_option
    def range(self) -> tuple[float, float]:
        return (-math.inf, math.inf) if self.score == "logit" or self.normalised else (0.0, 1.0)


@spec
class Deletion(Perturbation):
    """Area under the score as the pixels are deleted, most relevant first."""

    inserting: ClassVar[bool] = False
    title: ClassVar[str] = "Deletion AUC"
    direction = by_option(lambda self: "lower" if self.order == "morf" else "higher")


@spec
class Insertion(Perturbation):
    """Area under the score as the pixels are put into the baseline image, most relevant first."""

    inserting: ClassVar[bool] = True
    title: ClassVar[str] = "Insertion AUC"
    direction = by_option(lambda self: "higher" if self.order == "morf" else "lower")


def deletion_curve(
    logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, maps: Maps, spec: Deletion | None = None
) -> Array:
    """Score ``[B, points]`` with the first ``round(fraction P)`` pixels set to the baseline; lower is better (MoRF).

    From ``f(x)`` to ``f(baseline)``; x axis: :func:`fractions`. score: 'probability' or 'logit' of the label;
    'accuracy', 1 where the argmax is the label, or 'allegiance', where it is that of the whole image, else 0.
    ``normalised`` gives ``(f_k - f_b) / (f_x - f_b)``, NaN where ``|f_x - f_b|`` is below the rounding of the scores or
    ``least_change``: of an image that scores like the baseline the quotient is of any size, and one outweighs a mean of
    hundreds.
    Ties are broken at random by ``key``, with one key an example independently of the batch; so a constant map deletes
    in random order. A map that is zero or not finite gives NaN. ValueError for an unknown order or score or fewer than
    two points.
    """
    spec = _checked(spec or Deletion(), Deletion)
    return curve_of(perturbed_logits(logits_fn, key, images, maps, spec), labels, spec)


def insertion_curve(
    logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, maps: Maps, spec: Insertion | None = None
) -> Array:
    """Score ``[B, points]`` with the first pixels put into the baseline: from ``f(baseline)`` to ``f(x)``.

    Otherwise as :func:`deletion_curve`; higher is better (MoRF).
    """
    spec = _checked(spec or Insertion(), Insertion)
    return curve_of(perturbed_logits(logits_fn, key, images, maps, spec), labels, spec)


def deletion_auc(
    logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, maps: Maps, spec: Deletion | None = None
) -> Array:
    """:func:`auc` ``[B]`` of :func:`deletion_curve`; lower is better (MoRF)."""
    return auc(deletion_curve(logits_fn, key, images, labels, maps, spec), _pixels(maps))


def insertion_auc(
    logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, maps: Maps, spec: Insertion | None = None
) -> Array:
    """:func:`auc` ``[B]`` of :func:`insertion_curve`; higher is better (MoRF)."""
    return auc(insertion_curve(logits_fn, key, images, labels, maps, spec), _pixels(maps))


def fractions(points: int, pixels: int) -> np.ndarray:
    """Fractions of the pixels ``[points]`` at which a curve is taken: evenly spaced, rounded to whole pixels."""
    return _counts(points, pixels) / pixels


def auc(curve: Array, pixels: int) -> Array:
    """Area ``[B]`` under a curve ``[B, points]`` by the trapezoid rule on :func:`fractions`: the x axis is [0, 1]."""
    steps = np.diff(fractions(curve.shape[-1], pixels))
    return jnp.sum(jnp.asarray(steps, curve.dtype)[None] * (curve[:, 1:] + curve[:, :-1]) / 2, axis=-1)


def _checked(spec: Perturbation, Kind: type) -> Perturbation:
    if not isinstance(spec, Kind):
        raise ValueError(f"A curve of {Kind.__name__} needs a spec of that kind, got {type(spec).__name__}.")
    return spec


def perturbed_logits(logits_fn: LogitsFn, key: Key, images: Images, maps: Maps, spec: Perturbation) -> Array:
    """Logits ``[B, points, K]`` of the images on a curve: what every score of that curve is read off."""
    perturbed.check_shapes(images, maps)
    tie_key, fill_key = randomness.split(key)
    values = relevance(maps, spec.sign)
    rank = perturbed.rank_order(values, tie_key)
    rank = rank if spec.order == "morf" else _pixels(maps) - 1 - rank
    baseline = baselines.fill(fill_key, images, spec.baseline)
    first, rest = (images, baseline) if spec.inserting else (baseline, images)
    counts = jnp.asarray(_counts(spec.points, _pixels(maps)), rank.dtype)

    def changed(point):
        return jnp.where((rank < counts[point])[..., None], first, rest)

    return perturbed.logits_of(logits_fn, changed, spec.points, perturbed.is_meaningless(values))


def curve_of(logits: Array, labels: Labels, spec: Perturbation) -> Array:
    """The scores ``[B, points]`` of :func:`perturbed_logits`, as :func:`deletion_curve` says."""
    whole, empty = (-1, 0) if spec.inserting else (0, -1)
    scores = perturbed.scores(logits, labels, logits[:, whole], spec.score)
    if not spec.normalised:
        return scores
    return _normalised(scores, scores[:, whole, None], scores[:, empty, None], spec.least_change)


def _normalised(scores: Array, whole: Array, empty: Array, least_change: float) -> Array:
    rounding = jnp.finfo(scores.dtype).eps ** 0.5 * jnp.maximum(jnp.abs(whole), jnp.abs(empty))
    tiny = jnp.maximum(rounding, least_change)
    span = jnp.where(jnp.abs(whole - empty) > tiny, whole - empty, jnp.nan)
    return (scores - empty) / span


def _counts(points: int, pixels: int) -> np.ndarray:
    if points < 2:
        raise ValueError(f"A curve needs at least its two ends: got points={points}, expected 2 or more.")
    return np.round(np.linspace(0.0, 1.0, points) * pixels).astype(int)


def _pixels(maps: Array) -> int:
    return maps.shape[1] * maps.shape[2]


def run_of(spec: Perturbation) -> Perturbation:
    """What the logits of ``spec`` depend on: equal for all scores of one curve."""
    Kind = Insertion if spec.inserting else Deletion
    return Kind(sign=spec.sign, order=spec.order, points=spec.points, baseline=spec.baseline)


_CURVE = Shared(
    needs=("logits_fn", "key", "images", "maps"),
    runs=lambda spec: (run_of(spec),),
    make=perturbed_logits,
    read=lambda made, given, spec: curve_of(made[0], given["labels"], spec),
    fractions=lambda spec, pixels: fractions(spec.points, pixels),
    value=auc,
)
SHARED = {Deletion: _CURVE, Insertion: _CURVE}
