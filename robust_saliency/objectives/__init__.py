"""Training regimes: ``config.objective.name`` chooses one; the training loop knows none of them.

``config.objective.wrappers`` names what stands around it.
"""

from robust_saliency.objectives.adversarial import Adversarial, adversarial
from robust_saliency.objectives.consistent import Consistent, consistent
from robust_saliency.objectives.free import Free, free
from robust_saliency.objectives.lesion_mask_control import LesionMaskControl, lesion_mask_control
from robust_saliency.objectives.scaat import SCAAT, scaat
from robust_saliency.objectives.standard import Standard, standard
from robust_saliency.objectives.types import Objective
from robust_saliency.objectives.wrappers import (
    AWP,
    WRAPPERS,
    AdaptiveEpsilon,
    CleanMix,
    adaptive_epsilon,
    awp,
    clean_mix,
    innermost,
)

OBJECTIVES = {
    "adversarial": (Adversarial, adversarial),
    "consistent": (Consistent, consistent),
    "free": (Free, free),
    "lesion_mask_control": (LesionMaskControl, lesion_mask_control),
    "scaat": (SCAAT, scaat),
    "standard": (Standard, standard),
}

__all__ = [
    "AWP",
    "OBJECTIVES",
    "SCAAT",
    "WRAPPERS",
    "AdaptiveEpsilon",
    "Adversarial",
    "CleanMix",
    "Consistent",
    "Free",
    "LesionMaskControl",
    "Objective",
    "Standard",
    "adaptive_epsilon",
    "adversarial",
    "awp",
    "clean_mix",
    "consistent",
    "free",
    "innermost",
    "lesion_mask_control",
    "scaat",
    "standard",
]
