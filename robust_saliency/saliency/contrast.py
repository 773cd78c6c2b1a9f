"""What speaks for a class against the others: the gradient of a difference of logits."""

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.saliency._reduce import MapSpec, reduce_entries
from robust_saliency.saliency.gradient import checked_images, class_scores
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, spec

AGAINST = ("runner_up", "mean", "log_sum_exp")


@spec
class Contrast(MapSpec):
    """The gradient of the label's logit minus that of the other classes, which leaves out what all classes share.

    against: 'runner_up', the largest other logit; 'mean', the mean of the others; 'log_sum_exp', which makes the
        difference the label's log odds. score: must be 'logit'.
    """

    against: str = "runner_up"

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("against", self.against, AGAINST)
        if self.score != "logit":
            raise ValueError(f"Contrast is a difference of logits, got score={self.score!r}.")


def contrast(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: Contrast) -> Maps:
    """Entries d (z_y - r) / d x, r as ``spec.against`` says, from one backward pass; in logits per unit of intensity.

    ``[B, H, W]``, or ``[B, H, W, C]`` with channels='none'; the key is not read. Raises ValueError as :func:`gradient`
    does. With two classes all three are the same map. A reconstruction: the idea is that of FinerCAM (Zhang et al.
    2025) and of contrastive LRP (Gu et al. 2018), which weigh other layers or other classes.
    """
    images = checked_images(images, labels)

    def difference(x: Array) -> Array:
        logits = class_scores(logits_fn(x), len(labels), spec.score)
        checks.known_labels("labels", labels, logits.shape[1])
        is_own = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
        own = jnp.where(is_own, logits, 0).sum(-1)
        return (own - _others(logits, is_own, spec.against)).sum()

    return reduce_entries(jax.grad(difference)(images), spec)


def _others(logits: Array, is_own: Array, against: str) -> Array:
    if against == "mean":
        return jnp.where(is_own, 0, logits).sum(-1) / (logits.shape[1] - 1)
    others = jnp.where(is_own, -jnp.inf, logits)
    return others.max(-1) if against == "runner_up" else jax.nn.logsumexp(others, axis=-1)
