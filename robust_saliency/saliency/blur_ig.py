"""Blur integrated gradients: the path from a blurred image to the image itself."""

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import checks
from robust_saliency.blur import gaussian_blur
from robust_saliency.saliency._passes import PassesSpec, accumulate, after, at_least, score_gradients
from robust_saliency.saliency._reduce import reduce_entries
from robust_saliency.saliency.gradient import checked_images
from robust_saliency.types import Images, Key, Labels, LogitsFn, Maps, Scalar, spec


@spec
class BlurIG(PassesSpec):
    """Gradients along the path of images that are blurred ever less, times what each step changes.

    num_steps: of the path. max_sigma: deviation of the Gaussian at its start, in pixels. spacing: of the deviations,
    'linear' or 'quadratic' (dense near the image).
    """

    num_steps: int = 32
    max_sigma: Scalar = 8.0
    spacing: str = "linear"

    def __post_init__(self):
        super().__post_init__()
        at_least(self, "num_steps", 1)
        checks.known_positive("BlurIG.max_sigma", self.max_sigma)
        checks.one_of("spacing", self.spacing, ("linear", "quadratic"))


def blur_ig(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: BlurIG) -> Maps:
    """Entries sum over steps of (x_{i+1} - x_i) d score_y / d x at (x_i + x_{i+1}) / 2, x_i blurred by sigma_i.

    sigma_0 = max_sigma, the last is 0, and the signed entries sum to score(x) - score(x_0) up to the length of the
    steps. In units of the score; ``[B, H, W]``, or ``[B, H, W, C]`` with channels='none'; the key is not read. Raises
    ValueError as :func:`gradient` does.

    Source: Xu, Venugopalan, Sundararajan 2020 (2004.03383), equation 4; the points in the middle of the steps are ours.
    """
    images = checked_images(images, labels)
    power = 2 if spec.spacing == "quadratic" else 1
    shares = np.linspace(1, 0, spec.num_steps + 1) ** power
    sigmas = jnp.asarray(np.stack([shares[:-1], shares[1:]], 1), images.dtype) * spec.max_sigma

    def update(total, sigmas):
        start = after(images, total)
        blurred, sharper = (
            jax.vmap(lambda sigma: gaussian_blur(start, sigma), out_axes=1)(end) for end in (sigmas[:, 0], sigmas[:, 1])
        )
        gradients = score_gradients(logits_fn, (blurred + sharper) / 2, labels, spec.score)
        return total + ((sharper - blurred) * gradients).sum(1)

    total = accumulate(update, jnp.zeros_like(images), sigmas, spec.num_steps, len(images), spec)
    return reduce_entries(total, spec)
