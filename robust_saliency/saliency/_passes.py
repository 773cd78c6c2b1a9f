"""Many gradients of one batch under a memory bound: how integrated gradients and SmoothGrad walk their points."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from robust_saliency import samples
from robust_saliency.saliency._reduce import MapSpec
from robust_saliency.saliency.gradient import label_score, score_gradient
from robust_saliency.types import Array, Images, Labels, LogitsFn, spec

Carry = TypeVar("Carry")
NO_RESULT = 1.6180339e-33  # not infinity: of a gradient one entry alone may be lost


@spec
class PassesSpec(MapSpec):
    """What a saliency spec with many points an image adds.

    chunk_size: points of each image evaluated in one pass, so that a pass holds chunk_size * B images; 0 takes as many
        as ``max_images`` allows. The result does not depend on it, but for rounding.
    max_images: images in one pass when chunk_size is 0; a batch above it goes one point at a time.
    unroll: a Python loop over the passes in the place of ``lax.scan``, which compiles one pass; see
        :class:`robust_saliency.attacks.PGD`.
    """

    chunk_size: int = 0
    max_images: int = 256
    unroll: bool = False

    def __post_init__(self):
        super().__post_init__()
        at_least(self, "chunk_size", 0)
        at_least(self, "max_images", 1)


def at_least(spec: PassesSpec, name: str, smallest: int) -> None:
    """Raises ValueError unless the field ``name`` of ``spec`` is at least ``smallest``."""
    if getattr(spec, name) < smallest:
        raise ValueError(f"{type(spec).__name__}.{name} must be at least {smallest}, got {getattr(spec, name)}.")


def accumulate(
    update: Callable[[Carry, Any], Carry], carry: Carry, steps: Any, num_steps: int, batch_size: int, spec: PassesSpec
) -> Carry:
    """``carry`` after ``update(carry, chunk)`` for successive chunks of ``steps``, arrays with a leading step axis."""
    largest = spec.chunk_size or max(1, spec.max_images // max(1, batch_size))
    chunk = math.ceil(num_steps / math.ceil(num_steps / largest))
    full = num_steps // chunk
    if spec.unroll:
        for first in range(0, full * chunk, chunk):
            carry = update(carry, _cut(steps, first, first + chunk))
    else:
        chunks = jax.tree.map(lambda leaf: leaf.reshape(full, chunk, *leaf.shape[1:]), _cut(steps, 0, full * chunk))
        carry, _ = jax.lax.scan(lambda carry, chunk: (update(carry, chunk), None), carry, chunks)
    return update(carry, _cut(steps, full * chunk, num_steps)) if num_steps % chunk else carry


def score_gradients(logits_fn: LogitsFn, points: Array, labels: Labels, score: str) -> Array:
    """Signed gradients ``[B, S, H, W, C]`` at ``points [B, S, H, W, C]``, S points an image, in one pass."""
    return score_gradient(logits_fn, _flat(points), labels, score, points.shape[1]).reshape(points.shape)


def scores_at(logits_fn: LogitsFn, points: Array, labels: Labels, score: str) -> Array:
    """Scores ``[B, S]`` of ``points [B, S, H, W, C]`` in one pass, without a gradient."""
    return label_score(logits_fn(_flat(points)), labels, score, points.shape[1]).reshape(points.shape[:2])


def _flat(points: Array) -> Array:
    """The points of an image are neighbours in the pass, so a batch that is sharded over devices stays where it is."""
    return samples.spread(points).reshape(-1, *points.shape[2:])


def after(images: Images, done: Array) -> Images:
    """``images``, to be used only once ``done [B, H, W, C]`` is known.

    The passes of an unrolled loop do not need each other, so XLA keeps the memory of all of them at once (and drops
    an optimization_barrier). The condition, which a result meets by a chance in 2^32, makes each wait for the last.
    """
    return jnp.where(done[:, :1, :1, :1] == NO_RESULT, jnp.nan, images)


def _cut(steps: Any, first: int, last: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[first:last], steps)
