"""How few pixels hold a map's relevance: Gini index and entropy; and what all map metrics share, the sign policy.

A signed map becomes *relevance* by a sign policy: 'abs' ``|m|``, 'positive' ``max(m, 0)``, 'negative' ``max(-m, 0)``,
or 'raw' ``m`` where a metric has a meaning for negative values. A map that is zero everywhere, or that holds NaN or
infinity, says nothing: its relevance is NaN, and so is every metric of it.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.types import Array, Maps, spec

SIGNS = {
    "abs": jnp.abs,
    "positive": lambda maps: jnp.maximum(maps, 0),
    "negative": lambda maps: jnp.maximum(-maps, 0),
    "raw": lambda maps: maps,
}


class by_option:
    """A fact of a spec that depends on its fields: the default's on the class, the instance's on an instance."""

    def __init__(self, fact: Callable[[Any], Any]):
        self.fact = fact

    def __get__(self, instance, owner):
        return self.fact(owner() if instance is None else instance)


@spec
class Relevance:
    """What every spec of a map metric has: the sign policy, one of ``signs``; ``ties``: what becomes of equal pixels.

    ``ties`` is empty where no order of the pixels is read.
    """

    signs: ClassVar[tuple[str, ...]] = tuple(SIGNS)
    ties: ClassVar[str] = ""

    sign: str = "abs"

    def __post_init__(self):
        checks.one_of("sign", self.sign, self.signs)


@spec
class Shares(Relevance):
    """The same for a metric of shares of the relevance, which have no sign."""

    signs: ClassVar[tuple[str, ...]] = ("abs", "negative", "positive")

    def __post_init__(self):
        if self.sign == "raw":
            raise ValueError("Shares of relevance have no sign: got sign='raw', expected abs, positive or negative.")
        super().__post_init__()


def relevance(maps: Maps, sign: str) -> Array:
    """Relevance ``[B, H, W]`` under a sign policy, at least float32; NaN for a map that is zero or not finite."""
    checks.rank("maps", maps, 3)
    values = by_sign(maps, sign)
    return jnp.where(peak(values) > 0, values, jnp.nan)


def by_sign(maps: Array, sign: str) -> Array:
    """What counts of maps of any shape under a sign policy, at least float32: zeros stay, infinity becomes NaN."""
    maps = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
    return jnp.where(jnp.isfinite(maps), checks.lookup("sign", sign, SIGNS)(maps), jnp.nan)


def peak(values: Array) -> Array:
    """``max |values|`` per example ``[B, 1, 1]``: what sums are divided by, so that no scale overflows."""
    return jnp.max(jnp.abs(values), axis=(1, 2), keepdims=True)


def amounts(maps: Maps, sign: str) -> Array:
    """Scaled relevance without sign: ``[B, H, W]`` in [0, 1] with maximum 1; ``sign`` is one of ``Shares.signs``."""
    values = relevance(maps, sign)
    return values / peak(values)


def check_same_shape(maps: Maps, other_maps: Maps) -> None:
    """ValueError for maps of two shapes, of which one could be broadcast over the other without a word."""
    if maps.shape != other_maps.shape:
        raise ValueError(f"Two maps of one shape are compared, got {maps.shape} and {other_maps.shape}.")


@spec
class Gini(Shares):
    """Gini index of the relevance: 0 for a constant map, 1 - 1/n for a single pixel out of n."""

    title: ClassVar[str] = "Gini index"
    direction: ClassVar[str] = "higher"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)


def gini(maps: Maps, spec: Gini | None = None) -> Array:
    """Gini index ``[B]`` of maps ``[B, H, W]``: in [0, 1 - 1/n], higher = sparser.

    ``sum_i (2i - n - 1) a_(i) / (n sum_i a_(i))`` with ``a_(1) <= ... <= a_(n)`` (Hurley and Rickard 2009). No floor is
    added to ``a``: a floor makes the index depend on the scale of the gradient. The weights are odd about the middle,
    so the sum is taken over ``a_(i) - a_(n+1-i)``, which gives a constant map exactly 0.
    """
    spec = spec or Gini()
    values = jnp.sort(_flat(amounts(maps, spec.sign)), axis=-1)
    n = values.shape[-1]
    weights = (2 * jnp.arange(1, n + 1, dtype=values.dtype) - n - 1) / n
    return jnp.sum(weights[None] * (values - values[:, ::-1]), axis=-1) / (2 * jnp.sum(values, axis=-1))


@spec
class Entropy(Shares):
    """Shannon entropy of the relevance as a distribution over pixels: 1 for a constant map, 0 for a single pixel."""

    title: ClassVar[str] = "Entropy"
    direction: ClassVar[str] = "lower"
    range = by_option(lambda self: (0.0, 1.0 if self.normalised else math.inf))

    sign: str = "abs"
    normalised: bool = True


def entropy(maps: Maps, spec: Entropy | None = None) -> Array:
    """Entropy ``[B]`` of maps ``[B, H, W]``, lower = sparser: ``-sum p ln p`` with ``p = a / sum a``, ``0 ln 0 = 0``.

    Divided by ``ln n`` if ``normalised``: in [0, 1], so that maps of different sizes compare; else nats in [0, ln n]
    (the complexity of Bhatt et al. 2020).
    """
    spec = spec or Entropy()
    values = _flat(amounts(maps, spec.sign))
    nats = jnp.sum(jax.scipy.special.entr(values / jnp.sum(values, axis=-1, keepdims=True)), axis=-1)
    return nats / math.log(values.shape[-1]) if spec.normalised else nats


def _flat(values: Array) -> Array:
    return values.reshape(values.shape[0], -1)
