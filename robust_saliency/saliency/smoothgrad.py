"""SmoothGrad, SmoothGrad-squared and VarGrad: statistics of the gradient over noisy copies of the image."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.randomness import draw, fold_in
from robust_saliency.saliency._passes import PassesSpec, accumulate, after, at_least, score_gradients
from robust_saliency.saliency._reduce import reduce_entries
from robust_saliency.saliency.gradient import checked_images
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, Scalar, spec

STATISTICS = ("mean", "squared", "variance")


@spec
class SmoothGrad(PassesSpec):
    """A statistic of the gradient over ``num_samples`` copies of the image under Gaussian noise.

    sigma: standard deviation of the noise, relative to the width of the pixel bounds, which is 1: an intensity, then.
    relative_to: 'bounds' as said, or 'image_range', which multiplies sigma by each image's max - min (as published).
    statistic: of the raw signed gradients g: 'mean' E[g], 'squared' E[g^2], or 'variance' E[(g - E[g])^2] (divided by
        the number of samples, not by one less).
    clip: whether noisy images are clipped to [0, 1].
    """

    num_samples: int = 16
    sigma: Scalar = 0.15
    relative_to: str = "bounds"
    statistic: str = "mean"
    clip: bool = False

    def __post_init__(self):
        super().__post_init__()
        at_least(self, "num_samples", 1)
        checks.one_of("relative_to", self.relative_to, ("bounds", "image_range"))
        checks.one_of("statistic", self.statistic, STATISTICS)


class Moments(NamedTuple):
    """Mean and sum of squared deviations of ``count`` samples."""

    count: Array
    mean: Array
    deviations: Array


def smoothgrad(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: SmoothGrad) -> Maps:
    """The statistic over samples of the raw signed gradient entries; then the sign rule; then the channels.

    ``[B, H, W]``, or ``[B, H, W, C]`` with channels='none'. Sample i draws from ``fold_in(key, i)``: more samples
    extend the fewer, and with one key an example the noise of an example depends on its key alone. Raises ValueError
    as :func:`gradient` does, and for a sigma that is not a scalar.

    Sources: Smilkov et al. 2017 (1706.03825), section 3, whose maps are the mean with relative_to='image_range';
    'squared': Hooker et al. 2019 (1806.10758); 'variance' (VarGrad): Adebayo et al. 2018 (1810.03292).
    """
    images = checked_images(images, labels)
    checks.rank("SmoothGrad.sigma", spec.sigma, 0)
    sigma = jnp.asarray(spec.sigma, images.dtype).reshape(1, 1, 1, 1)
    if spec.relative_to == "image_range":
        sigma = sigma * (images.max((1, 2, 3), keepdims=True) - images.min((1, 2, 3), keepdims=True))

    def update(moments, indices):
        points = after(images, moments.mean)[:, None] + sigma[:, None] * _noise(key, indices, images)
        if spec.clip:
            points = jnp.clip(points, 0, 1)
        entries = score_gradients(logits_fn, points, labels, spec.score)
        return _merge(moments, jnp.square(entries) if spec.statistic == "squared" else entries)

    nothing = Moments(jnp.zeros((), images.dtype), jnp.zeros_like(images), jnp.zeros_like(images))
    moments = accumulate(update, nothing, jnp.arange(spec.num_samples), spec.num_samples, len(images), spec)
    variance = moments.deviations / spec.num_samples
    return reduce_entries(variance if spec.statistic == "variance" else moments.mean, spec)


def _noise(key: Key, indices: Array, images: Images) -> Array:
    """``[B, S, H, W, C]``, standard normal."""

    def sample(index):
        return draw(jax.random.normal, fold_in(key, index), images.shape, images.dtype)

    return jax.vmap(sample, out_axes=1)(indices)


def _merge(moments: Moments, entries: Array) -> Moments:
    """``moments`` with the samples of ``entries [B, S, H, W, C]`` added (Chan, Golub, LeVeque 1979).

    Deviations are taken from means, never E[g^2] - E[g]^2, which loses a variance of 1e-6 beside a mean of 1 in
    float32; and the mean is taken about the first sample, so that equal samples have exactly their value as mean.
    """
    size = entries.shape[1]
    count = moments.count + size
    first = entries[:, 0]
    mean = first + (entries - first[:, None]).mean(1)
    deviations = jnp.square(entries - mean[:, None]).sum(1)
    shift = mean - moments.mean
    return Moments(
        count,
        jnp.where(moments.count == 0, mean, moments.mean + shift * (size / count)),
        moments.deviations + deviations + jnp.square(shift) * (moments.count * (size / count)),
    )
