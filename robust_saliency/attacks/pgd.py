"""Projected gradient descent (Madry et al. 2018, section 2.1): steepest steps, each projected onto the threat model."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import checks, threat
from robust_saliency.attacks.iterated import Iterated
from robust_saliency.threat import Threat
from robust_saliency.types import Array, Images, Key, LossFn, Scalar, spec

SCHEDULES = {
    "constant": lambda done: jnp.ones_like(done),
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + jnp.cos(jnp.pi * done)) / 2,
}


@spec
class PGD:
    """``x <- project(x + step_size * steepest(gradient of loss at x))``, ``num_steps`` times.

    step_size: pixels, in the norm of the threat; a scalar or ``[B]``.
    sparsity: l1 only, the share of values that a step changes; a scalar or ``[B]``.
    start, start_scale: see :func:`robust_saliency.threat.start`.
    schedule: of the step size over the steps t = 0 .. n - 1: 'constant', 'linear' ``1 - t / n``, or 'cosine'
        ``(1 + cos(pi t / n)) / 2``.
    momentum: steps follow ``v <- momentum v + g / |g|_1`` in the place of g (Dong et al. 2018, 1710.06081, equation 6;
        MI-FGSM with start='none', momentum=1 and step_size epsilon / n); None = none. A scalar or ``[B]``.
    keep_best: return the iterate of highest loss instead of the last (one more forward pass).
    unroll: unrolled steps are several times faster on CPU (XLA runs the gradient of a convolution inside a loop with a
        slow kernel); rolled ones compile faster and are right for GPU and TPU. Unroll about ten steps at most and
        continue with :func:`advance`.
    """

    threat: Threat = Threat()
    step_size: Scalar = 2 / 255
    num_steps: int = 10
    sparsity: Scalar = 0.01
    start: str = "uniform"
    start_scale: Scalar = 0.001
    schedule: str = "constant"
    momentum: Scalar | None = None
    keep_best: bool = False
    unroll: bool = True

    def __post_init__(self):
        checks.one_of("start", self.start, threat.STARTS)
        checks.one_of("schedule", self.schedule, SCHEDULES)
        if self.num_steps < 0:
            raise ValueError(f"PGD.num_steps must be at least 0, got {self.num_steps}.")

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and backward passes of an image."""
        return self.num_steps + self.keep_best, self.num_steps


class State(NamedTuple):
    """An attack between two steps: how many are done ``[B]``, the clean images, the iterate, what momentum has gathered
    (None without), and the best iterate with its loss ``[B]``."""

    step: Array
    origin: Images
    images: Images
    velocity: Array | None
    best_images: Images
    best_loss: Array


def pgd(loss_fn: LossFn, key: Key, images: Images, spec: PGD) -> Images:
    """Images of higher ``loss_fn`` inside the threat model around ``images [B, H, W, C]``.

    The gradient is of the sum over the batch, which is exact per example as long as examples do not interact in
    ``loss_fn`` (a model in eval mode). No gradient flows through the result. Images outside ``bounds`` are first
    clipped to them. ``keep_best`` ignores a loss that is NaN.
    """
    state = start(key, images, spec)
    return finish(loss_fn, advance(loss_fn, state, spec, spec.num_steps), spec)


def start(key: Key, images: Images, spec: PGD) -> State:
    """The state before the first step."""
    origin = clean(images, spec.threat)
    first = threat.start(key, origin, spec.threat, spec.start, spec.start_scale)
    # Sum of the origin keeps the batch axis, and with it the sharding, of the images.
    never = jnp.full_like(jnp.sum(origin, axis=(1, 2, 3)), -jnp.inf)
    velocity = None if spec.momentum is None else jnp.zeros_like(origin)
    return State(jnp.zeros_like(never, jnp.int32), origin, first, velocity, first, never)


def advance(loss_fn: LossFn, state: State, spec: PGD, num_steps: int) -> State:
    """``num_steps`` further steps: compile ten once and call it again for a longer attack."""
    step_size = threat.expand("PGD.step_size", spec.step_size, state.images)

    def step(state: State) -> State:
        losses, gradient = value_and_gradient(loss_fn, state.images)
        if spec.keep_best:
            state = _keep_best(state, losses)
        state = _gathered(state, gradient, spec)
        direction = gradient if state.velocity is None else state.velocity
        done = (state.step / max(spec.num_steps, 1)).astype(state.images.dtype)
        length = step_size * SCHEDULES[spec.schedule](done)[:, None, None, None]
        moved = state.images + length * threat.steepest(direction, spec.threat, state.images, spec.sparsity)
        return state._replace(step=state.step + 1, images=threat.project(moved, state.origin, spec.threat))

    if spec.unroll:
        for _ in range(num_steps):
            state = step(state)
        return state
    return jax.lax.fori_loop(0, num_steps, lambda _, state: step(state), state)


def finish(loss_fn: LossFn, state: State, spec: PGD) -> Images:
    """The result of the attack."""
    if spec.keep_best:
        state = _keep_best(state, loss_fn(state.images))
    return jax.lax.stop_gradient(state.best_images if spec.keep_best else state.images)


PIECES = Iterated(start, advance, finish)


def check(images: Images) -> Images:
    """Raises ValueError unless ``images`` are floating ``[B, H, W, C]``; returns them in at least float32."""
    checks.rank("images", images, 4)
    checks.floating("images", images)
    return images.astype(jnp.promote_types(images.dtype, jnp.float32))


def clean(images: Images, threat: Threat) -> Images:
    """The images that an attack starts from: checked, and in ``threat.bounds``."""
    return jnp.clip(check(images), *threat.bounds)


def value_and_gradient(loss_fn: LossFn, images: Images) -> tuple[Array, Array]:
    """Losses ``[B]``, and the gradient of their sum: exact per example where examples do not interact."""

    def summed(images):
        losses = loss_fn(images)
        if losses.shape != images.shape[:1]:
            raise ValueError(f"loss_fn must give one loss an image, [{images.shape[0]}], got shape {losses.shape}.")
        return jnp.sum(losses), losses

    (_, losses), gradient = jax.value_and_grad(summed, has_aux=True)(jax.lax.stop_gradient(images))
    return losses, gradient


def _gathered(state: State, gradient: Array, spec: PGD) -> State:
    """The state after its momentum has taken in ``gradient``; one that is not finite is left out."""
    if state.velocity is None:
        return state
    size = threat.norm(gradient, "l1")
    usable = jnp.isfinite(size) & (size > 0)
    unit = jnp.where(usable, gradient / jnp.where(usable, size, 1), 0)
    momentum = threat.expand("PGD.momentum", spec.momentum, gradient)
    return state._replace(velocity=momentum * state.velocity + unit)


def _keep_best(state: State, losses: Array) -> State:
    losses = losses.astype(state.best_loss.dtype)
    better = losses > state.best_loss
    best_images = jnp.where(better[:, None, None, None], state.images, state.best_images)
    return state._replace(best_images=best_images, best_loss=jnp.where(better, losses, state.best_loss))
