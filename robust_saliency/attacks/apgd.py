"""Auto-PGD (Croce and Hein 2020, 2003.01690, algorithm 1; l1: 2103.01208): PGD whose step halves by itself."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import checks, rows, threat
from robust_saliency.attacks import eot
from robust_saliency.attacks.apgd_checks import FIRST_SPARSITY, State, checked, recorded, wide, windows
from robust_saliency.attacks.iterated import Iterated
from robust_saliency.attacks.pgd import clean, first_images, value_and_gradient
from robust_saliency.attacks.restarts import with_restarts
from robust_saliency.threat import Threat
from robust_saliency.types import Array, Images, Key, LossFn, Scalar, spec


@spec
class APGD:
    """Steps with momentum; at check points each example halves its step and returns to its best image, or goes on.

    ``z = P(x + a s(g)); x <- P(x + m (z - x) + (1 - m) (x - x_before))``, P the projection, s the steepest step, m =
    ``momentum`` (1 in the first step), a = 2 epsilon at the start. An example halves where less than the share ``rho``
    of the steps since the last check point raised its loss, or where it did not halve there and its best loss has not
    risen since. In l1 there is no momentum; a starts at epsilon, and the sparsity of the step follows that of the best
    perturbation.

    num_steps: gradients spent; check points are at 22, 41, 57, 70, ... % of them.
    start, start_scale, init, num_restarts, eot_samples, unroll: as for PGD; the authors' code starts on the sphere.
    shrink_epsilon: 30 % of the steps in the ball of 3 epsilon, 30 % in that of 2, the rest in that of epsilon, each
        part from the best image before, projected. The authors' code does so in l1, where the ball is hard to move in.

    Source: the papers, and the authors' code for rounding and for ``<=`` in the first condition. Unlike that code the
    first step is compared with the loss of the start, and an iterate with a NaN loss is never the best.
    """

    threat: Threat = Threat()
    num_steps: int = 100
    start: str = "sphere"
    start_scale: Scalar = 0.001
    init: Array | None = None
    num_restarts: int = 1
    eot_samples: int = 0
    shrink_epsilon: bool = False
    rho: Scalar = 0.75
    momentum: Scalar = 0.75
    unroll: bool = False

    def __post_init__(self):
        checks.one_of("start", self.start, threat.STARTS)
        checks.at_least(1, num_steps=self.num_steps, num_restarts=self.num_restarts, where="APGD")
        checks.at_least(0, eot_samples=self.eot_samples, where="APGD")
        checks.several_starts("APGD", self)

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and backward passes of an image."""
        draws = max(self.eot_samples, 1) * self.num_restarts
        return draws * (self.num_steps + 1 + (self.num_restarts > 1)), draws * self.num_steps


def apgd(loss_fn: LossFn, key: Key, images: Images, spec: APGD) -> Images:
    """Images of the highest ``loss_fn`` found inside the threat model around ``images [B, H, W, C]``."""
    state = PIECES.start(key, images, spec)
    return PIECES.finish(loss_fn, PIECES.advance(loss_fn, state, spec, spec.num_steps), spec)


def start(key: Key, images: Images, spec: APGD) -> State:
    """The state before the first step."""
    origin = clean(images, spec.threat)
    zero = jnp.zeros_like(jnp.sum(origin, axis=(1, 2, 3)))
    model = _ball(spec, origin, zero.astype(jnp.int32))
    first = first_images(key, origin, dataclasses.replace(spec, threat=model))
    keys = eot.keys_of(key, len(origin), spec.eot_samples)
    return _beginning(first, origin, model, zero.astype(jnp.int32), keys)


def advance(loss_fn: LossFn, state: State, spec: APGD, num_steps: int) -> State:
    """``num_steps`` further steps: compile ten once and call it again for a longer attack."""
    window_of = jnp.asarray(np.concatenate([windows(steps, spec.threat.norm)[:-1] for _, steps, _ in _parts(spec)]))

    def step(state: State) -> State:
        model = _ball(spec, state.origin, state.step)
        state = _next_part(state, model, spec)
        losses, gradient = value_and_gradient(seen(loss_fn, state, spec), state.images)
        state = recorded(state, losses, gradient)
        window = window_of[jnp.minimum(state.step, spec.num_steps - 1)]
        state, gradient = checked(state, gradient, model, spec.rho, window)
        return _moved(state, gradient, model, spec)

    if spec.unroll:
        for _ in range(num_steps):
            state = step(state)
        return state
    return jax.lax.fori_loop(0, num_steps, lambda _, state: step(state), state)


