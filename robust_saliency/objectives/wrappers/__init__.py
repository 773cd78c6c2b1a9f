"""Wrappers: what can stand around an objective, ``config.objective.wrappers``, each once, the first innermost.

name -> (Spec, wrap), ``wrap(objective) -> Objective``, whose spec is Spec with the objective's own in ``inner``.
"""

from robust_saliency.objectives.wrappers.adaptive_epsilon import AdaptiveEpsilon, adaptive_epsilon
from robust_saliency.objectives.wrappers.awp import AWP, awp
from robust_saliency.objectives.wrappers.clean_mix import CleanMix, clean_mix
from robust_saliency.objectives.wrappers.nesting import innermost, with_innermost

WRAPPERS = {
    "adaptive_epsilon": (AdaptiveEpsilon, adaptive_epsilon),
    "awp": (AWP, awp),
    "clean_mix": (CleanMix, clean_mix),
}

__all__ = [
    "AWP",
    "WRAPPERS",
    "AdaptiveEpsilon",
    "CleanMix",
    "adaptive_epsilon",
    "awp",
    "clean_mix",
    "innermost",
    "with_innermost",
]
