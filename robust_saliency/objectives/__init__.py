"""Training regimes: ``config.objective.name`` chooses one; the training loop knows none of them."""

from robust_saliency.objectives.adversarial import Adversarial, adversarial
from robust_saliency.objectives.free import Free, free
from robust_saliency.objectives.standard import Standard, standard
from robust_saliency.objectives.types import Objective

OBJECTIVES = {
    "adversarial": (Adversarial, adversarial),
    "free": (Free, free),
    "standard": (Standard, standard),
}

__all__ = ["OBJECTIVES", "Adversarial", "Free", "Objective", "Standard", "adversarial", "free", "standard"]
