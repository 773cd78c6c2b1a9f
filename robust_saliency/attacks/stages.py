"""A decision attack as stages: tries at many examples, from which those that are fooled can be dropped.

Every leaf of a state has the batch axis first, also the count of steps, so a host loop may take a fooled example out of
its row and put another in, and one compiled program of one batch size serves a whole data set.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from robust_saliency.attacks.autoattack import AutoAttack, cascade
from robust_saliency.attacks.decisions import Targeted, Untargeted, loss_of
from robust_saliency.attacks.fab import FAB
from robust_saliency.attacks.fab import PIECES as BOUNDARY
from robust_saliency.attacks.pgd import clean
from robust_saliency.attacks.registry import iterated
from robust_saliency.attacks.square import PIECES as SQUARE
from robust_saliency.attacks.square import Square
from robust_saliency.attacks.targets import likeliest_wrong, num_classes
from robust_saliency.threat import Threat
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn


class Stage(NamedTuple):
    """One try at every example.

    name: in words. spec: the attack. rank: of the wrong class that it aims at, 0 the one of largest clean logit; not
    read where it is untargeted. num_steps; forwards, backwards: passes a step.
    """

    name: str
    spec: Any
    rank: int
    num_steps: int
    forwards: int
    backwards: int


class Aimed(NamedTuple):
    """A maximiser between two steps, and what it is aimed at."""

    inner: Any
    labels: Labels
    targets: Labels


def stages(spec: Any, classes: int) -> tuple[Stage, ...]:
    """The stages of the decision attack ``spec`` on a network of so many classes; () for an attack in one piece.

    In one piece are FAB with restarts, which begin where the last run ended, a maximiser that makes no step, and what
    attacks a random network or keeps a trace.
    """
    if isinstance(spec, AutoAttack):
        return tuple(stage for part in cascade(spec) for stage in stages(part, classes))
    ranks = range(min(spec.num_targets, classes - 1)) if _is_targeted(spec) else range(1)
    if isinstance(spec, Square):
        return (Stage("square", spec, 0, spec.num_steps, 1, 0),)
    if isinstance(spec, FAB) and spec.num_restarts == 1:
        name, backwards = ("fab-t", 1) if spec.targeted else ("fab", classes - 1)
        return tuple(Stage(_name(name, spec, rank), spec, rank, spec.num_steps, 2, backwards) for rank in ranks)
    if isinstance(spec, Untargeted | Targeted) and _has_steps(spec):
        attack = type(spec.attack).__name__.lower()
        name = f"{attack}-t" if _is_targeted(spec) else f"{attack}-{_SHORT[spec.loss]}"
        runs = spec.attack.num_restarts
        return tuple(Stage(_name(name, spec, rank), spec, rank, spec.attack.num_steps, runs, runs) for rank in ranks)
    return ()


_SHORT = {"cross_entropy": "ce", "dlr": "dlr", "margin": "margin"}


def start(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: Any, rank: Array) -> Any:
    """The state of a stage before its first step; ``rank`` may be traced: one program for all targets.

    key: one an example, of threefry; JAX draws a batch of another kind from its first key.
    """
    targets = labels
    if _is_targeted(spec):
        count = min(spec.num_targets, num_classes(logits_fn, images) - 1)
        wrong = likeliest_wrong(logits_fn(clean(images, threat_of(spec))), labels, count)
        targets = jnp.take_along_axis(wrong, jnp.full((len(labels), 1), rank), axis=1)[:, 0]
    if isinstance(spec, Square):
        return SQUARE.start(logits_fn, key, images, labels, spec)
    if isinstance(spec, FAB):
        return BOUNDARY.start(logits_fn, key, images, labels, spec, targets)
    return Aimed(iterated(spec.attack).start(key, images, spec.attack), labels, targets)


def advance(logits_fn: LogitsFn, state: Any, spec: Any, num_steps: int) -> Any:
    """``num_steps`` further steps."""
    if not isinstance(spec, Untargeted | Targeted):
        return _PIECES[type(spec)].advance(logits_fn, state, spec, num_steps)
    loss_fn = _loss_fn(logits_fn, state, spec)
    return state._replace(inner=iterated(spec.attack).advance(loss_fn, state.inner, spec.attack, num_steps))


def finish(logits_fn: LogitsFn, state: Any, spec: Any) -> Images:
    """The strongest try, inside the threat model."""
    if not isinstance(spec, Untargeted | Targeted):
        return _PIECES[type(spec)].finish(logits_fn, state, spec)
    return iterated(spec.attack).finish(_loss_fn(logits_fn, state, spec), state.inner, spec.attack)


_PIECES = {FAB: BOUNDARY, Square: SQUARE}


def steps_at_once(num_steps: int, most: int) -> int:
    """The largest divisor of ``num_steps`` up to ``most``: steps after which the fooled are dropped."""
    return max(size for size in range(1, min(most, max(num_steps, 1)) + 1) if math.gcd(size, num_steps) == size)


def threat_of(spec: Any) -> Threat:
    """The threat model of a decision attack."""
    return spec.attack.threat if isinstance(spec, Untargeted | Targeted) else spec.threat


def _has_steps(spec: Untargeted | Targeted) -> bool:
    attack = spec.attack
    staged = iterated(attack) is not None and attack.num_steps > 0 and not attack.eot_samples
    return staged and not getattr(spec, "trace", False)


def _is_targeted(spec: Any) -> bool:
    return isinstance(spec, Targeted) or (isinstance(spec, FAB) and spec.targeted)


def _name(name: str, spec: Any, rank: int) -> str:
    return f"{name} target {rank + 1}" if _is_targeted(spec) else name


def _loss_fn(logits_fn: LogitsFn, state: Aimed, spec: Untargeted | Targeted) -> Callable[[Images], Array]:
    def loss_fn(images: Images) -> Array:
        logits = logits_fn(images)
        return loss_of(spec, logits.shape[-1])(logits, state.labels, state.targets)

    return loss_fn
