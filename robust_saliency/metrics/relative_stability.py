"""How much an explanation changes, pixel by pixel in relation to itself, for each change of the input or the output."""

import math
from typing import ClassVar

import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.metrics.noise import Noise, NoisyMaps, noisy_logits, noisy_maps
from robust_saliency.metrics.shared import Shared
from robust_saliency.metrics.sparsity import Relevance, by_sign, check_same_shape, relevance
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, SaliencyFn, Scalar, spec

NORMS = {
    "l1": lambda values: jnp.sum(jnp.abs(values), axis=-1),
    "l2": lambda values: jnp.sqrt(jnp.sum(jnp.square(values), axis=-1)),
    "linf": lambda values: jnp.max(jnp.abs(values), axis=-1),
}


@spec
class RelativeStability(Relevance):
    """What both share, a reconstruction: the paper leaves the norm and the noise open, and divides by what may be zero.

    norm: 'l1', 'l2' or 'linf' of the relative change.
    least_share: what is divided by is at least this share of its mean absolute value over the example, above 0. At 1 a
        pixel below the mean counts with its change over the mean. Towards 0, which is the paper's, pixels of the map
        that happen to be near zero make up the whole score, and black ones of the image hide every change.
    least_change: what the change of the map is divided by at least. The 1e-6 that others take is less than the rounding
        of float32 logits.
    """

    direction: ClassVar[str] = "lower"
    range: ClassVar[tuple[float, float]] = (0.0, math.inf)

    noise: Noise = Noise()
    norm: str = "l2"
    least_share: Scalar = 1.0
    least_change: Scalar = 1e-3

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("norm", self.norm, NORMS)
        checks.known_positive("least_share", self.least_share)


@spec
class RelativeInputStability(RelativeStability):
    """Largest relative change of the map for a relative change of the image, under a little noise."""

    title: ClassVar[str] = "Relative input stability"


@spec
class RelativeOutputStability(RelativeStability):
    """Largest relative change of the map for a change of the logits, under a little noise."""

    title: ClassVar[str] = "Relative output stability"


def relative_input_stability(
    logits_fn: LogitsFn,
    saliency_fn: SaliencyFn,
    key: Key,
    images: Images,
    labels: Labels,
    maps: Maps,
    spec: RelativeInputStability | None = None,
) -> Array:
    """:func:`relative_input_stability_of` the noisy maps of ``spec.noise``."""
    spec = spec or RelativeInputStability()
    noisy = noisy_maps(saliency_fn, key, images, labels, spec.noise)
    return relative_input_stability_of(maps, images, noisy, logits_fn(images), noisy_logits(logits_fn, noisy), spec)


def relative_input_stability_of(
    maps: Maps,
    images: Images,
    noisy: NoisyMaps,
    logits: Array,
    logits_of_noisy: Array,
    spec: RelativeInputStability | None = None,
) -> Array:
    """``max_j |(r - r_j) / r|_p / max(|(x - x_j) / x|_p, least_change)`` ``[B]``: at least 0, lower is more stable.

    r is the relevance of the map; x, all channels, the image; ``logits [B, K]`` and ``logits_of_noisy [B, n, K]`` are
    those of images and noisy images. Only draws count whose prediction is that of the image; NaN where there is none,
    for a map that is zero or not finite, and for a black image. What is divided by has a floor, ``least_share``. The
    noise has both signs. Free of the scale of the map, not of the image's size. Not a logarithm, which has no value
    for a map that does not look: a reader takes that of the mean.

    Source: Agarwal et al. 2022 (2203.06877), relative input stability; the floor is a reconstruction.
    """
    spec = spec or RelativeInputStability()
    change = _relative_change(images, noisy.images, spec)
    return _largest(maps, noisy, change, _keeps_prediction(logits, logits_of_noisy), spec)


def relative_output_stability(
    logits_fn: LogitsFn,
    saliency_fn: SaliencyFn,
    key: Key,
    images: Images,
    labels: Labels,
    maps: Maps,
    spec: RelativeOutputStability | None = None,
) -> Array:
    """:func:`relative_output_stability_of` the noisy maps of ``spec.noise``."""
    spec = spec or RelativeOutputStability()
    noisy = noisy_maps(saliency_fn, key, images, labels, spec.noise)
    return relative_output_stability_of(maps, noisy, logits_fn(images), noisy_logits(logits_fn, noisy), spec)


def relative_output_stability_of(
    maps: Maps,
    noisy: NoisyMaps,
    logits: Array,
    logits_of_noisy: Array,
    spec: RelativeOutputStability | None = None,
) -> Array:
    """``max_j |(r - r_j) / r|_p / max(|z - z_j|_p, least_change)`` ``[B]``, z the logits, all classes; lower is better.

    In 1 / logits, so a network of larger logits scores lower. The draw whose logits happen to move least decides: the
    score has a long tail, and grows with the number of draws. Otherwise as :func:`relative_input_stability_of`.

    Source: Agarwal et al. 2022 (2203.06877), relative output stability; the floor is a reconstruction.
    """
    spec = spec or RelativeOutputStability()
    change = NORMS[spec.norm](logits_of_noisy - logits[:, None])
    return _largest(maps, noisy, change, _keeps_prediction(logits, logits_of_noisy), spec)


def _largest(maps: Maps, noisy: NoisyMaps, change: Array, counts: Array, spec: RelativeStability) -> Array:
    check_same_shape(maps, noisy.maps[:, 0])
    values, others = relevance(maps, spec.sign), by_sign(noisy.maps, spec.sign)
    ratios = _relative_change(values, others, spec) / jnp.maximum(change, spec.least_change)
    largest = jnp.max(jnp.where(counts, ratios, -jnp.inf), axis=1)
    return jnp.where(jnp.any(counts, axis=1), largest, jnp.nan)


def _keeps_prediction(logits: Array, logits_of_noisy: Array) -> Array:
    return jnp.argmax(logits_of_noisy, axis=-1) == jnp.argmax(logits, axis=-1)[:, None]


def _relative_change(values: Array, others: Array, spec: RelativeStability) -> Array:
    """The norm ``[B, n]`` of ``(others - values) / values``, ``others [B, n, ...]``; NaN where all values are zero."""
    values, others = values.reshape(len(values), 1, -1), others.reshape(*others.shape[:2], -1)
    sizes = jnp.abs(values)
    floor = spec.least_share * jnp.mean(sizes, axis=-1, keepdims=True)
    return NORMS[spec.norm]((others - values) / jnp.maximum(sizes, jnp.where(floor > 0, floor, jnp.nan)))


def _shared(read) -> Shared:
    return Shared(("saliency_fn", "key", "images", "labels"), lambda spec: (spec.noise,), noisy_maps, read)


def _both_logits(made: list[NoisyMaps], given) -> tuple[Array, Array]:
    return given["logits_fn"](given["images"]), noisy_logits(given["logits_fn"], made[0])


SHARED = {
    RelativeInputStability: _shared(
        lambda made, given, spec: relative_input_stability_of(
            given["maps"], given["images"], made[0], *_both_logits(made, given), spec
        )
    ),
    RelativeOutputStability: _shared(
        lambda made, given, spec: relative_output_stability_of(given["maps"], made[0], *_both_logits(made, given), spec)
    ),
}
