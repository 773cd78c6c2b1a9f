"""Training regimes: ``config.objective.name`` chooses one; the training loop knows none of them."""

from robust_saliency.objectives.adversarial import Adversarial, adversarial
from robust_saliency.objectives.lesion_mask_control import LesionMaskControl, lesion_mask_control
from robust_saliency.objectives.scaat import SCAAT, scaat
from robust_saliency.objectives.standard import Standard, standard
from robust_saliency.objectives.types import Objective

OBJECTIVES = {
    "adversarial": (Adversarial, adversarial),
    "lesion_mask_control": (LesionMaskControl, lesion_mask_control),
    "scaat": (SCAAT, scaat),
    "standard": (Standard, standard),
}

__all__ = [
    "OBJECTIVES",
    "SCAAT",
    "Adversarial",
    "LesionMaskControl",
    "Objective",
    "Standard",
    "adversarial",
    "lesion_mask_control",
    "scaat",
    "standard",
]
