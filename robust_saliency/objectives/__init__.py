"""Training regimes: ``config.objective.name`` chooses one; the training loop knows none of them.

``config.objective.wrappers`` names what stands around it.
"""

from robust_saliency.objectives.adversarial import Adversarial, adversarial
from robust_saliency.objectives.consistent import Consistent, consistent
from robust_saliency.objectives.fgsm_rs import FGSMRS, fgsm_rs
from robust_saliency.objectives.free import Free, free
from robust_saliency.objectives.grad_align import GradAlign, grad_align
from robust_saliency.objectives.gradient_penalty import GradientPenalty, gradient_penalty
from robust_saliency.objectives.lesion_mask_control import LesionMaskControl, lesion_mask_control
from robust_saliency.objectives.mart import MART, mart
from robust_saliency.objectives.n_fgsm import NFGSM, n_fgsm
from robust_saliency.objectives.random_mask_control import RandomMaskControl, random_mask_control
from robust_saliency.objectives.saliency_guided import SaliencyGuided, saliency_guided
from robust_saliency.objectives.scaat import SCAAT, scaat
from robust_saliency.objectives.standard import Standard, standard
from robust_saliency.objectives.trades import TRADES, trades
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
    "fgsm_rs": (FGSMRS, fgsm_rs),
    "free": (Free, free),
    "grad_align": (GradAlign, grad_align),
    "gradient_penalty": (GradientPenalty, gradient_penalty),
    "lesion_mask_control": (LesionMaskControl, lesion_mask_control),
    "mart": (MART, mart),
    "n_fgsm": (NFGSM, n_fgsm),
    "random_mask_control": (RandomMaskControl, random_mask_control),
    "saliency_guided": (SaliencyGuided, saliency_guided),
    "scaat": (SCAAT, scaat),
    "standard": (Standard, standard),
    "trades": (TRADES, trades),
}

__all__ = [
    "AWP",
    "FGSMRS",
    "MART",
    "NFGSM",
    "OBJECTIVES",
    "SCAAT",
    "TRADES",
    "WRAPPERS",
    "AdaptiveEpsilon",
    "Adversarial",
    "CleanMix",
    "Consistent",
    "Free",
    "GradAlign",
    "GradientPenalty",
    "LesionMaskControl",
    "Objective",
    "RandomMaskControl",
    "SaliencyGuided",
    "Standard",
    "adaptive_epsilon",
    "adversarial",
    "awp",
    "clean_mix",
    "consistent",
    "fgsm_rs",
    "free",
    "grad_align",
    "gradient_penalty",
    "innermost",
    "lesion_mask_control",
    "mart",
    "n_fgsm",
    "random_mask_control",
    "saliency_guided",
    "scaat",
    "standard",
    "trades",
]
