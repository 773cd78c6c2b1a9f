"""Attacks: ``attack(loss_fn, key, images, spec) -> images``, each maximising ``loss_fn`` over its threat model.

And decisions: ``decide(logits_fn, key, images, labels, spec) -> AttackResult``, which say who was fooled.
"""

from robust_saliency.attacks.apgd import APGD, apgd
from robust_saliency.attacks.decisions import Targeted, Untargeted, targeted, untargeted
from robust_saliency.attacks.fgsm import FGSM, fgsm
from robust_saliency.attacks.iterated import Iterated
from robust_saliency.attacks.pgd import PGD, pgd
from robust_saliency.attacks.registry import ATTACKS, iterated, run
from robust_saliency.attacks.result import AttackResult

DECISIONS = {
    "targeted": (Targeted, targeted),
    "untargeted": (Untargeted, untargeted),
}

__all__ = [
    "APGD",
    "ATTACKS",
    "DECISIONS",
    "FGSM",
    "PGD",
    "AttackResult",
    "Iterated",
    "Targeted",
    "Untargeted",
    "apgd",
    "fgsm",
    "iterated",
    "pgd",
    "run",
    "targeted",
    "untargeted",
]
