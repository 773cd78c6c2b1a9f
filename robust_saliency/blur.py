"""The Gaussian filter of maps: of images that stand for "nothing there", and of a network's activations."""

import jax
import jax.numpy as jnp

from robust_saliency.types import Array, Scalar

REFLECTIONS = 2


def gaussian_blur(images: Array, sigma: Scalar) -> Array:
    """``images [B, H, W, C]`` under the sampled, normalised Gaussian of ``sigma`` pixels, reflected at the borders.

    The reflection repeats the border pixel (d c b a | a b c d | d c b a), which keeps the mean colour. The blur along
    an axis is one small matrix product, so that ``sigma`` may be traced and the kernel is never cut off.
    """
    rows, columns = (_blur_matrix(size, sigma, images.dtype) for size in images.shape[1:3])
    exact = jax.lax.Precision.HIGHEST
    images = jnp.einsum("ih,bhwc->biwc", rows, images, precision=exact)
    return jnp.einsum("jw,biwc->bijc", columns, images, precision=exact)


def _blur_matrix(size: int, sigma: Scalar, dtype) -> Array:
    target = jnp.arange(size)[:, None, None]
    source = jnp.arange(size)[None, :, None]
    period = 2 * size * jnp.arange(-REFLECTIONS, REFLECTIONS + 1)[None, None, :]
    variance = jnp.maximum(jnp.asarray(sigma, dtype), 1e-3) ** 2
    weights = sum(
        jnp.exp(-(jnp.square(target - image).astype(dtype)) / (2 * variance)).sum(-1)
        for image in (source + period, 2 * size - 1 - source + period)
    )
    return weights / weights.sum(1, keepdims=True)
