"""Multipliers of the exact projections onto a ball cut with a box, per example, in a fixed number of steps.

``room [B, H, W, C] >= 0`` is how far each value may go in the direction of ``delta`` before it meets the box. The
number of steps is fixed so that an example's result does not depend on its neighbours.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from robust_saliency.types import Array

_L2_STEPS = 24


def l2_scale(delta: Array, room: Array, epsilon: Array) -> Array:
    """Largest s in [0, 1] with ``sum min(s^2 d_i^2, room_i^2) <= eps^2``, ``[B, 1, 1, 1]``.

    In t = s^2 the sum is concave, increasing and piecewise linear, so Newton's method from the left rises to the root
    without overshooting: feasible after any number of steps, exact once the set of clipped pixels stands still.
    Squares of a room below 1e-19 underflow, so that it would cost nothing: without a budget s is 0 all the same.
    """
    square, limit, budget = delta**2, room**2, epsilon**2

    def newton(_, t):
        clipped = t * square >= limit
        slope = total(jnp.where(clipped, 0, square))
        spent = total(jnp.where(clipped, limit, 0))
        root = jnp.where(slope > 0, (budget - spent) / jnp.where(slope > 0, slope, 1), 1)
        return jnp.clip(root, t, 1)

    scale = jnp.sqrt(jax.lax.fori_loop(0, _L2_STEPS, newton, jnp.zeros_like(total(square))))
    return jnp.where(budget == 0, 0, scale)


def l1_threshold(delta: Array, room: Array, epsilon: Array) -> Array:
    """Least t >= 0 with ``sum clip(|d_i| - t, 0, room_i) <= eps``, ``[B, 1, 1, 1]``.

    The sum falls with t, but is neither convex nor concave: Newton's method may leave its bracket or creep.
    """
    size = jnp.abs(delta)

    def spent(t):
        return total(jnp.clip(size - t, 0, room))

    return bisect(spent, lambda spent: spent <= epsilon, like=size)[0]


def largest(values: Array, k: Array) -> Array:
    """Which of each example's non-negative ``values [B, H, W, C]`` are at least the ``k``-th largest; k int >= 1.

    At least k are, more where the k-th is tied. Exact, and without the sort that is slow on CPU.

    The answer is kept from the search. To find the k-th value and compare again is not safe: XLA may compute
    ``values`` once for the search and once for the comparison, a last bit apart, and none reaches its own bound.
    """

    def above(t):
        return values > t

    def few(above):
        return jnp.sum(above, axis=(1, 2, 3), keepdims=True) < k

    return bisect(above, few, like=values)[1]


def bisect(measure: Callable[[Array], Array], holds: Callable[[Array], Array], like: Array) -> tuple[Array, Array]:
    """The least float t >= 0 at which ``holds(measure(t))``, ``[B, 1, 1, 1]``, and ``measure`` just below it.

    ``holds`` must be false before t and true from there on. Where it is true at 0, nothing lies below, and all of the
    second result is one. Bisection of the bits, which order non-negative floats as integers: exact at any scale.
    """
    integer = jnp.int64 if like.dtype == jnp.float64 else jnp.int32

    def as_float(bits):
        return jax.lax.bitcast_convert_type(bits, like.dtype)

    def narrow(_, state):
        low, high, below = state  # holds at high; does not hold below low
        middle = low + (high - low) // 2
        measured = measure(as_float(middle))
        found = holds(measured)
        below = jnp.where(found, below, measured)
        return jnp.where(found, low, middle + 1), jnp.where(found, middle, high), below

    low = jnp.zeros_like(total(like), integer)
    high = jnp.full_like(low, jax.lax.bitcast_convert_type(jnp.array(jnp.inf, like.dtype), integer))
    below = jnp.ones_like(measure(as_float(low)))
    _, high, below = jax.lax.fori_loop(0, jnp.iinfo(integer).bits, narrow, (low, high, below))
    return as_float(high), below


def total(values: Array) -> Array:
    """Sum over an example's values, ``[B, 1, 1, 1]``."""
    return jnp.sum(values, axis=(1, 2, 3), keepdims=True)
