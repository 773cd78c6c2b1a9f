"""Where a linearised network changes class, and the least step there inside the box: what FAB and DeepFool share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import losses, projections, threat
from robust_saliency.projections import total
from robust_saliency.threat import Threat
from robust_saliency.types import Array, Images, Labels, LogitsFn

_DUAL = {"l1": "linf", "l2": "l2", "linf": "l1"}


class Hyperplane(NamedTuple):
    """Per example the points ``images + d`` with ``<normal, d> = gap``; normal ``[B, H, W, C]``, gap ``[B]``.

    Written around the images, and not as ``<normal, v> = b``, so that a small gap is not lost in rounding.
    """

    normal: Array
    gap: Array


def least_step(images: Images, plane: Hyperplane, model: Threat) -> Array:
    """The least step, in the norm of ``model``, from ``images`` onto ``plane`` that stays in the box.

    Where the plane does not meet the box, the step to the corner of the box that comes closest to it. Only pixels that
    may change do. With w = |normal| and ``room`` for how far a value may go towards the plane, the sizes are, linf
    ``min(t, room)``, l2 ``min(t w, room)``, with the least t whose ``sum w size`` is the gap; l1 ``room`` for the
    largest w, and a part of it for those with the last w needed.

    A plane whose normal is zero, or that holds NaN or infinity, gets the zero step.
    """
    normal, gap = _scaled(plane, model)
    sign = jnp.sign(normal) * jnp.sign(gap)
    low, high = model.bounds
    room = jnp.where(sign == 0, 0, jnp.maximum(jnp.where(sign > 0, high - images, images - low), 0))
    weight, need = jnp.abs(normal), jnp.abs(gap)
    if model.norm == "l1":
        return sign * _greedy(weight, room, need)
    return sign * _even(weight, jnp.ones_like(weight) if model.norm == "linf" else weight, room, need)


def distance(plane: Hyperplane, model: Threat) -> Array:
    """How far the images lie from ``plane`` were there no box, ``[B]``: infinite for a plane that is none."""
    normal, gap = _scaled(plane, model)
    size = threat.norm(normal, _DUAL[model.norm])
    return jnp.where(size > 0, jnp.abs(gap) / jnp.where(size > 0, size, 1), jnp.inf)[:, 0, 0, 0]


def nearest(
    logits_fn: LogitsFn, images: Images, labels: Labels, classes: Array, model: Threat, *, unroll: bool
) -> tuple[Hyperplane, Array]:
    """Of the planes ``z_k = z_y`` of the network linearised at ``images`` the nearest (box aside), and the logits.

    classes: the k, ``[B, J]``; one forward pass and J backward passes, one after the other. Where no class has a usable
    gradient, the normal is zero.
    """
    logits, pullback = jax.vjp(logits_fn, images)

    def consider(number, found):
        plane, best = found
        rivals = classes[:, number]
        ascent = jax.nn.one_hot(rivals, logits.shape[-1]) - jax.nn.one_hot(labels, logits.shape[-1])
        (normal,) = pullback(ascent.astype(logits.dtype))
        gap = -losses.targeted_margin(logits, labels, rivals).astype(images.dtype)
        far = distance(Hyperplane(normal, gap), model)
        closer = far < best
        normal = jnp.where(closer[:, None, None, None], normal, plane.normal)
        return Hyperplane(normal, jnp.where(closer, gap, plane.gap)), jnp.where(closer, far, best)

    none = jnp.zeros_like(jnp.sum(images, axis=(1, 2, 3)))
    first = (Hyperplane(jnp.zeros_like(images), none), none + jnp.inf)
    plane, _ = loop(0, classes.shape[1], consider, first, unroll=unroll)
    return plane, logits


def loop(first: int, last: int, body: Callable[[Any, Any], Any], state: Any, *, unroll: bool) -> Any:
    """``fori_loop``, or the same written out."""
    if not unroll:
        return jax.lax.fori_loop(first, last, body, state)
    for number in range(first, last):
        state = body(number, state)
    return state


def _scaled(plane: Hyperplane, model: Threat) -> tuple[Array, Array]:
    """Normal, with largest value 1 or zero, and gap ``[B, 1, 1, 1]``, both zero for a plane that is none."""
    gap = plane.gap[:, None, None, None]
    finite = jnp.all(jnp.isfinite(plane.normal), axis=(1, 2, 3), keepdims=True) & jnp.isfinite(gap)
    normal = jnp.where(finite, plane.normal, 0)
    if model.mask is not None:
        normal = jnp.where(threat.expand("Threat.mask", model.mask, normal) > 0, normal, 0)
    largest = jnp.max(jnp.abs(normal), axis=(1, 2, 3), keepdims=True)
    largest = jnp.where(largest > 0, largest, 1)
    return normal / largest, jnp.where(finite, gap, 0) / largest


def _even(weight: Array, speed: Array, room: Array, need: Array) -> Array:
    """All values at once, each at its speed until its room is spent."""

    def sizes(t):
        return jnp.minimum(t * speed, room)

    t, _ = projections.bisect(lambda t: total(weight * sizes(t)), lambda gained: gained >= need, like=weight)
    return sizes(jnp.minimum(t, jnp.finfo(weight.dtype).max))  # infinite where the plane is out of reach


def _greedy(weight: Array, room: Array, need: Array) -> Array:
    """The largest weights first; equal ones share."""
    gain = weight * room

    def enough(above):
        return total(jnp.where(above, gain, 0)) <= need

    last, needed = projections.bisect(lambda t: weight > t, enough, like=weight)
    # Not ``weight > last``: XLA may compute the weights twice, a last bit apart.
    before = needed & (weight > last * (1 + 4 * jnp.finfo(weight.dtype).eps))
    ties = needed & ~before
    gain_of_ties = total(jnp.where(ties, gain, 0))
    left = need - total(jnp.where(before, gain, 0))
    share = jnp.clip(left / jnp.where(gain_of_ties > 0, gain_of_ties, 1), 0, 1)
    return jnp.where(before, room, jnp.where(ties, share * room, 0))
