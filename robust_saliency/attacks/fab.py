"""FAB (Croce and Hein 2020, 1907.02044): the adversary nearest to the image, from hyperplane to hyperplane."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import checks, losses, randomness, threat
from robust_saliency.attacks import hyperplane
from robust_saliency.attacks.hyperplane import Hyperplane
from robust_saliency.attacks.iterated import Iterated
from robust_saliency.attacks.pgd import clean
from robust_saliency.attacks.result import AttackResult, fooled, judge
from robust_saliency.attacks.targets import check, likeliest_wrong, num_classes
from robust_saliency.threat import Threat
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Scalar, spec


@spec
class FAB:
    """Steps onto the nearest linearised boundary, pulled towards the clean image.

    With d, e the least steps from the iterate x and from the clean image o onto the boundary inside the box, and a =
    ``min(|d| / (|d| + |e|), alpha_max)``: ``x <- clip((1 - a) (x + eta d) + a (o + eta e))``. If x is then an
    adversary, it is kept where it is the nearest so far, and ``x <- o + beta (x - o)``.

    threat: its epsilon does not steer the search, but bounds what is returned, and where restarts begin; it may be
        infinite.
    num_steps: per run. A step is two forward passes and, for K classes, K - 1 backward passes; one if targeted.
    targeted: one boundary instead of the nearest, a run for each of the ``num_targets`` likeliest wrong classes; any
        wrong class still counts. All wrong classes are targets where there are no more than ``num_targets``.
    num_restarts: runs for each target; the first from the clean image, the others from random points at half the
        distance of the nearest adversary so far or, if less, half of epsilon.
    unroll: as for PGD.

    Source: the paper and, for the nearest boundary (taken box aside) and the order within a step, the authors' code.
    As in AutoAttack the paper's final search, which comes nearer by the last half percent, is left out. Unlike there a
    step without a usable gradient moves nothing, and random points are drawn within mask and box.
    """

    threat: Threat = Threat()
    num_steps: int = 100
    targeted: bool = False
    num_targets: int = 9
    alpha_max: Scalar = 0.1
    eta: Scalar = 1.05
    beta: Scalar = 0.9
    num_restarts: int = 1
    unroll: bool = False

    def __post_init__(self):
        counts = {"num_steps": self.num_steps, "num_targets": self.num_targets, "num_restarts": self.num_restarts}
        checks.at_least(1, **counts, where="FAB")

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Forward and backward passes of an image."""
        num_targets = min(self.num_targets, num_classes - 1) if self.targeted else 1
        steps = num_targets * self.num_restarts * self.num_steps
        return self.targeted + 2 * steps + 2, steps * (1 if self.targeted else num_classes - 1)


class State(NamedTuple):
    """An attack between two steps; every leaf is per example, so that rows can be dropped and refilled.

    step: how many are done. targets: -1 where untargeted. best_*: the nearest adversary, at infinity where none is.
    """

    step: Array
    origin: Images
    images: Images
    labels: Labels
    targets: Labels
    best_images: Images
    best_distance: Array


def fab(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: FAB) -> AttackResult:
    """The attack away from ``labels``; with epsilon = inf ``distance`` is the least found."""
    origin = clean(images, spec.threat)
    classes = check(logits_fn, origin, labels)

    def attacked(key: Key, targets: Labels | None) -> State:
        def run(number, state):
            return advance(logits_fn, restart(randomness.fold_in(key, number), state, spec), spec, spec.num_steps)

        state = start(logits_fn, key, origin, labels, spec, targets)
        state = advance(logits_fn, state, spec, spec.num_steps)
        if spec.num_restarts == 1:
            return state
        return hyperplane.loop(1, spec.num_restarts, run, state, unroll=spec.unroll)

    if spec.targeted:
        targets = likeliest_wrong(logits_fn(origin), labels, min(spec.num_targets, classes - 1))
        state = _nearest(jax.vmap(attacked)(randomness.split(key, targets.shape[1]), targets.T))
    else:
        state = attacked(key, None)
    tries = finish(logits_fn, state, spec)
    return judge(logits_fn, tries, origin, labels, spec.threat, *spec.passes(classes))


def start(
    logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: FAB, targets: Labels | None = None
) -> State:
    """The state before the first step, at the clean images: ``key`` is for restarts and has no use here.

    targets: of a targeted attack; if None, the likeliest wrong classes.
    """
    origin = clean(images, spec.threat)
    if not spec.targeted:
        targets = jnp.full_like(labels, -1)
    elif targets is None:
        targets = likeliest_wrong(logits_fn(origin), labels, 1)[:, 0]
    return State(
        step=jnp.zeros_like(labels, jnp.int32),
        origin=origin,
        images=origin,
        labels=labels,
        targets=targets,
        best_images=origin,
        best_distance=jnp.full_like(jnp.sum(origin, axis=(1, 2, 3)), jnp.inf),
    )


def restart(key: Key, state: State, spec: FAB) -> State:
    """A further run from a random point; the nearest adversaries so far are kept."""
    model = bounded(spec.threat, state.origin)
    radius = jnp.minimum(threat.radius(model, state.origin), _wide(state.best_distance)) / 2
    images = threat.start(key, state.origin, dataclasses.replace(model, epsilon=radius), "sphere")
    return state._replace(step=jnp.zeros_like(state.step), images=images)


