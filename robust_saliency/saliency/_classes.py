"""The gradients of all classes from one forward pass, a few classes at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency.saliency._passes import PassesSpec, accumulate
from robust_saliency.saliency.gradient import class_scores
from robust_saliency.types import Array, Images, LogitsFn


def num_classes(logits_fn: LogitsFn, images: Images, score: str) -> int:
    """How many classes there are, without a pass."""
    return jax.eval_shape(lambda x: class_scores(logits_fn(x), len(x), score), images).shape[1]


def walk(
    update: Callable[[Any, Array, Array], Any], carry: Any, logits_fn: LogitsFn, images: Images, classes: np.ndarray,
    spec: PassesSpec,
) -> Any:  # fmt: skip
    """``carry`` after ``update(carry, places [S], gradients [S, B, H, W, C])`` for successive chunks of ``classes``.

    The gradients are signed, of the scores of ``classes[places]``. The forward pass is made once; as many cotangents go
    back at a time as ``spec`` says of points of an image.
    """
    scores, back = jax.vjp(lambda x: class_scores(logits_fn(x), len(x), spec.score), images)
    batch, count = scores.shape

    def chunk(carry, places):
        carry, last = carry
        one_hot = jax.nn.one_hot(jnp.asarray(classes)[places], count, dtype=scores.dtype)[:, None]
        # Each chunk waits for the one before it, as in _passes.after: otherwise all lie in memory at once.
        cotangents = jnp.where(last[None] == jnp.inf, 0, one_hot)
        (gradients,) = jax.vmap(back)(jnp.broadcast_to(cotangents, (len(places), batch, count)))
        return update(carry, places, gradients), gradients[0, :, 0, 0, :1]

    carry = (carry, jnp.zeros((batch, 1), images.dtype))
    return accumulate(chunk, carry, jnp.arange(len(classes)), len(classes), batch, spec)[0]
