"""Which wrong classes a targeted attack aims at."""

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.types import Array, Images, Labels, LogitsFn


def num_classes(logits_fn: LogitsFn, images: Images) -> int:
    """K of ``logits_fn``: images ``[B, H, W, C]`` -> ``[B, K]``."""
    return jax.eval_shape(logits_fn, images).shape[-1]


def check(logits_fn: LogitsFn, images: Images, labels: Labels, targets: Labels | None = None) -> int:
    """The number of classes; ValueError for labels or targets that are no class, and for a target that is its label.

    Values are looked at where they are known: outside a compiled program.
    """
    classes = num_classes(logits_fn, images)
    checks.known_labels("labels", labels, classes)
    if targets is not None:
        checks.known_labels("targets", targets, classes)
        checks.known_different(targets, labels if targets.ndim == 1 else labels[:, None])
    return classes


def likeliest_wrong(logits: Array, labels: Labels, count: int) -> Array:
    """The ``count`` classes of largest logit but the label's, ``[B, count]``."""
    is_label = labels[:, None] == jnp.arange(logits.shape[-1])[None]
    # Not top_k: XLA gathers a batch that is split over devices to compute it.
    order = jnp.argsort(jnp.where(is_label, jnp.inf, -logits), axis=-1)
    return order[:, :count].astype(labels.dtype)
