"""RISE: the mean of random masks, weighed by the score of the image that each lets through."""

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.baselines import Baseline, fill
from robust_saliency.randomness import draw, fold_in, split
from robust_saliency.saliency._passes import PassesSpec, accumulate, after, at_least, scores_at
from robust_saliency.saliency._reduce import reduce_entries
from robust_saliency.saliency.gradient import checked_images
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, Scalar, spec


@spec
class RISE(PassesSpec):
    """Random smooth masks and the scores of what they leave visible.

    num_samples: masks an image. cells: of a mask along a side, before it is enlarged. visible: share of cells that are
    let through. baseline: what lies behind. score: the published one is 'probability', the default here. centred:
    from each score the mean of the image's scores is taken, so that the map does not show the mean of the masks where
    all scores are alike; False is as published.
    """

    score: str = "probability"
    sign: str = "signed"
    channels: str = "sum"
    num_samples: int = 256
    cells: int = 7
    visible: Scalar = 0.5
    baseline: Baseline = Baseline()
    centred: bool = False

    def __post_init__(self):
        super().__post_init__()
        at_least(self, "num_samples", 1)
        at_least(self, "cells", 2)
        checks.known_positive("RISE.visible", self.visible)
        checks.known_within("RISE.visible", self.visible, 0, 1)


def rise(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: RISE) -> Maps:
    """Entries sum over N masks m of score_y(m x + (1 - m) b) m / (N p), p = ``spec.visible``; in units of the score.

    A mask is a grid of ``cells`` x ``cells`` Bernoulli(p) values, enlarged bilinearly by a cell more than the image and
    shifted by a random part of a cell. ``[B, H, W]``, or ``[B, H, W, 1]`` with channels='none', from one forward pass a
    mask. Mask i draws from ``fold_in(key, i)``; with one key an example the masks of an example depend on its key
    alone. Raises ValueError as :func:`gradient` does.

    Source: Petsiuk, Das, Saenko 2018 (1806.07421), section 3.2, with 4,000 masks, black behind and p = 0.5.
    """
    images = checked_images(images, labels)
    key_baseline, key_masks = split(key)
    baseline = fill(key_baseline, images, spec.baseline)

    def update(carry, indices):
        weighed, plain, scores = carry
        drawn = jax.vmap(lambda index: masks(fold_in(key_masks, index), images, spec), out_axes=1)(indices)
        points = baseline[:, None] + drawn * (after(images, weighed) - baseline)[:, None]
        values = scores_at(logits_fn, points, labels, spec.score)
        weighed = weighed + (values[:, :, None, None, None] * drawn).sum(1)
        return weighed, plain + drawn.sum(1), scores + values.sum(1)

    nothing = jnp.zeros_like(images[..., :1])
    carry, samples = (nothing, nothing, nothing[:, 0, 0, 0]), jnp.arange(spec.num_samples)
    weighed, plain, scores = accumulate(update, carry, samples, spec.num_samples, len(images), spec)
    if spec.centred:
        weighed = weighed - plain * (scores / spec.num_samples)[:, None, None, None]
    return reduce_entries(weighed / (spec.num_samples * jnp.asarray(spec.visible, images.dtype)), spec)


def masks(key: Key, images: Images, spec: RISE) -> Array:
    """One smooth mask an image, ``[B, H, W, 1]`` in [0, 1]."""
    batch, *size, _ = images.shape
    key_cells, key_shift = split(key)
    cells = draw(jax.random.uniform, key_cells, (batch, spec.cells, spec.cells, 1), images.dtype) < spec.visible
    sides = [-(-side // spec.cells) for side in size]
    enlarged = jax.image.resize(
        cells.astype(images.dtype), (batch, *((spec.cells + 1) * side for side in sides), 1), "bilinear"
    )
    shifts = draw(jax.random.uniform, key_shift, (batch, 2), images.dtype) * jnp.asarray(sides, images.dtype)[None]

    def cut(mask, shift):
        return jax.lax.dynamic_slice(mask, (shift[0], shift[1], jnp.int32(0)), (*size, 1))

    return jax.vmap(cut)(enlarged, shifts.astype(jnp.int32))
