"""How an explanation changes when the image gets a little noise: similarity, and relative distance, of the maps.

A map that does not look at the image is perfectly stable: a score says something only beside one that a map must be
true to, and beside its blind floors.
"""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.metrics.alike import Alike, alike_each
from robust_saliency.metrics.noise import Noise, NoisyMaps, noisy_maps
from robust_saliency.metrics.shared import Shared
from robust_saliency.metrics.sparsity import Relevance, by_option, by_sign, check_same_shape, peak, relevance
from robust_saliency.types import Array, Images, Key, Labels, Maps, SaliencyFn, Scalar, spec


@spec
class NoiseStability(Alike):
    """How alike the map is to those of the image under a little noise."""

    title = by_option(lambda self: f"Stability under noise, {self.similarity_title}")
    direction: ClassVar[str] = "higher"

    sigma: Scalar = 0.02
    num_samples: int = 4

    def __post_init__(self):
        super().__post_init__()
        checks.at_least(1, num_samples=self.num_samples, where="NoiseStability")

    @property
    def noise(self) -> Noise:
        return Noise(kind="gaussian", scale=self.sigma, num_samples=self.num_samples)


@spec
class Sensitivity(Relevance):
    """What both sensitivities share."""

    direction: ClassVar[str] = "lower"
    range: ClassVar[tuple[float, float]] = (0.0, math.inf)

    noise: Noise = Noise()


@spec
class MaxSensitivity(Sensitivity):
    """Largest relative distance from the map to one of the image under a little noise."""

    title: ClassVar[str] = "Max-sensitivity"


@spec
class AverageSensitivity(Sensitivity):
    """Mean relative distance from the map to those of the image under a little noise."""

    title: ClassVar[str] = "Average sensitivity"


def noise_stability(
    saliency_fn: SaliencyFn, key: Key, images: Images, labels: Labels, maps: Maps, spec: NoiseStability | None = None
) -> Array:
    """:func:`noise_stability_of` the noisy maps of ``spec.noise``."""
    spec = spec or NoiseStability()
    return noise_stability_of(maps, noisy_maps(saliency_fn, key, images, labels, spec.noise), spec)


def noise_stability_of(maps: Maps, noisy: NoisyMaps, spec: NoiseStability | None = None) -> Array:
    """``mean_j similarity(m(x), m(clip(x + sigma n_j)))``, n_j standard normal, ``[B]``: higher is more alike.

    The class explained stays the label; the noisy images are cut to [0, 1]. sigma: deviation in pixels of [0, 1].
    num_samples: j = 1 .. n. similarity: 'spearman', 'kendall' or 'ssim' in [-1, 1], 'top_k_intersection' in [0, 1],
    each at its defaults. NaN where a map, or one of the noisy ones, is zero or not finite.

    Source: a reconstruction of the average sensitivity of Bhatt et al. 2020 (2005.00631) with a similarity in place of
    a distance, as Ghorbani et al. 2019 (1710.10547) compare maps.
    """
    return jnp.mean(alike_each(maps, noisy.maps, spec or NoiseStability()), axis=1)


def max_sensitivity(
    saliency_fn: SaliencyFn, key: Key, images: Images, labels: Labels, maps: Maps, spec: MaxSensitivity | None = None
) -> Array:
    """:func:`max_sensitivity_of` the noisy maps of ``spec.noise``."""
    spec = spec or MaxSensitivity()
    return max_sensitivity_of(maps, noisy_maps(saliency_fn, key, images, labels, spec.noise), spec)


def max_sensitivity_of(maps: Maps, noisy: NoisyMaps, spec: MaxSensitivity | None = None) -> Array:
    """``max_j |r(x) - r(x_j)|_2 / |r(x)|_2`` ``[B]``, r the relevance: at least 0, lower is more stable.

    Scale free. A noisy map of zero is at distance 1; NaN where the map is zero, or any of them not finite. A largest
    value grows with the number of draws: compare at equal ``noise``.

    Source: Yeh et al. 2019 (1901.09392), the max-sensitivity, there a supremum over a ball and not divided by the
    length of the map. As captum has it: divided, 10 uniform draws of radius 0.02, though captum does not cut the noisy
    images to [0, 1]. Both take signed maps: sign='raw'.
    """
    return jnp.max(_distances(maps, noisy, spec or MaxSensitivity()), axis=1)


def average_sensitivity(
    saliency_fn: SaliencyFn,
    key: Key,
    images: Images,
    labels: Labels,
    maps: Maps,
    spec: AverageSensitivity | None = None,
) -> Array:
    """:func:`average_sensitivity_of` the noisy maps of ``spec.noise``."""
    spec = spec or AverageSensitivity()
    return average_sensitivity_of(maps, noisy_maps(saliency_fn, key, images, labels, spec.noise), spec)


def average_sensitivity_of(maps: Maps, noisy: NoisyMaps, spec: AverageSensitivity | None = None) -> Array:
    """``mean_j |r(x) - r(x_j)|_2 / |r(x)|_2`` ``[B]``; otherwise as :func:`max_sensitivity_of`.

    Its expected value does not depend on the number of draws. Source: Bhatt et al. 2020 (2005.00631), who leave the
    distance and the noise open: here those of max-sensitivity.
    """
    return jnp.mean(_distances(maps, noisy, spec or AverageSensitivity()), axis=1)


def relative_distance(maps: Maps, other_maps: Maps, sign: str) -> Array:
    """``|r - r'|_2 / |r|_2`` of the relevance of ``maps`` and of others of the same images, ``[B]``: at least 0.

    A zero other map is at distance 1; NaN where the map is zero, or one of the two not finite.
    """
    check_same_shape(maps, other_maps)
    values, others = relevance(maps, sign), by_sign(other_maps, sign)
    scale = peak(values)
    return _length((others - values) / scale) / _length(values / scale)


def _distances(maps: Maps, noisy: NoisyMaps, spec: Sensitivity) -> Array:
    return jax.vmap(lambda other: relative_distance(maps, other, spec.sign), in_axes=1, out_axes=1)(noisy.maps)


def _length(values: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(values), axis=(1, 2)))


def _shared(score_of) -> Shared:
    return Shared(
        needs=("saliency_fn", "key", "images", "labels"),
        runs=lambda spec: (spec.noise,),
        make=noisy_maps,
        read=lambda made, given, spec: score_of(given["maps"], made[0], spec),
    )


SHARED = {
    NoiseStability: _shared(noise_stability_of),
    MaxSensitivity: _shared(max_sensitivity_of),
    AverageSensitivity: _shared(average_sensitivity_of),
}
