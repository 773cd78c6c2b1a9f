"""Alignment: does the gradient look like the image?"""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.metrics.sparsity import by_option
from robust_saliency.types import Array, Images, LogitsFn, Scalar, spec

GRADIENTS = ("logit", "margin")


@spec
class Alignment:
    """How much the gradient of the predicted class points along the image itself."""

    title = by_option(lambda self: f"Alignment of the {self.gradient}, {'cosine' if self.cosine else 'raw'}")
    direction: ClassVar[str] = "higher"
    range = by_option(lambda self: (0.0, 1.0 if self.cosine else math.inf))

    cosine: bool = True
    gradient: str = "logit"
    centre: Scalar = 0.0

    def __post_init__(self):
        checks.one_of("gradient", self.gradient, GRADIENTS)


def alignment(logits_fn: LogitsFn, images: Images, spec: Alignment | None = None) -> Array:
    """``|<x - c, g>| / |g|_2``, over ``|x - c|_2`` too with ``cosine``: ``[B]``, in [0, 1] then, higher is more alike.

    g is the gradient in the image of the greatest logit, or with gradient='margin' of the greatest less the second,
    whose raw alignment is the distance to the decision boundary of a linear network without offset. c: the value that
    counts as nothing, in pixels of [0, 1]; the score depends on it, so state it. It judges a network and not a map: no
    saliency method enters. NaN where the gradient or the image is zero, or the gradient is not finite.

    Source: Etmann et al. 2019 (1905.04172), definition 3 (raw, in the units of the network's input).
    """
    spec = spec or Alignment()
    checks.rank("images", images, 4)
    checks.floating("images", images)

    def total(images):
        logits = logits_fn(images)
        first, second = _two_greatest(logits)
        return jnp.sum(first - second if spec.gradient == "margin" else first)

    gradient = _flat(jax.grad(total)(images))
    direction, _ = _normalised(gradient)
    along, length = _normalised(_flat(images - spec.centre))
    cosine = jnp.abs(jnp.sum(direction * along, axis=-1))
    return jnp.minimum(cosine, 1) if spec.cosine else cosine * length


def _two_greatest(logits: Array) -> tuple[Array, Array]:
    """The first and the second of the logits ``[B]``; a tie goes to the earlier class, as for argmax."""
    first = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=bool)
    rest = jnp.where(first, -jnp.inf, jax.lax.stop_gradient(logits))
    second = jax.nn.one_hot(jnp.argmax(rest, axis=-1), logits.shape[-1], dtype=bool)
    return tuple(jnp.sum(jnp.where(chosen, logits, 0), axis=-1) for chosen in (first, second))


def _normalised(values: Array) -> tuple[Array, Array]:
    """Rows of length one, NaN for a row of zeros, and their lengths; no scale under- or overflows."""
    largest = jnp.max(jnp.abs(values), axis=-1, keepdims=True)
    scaled = jnp.where((largest > 0) & jnp.isfinite(largest), values / jnp.where(largest > 0, largest, 1), jnp.nan)
    length = jnp.linalg.norm(scaled, axis=-1, keepdims=True)
    return scaled / length, (length * largest)[:, 0]


def _flat(values: Array) -> Array:
    return values.reshape(values.shape[0], -1).astype(jnp.promote_types(values.dtype, jnp.float32))
