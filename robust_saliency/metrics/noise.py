"""Maps of noisy images: made once, for every score that compares them with the map of the image itself.

A score of them is two functions: ``score(saliency_fn, key, ..., spec)`` is ``score_of(..., noisy, spec)`` of
``noisy_maps(saliency_fn, key, images, labels, spec.noise)``. Specs of equal ``noise`` and one key mean the same maps,
so who wants several scores collects once and calls the second function of each.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import checks, randomness
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, SaliencyFn, Scalar, spec

_SAMPLERS = {
    "gaussian": jax.random.normal,
    "uniform": lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, minval=-1, maxval=1),
}


@spec
class Noise:
    """Noise on an image: of each pixel and channel on its own, as often up as down.

    kind: 'gaussian' of deviation ``scale``, or 'uniform' in ``[-scale, scale]``.
    scale: in units of the image, whose pixels lie in [0, 1]. The noisy image is cut to [0, 1], so that a pixel at an
        end moves one way only.
    num_samples: noisy images an example, all in one batch: the memory is that of so many times the images.
    """

    kind: str = "uniform"
    scale: Scalar = 0.02
    num_samples: int = 10

    def __post_init__(self):
        checks.one_of("noise", self.kind, _SAMPLERS)
        checks.at_least(1, num_samples=self.num_samples, where="Noise")


class NoisyMaps(NamedTuple):
    """``images [B, n, H, W, C]``, n draws of each, and their ``maps [B, n, H, W]`` of the label of the image."""

    images: Array
    maps: Array


def noisy_maps(saliency_fn: SaliencyFn, key: Key, images: Images, labels: Labels, noise: Noise) -> NoisyMaps:
    """The maps of ``clip(x + noise)``, ``num_samples`` for each of ``images [B, H, W, C]``, of the class ``labels``.

    A method with random numbers draws new ones for every map, so that they count as noise too.
    """
    key_noise, key_maps = randomness.split(key)
    drawn = randomness.draw(_SAMPLERS[noise.kind], key_noise, (len(images), noise.num_samples, *images.shape[1:]))
    noisy = jnp.clip(images[:, None] + noise.scale * drawn.astype(images.dtype), 0, 1)
    # Samples of an example follow each other, so a batch that is sharded stays where it is.
    keys = _key_a_sample(key_maps, noise.num_samples)
    maps = saliency_fn(keys, _joined(noisy), jnp.repeat(labels, noise.num_samples))
    return NoisyMaps(noisy, _apart(maps, noisy))


def noisy_logits(logits_fn: LogitsFn, noisy: NoisyMaps) -> Array:
    """Logits ``[B, n, K]`` of the noisy images."""
    return _apart(logits_fn(_joined(noisy.images)), noisy.images)


def _key_a_sample(key: Key, num: int) -> Key:
    return jnp.swapaxes(randomness.split(key, num), 0, 1).reshape(-1) if randomness.is_per_example(key) else key


def _joined(values: Array) -> Array:
    return values.reshape(-1, *values.shape[2:])


def _apart(values: Array, like: Array) -> Array:
    return values.reshape(*like.shape[:2], *values.shape[1:])
