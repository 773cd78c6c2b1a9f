"""Baselines: the image that stands for "nothing there" in attributions and in deletion and insertion curves."""

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.blur import gaussian_blur
from robust_saliency.randomness import draw
from robust_saliency.types import Array, Images, Key, Scalar, spec

KINDS = ("black", "white", "mean", "blur", "uniform", "constant", "array")


@spec
class Baseline:
    """What replaces the pixels of an image.

    kind: 'black' (0), 'white' (1), 'mean' (each image's mean colour), 'blur' (the image under
        :func:`gaussian_blur`), 'uniform' (noise in [0, 1] from the key), 'constant' (``value``), 'array' (``images``).
    value: the constant, a scalar or one value a channel ``[C]``, such as the mean colour of a data set.
    blur_sigma: standard deviation of the blur in pixels; 0 leaves the image as it is.
    images: the baseline images, ``[H, W, C]`` for all or ``[B, H, W, C]``.
    """

    kind: str = "black"
    value: Scalar = 0.5
    blur_sigma: Scalar = 4.0
    images: Array | None = None

    def __post_init__(self):
        checks.one_of("baseline", self.kind, KINDS)


def fill(key: Key, images: Images, spec: Baseline) -> Images:
    """Baseline images of the shape and dtype of ``images [B, H, W, C]``; only 'uniform' reads the key.

    Raises ValueError for images that are not floating ``[B, H, W, C]`` and for a ``value`` or ``spec.images`` that do
    not fit them.
    """
    checks.rank("images", images, 4)
    checks.floating("images", images)
    images = jnp.asarray(images)
    if spec.kind == "black":
        return jnp.zeros_like(images)
    if spec.kind == "white":
        return jnp.ones_like(images)
    if spec.kind == "mean":
        return jnp.broadcast_to(images.mean((1, 2), keepdims=True), images.shape)
    if spec.kind == "blur":
        return gaussian_blur(images, spec.blur_sigma)
    if spec.kind == "uniform":
        return draw(jax.random.uniform, key, images.shape, images.dtype)
    if spec.kind == "constant":
        return _fit("Baseline(kind='constant').value", spec.value, images, ((), images.shape[-1:]))
    if spec.images is None:
        raise ValueError("Baseline(kind='array') needs images, [H, W, C] or [B, H, W, C].")
    return _fit("Baseline(kind='array').images", spec.images, images, (images.shape[1:], images.shape))


def _fit(name: str, value: Scalar, images: Images, shapes: tuple[tuple[int, ...], ...]) -> Images:
    if jnp.shape(value) not in shapes:
        expected = " or ".join(str(shape) for shape in shapes)
        raise ValueError(f"{name} must have the shape {expected}, got {jnp.shape(value)}.")
    return jnp.broadcast_to(jnp.asarray(value, images.dtype), images.shape)
