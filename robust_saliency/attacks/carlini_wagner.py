"""The l2 attack of Carlini and Wagner (2017, 1608.04644, section VI-A): the closest adversary, not the strongest."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import checks, losses, threat
from robust_saliency.attacks import rules
from robust_saliency.attacks.pgd import clean, value_and_gradient
from robust_saliency.attacks.result import AttackResult, judge
from robust_saliency.threat import Threat
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Scalar, spec

# The share of its distance from the middle of the box that a value keeps, so that atanh is finite; the factor by which
# a constant grows while it is too small; the largest constant.
SHRINK, GROWTH, MOST = 1 - 1e-6, 10.0, 1e10


@spec
class CarliniWagner:
    """``min_w |x(w) - x|_2^2 + c max(0, confidence - margin(x(w)))`` by Adam, ``x(w) = tanh(w)`` scaled to the box.

    The constant c is searched for each example: ten times larger until it finds an adversary, then the middle between
    the largest that did not and the least that did. Each constant starts afresh from the clean image. The margin pulls
    towards the likeliest wrong class, which need not be the nearest.

    threat: its bounds and mask hold throughout; its epsilon, for which the attack looks not at all, is what the closest
        adversary is judged by: one farther away is projected. The norm must be l2.
    num_steps: gradients for each constant; the paper spends 10 000.
    num_searches: constants tried; of those that fail, the first nine go from 1e-3 to 1e5.
    learning_rate: of w, so that the slope of tanh counts: a pixel on a bound has ``|w| = 7.25``, where it is 2e-6. It
        stands still for the first ``4 / learning_rate`` steps of each search.
    confidence: the least margin of an adversary, logit units.
    unroll: as for PGD, over all ``num_searches * num_steps``: for more than about ten use :func:`advance`.

    Source: the paper, and the authors' code for the search, for its start and for the shrink. Unlike that code the
    image is ``x + tanh(w) - tanh(w_0)``, clipped, so that the clean image is one of them, and no search ends early.
    """

    threat: Threat = Threat(norm="l2", epsilon=math.inf)
    num_steps: int = 100
    num_searches: int = 9
    learning_rate: Scalar = 0.01
    initial_constant: Scalar = 1e-3
    confidence: Scalar = 0.0
    unroll: bool = False

    def __post_init__(self):
        if isinstance(self.threat, Threat) and self.threat.norm != "l2":
            raise ValueError(f"CarliniWagner needs a threat of norm 'l2', got norm {self.threat.norm!r}.")
        checks.at_least(1, num_steps=self.num_steps, num_searches=self.num_searches, where="CarliniWagner")

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and backward passes of an image."""
        return self.num_searches * self.num_steps, self.num_searches * self.num_steps


class State(NamedTuple):
    """An attack between two steps; per example where not said otherwise.

    step: how many are done, one number. offset: ``w - w_0``. moments: Adam's. constant: the c that is tried. failed,
    worked: the largest that found no adversary, the least that found one. found: by this constant. best_*: the closest
    adversary; the iterate of highest margin, at an infinite distance, where there is none.
    """

    step: Array
    origin: Images
    offset: Array
    moments: Any
    constant: Array
    failed: Array
    worked: Array
    found: Array
    best_images: Images
    best_distance: Array
    best_margin: Array


def carlini_wagner(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: CarliniWagner) -> AttackResult:
    """The closest adversary found to each of ``images [B, H, W, C]``. Nothing is random: ``key`` is not used."""
    state = start(images, spec)
    return finish(logits_fn, advance(logits_fn, state, labels, spec, spec.passes[0]), labels, spec)


def start(images: Images, spec: CarliniWagner) -> State:
    """The state before the first step."""
    origin = clean(images, spec.threat)
    zero = jnp.zeros_like(jnp.sum(origin, axis=(1, 2, 3)))
    return State(
        step=jnp.zeros((), jnp.int32),
        origin=origin,
        offset=jnp.zeros_like(origin),
        moments=rules.start("adam", origin),
        constant=zero + _each("initial_constant", spec, origin),
        failed=zero,
        worked=zero + jnp.inf,
        found=zero > 0,
        best_images=origin,
        best_distance=zero + jnp.inf,
        best_margin=zero - jnp.inf,
    )


