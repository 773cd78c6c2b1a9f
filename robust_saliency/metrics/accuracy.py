"""Whether, how surely and by how much a network is right. On adversarial images: robust accuracy and margin."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from robust_saliency import checks, losses
from robust_saliency.types import Array, Images, Labels, LogitsFn, spec


def correct(logits: Array, labels: Labels) -> Array:
    """1 where the label's logit exceeds every other, else 0: float ``[B]``, higher is better.

    A tie at the top is not correct: a margin <= 0 counts as fooled, as it does for an attack. NaN logits neither.
    The mean over clean images is the accuracy, over adversarial images the robust accuracy.
    """
    margins = margin(logits, labels)
    return (margins > 0).astype(margins.dtype)


def confidence(logits: Array) -> Array:
    """Greatest softmax probability ``[B]``: in [1/K, 1], whatever the label."""
    checks.rank("logits", logits, 2)
    return jnp.max(jax.nn.softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), axis=-1), axis=-1)


def margin(logits: Array, labels: Labels) -> Array:
    """``z_y - max_{k != y} z_k`` per example ``[B]``: logit units, higher is better, positive where correct."""
    return -losses.margin(logits, labels)


@spec
class Accuracy:
    """Share of images whose label has strictly the greatest logit; on adversarial images the robust accuracy."""

    title: ClassVar[str] = "Accuracy"
    direction: ClassVar[str] = "higher"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)


@spec
class Confidence:
    """Greatest softmax probability, whatever the label."""

    title: ClassVar[str] = "Confidence"
    direction: ClassVar[str] = "none"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)


@spec
class Margin:
    """Logit of the label minus the greatest other logit."""

    title: ClassVar[str] = "Margin"
    direction: ClassVar[str] = "higher"
    range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)


def image_accuracy(logits_fn: LogitsFn, images: Images, labels: Labels, spec: Accuracy | None = None) -> Array:
    """:func:`correct` of ``logits_fn(images)``."""
    del spec
    return correct(_logits(logits_fn, images), labels)


def image_confidence(logits_fn: LogitsFn, images: Images, spec: Confidence | None = None) -> Array:
    """:func:`confidence` of ``logits_fn(images)``."""
    del spec
    return confidence(_logits(logits_fn, images))


def image_margin(logits_fn: LogitsFn, images: Images, labels: Labels, spec: Margin | None = None) -> Array:
    """:func:`margin` of ``logits_fn(images)``."""
    del spec
    return margin(_logits(logits_fn, images), labels)


def _logits(logits_fn: LogitsFn, images: Images) -> Array:
    checks.rank("images", images, 4)
    checks.floating("images", images)
    return logits_fn(images)
