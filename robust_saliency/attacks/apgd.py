"""Auto-PGD (Croce and Hein 2020, 2003.01690, algorithm 1; l1: 2103.01208): PGD whose step halves by itself."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import checks, threat
from robust_saliency.attacks.iterated import Iterated
from robust_saliency.attacks.pgd import clean, value_and_gradient
from robust_saliency.threat import Threat
from robust_saliency.types import Array, Images, Key, LossFn, Scalar, spec

# l1: the first share of values that a step changes, by how much a step shrinks, its least share of epsilon, and the
# share of epsilon below which a value has not changed.
FIRST_SPARSITY, SHRINK, LEAST_STEP, ROUNDING = 0.2, 1.5, 0.1, 1e-5


@spec
class APGD:
    """Steps with momentum; at check points each example halves its step and returns to its best image, or goes on.

    ``z = P(x + a s(g)); x <- P(x + m (z - x) + (1 - m) (x - x_before))``, P the projection, s the steepest step, m =
    ``momentum`` (1 in the first step), a = 2 epsilon at the start. An example halves where less than the share ``rho``
    of the steps since the last check point raised its loss, or where it did not halve there and its best loss has not
    risen since. In l1 there is no momentum; a starts at epsilon, and the sparsity of the step follows that of the best
    perturbation.

    num_steps: gradients spent; check points are at 22, 41, 57, 70, ... % of them.
    start, start_scale, unroll: as for PGD; the authors' code starts on the sphere.

    Source: the papers, and the authors' code for rounding and for ``<=`` in the first condition. Unlike that code the
    first step is compared with the loss of the start, and an iterate with a NaN loss is never the best.
    """

    threat: Threat = Threat()
    num_steps: int = 100
    start: str = "sphere"
    start_scale: Scalar = 0.001
    rho: Scalar = 0.75
    momentum: Scalar = 0.75
    unroll: bool = True

    def __post_init__(self):
        checks.one_of("start", self.start, threat.STARTS)
        if self.num_steps < 1:
            raise ValueError(f"APGD.num_steps must be at least 1, got {self.num_steps}.")

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and backward passes of an image."""
        return self.num_steps + 1, self.num_steps


