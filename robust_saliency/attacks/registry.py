"""The maximisers by name: ``attack(loss_fn, key, images, spec) -> images``."""

from robust_saliency.attacks.apgd import APGD, apgd
from robust_saliency.attacks.apgd import PIECES as APGD_PIECES
from robust_saliency.attacks.fgsm import FGSM, fgsm
from robust_saliency.attacks.fgsm_rs import FGSMRS, fgsm_rs
from robust_saliency.attacks.iterated import Iterated
from robust_saliency.attacks.pgd import PGD, pgd
from robust_saliency.attacks.pgd import PIECES as PGD_PIECES
from robust_saliency.types import Images, Key, LossFn

ATTACKS = {
    "apgd": (APGD, apgd),
    "fgsm": (FGSM, fgsm),
    "fgsm_rs": (FGSMRS, fgsm_rs),
    "pgd": (PGD, pgd),
}

# Spec -> pieces, for attacks that have them.
ITERATED = {APGD: APGD_PIECES, PGD: PGD_PIECES}


def run(loss_fn: LossFn, key: Key, images: Images, spec) -> Images:
    """Runs the attack that ``spec`` describes."""
    for known, attack in ATTACKS.values():
        if type(spec) is known:
            return attack(loss_fn, key, images, spec)
    raise ValueError(f"No attack has the spec {type(spec).__name__}. Choices: {', '.join(sorted(ATTACKS))}.")


def iterated(spec) -> Iterated | None:
    """The pieces of the attack that ``spec`` describes; None for an attack that is one piece."""
    return ITERATED.get(type(spec))
