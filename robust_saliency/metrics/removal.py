"""Images for a network that is trained anew: without the pixels that a map calls most relevant, or with those alone.

The three protocols are of what such networks, trained and tested on changed images, still classify. ROAR (Hooker et al.
2019, 1806.10758): the most relevant pixels are removed; accuracy falls the faster, the better the map. KAR: all others
are; accuracy stays the higher, the better the map. DiffROAR (Shah, Jain and Netrapalli 2021, 2102.12781): the accuracy
with the top share k of the pixels kept less that with the bottom share k kept, ``keep`` at k less ``remove`` at 1 - k.

A removed pixel leaves a trace: the *shape* of the removed region can tell the class, whatever is left inside the image,
so that accuracy falls less than the map deserves (Rong et al. 2022, 2202.00449). :func:`removed_pixels` is that trace;
what a network learns from it alone is the leak.
"""

import jax.numpy as jnp

from robust_saliency import baselines, checks, randomness
from robust_saliency.metrics import perturbed
from robust_saliency.metrics.sparsity import Relevance, relevance
from robust_saliency.types import Array, Images, Key, Maps, Scalar, spec

REMOVALS = ("remove", "keep")
FILL = 1  # purpose of random numbers: what a baseline draws


@spec
class Removal(Relevance):
    """Which share of the pixels goes, and what stands in their place.

    mode: 'remove' takes the share ``fraction`` of highest relevance away, 'keep' everything but that share. baseline:
    what fills a removed pixel. Published (Hooker et al.) is the mean of the training images by channel,
    ``Baseline(kind='constant', value=mean)``; the default is the mean of the image itself.
    """

    mode: str = "remove"
    fraction: Scalar = 0.5
    baseline: baselines.Baseline = baselines.Baseline(kind="mean")

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("mode", self.mode, REMOVALS)
        checks.known_within("fraction", self.fraction, 0.0, 1.0)


def removed_pixels(key: Key, maps: Maps, spec: Removal | None = None) -> Array:
    """bool ``[B, H, W]``: which pixels go, ``round(fraction P)`` of the P pixels ('keep': all the others), exactly.

    By descending relevance under the sign policy. Ties are broken at random by ``key``, as in deletion curves: a map of
    few values, such as a mask, takes the rest at random, and a constant one everything. So does a map that is zero or
    not finite, which says nothing; count those. With the same key 'remove' and 'keep' are complements.

    Source: Hooker et al. 2019, section 3; their code ranks the entries of all channels, we rank pixels, all channels of
    a pixel together, as in every curve here.
    """
    spec = spec or Removal()
    rank = perturbed.rank_order(relevance(maps, spec.sign), key)
    first = rank < jnp.round(spec.fraction * (maps.shape[1] * maps.shape[2]))
    return first if spec.mode == "remove" else ~first


def remove_pixels(key: Key, images: Images, maps: Maps, spec: Removal | None = None) -> Images:
    """``images [B, H, W, C]`` with the :func:`removed_pixels` of ``maps [B, H, W]`` set to the baseline.

    With one key an example free of the batch; with the same key the same pixels. ValueError for maps of another shape
    and for images that are no floats.
    """
    spec = spec or Removal()
    perturbed.check_shapes(images, maps)
    filled = baselines.fill(randomness.fold_in(key, FILL), images, spec.baseline)
    return jnp.where(removed_pixels(key, maps, spec)[..., None], filled, images)
