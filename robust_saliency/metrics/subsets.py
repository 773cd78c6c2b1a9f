"""Faithfulness correlation: does the relevance of a set of pixels go with the score that is lost without them?"""

from typing import ClassVar

import jax
import jax.numpy as jnp

from robust_saliency import baselines, checks, randomness
from robust_saliency.metrics import perturbed
from robust_saliency.metrics.sparsity import Relevance, peak, relevance
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, Scalar, spec


@spec
class FaithfulnessCorrelation(Relevance):
    """Correlation over random sets of pixels: relevance of a set against the score that is lost without it."""

    title: ClassVar[str] = "Faithfulness correlation"
    direction: ClassVar[str] = "higher"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    sign: str = "raw"
    fraction: float = 0.2
    num_samples: int = 100
    score: str = "logit"
    baseline: baselines.Baseline = baselines.Baseline()

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("score", self.score, perturbed.AMOUNTS)
        checks.at_least(2, num_samples=self.num_samples, where="FaithfulnessCorrelation")


def faithfulness_correlation(
    logits_fn: LogitsFn,
    key: Key,
    images: Images,
    labels: Labels,
    maps: Maps,
    spec: FaithfulnessCorrelation | None = None,
) -> Array:
    """``corr_S(sum_{i in S} a_i, f(x) - f(x without S))`` ``[B]``: in [-1, 1], higher is better.

    Over ``num_samples`` sets S of ``round(fraction P)`` pixels (at least one), each drawn evenly without replacement
    and set to the baseline, all channels at once; f is the 'logit' or the 'probability' of the label. Pearson's
    correlation, so free of the map's scale; NaN where all sums, or all changes, are equal.

    Source: Bhatt et al. 2020 (2005.00631), equation 2.
    """
    spec = spec or FaithfulnessCorrelation()
    perturbed.check_shapes(images, maps)
    values = relevance(maps, spec.sign)
    values = values / peak(values)
    fill_key, set_key = randomness.split(key)
    baseline = baselines.fill(fill_key, images, spec.baseline)

    def draw(j):
        chosen = random_set(randomness.fold_in(set_key, j), maps.shape, spec.fraction)
        logits = logits_fn(jnp.where(chosen[..., None], baseline, images))
        return jnp.sum(chosen * values, axis=(1, 2)), perturbed.amount(logits, labels, spec.score)

    relevances, left = jax.lax.map(draw, jnp.arange(spec.num_samples))
    return correlation(relevances.T, -left.T)


def random_set(key: Key, shape: tuple[int, int, int], fraction: Scalar) -> Array:
    """Of each of ``[B, H, W]`` images ``round(fraction H W)`` pixels, one at least, drawn evenly: bool.

    Those of the lowest random numbers. Two in 2^32 are equal so rarely that a set of one pixel more does not matter.
    """
    lots = randomness.draw(jax.random.bits, key, (shape[0], shape[1] * shape[2]), dtype=jnp.uint32)
    count = jnp.clip(jnp.round(fraction * lots.shape[1]), 1, lots.shape[1]).astype(int)

    def halve(bit, highest):
        """Bit by bit from the top the largest number that fewer than ``count`` lie below: half the time of a sort."""
        higher = highest | jnp.uint32(1) << (31 - bit).astype(jnp.uint32)
        return jnp.where(jnp.sum(lots < higher, axis=1, keepdims=True) < count, higher, highest)

    highest = jax.lax.fori_loop(0, 32, halve, jnp.zeros_like(lots[:, :1]))
    return (lots <= highest).reshape(shape)


def correlation(a: Array, b: Array) -> Array:
    """Pearson's correlation of each row of ``[B, n]`` with its like: in [-1, 1]; NaN where a row is constant.

    Constant but for rounding: a deviation below ``n`` roundings of the largest value.
    """
    a, b = (_standardised(values) for values in (a, b))
    return jnp.clip(jnp.sum(a * b, axis=-1), -1, 1)


def _standardised(values: Array) -> Array:
    centred = values - jnp.mean(values, axis=-1, keepdims=True)
    largest = jnp.max(jnp.abs(centred), axis=-1, keepdims=True)
    rounding = values.shape[-1] * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values), axis=-1, keepdims=True)
    scaled = jnp.where(largest > rounding, centred / jnp.where(largest > rounding, largest, 1), jnp.nan)
    return scaled / jnp.linalg.norm(scaled, axis=-1, keepdims=True)
