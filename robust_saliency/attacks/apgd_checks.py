"""What APGD does at its check points: each example halves its step and returns to its best image, or goes on."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from robust_saliency import threat
from robust_saliency.threat import Threat
from robust_saliency.types import Array, Images, Key, Scalar

# l1: the first share of values that a step changes, by how much a step shrinks, its least share of epsilon, and the
# share of epsilon below which a value has not changed.
FIRST_SPARSITY, SHRINK, LEAST_STEP, ROUNDING = 0.2, 1.5, 0.1, 1e-5


class State(NamedTuple):
    """An attack between two steps, each entry per example.

    step: how many are done. before: the iterate before ``images``. best_*: the iterate of highest loss.
    increases: steps since the last check point that raised the loss. halved, loss_at_check: at the last check point.
    sparsity, changed: l1, the share of values that a step changes, and how many of the best perturbation had changed at
    the last check point. keys: of a random loss.
    """

    step: Array
    origin: Images
    images: Images
    before: Images
    loss: Array
    best_images: Images
    best_gradient: Array
    best_loss: Array
    step_size: Array
    increases: Array
    halved: Array
    loss_at_check: Array
    sparsity: Array
    changed: Array
    keys: Key | None


def check_points(num_steps: int, norm: str = "linf") -> list[int]:
    """Steps after which step sizes are looked at: 22, 41, 57, 70, 80, 87, 93, 99 of 100; in l1 every 4 % of them."""
    if norm == "l1":
        window = max(int(0.04 * num_steps), 1)
        return list(range(window, num_steps + 1, window))
    window, shorter, shortest = (max(int(share * num_steps), 1) for share in (0.22, 0.03, 0.06))
    points, point = [], window
    while point <= num_steps:
        points.append(point)
        window = max(window - shorter, shortest)
        point += window
    return points


def windows(num_steps: int, norm: str) -> np.ndarray:
    """For 0 to ``num_steps`` steps done: how many lie since the last check point if it is one, else 0."""
    lengths = np.zeros(num_steps + 1, np.float32)
    points = check_points(num_steps, norm)
    lengths[points] = np.diff([0, *points])
    return lengths


def recorded(state: State, losses: Array, gradient: Array) -> State:
    """The state after the loss of its images is known."""
    losses = losses.astype(state.loss.dtype)
    better = losses > state.best_loss
    return state._replace(
        loss=losses,
        increases=state.increases + (losses > state.loss),
        best_images=jnp.where(wide(better), state.images, state.best_images),
        best_gradient=jnp.where(wide(better), gradient, state.best_gradient),
        best_loss=jnp.where(better, losses, state.best_loss),
    )


def checked(state: State, gradient: Array, model: Threat, rho: Scalar, window: Array) -> tuple[State, Array]:
    """The state after a check point (``window`` > 0), and the gradient to go on with."""
    is_check = window > 0
    if model.norm == "l1":
        return _checked_l1(state, gradient, model, is_check)
    oscillates = state.increases <= rho * window
    stands_still = ~state.halved & (state.loss_at_check >= state.best_loss)
    halve = is_check & (oscillates | stands_still)
    state = state._replace(
        images=jnp.where(wide(halve), state.best_images, state.images),
        step_size=jnp.where(wide(halve), state.step_size / 2, state.step_size),
        increases=jnp.where(is_check, 0, state.increases),
        halved=jnp.where(is_check, halve, state.halved),
        loss_at_check=jnp.where(is_check, state.best_loss, state.loss_at_check),
    )
    return state, jnp.where(wide(halve), state.best_gradient, gradient)


def _checked_l1(state: State, gradient: Array, model: Threat, is_check: Array) -> tuple[State, Array]:
    epsilon = threat.radius(model, state.origin)
    # What rounding left of a value that was projected back does not count, or the sparsity would stand still.
    moved = jnp.abs(state.best_images - state.origin) > ROUNDING * epsilon
    changed = jnp.sum(moved, axis=(1, 2, 3)).astype(state.changed.dtype)
    sparser = is_check & (changed < 0.95 * state.changed)
    shrunk = jnp.maximum(state.step_size / SHRINK, LEAST_STEP * epsilon)
    step_size = jnp.where(wide(sparser), epsilon, shrunk)
    state = state._replace(
        images=jnp.where(wide(sparser), state.best_images, state.images),
        step_size=jnp.where(wide(is_check), step_size, state.step_size),
        sparsity=jnp.where(is_check, changed / math.prod(state.origin.shape[1:]) / SHRINK, state.sparsity),
        changed=jnp.where(is_check, changed, state.changed),
    )
    return state, jnp.where(wide(sparser), state.best_gradient, gradient)


def wide(values: Array) -> Array:
    """``[B]`` -> ``[B, 1, 1, 1]``."""
    return values[:, None, None, None]