class State(NamedTuple):
    """An attack between two steps, each entry per example.

    step: how many are done. before: the iterate before ``images``. best_*: the iterate of highest loss.
    increases: steps since the last check point that raised the loss. halved, loss_at_check: at the last check point.
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


def apgd(loss_fn: LossFn, key: Key, images: Images, spec: APGD) -> Images:
    """Images of the highest ``loss_fn`` found inside the threat model around ``images [B, H, W, C]``."""
    state = start(key, images, spec)
    return finish(loss_fn, advance(loss_fn, state, spec, spec.num_steps), spec)


def start(key: Key, images: Images, spec: APGD) -> State:
    """The state before the first step."""
    origin = clean(images, spec.threat)
    first = threat.start(key, origin, spec.threat, spec.start, spec.start_scale)
    zero = jnp.zeros_like(jnp.sum(origin, axis=(1, 2, 3)))
    epsilon = threat.radius(spec.threat, origin)
    step_size = epsilon if spec.threat.norm == "l1" else 2 * epsilon
    return State(
        step=zero.astype(jnp.int32),
        origin=origin,
        images=first,
        before=first,
        loss=zero + jnp.inf,  # the start is no increase
        best_images=first,
        best_gradient=jnp.zeros_like(origin),
        best_loss=zero - jnp.inf,
        step_size=step_size + zero[:, None, None, None],
        increases=zero,
        halved=zero == 0,
        loss_at_check=zero - jnp.inf,
        sparsity=zero + FIRST_SPARSITY,
        changed=zero + math.prod(origin.shape[1:]),
    )


def advance(loss_fn: LossFn, state: State, spec: APGD, num_steps: int) -> State:
    """``num_steps`` further steps: compile ten once and call it again for a longer attack."""
    windows = jnp.asarray(_windows(spec.num_steps, spec.threat.norm))

    def step(state: State) -> State:
        losses, gradient = value_and_gradient(loss_fn, state.images)
        state = _recorded(state, losses, gradient)
        window = windows[jnp.minimum(state.step, spec.num_steps)]
        state, gradient = _checked(state, gradient, spec, window)
        return _moved(state, gradient, spec)

    if spec.unroll:
        for _ in range(num_steps):
            state = step(state)
        return state
    return jax.lax.fori_loop(0, num_steps, lambda _, state: step(state), state)


def finish(loss_fn: LossFn, state: State, spec: APGD) -> Images:
    """The image of highest loss, that of the last step included."""
    better = loss_fn(state.images) > state.best_loss
    return jax.lax.stop_gradient(jnp.where(_wide(better), state.images, state.best_images))


PIECES = Iterated(start, advance, finish)


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


def _windows(num_steps: int, norm: str) -> np.ndarray:
    """For each number of steps done: how many lie since the last check point if it is one, else 0."""
    windows = np.zeros(num_steps + 1, np.float32)
    points = check_points(num_steps, norm)
    windows[points] = np.diff([0, *points])
    return windows


def _recorded(state: State, losses: Array, gradient: Array) -> State:
    losses = losses.astype(state.loss.dtype)
    better = losses > state.best_loss
    return state._replace(
        loss=losses,
        increases=state.increases + (losses > state.loss),
        best_images=jnp.where(_wide(better), state.images, state.best_images),
        best_gradient=jnp.where(_wide(better), gradient, state.best_gradient),
        best_loss=jnp.where(better, losses, state.best_loss),
    )


def _checked(state: State, gradient: Array, spec: APGD, window: Array) -> tuple[State, Array]:
    """The state after a check point (``window`` > 0), and the gradient to go on with."""
    is_check = window > 0
    if spec.threat.norm == "l1":
        return _checked_l1(state, gradient, spec, is_check)
    oscillates = state.increases <= spec.rho * window
    stands_still = ~state.halved & (state.loss_at_check >= state.best_loss)
    halve = is_check & (oscillates | stands_still)
    state = state._replace(
        images=jnp.where(_wide(halve), state.best_images, state.images),
        step_size=jnp.where(_wide(halve), state.step_size / 2, state.step_size),
        increases=jnp.where(is_check, 0, state.increases),
        halved=jnp.where(is_check, halve, state.halved),
        loss_at_check=jnp.where(is_check, state.best_loss, state.loss_at_check),
    )
    return state, jnp.where(_wide(halve), state.best_gradient, gradient)


def _checked_l1(state: State, gradient: Array, spec: APGD, is_check: Array) -> tuple[State, Array]:
    epsilon = threat.radius(spec.threat, state.origin)
    # What rounding left of a value that was projected back does not count, or the sparsity would stand still.
    moved = jnp.abs(state.best_images - state.origin) > ROUNDING * epsilon
    changed = jnp.sum(moved, axis=(1, 2, 3)).astype(state.changed.dtype)
    sparser = is_check & (changed < 0.95 * state.changed)
    shrunk = jnp.maximum(state.step_size / SHRINK, LEAST_STEP * epsilon)
    step_size = jnp.where(_wide(sparser), epsilon, shrunk)
    state = state._replace(
        images=jnp.where(_wide(sparser), state.best_images, state.images),
        step_size=jnp.where(_wide(is_check), step_size, state.step_size),
        sparsity=jnp.where(is_check, changed / math.prod(state.origin.shape[1:]) / SHRINK, state.sparsity),
        changed=jnp.where(is_check, changed, state.changed),
    )
    return state, jnp.where(_wide(sparser), state.best_gradient, gradient)


def _moved(state: State, gradient: Array, spec: APGD) -> State:
    def projected(images):
        return threat.project(images, state.origin, spec.threat)

    step = state.step_size * threat.steepest(gradient, spec.threat, state.images, state.sparsity)
    moved = projected(state.images + step)
    if spec.threat.norm != "l1":
        momentum = _wide(jnp.where(state.step == 0, 1.0, spec.momentum))
        inertia = (1 - momentum) * (state.images - state.before)
        moved = projected(state.images + momentum * (moved - state.images) + inertia)
    return state._replace(step=state.step + 1, images=moved, before=state.images)


def _wide(values: Array) -> Array:
    return values[:, None, None, None]
