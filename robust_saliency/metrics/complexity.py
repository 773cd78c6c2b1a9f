"""Effective complexity: how many of a map's most relevant pixels does the network need?"""

import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.metrics import faithfulness, perturbed
from robust_saliency.metrics.shared import Shared
from robust_saliency.metrics.sparsity import by_option
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, Scalar, spec


@spec
class EffectiveComplexity(faithfulness.Insertion):
    """Smallest share of the pixels, most relevant first, that gives the network the score of the whole image."""

    title = by_option(lambda self: "Effective complexity")
    direction = by_option(lambda self: "lower")
    range = by_option(lambda self: (0.0, 1.0))

    points: int = 21
    tolerated: Scalar = 0.1

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("score", self.score, (*perturbed.AMOUNTS, "allegiance"))
        if self.order != "morf":
            raise ValueError(f"EffectiveComplexity counts the most relevant pixels: order='morf', got {self.order!r}.")


def effective_complexity(
    logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, maps: Maps, spec: EffectiveComplexity | None = None
) -> Array:
    """``min {k/P : |f(x) - f(x of the first k pixels alone)| <= tolerated}`` ``[B]``: in [0, 1], lower is simpler.

    k on the points of an insertion curve, whose run it shares; f and the rest as :func:`metrics.insertion_curve` says.
    0 where the baseline image already scores as the image does. tolerated: in units of the score.

    Source: Nguyen and Martinez 2020 (2007.07584), section 4.3, who take the expectation over replaced pixels; the
    baseline image in its place is a reconstruction (kind 'uniform' draws them once).
    """
    spec = spec or EffectiveComplexity()
    logits = faithfulness.perturbed_logits(logits_fn, key, images, maps, spec)
    return _least_share(logits, labels, maps, spec)


def _least_share(logits: Array, labels: Labels, maps: Maps, spec: EffectiveComplexity) -> Array:
    """The first of the fractions at which the score is within ``tolerated`` of that of the whole image."""
    curve = faithfulness.curve_of(logits, labels, spec)
    within = jnp.abs(curve - curve[:, -1:]) <= spec.tolerated
    shares = jnp.asarray(faithfulness.fractions(spec.points, maps.shape[1] * maps.shape[2]), curve.dtype)
    return jnp.where(jnp.isnan(curve[:, -1]), jnp.nan, shares[jnp.argmax(within, axis=-1)])


SHARED = {
    EffectiveComplexity: Shared(
        needs=("logits_fn", "key", "images", "maps"),
        runs=lambda spec: (faithfulness.run_of(spec),),
        make=faithfulness.perturbed_logits,
        read=lambda made, given, spec: _least_share(made[0], given["labels"], given["maps"], spec),
    )
}
