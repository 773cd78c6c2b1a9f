"""Attacks: ``attack(loss_fn, key, images, spec) -> images``, each maximising ``loss_fn`` over its threat model.

And decisions: ``decide(logits_fn, key, images, labels, spec) -> AttackResult``, which say who was fooled.
"""

from typing import Any

from robust_saliency.attacks.apgd import APGD, apgd
from robust_saliency.attacks.autoattack import AutoAttack, autoattack
from robust_saliency.attacks.carlini_wagner import CarliniWagner, carlini_wagner
from robust_saliency.attacks.decisions import Targeted, Untargeted, targeted, untargeted
from robust_saliency.attacks.deepfool import DeepFool, deepfool
from robust_saliency.attacks.ensemble import EnsembleOptimisation, ensemble_optimisation
from robust_saliency.attacks.fab import FAB, fab
from robust_saliency.attacks.fgsm import FGSM, fgsm
from robust_saliency.attacks.fgsm_rs import FGSMRS, fgsm_rs
from robust_saliency.attacks.iterated import Iterated
from robust_saliency.attacks.minimal import minimal_epsilon
from robust_saliency.attacks.pgd import PGD, pgd
from robust_saliency.attacks.registry import ATTACKS, iterated, run
from robust_saliency.attacks.result import AttackResult
from robust_saliency.attacks.square import Square, square
from robust_saliency.types import Images, Key, Labels, LogitsFn


def decide(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: Any) -> AttackResult:
    """The decision attack whose spec ``spec`` is: who of ``images`` can be fooled, and by which image."""
    for Spec, function in DECISIONS.values():
        if type(spec) is Spec:
            return function(logits_fn, key, images, labels, spec)
    choices = ", ".join(sorted(Spec.__name__ for Spec, _ in DECISIONS.values()))
    raise ValueError(f"attacks.decide takes a spec of type {choices}, got {type(spec).__name__}; see attacks.run.")


DECISIONS = {
    "autoattack": (AutoAttack, autoattack),
    "carlini_wagner": (CarliniWagner, carlini_wagner),
    "deepfool": (DeepFool, deepfool),
    "fab": (FAB, fab),
    "square": (Square, square),
    "targeted": (Targeted, targeted),
    "untargeted": (Untargeted, untargeted),
}

__all__ = [
    "APGD",
    "ATTACKS",
    "DECISIONS",
    "FAB",
    "FGSM",
    "FGSMRS",
    "PGD",
    "AttackResult",
    "AutoAttack",
    "CarliniWagner",
    "DeepFool",
    "EnsembleOptimisation",
    "Iterated",
    "Square",
    "Targeted",
    "Untargeted",
    "apgd",
    "autoattack",
    "carlini_wagner",
    "decide",
    "deepfool",
    "ensemble_optimisation",
    "fab",
    "fgsm",
    "fgsm_rs",
    "iterated",
    "minimal_epsilon",
    "pgd",
    "run",
    "square",
    "targeted",
    "untargeted",
]
