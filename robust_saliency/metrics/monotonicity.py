"""Monotonicity: do patches of more relevance matter more to the score when they are replaced by noise?"""

from typing import ClassVar

import jax
import jax.numpy as jnp

from robust_saliency import checks, randomness
from robust_saliency.metrics import perturbed
from robust_saliency.metrics.similarity import rank_correlation
from robust_saliency.metrics.sparsity import Shares, amounts
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, spec


@spec
class Monotonicity(Shares):
    """Rank correlation over patches: relevance of a patch against how the score answers to noise in its place."""

    title: ClassVar[str] = "Monotonicity"
    ties: ClassVar[str] = "have their average rank"
    direction: ClassVar[str] = "higher"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    patch: int = 4
    num_samples: int = 4
    score: str = "probability"

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("score", self.score, perturbed.AMOUNTS)
        checks.at_least(1, num_samples=self.num_samples, patch=self.patch, where="Monotonicity")


def monotonicity(
    logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, maps: Maps, spec: Monotonicity | None = None
) -> Array:
    """``Spearman_p(sum_{i in p} a_i, mean_j (f(x) - f(x with n_j in p))^2)`` ``[B]``: in [-1, 1], higher is better.

    p are the ``patch x patch`` squares that tile the image (the last of a row or column may be smaller), n_j uniform
    noise in [0, 1] for each value in a patch, j = 1 .. ``num_samples``; f is the 'probability' or the 'logit' of the
    label. ``num_samples`` forward passes a patch. NaN where all patches are alike in relevance or in effect, and for an
    image of one patch.

    Not the monotonicity of Arya et al. 2019, which other libraries call by this name and which is always true in
    Quantus. Source: Nguyen and Martinez 2020 (2007.07584), section 4.1, whose features are single pixels; patches of
    them are a reconstruction that makes images of this size affordable. Spearman's correlation takes no division by
    ``f(x)^2``, which theirs has and no rank sees.
    """
    spec = spec or Monotonicity()
    perturbed.check_shapes(images, maps)
    relevances = _summed(amounts(maps, spec.sign), spec.patch)
    rows, columns = relevances.shape[1:]
    height, width = maps.shape[1:]
    number = (jnp.arange(height) // spec.patch * columns)[:, None] + (jnp.arange(width) // spec.patch)[None]
    patch = (len(images), spec.patch, spec.patch, images.shape[3])
    before = perturbed.amount(logits_fn(images), labels, spec.score)

    def change(draw):
        noise = randomness.draw(jax.random.uniform, randomness.fold_in(key, draw), patch).astype(images.dtype)
        noise = jnp.tile(noise, (1, rows, columns, 1))[:, :height, :width]
        inside = (number == draw // spec.num_samples)[None, :, :, None]
        after = perturbed.amount(logits_fn(jnp.where(inside, noise, images)), labels, spec.score)
        return (before - after) ** 2

    changes = jax.lax.map(change, jnp.arange(rows * columns * spec.num_samples)).T
    effects = jnp.mean(changes.reshape(-1, rows, columns, spec.num_samples), axis=-1)
    return jnp.where(perturbed.is_meaningless(relevances), jnp.nan, rank_correlation(relevances, effects))


def _summed(values: Array, patch: int) -> Array:
    """Sums ``[B, rows, columns]`` over the patches that tile ``[B, H, W]``."""
    padding = [(0, 0), *((0, -size % patch) for size in values.shape[1:])]
    padded = jnp.pad(values, padding)
    batch, height, width = padded.shape
    return jnp.sum(padded.reshape(batch, height // patch, patch, width // patch, patch), axis=(2, 4))
