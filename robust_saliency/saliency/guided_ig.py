"""Guided integrated gradients: a path from baseline to image that moves first what the score hardly feels."""

import jax
import jax.numpy as jnp

from robust_saliency import checks, ranks
from robust_saliency.baselines import Baseline, fill
from robust_saliency.saliency._reduce import MapSpec, reduce_entries
from robust_saliency.saliency.gradient import checked_images, score_gradient
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, Scalar, spec


@spec
class GuidedIG(MapSpec):
    """Integrated gradients along a path that leads around places of large gradients.

    num_steps: of the path, each with one gradient. fraction: share of the entries, those of smallest gradient, that a
    step moves at a time. max_distance: how far an entry may run ahead of the straight line or stay behind it, as a
    share of its way; 0 = the straight line, 1 = free. baseline: where the path starts. unroll: see
    :class:`PassesSpec`.
    """

    num_steps: int = 50
    fraction: Scalar = 0.25
    max_distance: Scalar = 0.02
    baseline: Baseline = Baseline()
    unroll: bool = False

    def __post_init__(self):
        super().__post_init__()
        checks.at_least(1, where="GuidedIG", num_steps=self.num_steps)
        checks.known_positive("GuidedIG.fraction", self.fraction)
        checks.known_within("GuidedIG.max_distance", self.max_distance, 0, 1)


def guided_ig(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: GuidedIG) -> Maps:
    """Entries sum over steps of (x_{i+1} - x_i) d score_y / d x at x_i, in units of the score.

    The l1 distance to the image falls by equal parts. To cover its part, a step moves the ``fraction`` of entries of
    smallest |gradient| as far as ``max_distance`` allows, then the next, and the last of them only as far as needed.
    Signed entries sum to score(x) - score(baseline) up to the length of the steps. ``[B, H, W]``, or ``[B, H, W, C]``
    with channels='none'; the baseline is ``baselines.fill(key, images, spec.baseline)``. Raises ValueError as
    :func:`gradient` does.

    Source: Kapishnikov et al. 2021 (2106.09788), algorithm 1, whose code takes 200 steps.
    """
    images = checked_images(images, labels)
    baseline = fill(key, images, spec.baseline)

    def step(carry, share):
        points, total = carry
        gradients = score_gradient(logits_fn, points, labels, spec.score)
        moved = _moved(points, gradients, images, baseline, share, spec)
        return (moved, total + (moved - points) * gradients), None

    shares = (jnp.arange(spec.num_steps, dtype=images.dtype) + 1) / spec.num_steps
    carry = (baseline, jnp.zeros_like(images))
    if spec.unroll:
        for share in shares:
            carry, _ = step(carry, share)
    else:
        carry, _ = jax.lax.scan(step, carry, shares)
    return reduce_entries(carry[1], spec)


def _moved(points: Array, gradients: Array, images: Images, baseline: Images, share: Array, spec: GuidedIG) -> Array:
    """``points [B, H, W, C]`` moved until their l1 distance to the image is (1 - share) of the baseline's."""
    way = images - baseline
    behind, ahead = jnp.maximum(share - spec.max_distance, 0), jnp.minimum(share + spec.max_distance, 1)
    latest, furthest = baseline + way * behind, baseline + way * ahead
    done = jnp.where(way == 0, ahead, (points - baseline) / jnp.where(way == 0, 1, way))
    points = jnp.where(done < behind, latest, points)

    left = _length(images - points) - _length(way) * (1 - share)
    reach = jnp.abs(furthest - points)
    sizes = jnp.where(reach == 0, jnp.inf, jnp.abs(gradients))
    parts = _parts(*(values.reshape(len(points), -1) for values in (sizes, reach)), left, spec.fraction)
    return points + parts.reshape(points.shape) * (furthest - points)


def _length(values: Array) -> Array:
    """``[B, 1]``, the l1 norm."""
    return jnp.abs(values).sum((1, 2, 3))[:, None]


def _parts(sizes: Array, reach: Array, left: Array, fraction: Scalar) -> Array:
    """``[B, N]`` in [0, 1]: how much of its ``reach`` each entry moves, the smallest first, until ``left`` is covered.

    A loop would choose ``fraction`` of the entries again and again. Sorted once they are chunks, and all that is asked
    of a chunk is how much the ones before it cover: without a loop there is no end of it that a batch must agree on.
    """
    order, count = ranks.order(sizes), sizes.shape[1]
    covered = jnp.cumsum(jnp.take_along_axis(reach, order.at, axis=1), axis=1)
    covered = jnp.concatenate([jnp.zeros_like(left), covered], axis=1)
    size = jnp.asarray(fraction * (count - 1)).astype(jnp.int32) + 1
    first = jnp.arange(count) // size * size
    before, after = covered[:, first], covered[:, jnp.minimum(first + size, count)]
    parts = jnp.clip((left - before) / jnp.where(after > before, after - before, 1), 0, 1)
    return jnp.take_along_axis(parts, order.rank, axis=1)
