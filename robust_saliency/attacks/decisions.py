"""Decision attacks from a maximiser and a loss: ``(logits_fn, key, images, labels, spec) -> AttackResult``.

APGD-CE is ``Untargeted(attack=APGD(...), loss="cross_entropy")``, APGD-DLR the same with ``loss="dlr"``, APGD-T
``Targeted(attack=APGD(...))``; with ``PGD`` in the place of ``APGD`` they are plain and targeted PGD.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from robust_saliency import checks, losses, randomness
from robust_saliency.attacks.apgd import APGD
from robust_saliency.attacks.fgsm import FGSM
from robust_saliency.attacks.pgd import PGD, clean
from robust_saliency.attacks.registry import run
from robust_saliency.attacks.result import AttackResult, judge
from robust_saliency.attacks.targets import likeliest_wrong, num_classes
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, spec

_TARGETED_LOSSES = {"dlr": losses.targeted_dlr, "margin": losses.targeted_margin}


@spec
class Untargeted:
    """``attack`` on one of 'cross_entropy', 'dlr' and 'margin'; with two classes 'dlr' is the margin."""

    attack: APGD | PGD | FGSM = APGD()
    loss: str = "cross_entropy"

    def __post_init__(self):
        checks.one_of("loss", self.loss, losses.LOSSES)


@spec
class Targeted:
    """``attack`` towards each of the ``num_targets`` most likely wrong classes; the strongest try is kept.

    loss: 'dlr', or 'margin' ``z_t - z_y``; with fewer than four classes 'dlr' is the margin. All wrong classes are
    targets where there are no more than ``num_targets``.
    """

    attack: APGD | PGD | FGSM = APGD()
    loss: str = "dlr"
    num_targets: int = 9

    def __post_init__(self):
        checks.one_of("loss", self.loss, _TARGETED_LOSSES)
        if self.num_targets < 1:
            raise ValueError(f"Targeted.num_targets must be at least 1, got {self.num_targets}.")


def untargeted(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: Untargeted) -> AttackResult:
    """The attack away from ``labels``."""
    loss = loss_of(spec, num_classes(logits_fn, images))
    tries = run(lambda x: loss(logits_fn(x), labels, None), key, images, spec.attack)
    return judge(logits_fn, tries, clean(images, spec.attack.threat), labels, spec.attack.threat, *spec.attack.passes)


def targeted(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: Targeted) -> AttackResult:
    """The attack towards the likeliest wrong classes of the clean images, all at once: the batch times the targets."""
    classes = num_classes(logits_fn, images)
    loss, num_targets = loss_of(spec, classes), min(spec.num_targets, classes - 1)
    origin = clean(images, spec.attack.threat)
    targets = likeliest_wrong(logits_fn(origin), labels, num_targets)

    def towards(key: Key, goal: Labels) -> tuple[Images, Array]:
        tries = run(lambda x: loss(logits_fn(x), labels, goal), key, images, spec.attack)
        return tries, losses.margin(logits_fn(tries), labels)

    tries, margins = jax.vmap(towards)(randomness.split(key, num_targets), targets.T)
    strongest = jnp.argmax(jnp.where(jnp.isnan(margins), -jnp.inf, margins), axis=0)
    best = jnp.take_along_axis(tries, strongest[None, :, None, None, None], axis=0)[0]
    forwards, backwards = spec.attack.passes
    forwards = 1 + num_targets * (forwards + 1)
    return judge(logits_fn, best, origin, labels, spec.attack.threat, forwards, num_targets * backwards)


def loss_of(spec: Untargeted | Targeted, classes: int) -> Callable[[Array, Labels, Labels | None], Array]:
    """``loss(logits, labels, targets) -> [B]`` that the maximiser of ``spec`` raises for a network of ``classes``."""
    if isinstance(spec, Targeted):
        return _TARGETED_LOSSES["margin" if classes < 4 else spec.loss]
    loss = losses.LOSSES["margin" if spec.loss == "dlr" and classes < 3 else spec.loss]
    return lambda logits, labels, targets: loss(logits, labels)
