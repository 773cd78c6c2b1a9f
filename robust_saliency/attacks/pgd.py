"""Projected gradient descent (Madry et al. 2018, section 2.1): steepest steps, each projected onto the threat model."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import checks, threat
from robust_saliency.attacks import eot, rules
from robust_saliency.attacks.iterated import Iterated
from robust_saliency.attacks.restarts import with_restarts
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
    rule: 'steepest', or a rule of optax (:data:`robust_saliency.attacks.rules.RULES`) that makes a direction of the
        gradient; ``step_size`` is then about what a value changes.
    momentum: of rule 'steepest', steps follow ``v <- momentum v + g / |g|_1`` in the place of g (Dong et al. 2018,
        1710.06081, equation 6; MI-FGSM with start='none', momentum=1 and step_size epsilon / n); None = none. A scalar
        or ``[B]``.
    keep_best: return the iterate of highest loss instead of the last (one more forward pass).
    num_restarts: runs side by side from as many starts; for each example the one of highest loss counts.
    init: images ``[B, H, W, C]`` to start from, in the place of ``start``; None = none.
    eot_samples: of a random loss, draws a step, see :mod:`robust_saliency.attacks.eot`; 0 = the loss is not random.
    unroll: a Python loop over the steps, about ten at most, in the place of a compiled one. Right on CPU alone, and
        there for a ``logits_fn`` with convolutions of jax's own: XLA runs their gradients in a loop with a slow kernel.
        Those of :mod:`robust_saliency.models.convolution`, which every Flax network gets, need it nowhere.
    """

    threat: Threat = Threat()
    step_size: Scalar = 2 / 255
    num_steps: int = 10
    sparsity: Scalar = 0.01
    start: str = "uniform"
    start_scale: Scalar = 0.001
    schedule: str = "constant"
    rule: str = "steepest"
    momentum: Scalar | None = None
    keep_best: bool = False
    num_restarts: int = 1
    init: Array | None = None
    eot_samples: int = 0
    unroll: bool = False

    def __post_init__(self):
        checks.one_of("start", self.start, threat.STARTS)
        checks.one_of("schedule", self.schedule, SCHEDULES)
        checks.one_of("rule", self.rule, ("steepest", *rules.RULES))
        if self.rule != "steepest" and self.momentum is not None:
            raise ValueError(f"PGD.momentum is of the rule 'steepest'; {self.rule!r} has its own.")
        checks.at_least(0, num_steps=self.num_steps, eot_samples=self.eot_samples, where="PGD")
        checks.at_least(1, num_restarts=self.num_restarts, where="PGD")
        if isinstance(self.start_scale, int | float) and not self.start_scale >= 0:
            raise ValueError(f"PGD.start_scale must be at least 0, got {self.start_scale}.")
        checks.several_starts("PGD", self)

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and backward passes of an image."""
        draws = max(self.eot_samples, 1) * self.num_restarts
        judgements = self.keep_best + (self.num_restarts > 1)
        return draws * (self.num_steps + judgements), draws * self.num_steps


class State(NamedTuple):
    """An attack between two steps: how many are done ``[B]``, the clean images, the iterate, what momentum or a rule
    of optax has gathered (None without), the best iterate with its loss ``[B]``, the keys of a random loss ``[B]``."""

    step: Array
    origin: Images
    images: Images
    velocity: Any
    best_images: Images
    best_loss: Array
    keys: Key | None


def pgd(loss_fn: LossFn, key: Key, images: Images, spec: PGD) -> Images:
    """Images of higher ``loss_fn`` inside the threat model around ``images [B, H, W, C]``.

    The gradient is of the sum over the batch, which is exact per example as long as examples do not interact in
    ``loss_fn`` (a model in eval mode). No gradient flows through the result. Images outside ``bounds`` are refused;
    inside a compiled program, which cannot see them, they are first clipped. ``keep_best`` ignores a loss that is NaN.
    """
    state = PIECES.start(key, images, spec)
    return PIECES.finish(loss_fn, PIECES.advance(loss_fn, state, spec, spec.num_steps), spec)


def start(key: Key, images: Images, spec: PGD) -> State:
    """The state before the first step."""
    origin = clean(images, spec.threat)
    first = first_images(key, origin, spec)
    # Sum of the origin keeps the batch axis, and with it the sharding, of the images.
    never = jnp.full_like(jnp.sum(origin, axis=(1, 2, 3)), -jnp.inf)
    keys = eot.keys_of(key, len(origin), spec.eot_samples)
    return State(jnp.zeros_like(never, jnp.int32), origin, first, _nothing_gathered(origin, spec), first, never, keys)


def advance(loss_fn: LossFn, state: State, spec: PGD, num_steps: int) -> State:
    """``num_steps`` further steps: compile ten once and call it again for a longer attack."""
    step_size = threat.expand("PGD.step_size", spec.step_size, state.images)

    def step(state: State) -> State:
        losses, gradient = value_and_gradient(seen(loss_fn, state, spec), state.images)
        if spec.keep_best:
            state = _keep_best(state, losses)
        direction, velocity = _direction(state, gradient, spec)
        done = (state.step / max(spec.num_steps, 1)).astype(state.images.dtype)
        length = step_size * SCHEDULES[spec.schedule](done)[:, None, None, None]
        moved = threat.project(state.images + length * direction, state.origin, spec.threat)
        return state._replace(step=state.step + 1, images=moved, velocity=velocity)

    if spec.unroll:
        for _ in range(num_steps):
            state = step(state)
        return state
    return jax.lax.fori_loop(0, num_steps, lambda _, state: step(state), state)


def finish(loss_fn: LossFn, state: State, spec: PGD) -> Images:
    """The result of the attack."""
    if spec.keep_best:
        state = _keep_best(state, seen(loss_fn, state, spec)(state.images))
    return jax.lax.stop_gradient(state.best_images if spec.keep_best else state.images)


def seen(loss_fn: LossFn, state: State, spec: PGD) -> LossFn:
    """The loss that the next step raises."""
    return eot.seen(loss_fn, state.keys, state.step, spec.eot_samples)


PIECES = with_restarts(Iterated(start, advance, finish, seen))


def check(images: Images) -> Images:
    """Raises ValueError unless ``images`` are floating ``[B, H, W, C]``; returns them in at least float32."""
    checks.rank("images", images, 4)
    checks.floating("images", images)
    return images.astype(jnp.promote_types(images.dtype, jnp.float32))


def clean(images: Images, threat: Threat) -> Images:
    """The images that an attack starts from: checked, and in ``threat.bounds``."""
    images = check(images)
    checks.known_in_bounds(images, threat.bounds)
    return jnp.clip(images, *threat.bounds)


def first_images(key: Key, origin: Images, spec: Any) -> Images:
    """Where an attack starts: ``spec.init`` inside the threat model, or a random point of it."""
    checks.known_finite("Threat.epsilon of an attack in steps", spec.threat.epsilon)
    if spec.init is None:
        return threat.start(key, origin, spec.threat, spec.start, spec.start_scale)
    if spec.init.shape != origin.shape:
        name = type(spec).__name__
        raise ValueError(f"{name}.init must have the shape of the images, {origin.shape}, got {spec.init.shape}.")
    return threat.project(spec.init.astype(origin.dtype), origin, spec.threat)


def value_and_gradient(loss_fn: LossFn, images: Images) -> tuple[Array, Array]:
    """Losses ``[B]``, and the gradient of their sum: exact per example where examples do not interact."""

    def summed(images):
        losses = loss_fn(images)
        if losses.shape != images.shape[:1]:
            raise ValueError(f"loss_fn must give one loss an image, [{images.shape[0]}], got shape {losses.shape}.")
        return jnp.sum(losses), losses

    (_, losses), gradient = jax.value_and_grad(summed, has_aux=True)(jax.lax.stop_gradient(images))
    return losses, gradient


def _nothing_gathered(origin: Images, spec: PGD) -> Any:
    if spec.rule != "steepest":
        return rules.start(spec.rule, origin)
    return None if spec.momentum is None else jnp.zeros_like(origin)


def _direction(state: State, gradient: Array, spec: PGD) -> tuple[Array, Any]:
    """What to add ``step_size`` times, and what momentum or the rule has gathered with ``gradient``."""
    velocity = state.velocity
    if spec.rule != "steepest":
        finite = jnp.all(jnp.isfinite(gradient), axis=(1, 2, 3), keepdims=True)
        return rules.descend(spec.rule, jnp.where(finite, -gradient, 0), velocity)
    if velocity is not None:
        gradient = velocity = _gathered(velocity, gradient, spec)
    return threat.steepest(gradient, spec.threat, state.images, spec.sparsity), velocity


def _gathered(velocity: Array, gradient: Array, spec: PGD) -> Array:
    """Momentum after it has taken in ``gradient``; one that is not finite is left out."""
    size = threat.norm(gradient, "l1")
    usable = jnp.isfinite(size) & (size > 0)
    unit = jnp.where(usable, gradient / jnp.where(usable, size, 1), 0)
    return threat.expand("PGD.momentum", spec.momentum, gradient) * velocity + unit


def _keep_best(state: State, losses: Array) -> State:
    losses = losses.astype(state.best_loss.dtype)
    better = losses > state.best_loss
    best_images = jnp.where(better[:, None, None, None], state.images, state.best_images)
    return state._replace(best_images=best_images, best_loss=jnp.where(better, losses, state.best_loss))
