"""Decision attacks from a maximiser and a loss: ``(logits_fn, key, images, labels, spec) -> AttackResult``.

APGD-CE is ``Untargeted(attack=APGD(...), loss="cross_entropy")``, APGD-DLR the same with ``loss="dlr"``, APGD-T
``Targeted(attack=APGD(...))``; with ``PGD`` in the place of ``APGD`` they are plain and targeted PGD.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from robust_saliency import checks, losses, randomness
from robust_saliency.attacks import eot
from robust_saliency.attacks.apgd import APGD
from robust_saliency.attacks.fgsm import FGSM
from robust_saliency.attacks.fgsm_rs import FGSMRS
from robust_saliency.attacks.pgd import PGD, clean
from robust_saliency.attacks.registry import iterated, run
from robust_saliency.attacks.result import AttackResult, judge
from robust_saliency.attacks.targets import check, likeliest_wrong
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, spec

_TARGETED_LOSSES = {"dlr": losses.targeted_dlr, "margin": losses.targeted_margin}


@spec
class Untargeted:
    """``attack`` on one of 'cross_entropy', 'dlr' and 'margin'; with two classes 'dlr' is the margin.

    trace: the loss of each iterate is kept, for one more forward pass a step; of an attack in steps, without restarts.
    """

    attack: APGD | PGD | FGSM | FGSMRS = APGD()
    loss: str = "cross_entropy"
    trace: bool = False

    def __post_init__(self):
        checks.one_of("loss", self.loss, losses.LOSSES)
        if self.trace and (iterated(self.attack) is None or self.attack.num_restarts > 1):
            raise ValueError("Untargeted.trace needs an attack in steps, apgd or pgd, without restarts.")


@spec
class Targeted:
    """``attack`` towards each of the ``num_targets`` most likely wrong classes; the strongest try is kept.

    loss: 'dlr', or 'margin' ``z_t - z_y``; with fewer than four classes 'dlr' is the margin. All wrong classes are
    targets where there are no more than ``num_targets``.
    """

    attack: APGD | PGD | FGSM | FGSMRS = APGD()
    loss: str = "dlr"
    num_targets: int = 9

    def __post_init__(self):
        checks.one_of("loss", self.loss, _TARGETED_LOSSES)
        checks.at_least(1, num_targets=self.num_targets, where="Targeted")


def untargeted(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: Untargeted) -> AttackResult:
    """The attack away from ``labels``.

    Where ``spec.attack.eot_samples`` is not 0 the network is random, ``logits_fn(images, keys)`` with one key an
    example, and is judged by its mean probabilities (see :func:`robust_saliency.attacks.eot.judged`).
    """
    judged = eot.judged(logits_fn, key, len(images), _samples(spec))
    origin = clean(images, spec.attack.threat)
    loss = loss_of(spec, check(judged, origin, labels))

    def loss_fn(x: Images, *keys: Key) -> Array:
        return loss(logits_fn(x, *keys), labels, None)

    (forwards, backwards), trace = spec.attack.passes, None
    if spec.trace:
        plain = plain_loss_of(spec, check(judged, origin, labels))
        named = lambda x, *keys: plain(logits_fn(x, *keys), labels, None)  # noqa: E731
        tries, trace = _traced(loss_fn, named, key, origin, spec.attack)
        forwards += max(_samples(spec), 1) * spec.attack.num_steps
    else:
        tries = run(loss_fn, key, origin, spec.attack)
    return judge(judged, tries, origin, labels, spec.attack.threat, forwards, backwards)._replace(trace=trace)


def targeted(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: Targeted) -> AttackResult:
    """The attack towards the likeliest wrong classes of the clean images, all at once: the batch times the targets."""
    judged = eot.judged(logits_fn, key, len(images), _samples(spec))
    origin = clean(images, spec.attack.threat)
    classes = check(judged, origin, labels)
    loss, num_targets = loss_of(spec, classes), min(spec.num_targets, classes - 1)
    targets = likeliest_wrong(judged(origin), labels, num_targets)

    def towards(key: Key, goal: Labels) -> tuple[Images, Array]:
        tries = run(lambda x, *keys: loss(logits_fn(x, *keys), labels, goal), key, origin, spec.attack)
        return tries, losses.margin(judged(tries), labels)

    tries, margins = jax.vmap(towards)(randomness.split(key, num_targets), targets.T)
    strongest = jnp.argmax(jnp.where(jnp.isnan(margins), jnp.inf, margins), axis=0)
    best = jnp.take_along_axis(tries, strongest[None, :, None, None, None], axis=0)[0]
    forwards, backwards = spec.attack.passes
    forwards = 1 + num_targets * (forwards + 1)
    return judge(judged, best, origin, labels, spec.attack.threat, forwards, num_targets * backwards)


def loss_of(spec: Untargeted | Targeted, classes: int) -> Callable[[Array, Labels, Labels | None], Array]:
    """``loss(logits, labels, targets) -> [B]`` that the maximiser of ``spec`` raises for a network of ``classes``.

    A maximiser keeps the image of highest loss, of its iterates and of its restarts. With three classes or more an
    image that is classified rightly can have a higher cross-entropy, or targeted loss, than an adversary. So a constant
    is added for adversaries that lifts them above every other image; the gradient is as it was.
    """
    loss = plain_loss_of(spec, classes)

    def adversaries_first(logits: Array, labels: Labels, targets: Labels | None) -> Array:
        values, is_adversary = loss(logits, labels, targets), ~(losses.margin(logits, labels) < 0)
        if isinstance(spec, Untargeted) and spec.loss == "cross_entropy":
            lift = jnp.full_like(values, math.log(classes))  # the most that a right answer can have
        else:
            lift = jnp.maximum(-values, 0)  # a right answer is below 0
        return values + jax.lax.stop_gradient(jnp.where(is_adversary, lift, 0))

    return adversaries_first


def plain_loss_of(spec: Untargeted | Targeted, classes: int) -> Callable[[Array, Labels, Labels | None], Array]:
    """The loss as it is named."""
    if isinstance(spec, Targeted):
        return _TARGETED_LOSSES["margin" if classes < 4 else spec.loss]
    loss = losses.LOSSES["margin" if spec.loss == "dlr" and classes < 3 else spec.loss]
    return lambda logits, labels, targets: loss(logits, labels)


def _samples(spec: Untargeted | Targeted) -> int:
    return getattr(spec.attack, "eot_samples", 0)


def _traced(loss_fn: Callable, named: Callable, key: Key, origin: Images, attack: APGD | PGD) -> tuple[Images, Array]:
    """The result of ``attack``, and the loss ``named`` of the iterate after each of its steps, ``[B, num_steps]``."""
    pieces = iterated(attack)

    def step(state, _):
        state = pieces.advance(loss_fn, state, attack, 1)
        return state, pieces.seen(named, state, attack)(state.images)

    state, trace = jax.lax.scan(step, pieces.start(key, origin, attack), length=attack.num_steps)
    return pieces.finish(loss_fn, state, attack), trace.T
