"""How alike an explanation stays when the image gets a little noise: a second map is made for each noisy image."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from robust_saliency import checks, randomness
from robust_saliency.metrics.similarity import SIMILARITIES
from robust_saliency.metrics.sparsity import Relevance, by_option
from robust_saliency.types import Array, Images, Key, Labels, Maps, SaliencyFn, spec

ALIKE = ("spearman", "ssim", "top_k_intersection")


@spec
class NoiseStability(Relevance):
    """How alike the map is to those of the image under a little noise."""

    title = by_option(lambda self: f"Stability under noise, {SIMILARITIES[self.similarity][0].title}")
    direction: ClassVar[str] = "higher"
    range = by_option(lambda self: SIMILARITIES[self.similarity][0].range)

    similarity: str = "spearman"
    sigma: float | Array = 0.02
    num_samples: int = 4

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("similarity", self.similarity, ALIKE)
        checks.at_least(1, num_samples=self.num_samples, where="NoiseStability")


def noise_stability(
    saliency_fn: SaliencyFn,
    key: Key,
    images: Images,
    labels: Labels,
    maps: Maps,
    spec: NoiseStability | None = None,
) -> Array:
    """``mean_j similarity(m(x), m(clip(x + sigma n_j)))``, n_j standard normal, ``[B]``: higher is more alike.

    The class explained stays ``labels``; the noisy images are cut to [0, 1]. A method with random numbers draws new
    ones for every map, so that they count as noise too. sigma: deviation in pixels of [0, 1]. num_samples: j = 1 .. n.
    similarity: 'spearman' in [-1, 1], 'ssim' in [-1, 1], 'top_k_intersection' in [0, 1], each at its defaults.

    A map that does not look at the image is perfectly stable: a score says something only beside one that a map must be
    true to, and beside its blind floors. Source: a reconstruction of the average sensitivity of Bhatt et al. 2020
    (2005.00631) with a similarity in place of a distance, as Ghorbani et al. 2019 (1710.10547) compare maps.
    """
    spec = spec or NoiseStability()
    key_noise, key_maps = randomness.split(key)
    noise = randomness.draw(jax.random.normal, key_noise, (len(images), spec.num_samples, *images.shape[1:]))
    noisy = jnp.clip(images[:, None] + spec.sigma * noise.astype(images.dtype), 0, 1)
    # Samples of an example follow each other, so a batch that is sharded stays where it is.
    again = saliency_fn(_key_a_sample(key_maps, spec.num_samples), _joined(noisy), jnp.repeat(labels, spec.num_samples))
    again = again.reshape(len(images), spec.num_samples, *again.shape[1:])
    Similarity, similarity = SIMILARITIES[spec.similarity]
    settings = Similarity(sign=spec.sign)
    return sum(similarity(maps, again[:, j], settings) for j in range(spec.num_samples)) / spec.num_samples


def _key_a_sample(key: Key, num: int) -> Key:
    return jnp.swapaxes(randomness.split(key, num), 0, 1).reshape(-1) if randomness.is_per_example(key) else key


def _joined(values: Array) -> Array:
    return values.reshape(-1, *values.shape[2:])
