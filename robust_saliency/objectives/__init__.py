"""Training regimes: ``config.objective.name`` chooses one; the training loop knows none of them."""

from robust_saliency.objectives.adversarial import Adversarial, adversarial
from robust_saliency.objectives.fgsm_rs import FGSMRS, fgsm_rs
from robust_saliency.objectives.grad_align import GradAlign, grad_align
from robust_saliency.objectives.gradient_penalty import GradientPenalty, gradient_penalty
from robust_saliency.objectives.mart import MART, mart
from robust_saliency.objectives.n_fgsm import NFGSM, n_fgsm
from robust_saliency.objectives.saliency_guided import SaliencyGuided, saliency_guided
from robust_saliency.objectives.standard import Standard, standard
from robust_saliency.objectives.trades import TRADES, trades
from robust_saliency.objectives.types import Objective

OBJECTIVES = {
    "adversarial": (Adversarial, adversarial),
    "fgsm_rs": (FGSMRS, fgsm_rs),
    "grad_align": (GradAlign, grad_align),
    "gradient_penalty": (GradientPenalty, gradient_penalty),
    "mart": (MART, mart),
    "n_fgsm": (NFGSM, n_fgsm),
    "saliency_guided": (SaliencyGuided, saliency_guided),
    "standard": (Standard, standard),
    "trades": (TRADES, trades),
}

__all__ = [
    "FGSMRS",
    "MART",
    "NFGSM",
    "OBJECTIVES",
    "TRADES",
    "Adversarial",
    "GradAlign",
    "GradientPenalty",
    "Objective",
    "SaliencyGuided",
    "Standard",
    "adversarial",
    "fgsm_rs",
    "grad_align",
    "gradient_penalty",
    "mart",
    "n_fgsm",
    "saliency_guided",
    "standard",
    "trades",
]
