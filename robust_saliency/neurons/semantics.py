"""Whether units and representations follow what adversarial images show, or what they are meant to be taken for.

CS1, CS2, r1 and r2 of Dong, Su, Zhu, Bao 2017 (1708.05493), figures 8 and 9. A reconstruction: the text could not be
read. Known are their names, captions and ranges, that CS are cosine similarities of class distributions, and that r are
ratios of distances of representations. The definitions are written out here; the choices are the field of
:class:`Ratios`, the k of :func:`top`, and the layer that the caller takes the representations from.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.types import Array, Labels, spec


class ClassSimilarities(NamedTuple):
    """``cs1 [U]`` by the labels of the adversarial images, ``cs2 [U]`` by their targets; in [0, 1]."""

    cs1: Array
    cs2: Array


@spec
class Ratios:
    """distance: of two representations, 'l2' ``|a - b|_2`` or 'cosine' ``1 - <a, b> / (|a| |b|)``."""

    distance: str = "l2"

    def __post_init__(self):
        checks.one_of("distance", self.distance, DISTANCES)


class RepresentationRatios(NamedTuple):
    """``r1 [B]`` by the mean of the true class, ``r2 [B]`` by the real image itself; at least 0, below 1 is right."""

    r1: Array
    r2: Array


def class_similarities(real: Array, by_label: Array, by_target: Array) -> ClassSimilarities:
    """``cs1 = cos(p, q)`` and ``cs2 = cos(p, t)`` of three class distributions of each unit, ``[U, K]`` each.

    p: the labels of the real images among the unit's top examples; q: the true labels of the *adversarial* images among
    its top examples (another :func:`top`, of those images alone); t: the classes these were aimed at, or are taken for.
    ``cos(a, b) = <a, b> / (|a|_2 |b|_2)``. A unit that means something has a high cs1 and a low cs2. NaN where a unit
    has no top examples. A reconstruction.
    """
    for name, other in (("by_label", by_label), ("by_target", by_target)):
        if other.shape != real.shape:
            raise ValueError(f"Class distributions must have one shape, got {real.shape} and {name} {other.shape}.")
    return ClassSimilarities(_cosine(real, by_label), _cosine(real, by_target))


def class_means(representations: Array, labels: Labels, num_classes: int) -> Array:
    """The mean representation of the real images of each class, ``[K, D]``, from ``[N, ...]``; NaN for an empty one.

    ValueError for labels that are known to be none of the K classes.
    """
    checks.same_batch(representations=representations, labels=labels)
    checks.known_labels("labels", labels, num_classes)
    flat = _flat(representations)
    is_class = jax.nn.one_hot(labels, num_classes, dtype=flat.dtype)
    counts = is_class.sum(0)[:, None]
    return jnp.where(counts > 0, jnp.einsum("nk,nd->kd", is_class, flat) / jnp.maximum(counts, 1), jnp.nan)


def representation_ratios(
    adversarial: Array, real: Array, labels: Labels, targets: Labels, means: Array, spec: Ratios | None = None
) -> RepresentationRatios:
    """How far an adversarial image is represented from what it shows, over how far from what it is meant to be.

    ``r1 = d(phi(x*), m_y) / d(phi(x*), m_t)`` and ``r2 = d(phi(x*), phi(x)) / d(phi(x*), m_t)``, with phi the
    representation of the adversarial image x* and of the real image x that it was made from (``[B, ...]`` each), m_c
    the mean of class c (``means [K, D]``, :func:`class_means`), y the true label and t the target. Below 1: represented
    like what it shows. NaN where the distance to the target is 0, or a mean is missing. ValueError for labels and
    targets that are known to be no class of the means. A reconstruction.
    """
    spec = spec or Ratios()
    checks.same_batch(adversarial=adversarial, real=real, labels=labels, targets=targets)
    adversarial, real = _flat(adversarial), _flat(real)
    if not adversarial.shape[1] == real.shape[1] == means.shape[-1]:
        raise ValueError(
            f"Representations and means must be of one layer, got {adversarial.shape[1]} and {real.shape[1]} values an "
            f"image, and means of {means.shape[-1]}."
        )
    checks.known_labels("labels", labels, len(means))
    checks.known_labels("targets", targets, len(means))
    distance = DISTANCES[spec.distance]
    to_target = distance(adversarial, means[targets])
    below = jnp.where(to_target == 0, jnp.nan, to_target)
    return RepresentationRatios(distance(adversarial, means[labels]) / below, distance(adversarial, real) / below)


def _flat(values: Array) -> Array:
    return values.reshape(len(values), -1).astype(jnp.promote_types(values.dtype, jnp.float32))


def _l2(first: Array, second: Array) -> Array:
    return jnp.linalg.norm(first - second, axis=-1)


def _cosine(first: Array, second: Array) -> Array:
    """NaN where one is zero: it has no direction."""
    size = jnp.linalg.norm(first, axis=-1) * jnp.linalg.norm(second, axis=-1)
    return (first * second).sum(-1) / jnp.where(size == 0, jnp.nan, size)


DISTANCES = {"cosine": lambda first, second: 1 - _cosine(first, second), "l2": _l2}
