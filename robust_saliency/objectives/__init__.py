"""Training regimes: ``config.objective.name`` chooses one; the training loop knows none of them.

``config.objective.wrappers`` names what stands around it.
"""

from robust_saliency.objectives.adversarial import Adversarial, adversarial
from robust_saliency.objectives.consistent import Consistent, consistent
from robust_saliency.objectives.free import Free, free
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
    "standard": (Standard, standard),
}

__all__ = [
    "AWP",
    "OBJECTIVES",
    "WRAPPERS",
    "AdaptiveEpsilon",
    "Adversarial",
    "CleanMix",
    "Consistent",
    "Free",
    "Objective",
    "Standard",
    "adaptive_epsilon",
    "adversarial",
    "awp",
    "clean_mix",
    "consistent",
    "free",
    "innermost",
    "standard",
]
