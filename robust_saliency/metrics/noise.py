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
    num_samples: noisy images an example, which are held together with their maps.
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

    A method with random numbers draws new ones for every map, so that they count as noise too. One draw of the batch
    is explained at a time.
    """
    checks.rank("images", images, 4)
    checks.floating("images", images)
    checks.same_batch(images=images, labels=labels)

    def explained(keys: tuple[Key, Key]) -> tuple[Array, Array]:
        key_noise, key_maps = keys
        drawn = randomness.draw(_SAMPLERS[noise.kind], key_noise, images.shape)
        noisy = jnp.clip(images + noise.scale * drawn.astype(images.dtype), 0, 1)
        return noisy, saliency_fn(key_maps, noisy, labels)

    keys = tuple(randomness.split(one, noise.num_samples) for one in randomness.split(key))
    return NoisyMaps(*(jnp.swapaxes(stacked, 0, 1) for stacked in jax.lax.map(explained, keys)))


def noisy_logits(logits_fn: LogitsFn, noisy: NoisyMaps) -> Array:
    """Logits ``[B, n, K]`` of the noisy images."""
    return jnp.swapaxes(jax.lax.map(logits_fn, jnp.swapaxes(noisy.images, 0, 1)), 0, 1)
