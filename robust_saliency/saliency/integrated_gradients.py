"""Integrated gradients, its quadrature rules, and how far a map is from complete."""

import jax.numpy as jnp
import numpy as np

from robust_saliency import checks
from robust_saliency.baselines import Baseline, fill
from robust_saliency.saliency._passes import PassesSpec, accumulate, after, at_least, score_gradients
from robust_saliency.saliency._reduce import reduce_entries
from robust_saliency.saliency.gradient import checked_images, label_score
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, spec


def _gauss_legendre(num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(num_steps)
    return (nodes + 1) / 2, weights / 2


def _riemann(offset: float):
    return lambda num_steps: ((np.arange(num_steps) + offset) / num_steps, np.full(num_steps, 1 / num_steps))


def _trapezoid(num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    weights = np.full(num_steps, 1 / (num_steps - 1))
    weights[[0, -1]] /= 2
    return np.linspace(0, 1, num_steps), weights


RULES = {
    "gauss_legendre": _gauss_legendre,
    "riemann_left": _riemann(0.0),
    "riemann_middle": _riemann(0.5),
    "riemann_right": _riemann(1.0),
    "trapezoid": _trapezoid,
}


@spec
class IntegratedGradients(PassesSpec):
    """The gradient averaged along the straight line from the baseline to the image, times their difference.

    num_steps: points on the line, two at least for the trapezoid rule.
    rule: 'gauss_legendre' (exact where the score is a polynomial of degree 2 * num_steps or less along the line),
        'riemann_left', 'riemann_middle', 'riemann_right' or 'trapezoid'.
    baseline: where the line starts.
    """

    num_steps: int = 32
    rule: str = "gauss_legendre"
    baseline: Baseline = Baseline()

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("rule", self.rule, RULES)
        at_least(self, "num_steps", 2 if self.rule == "trapezoid" else 1)


def integrated_gradients(
    logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: IntegratedGradients
) -> Maps:
    """Entries (x - b) * integral over a in [0, 1] of d score_y / d x at b + a (x - b), in units of the score.

    ``[B, H, W]``, or ``[B, H, W, C]`` with channels='none'. The baseline b is ``baselines.fill(key, images,
    spec.baseline)``. Signed entries of an image sum to score(x) - score(b), see :func:`completeness_error`.
    Raises ValueError as :func:`gradient` does.

    Source: Sundararajan, Taly, Yan 2017 (1703.01365), equation 1.
    """
    images = checked_images(images, labels)
    baseline = fill(key, images, spec.baseline)
    nodes, weights = (
        jnp.asarray(array, images.dtype)[:, None, None, None] for array in rule(spec.rule, spec.num_steps)
    )

    def update(total, chunk):
        nodes, weights = chunk
        start = after(baseline, total)[:, None]
        points = start + nodes[None] * (images - baseline)[:, None]
        return total + (weights[None] * score_gradients(logits_fn, points, labels, spec.score)).sum(1)

    average = accumulate(update, jnp.zeros_like(images), (nodes, weights), spec.num_steps, len(images), spec)
    return reduce_entries((images - baseline) * average, spec)


def rule(name: str, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in [0, 1] and weights of a rule of :data:`RULES`, float64 ``[num_steps]`` each; the weights sum to one."""
    return checks.lookup("rule", name, RULES)(num_steps)


def completeness_error(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    attributions: Maps,
    baseline_images: Images,
    *,
    score: str = "logit",
    relative: bool = False,
) -> Array:
    """``[B]``: |sum of attributions - (score(x) - score(b))|, in [0, inf), lower is better, 0 is complete.

    ``attributions``: signed, ``[B, H, W]`` or ``[B, H, W, C]`` (sign='signed', channels='sum' or 'none');
    ``baseline_images``: those the map was made with. With ``relative`` the error is divided by |score(x) - score(b)|:
    infinite where only that is 0, NaN where both are. Source: Sundararajan et al. 2017, proposition 1.
    """
    images = checked_images(images, labels)
    checks.same_batch(images=images, attributions=attributions, baseline_images=baseline_images)
    change = label_score(logits_fn(images), labels, score) - label_score(logits_fn(baseline_images), labels, score)
    error = jnp.abs(attributions.reshape(len(images), -1).sum(1) - change)
    return error / jnp.abs(change) if relative else error
