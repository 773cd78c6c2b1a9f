"""Guided integrated gradients: a path from baseline to image that moves first what the score hardly feels."""

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.baselines import Baseline, fill
from robust_saliency.saliency._reduce import MapSpec, reduce_entries
from robust_saliency.saliency.gradient import checked_images, score_gradient
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, Scalar, spec

_CLOSE = 1e-6  # of the whole way: what float32 cannot tell from having arrived


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
    unroll: bool = True

    def __post_init__(self):
        super().__post_init__()
        checks.at_least(1, where="GuidedIG", num_steps=self.num_steps)
        checks.known_positive("GuidedIG.fraction", self.fraction)


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
        moved = jax.vmap(lambda *each: _moved(*each, share, spec))(points, gradients, images, baseline)
        return (moved, total + (moved - points) * gradients), None

    shares = (jnp.arange(spec.num_steps, dtype=images.dtype) + 1) / spec.num_steps
    carry = (baseline, jnp.zeros_like(images))
    if spec.unroll:
        for share in shares:
            carry, _ = step(carry, share)
    else:
        carry, _ = jax.lax.scan(step, carry, shares)
    return reduce_entries(carry[1], spec)


def _moved(point: Array, gradient: Array, image: Array, baseline: Array, share: Array, spec: GuidedIG) -> Array:
    """``point [H, W, C]`` moved until its l1 distance to the image is (1 - share) of the baseline's."""
    way = image - baseline
    whole = jnp.abs(way).sum()
    behind, ahead = jnp.maximum(share - spec.max_distance, 0), jnp.minimum(share + spec.max_distance, 1)
    latest, furthest = baseline + way * behind, baseline + way * ahead
    done = jnp.where(way == 0, ahead, (point - baseline) / jnp.where(way == 0, 1, way))
    point = jnp.where(done < behind, latest, point)

    def left_to_go(point: Array) -> Array:
        return jnp.abs(image - point).sum() - whole * (1 - share)

    def goes_on(carry) -> Array:
        point, sizes = carry
        return (left_to_go(point) > _CLOSE * whole) & jnp.any(jnp.isfinite(sizes))

    def move(carry):
        point, sizes = carry
        place = jnp.asarray(spec.fraction * (sizes.size - 1)).astype(jnp.int32)
        chosen = jnp.isfinite(sizes) & (sizes <= jnp.sort(sizes, axis=None)[place])
        reach = (jnp.abs(furthest - point) * chosen).sum()
        part = jnp.clip(left_to_go(point) / jnp.where(reach > 0, reach, 1), 0, 1)
        return jnp.where(chosen, point + part * (furthest - point), point), jnp.where(chosen, jnp.inf, sizes)

    # What cannot move further, and what has moved, has no size: it is not chosen again.
    sizes = jnp.where(point == furthest, jnp.inf, jnp.abs(gradient))
    return jax.lax.while_loop(goes_on, move, (point, sizes))[0]