def finish(loss_fn: LossFn, state: State, spec: APGD) -> Images:
    """The image of highest loss, that of the last step included; inside the ball also where not all steps are done."""
    better = seen(loss_fn, state, spec)(state.images) > state.best_loss
    images = jnp.where(wide(better), state.images, state.best_images)
    if spec.shrink_epsilon:
        is_last = state.step > _parts(spec)[-1][0]
        images = jnp.where(wide(is_last), images, threat.project(images, state.origin, spec.threat))
    return jax.lax.stop_gradient(images)


def seen(loss_fn: LossFn, state: State, spec: APGD) -> LossFn:
    """The loss that the next step raises."""
    return eot.seen(loss_fn, state.keys, state.step, spec.eot_samples)


PIECES = with_restarts(Iterated(start, advance, finish, seen))


def _parts(spec: APGD) -> list[tuple[int, int, float]]:
    """First step, number of steps and factor of epsilon of each part of the attack."""
    if not spec.shrink_epsilon:
        return [(0, spec.num_steps, 1.0)]
    # Rounded down, so that the last part, in the ball of epsilon, is never empty.
    larger = int(0.3 * spec.num_steps)
    parts = [(0, larger, 3.0), (larger, larger, 2.0), (2 * larger, spec.num_steps - 2 * larger, 1.0)]
    return [part for part in parts if part[1]]


def _ball(spec: APGD, origin: Images, step: Array) -> Threat:
    """The threat model of each example's step ``[B]``."""
    if not spec.shrink_epsilon:
        return spec.threat
    factor = sum(
        jnp.where((step >= first) & (step < first + steps), factor, 0.0) for first, steps, factor in _parts(spec)
    )
    factor = jnp.where(step < spec.num_steps, factor, 1.0).astype(origin.dtype)
    return dataclasses.replace(spec.threat, epsilon=wide(factor) * threat.radius(spec.threat, origin))


def _beginning(first: Images, origin: Images, model: Threat, step: Array, keys: Key | None) -> State:
    zero = jnp.zeros_like(jnp.sum(origin, axis=(1, 2, 3)))
    epsilon = threat.radius(model, origin)
    step_size = epsilon if model.norm == "l1" else 2 * epsilon
    return State(
        step=step,
        origin=origin,
        images=first,
        before=first,
        loss=zero + jnp.inf,  # the start is no increase
        best_images=first,
        best_gradient=jnp.zeros_like(origin),
        best_loss=zero - jnp.inf,
        step_size=step_size + wide(zero),
        increases=zero,
        halved=zero == 0,
        loss_at_check=zero - jnp.inf,
        sparsity=zero + FIRST_SPARSITY,
        changed=zero + math.prod(origin.shape[1:]),
        keys=keys,
    )


def _next_part(state: State, model: Threat, spec: APGD) -> State:
    """Where a smaller ball begins: the attack anew, from the best image projected into it."""
    if not spec.shrink_epsilon:
        return state
    first = threat.project(state.best_images, state.origin, model)
    anew, begins = _beginning(first, state.origin, model, state.step, state.keys), _begins(state, spec)
    return rows.choose(begins, anew, state)


def _begins(state: State, spec: APGD) -> Array:
    """Which examples are at the first step of a part, ``[B]``."""
    starts = jnp.array([first for first, _, _ in _parts(spec)])
    return jnp.any(state.step[:, None] == starts[None], axis=1)


def _moved(state: State, gradient: Array, model: Threat, spec: APGD) -> State:
    def projected(images):
        return threat.project(images, state.origin, model)

    step = state.step_size * threat.steepest(gradient, model, state.images, state.sparsity)
    moved = projected(state.images + step)
    if model.norm != "l1":
        momentum = wide(jnp.where(_begins(state, spec), 1.0, spec.momentum))
        inertia = (1 - momentum) * (state.images - state.before)
        moved = projected(state.images + momentum * (moved - state.images) + inertia)
    return state._replace(step=state.step + 1, images=moved, before=state.images)
