"""ROAD: remove pixels in the map's order, fill the holes from their neighbours, and see what becomes of the score."""

import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from robust_saliency import checks, randomness
from robust_saliency.metrics import imputation, perturbed
from robust_saliency.metrics.shared import Shared
from robust_saliency.metrics.sparsity import Relevance, by_option, relevance
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, Scalar, spec

ORDERS = (*perturbed.ORDERS, "combined")


@spec
class Road(Relevance):
    """Mean score as pixels are removed and imputed from their neighbours (ROAD), most relevant first."""

    title = by_option(lambda self: f"ROAD, {'(LeRF - MoRF) / 2' if self.order == 'combined' else self.order}")
    ties: ClassVar[str] = "in random order"
    direction = by_option(lambda self: "lower" if self.order == "morf" else "higher")

    order: str = "morf"
    points: int = 9
    score: str = "accuracy"
    sigma: Scalar = 0.01

    @by_option
    def range(self) -> tuple[float, float]:
        if self.score == "logit":
            return -math.inf, math.inf
        return (-0.5, 0.5) if self.order == "combined" else (0.0, 1.0)

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("order", self.order, ORDERS)
        checks.one_of("score", self.score, perturbed.SCORES)
        checks.at_least(1, points=self.points, where="Road")


def road_curve(
    logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, maps: Maps, spec: Road | None = None
) -> Array:
    """Score ``[B, points]`` with the shares ``k / (points + 1)``, k = 1 .. points, of the pixels removed and imputed.

    Nine points are the 10 %, 20 %, ..., 90 % of the source. Removed pixels are filled by
    :func:`imputation.noisy_linear`; order 'morf' removes the most relevant first (lower is better), 'lerf' the least
    (higher is better), 'combined' is ``(lerf - morf) / 2`` (higher is better; PyTorch-Grad-CAM's). score: 'accuracy'
    as in the source, 'allegiance', 'probability' or 'logit', as :func:`metrics.deletion_curve` says. sigma: deviation
    of the noise on imputed pixels, in pixels of [0, 1]; the sums are not cut to the box. Ties are broken at random by
    ``key``. A map that is zero or not finite gives NaN.

    Source: Rong et al. 2022 (2202.00449).
    """
    spec = spec or Road()
    return _curve_of([_logits(logits_fn, key, images, maps, run) for run in _runs(spec)], labels, spec)


def road(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, maps: Maps, spec: Road | None = None) -> Array:
    """Mean ``[B]`` of :func:`road_curve` over its points."""
    return jnp.mean(road_curve(logits_fn, key, images, labels, maps, spec), axis=-1)


def fractions(points: int, pixels: int) -> np.ndarray:
    """Shares of the pixels ``[points]`` that are removed: evenly spaced between the ends, rounded to whole pixels."""
    return _counts(points, pixels) / pixels


def _runs(spec: Road) -> tuple[Road, ...]:
    """What the logits of ``spec`` depend on, one entry for each order in which pixels are removed."""
    orders = perturbed.ORDERS if spec.order == "combined" else (spec.order,)
    return tuple(Road(sign=spec.sign, order=order, points=spec.points, sigma=spec.sigma) for order in orders)


def _logits(logits_fn: LogitsFn, key: Key, images: Images, maps: Maps, run: Road) -> Array:
    """Logits ``[B, 1 + points, K]`` of the whole image and of those on the curve."""
    perturbed.check_shapes(images, maps)
    tie_key, noise_key = randomness.split(key)
    values = relevance(maps, run.sign)
    rank = perturbed.rank_order(values, tie_key)
    pixels = maps.shape[1] * maps.shape[2]
    rank = rank if run.order == "morf" else pixels - 1 - rank
    counts = jnp.asarray([0, *_counts(run.points, pixels)], rank.dtype)
    noise = imputation.noise(noise_key, images, run.sigma)

    def changed(point):
        removed = rank < counts[point]
        return imputation.with_noise(imputation.linear(images, removed), removed, noise)

    return perturbed.logits_of(logits_fn, changed, 1 + run.points, perturbed.is_meaningless(values))


def _curve_of(made: list[Array], labels: Labels, spec: Road) -> Array:
    """The scores ``[B, points]`` of the logits of each of the runs."""
    curves = [perturbed.scores(logits, labels, logits[:, 0], spec.score)[:, 1:] for logits in made]
    return (curves[1] - curves[0]) / 2 if spec.order == "combined" else curves[0]


def _counts(points: int, pixels: int) -> np.ndarray:
    return np.round(np.arange(1, points + 1) / (points + 1) * pixels).astype(int)


def _mean(curve: Array, pixels: int) -> Array:
    """Over the points, which leave out both ends, so that it is no area."""
    del pixels
    return jnp.mean(curve, axis=-1)


SHARED = {
    Road: Shared(
        needs=("logits_fn", "key", "images", "maps"),
        runs=_runs,
        make=_logits,
        read=lambda made, given, spec: _curve_of(made, given["labels"], spec),
        fractions=lambda spec, pixels: fractions(spec.points, pixels),
        value=_mean,
    )
}