def advance(logits_fn: LogitsFn, state: State, labels: Labels, spec: CarliniWagner, num_steps: int) -> State:
    """``num_steps`` further steps, of as many searches as they fill."""
    confidence = _each("confidence", spec, state.origin)
    learning_rate = threat.expand("CarliniWagner.learning_rate", spec.learning_rate, state.origin)

    def step(state: State) -> State:
        images, slope = _seen(state.offset, state.origin, spec.threat)
        margin, gradient = value_and_gradient(lambda x: losses.margin(logits_fn(x), labels), images)
        margin = margin.astype(images.dtype)
        state = _recorded(state, images, margin, margin >= confidence)
        # A gradient that is NaN or infinite must not reach Adam, which would not forget it.
        pushes = (margin < confidence) & jnp.all(jnp.isfinite(gradient), axis=(1, 2, 3))
        push = jnp.where(_wide(pushes), _wide(state.constant) * gradient, 0)
        downhill = (2 * (images - state.origin) - push) * slope
        count = state.step % spec.num_steps + 1
        direction, moments = rules.descend("adam", downhill, state.moments)
        state = state._replace(step=state.step + 1, offset=state.offset + learning_rate * direction, moments=moments)
        ended = _next_search(state)
        return jax.tree.map(lambda new, old: jnp.where(count == spec.num_steps, new, old), ended, state)

    if spec.unroll:
        for _ in range(num_steps):
            state = step(state)
        return state
    return jax.lax.fori_loop(0, num_steps, lambda _, state: step(state), state)


def finish(logits_fn: LogitsFn, state: State, labels: Labels, spec: CarliniWagner) -> AttackResult:
    """The judgement of the closest adversaries, those outside the threat model projected."""
    inside = threat.norm(state.best_images - state.origin) <= threat.radius(spec.threat, state.origin)
    projected = threat.project(state.best_images, state.origin, spec.threat)
    images = jnp.where(inside, state.best_images, projected)
    return judge(logits_fn, images, state.origin, labels, spec.threat, *spec.passes)


def _seen(offset: Array, origin: Images, model: Threat) -> tuple[Images, Array]:
    """The images that ``w = w_0 + offset`` stands for, and their derivative in w."""
    low, high = model.bounds
    scale = (high - low) / 2
    clean_w = jnp.arctanh((2 * (origin - low) / (high - low) - 1) * SHRINK)
    # Zero is zero in each program, or Adam would make whole steps of what rounding leaves of the difference.
    moved = jnp.where(offset == 0, 0, scale * (jnp.tanh(clean_w + offset) - jnp.tanh(clean_w)))
    images = jnp.clip(origin + moved, low, high)
    if model.mask is not None:
        images = jnp.where(threat.expand("Threat.mask", model.mask, images) > 0, images, origin)
    return images, scale / jnp.cosh(clean_w + offset) ** 2


def _recorded(state: State, images: Images, margin: Array, adversary: Array) -> State:
    distance = jnp.where(adversary, threat.norm(images - state.origin)[:, 0, 0, 0], jnp.inf)
    none_yet = jnp.isinf(state.best_distance)
    better = (distance < state.best_distance) | (none_yet & (margin > state.best_margin))
    return state._replace(
        found=state.found | adversary,
        best_images=jnp.where(_wide(better), images, state.best_images),
        best_distance=jnp.where(better, distance, state.best_distance),
        best_margin=jnp.where(better, margin, state.best_margin),
    )


def _next_search(state: State) -> State:
    worked = jnp.where(state.found, jnp.minimum(state.worked, state.constant), state.worked)
    failed = jnp.where(state.found, state.failed, jnp.maximum(state.failed, state.constant))
    larger = jnp.minimum(GROWTH * state.constant, MOST)
    return state._replace(
        offset=jnp.zeros_like(state.offset),
        moments=rules.start("adam", state.origin),
        constant=jnp.where(jnp.isinf(worked), larger, (failed + worked) / 2),
        failed=failed,
        worked=worked,
        found=jnp.zeros_like(state.found),
    )


def _each(name: str, spec: CarliniWagner, images: Images) -> Array:
    """The field as one value an example."""
    value = threat.expand(f"CarliniWagner.{name}", getattr(spec, name), images)
    return jnp.broadcast_to(value, (images.shape[0], 1, 1, 1))[:, 0, 0, 0]


def _wide(values: Array) -> Array:
    return values[:, None, None, None]