def advance(logits_fn: LogitsFn, state: State, spec: FAB, num_steps: int) -> State:
    """``num_steps`` further steps; an example that has done its ``spec.num_steps`` stays as it is."""
    return hyperplane.loop(0, num_steps, lambda _, state: _step(logits_fn, state, spec), state, unroll=spec.unroll)


def finish(logits_fn: LogitsFn, state: State, spec: FAB) -> Images:
    """The nearest adversary where it lies within epsilon.

    Elsewhere it and the last iterate are brought into the threat model, and the stronger of the two is returned: two
    forward passes.
    """
    best, last = (into(images, state.origin, spec.threat) for images in (state.best_images, state.images))
    best_margin, last_margin = (losses.margin(logits_fn(images), state.labels) for images in (best, last))
    done = jnp.isfinite(state.best_distance) & within(state.best_images, state.origin, spec.threat)
    is_last = ~done & (last_margin > best_margin)
    return jax.lax.stop_gradient(jnp.where(_wide(is_last), last, best))


PIECES = Iterated(start, advance, finish)


def bounded(model: Threat, images: Images) -> Threat:
    """``model`` with an epsilon that is finite, though none the smaller inside the box."""
    low, high = model.bounds
    widest = threat.norm(jnp.full_like(images, high - low), model.norm)
    return dataclasses.replace(model, epsilon=jnp.minimum(threat.radius(model, images), widest))


def within(images: Images, origin: Images, model: Threat) -> Array:
    """True where ``images`` lie within epsilon of ``origin``, bool ``[B]``."""
    epsilon = threat.radius(model, origin)
    if model.norm == "linf":
        return jnp.all(jnp.abs(images - origin) <= epsilon, axis=(1, 2, 3))
    return threat.distance(images, origin, model) <= epsilon[:, 0, 0, 0]


def into(images: Images, origin: Images, model: Threat) -> Images:
    """``images``, to the bit where they lie within epsilon of ``origin``, else projected into the threat model."""
    projected = threat.project(images, origin, bounded(model, origin))
    return jnp.where(_wide(within(images, origin, model)), images, projected)


def _step(logits_fn: LogitsFn, state: State, spec: FAB) -> State:
    active = state.step < spec.num_steps
    classes = state.targets[:, None] if spec.targeted else _wrong_classes(logits_fn, state)
    plane, _ = hyperplane.nearest(logits_fn, state.images, state.labels, classes, spec.threat, unroll=spec.unroll)
    moved = jnp.where(_wide(active), _moved(state, plane, spec), state.images)
    adversarial = active & fooled(logits_fn, moved, state.labels)
    far = threat.distance(moved, state.origin, spec.threat)
    closer = adversarial & (far < state.best_distance)
    beta = threat.expand("FAB.beta", spec.beta, moved)
    return state._replace(
        step=state.step + active,
        images=jnp.where(_wide(adversarial), state.origin + beta * (moved - state.origin), moved),
        best_images=jnp.where(_wide(closer), moved, state.best_images),
        best_distance=jnp.where(closer, far, state.best_distance),
    )


def _moved(state: State, plane: Hyperplane, spec: FAB) -> Images:
    """The iterate after a step; without a usable gradient it stays."""
    eta, alpha_max = (threat.expand(f"FAB.{n}", getattr(spec, n), state.images) for n in ("eta", "alpha_max"))
    offset = jnp.sum(plane.normal * (state.images - state.origin), axis=(1, 2, 3))

    def step_from(images, gap):
        return hyperplane.least_step(images, Hyperplane(plane.normal, gap), spec.threat)

    points, gaps = jnp.stack([state.images, state.origin]), jnp.stack([plane.gap, plane.gap + offset])
    step, from_origin = jax.vmap(step_from)(points, gaps)
    length, length_from_origin = (threat.norm(d, spec.threat.norm) for d in (step, from_origin))
    both = length + length_from_origin
    alpha = jnp.minimum(length / jnp.where(both > 0, both, 1), alpha_max)
    free, biased = state.images + eta * step, state.origin + eta * from_origin
    # Exact where the two agree, as on pixels that may not change.
    moved = jnp.clip(free + alpha * (biased - free), *spec.threat.bounds)
    usable = jnp.isfinite(hyperplane.distance(plane, spec.threat))
    return jnp.where(_wide(usable), moved, state.images)


def _wrong_classes(logits_fn: LogitsFn, state: State) -> Array:
    others = jnp.arange(num_classes(logits_fn, state.images) - 1, dtype=state.labels.dtype)[None]
    return others + (others >= state.labels[:, None])


def _nearest(states: State) -> State:
    """Of states ``[T, B, ...]`` for each example that with the nearest adversary."""
    nearest = jnp.argmin(states.best_distance, axis=0)

    def pick(leaf):
        return jnp.take_along_axis(leaf, nearest.reshape(1, -1, *[1] * (leaf.ndim - 2)), axis=0)[0]

    return jax.tree.map(pick, states)


def _wide(values: Array) -> Array:
    return values[:, None, None, None]
