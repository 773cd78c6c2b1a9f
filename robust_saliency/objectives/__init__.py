"""Training regimes: ``config.objective.name`` chooses one; the training loop knows none of them."""

from robust_saliency.objectives.adversarial import Adversarial, adversarial
from robust_saliency.objectives.standard import Standard, standard
from robust_saliency.objectives.types import Objective

OBJECTIVES = {
    "adversarial": (Adversarial, adversarial),
    "standard": (Standard, standard),
}

__all__ = ["OBJECTIVES", "Adversarial", "Objective", "Standard", "adversarial", "standard"]
