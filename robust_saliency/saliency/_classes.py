"""The gradients of many classes from one forward pass."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency.saliency._passes import NO_RESULT
from robust_saliency.saliency._reduce import MapSpec
from robust_saliency.saliency.gradient import class_scores
from robust_saliency.types import Array, Images, LogitsFn, spec


@spec
class ClassesSpec(MapSpec):
    """What a saliency spec with a backward pass for each class adds.

    unroll: a Python loop over the classes in the place of ``lax.scan``, which compiles one pass; see
        :class:`robust_saliency.attacks.PGD`.
    """

    unroll: bool = False


def num_classes(logits_fn: LogitsFn, images: Images, score: str) -> int:
    """How many classes there are, without a pass."""
    return jax.eval_shape(lambda x: class_scores(logits_fn(x), len(x), score), images).shape[1]


def walk(
    update: Callable[[Any, Any, Array], Any], carry: Any, logits_fn: LogitsFn, images: Images, classes: np.ndarray,
    spec: ClassesSpec,
) -> Any:  # fmt: skip
    """``carry`` after ``update(carry, place, gradient [B, H, W, C])`` for each place of ``classes`` in turn.

    The gradient is signed, of the score of ``classes[place]``. The forward pass is made once, and each backward pass
    waits for the last, so that the memory is that of one. Never several classes in one pass: with the classes before
    the batch axis, a batch that is sharded over devices would have to be gathered.
    """
    scores, back = jax.vjp(lambda x: class_scores(logits_fn(x), len(x), spec.score), images)
    batch, count = scores.shape

    def step(carry, place):
        carry, last = carry
        one_hot = jax.nn.one_hot(jnp.asarray(classes)[place], count, dtype=scores.dtype)
        (gradient,) = back(jnp.where(last == NO_RESULT, jnp.nan, one_hot[None]))
        return (update(carry, place, gradient), gradient[:, 0, 0, :1]), None

    carry = (carry, jnp.zeros((batch, 1), images.dtype))
    if spec.unroll:
        for place in range(len(classes)):
            carry, _ = step(carry, place)
    else:
        carry, _ = jax.lax.scan(step, carry, jnp.arange(len(classes)))
    return carry[0]
