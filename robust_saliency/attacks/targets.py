"""Which wrong classes a targeted attack aims at."""

import jax
import jax.numpy as jnp

from robust_saliency.types import Array, Images, Labels, LogitsFn


def num_classes(logits_fn: LogitsFn, images: Images) -> int:
    """K of ``logits_fn``: images ``[B, H, W, C]`` -> ``[B, K]``."""
    return jax.eval_shape(logits_fn, images).shape[-1]


def likeliest_wrong(logits: Array, labels: Labels, count: int) -> Array:
    """The ``count`` classes of largest logit but the label's, ``[B, count]``."""
    is_label = labels[:, None] == jnp.arange(logits.shape[-1])[None]
    return jax.lax.top_k(jnp.where(is_label, -jnp.inf, logits), count)[1].astype(labels.dtype)
