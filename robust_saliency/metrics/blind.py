"""Maps that never look at the network: the floor and the ceiling that every table of map metrics needs.

A network's map says something about the network only where it beats the random map, the centre Gaussian and the edges
of the image itself; the mask as a map is the ceiling of the localisation metrics.
"""

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import checks, randomness
from robust_saliency.types import Array, Images, Key, Maps


def random_map(key: Key, shape: tuple[int, int, int]) -> Maps:
    """Independent U(0, 1) pixels of ``shape [B, H, W]``; with one key an example, free of the batch size.

    Its perturbation curves are the random-order baseline. Expected Gini index 1/3, total variation 2/3.
    """
    return randomness.draw(jax.random.uniform, key, shape)


def centre_gaussian(shape: tuple[int, int, int], sigma: float | Array = 0.25) -> Maps:
    """``exp(-(u^2 + v^2) / (2 sigma^2))`` of ``shape [B, H, W]``; u, v from the centre, sigma in sides of the image."""
    batch, height, width = shape
    v, u = (jnp.asarray((np.arange(side) + 0.5) / side - 0.5, jnp.float32) for side in (height, width))
    squares = v[:, None] ** 2 + u[None, :] ** 2
    return jnp.broadcast_to(jnp.exp(-squares / (2 * sigma**2))[None], (batch, height, width))


def mask_map(masks: Array) -> Maps:
    """The mask ``[B, H, W]`` as a map: the oracle. Zero, so NaN in every metric, where the mask is empty."""
    checks.rank("masks", masks, 3)
    return masks.astype(jnp.promote_types(masks.dtype, jnp.float32))


def sobel(images: Images) -> Maps:
    """Edges ``[B, H, W]``: length of the Sobel gradient of the channels' mean, the border repeated beyond itself.

    Per pixel step of brightness: a linear ramp of slope s gives s (1/8 of Sobel's integer weights).
    """
    checks.rank("images", images, 4)
    grey = jnp.pad(jnp.mean(images, axis=-1), ((0, 0), (1, 1), (1, 1)), mode="edge")
    return jnp.hypot(_slope(grey, 1), _slope(grey, 2))


def _slope(padded: Array, axis: int) -> Array:
    across = 3 - axis
    low, middle, high = (jax.lax.slice_in_dim(padded, k, padded.shape[across] - 2 + k, axis=across) for k in range(3))
    smooth = (low + 2 * middle + high) / 4
    size = padded.shape[axis]
    after, before = (jax.lax.slice_in_dim(smooth, k, size - 2 + k, axis=axis) for k in (2, 0))
    return (after - before) / 2
