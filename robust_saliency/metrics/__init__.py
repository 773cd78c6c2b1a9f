"""Metrics: pure functions that judge a network or its maps, per example ``[B]`` or as a curve ``[B, points]``.

``METRICS`` holds ``name -> (Spec, function, needs)``; a metric is called as ``function(*needed, spec)`` with ``needs``
in the order of :data:`ARGUMENTS`, which :func:`run` does. A spec also carries the facts that a table needs, on the
class for the defaults and on an instance for its options: ``title``, ``direction`` ('higher', 'lower' or 'none' is
better), ``range`` (low, high), ``ties`` where an order of the pixels is read (what becomes of equal ones), and the
first line of its docstring as the definition. NaN means "no meaning here" (an empty mask, a zero map): leave those out
of means, and state :func:`count_nan`. ValueError of one sentence for images that are not floats ``[B, H, W, C]``, for
maps, masks or labels that are not those of the images, and, outside of a traced program, where values can be seen, for
masks that are not 0 or 1 and labels that are no class.

Not in ``METRICS``, since they need what is in no evaluation: the similarities of two maps (``SIMILARITIES``),
:func:`parameter_randomisation`, of two sets of weights, and :func:`input_invariance`, of two networks. On images of
:func:`remove_pixels` new networks are trained (ROAR, KAR).
"""

import jax.numpy as jnp

from robust_saliency.metrics import blind
from robust_saliency.metrics.accuracy import (
    Accuracy,
    Confidence,
    Margin,
    confidence,
    correct,
    margin,
)
from robust_saliency.metrics.alignment import Alignment, alignment
from robust_saliency.metrics.allegiance import Allegiance, allegiance_auc, allegiance_curve
from robust_saliency.metrics.attack_stability import AttackStability, ExplanationAttack, attack_stability
from robust_saliency.metrics.colour import ColourAgreement, colour_agreement, colour_variation
from robust_saliency.metrics.completeness import Completeness, completeness
from robust_saliency.metrics.complexity import EffectiveComplexity, effective_complexity
from robust_saliency.metrics.faithfulness import (
    Deletion,
    Insertion,
    auc,
    deletion_auc,
    deletion_curve,
    fractions,
    insertion_auc,
    insertion_curve,
)
from robust_saliency.metrics.infidelity import Infidelity, infidelity
from robust_saliency.metrics.input_invariance import InputInvariance, input_invariance
from robust_saliency.metrics.localisation import (
    PointingGame,
    RankAccuracy,
    RelevanceMass,
    RelevanceMassGiven,
    pointing_game,
    rank_accuracy,
    relevance_mass,
    relevance_mass_given,
)
from robust_saliency.metrics.monotonicity import Monotonicity, monotonicity
from robust_saliency.metrics.noise import Noise, NoisyMaps, noisy_logits, noisy_maps
from robust_saliency.metrics.perturbed import rank_order
from robust_saliency.metrics.random_logit import RandomLogit, random_logit
from robust_saliency.metrics.randomisation import (
    ParameterRandomisation,
    parameter_randomisation,
    parameter_randomisation_of,
    randomised_maps,
)
from robust_saliency.metrics.registry import ARGUMENTS, METRICS, run
from robust_saliency.metrics.relative_stability import (
    RelativeInputStability,
    RelativeOutputStability,
    relative_input_stability,
    relative_input_stability_of,
    relative_output_stability,
    relative_output_stability_of,
)
from robust_saliency.metrics.reliance import MaskReliance, mask_reliance
from robust_saliency.metrics.removal import REMOVALS, Removal, remove_pixels, removed_pixels
from robust_saliency.metrics.road import Road, road, road_curve
from robust_saliency.metrics.sharing import count_runs, curve_fractions, measure
from robust_saliency.metrics.similarity import (
    SIMILARITIES,
    SSIM,
    CentreShift,
    Kendall,
    Spearman,
    TopK,
    centre_shift,
    kendall,
    spearman,
    ssim,
    top_k_intersection,
)
from robust_saliency.metrics.smoothness import Smoothness, TotalVariation, smoothness, total_variation
from robust_saliency.metrics.sparsity import Entropy, Gini, entropy, gini, relevance
from robust_saliency.metrics.stability import (
    AverageSensitivity,
    MaxSensitivity,
    NoiseStability,
    average_sensitivity,
    average_sensitivity_of,
    max_sensitivity,
    max_sensitivity_of,
    noise_stability,
    noise_stability_of,
)
from robust_saliency.metrics.subsets import FaithfulnessCorrelation, faithfulness_correlation
from robust_saliency.metrics.thresholds import BestIoU, MaskAUC, best_iou, mask_auc
from robust_saliency.types import Array


def count_nan(values: Array) -> Array:
    """How many examples of a metric ``[B]`` or a curve ``[B, points]`` are NaN: int32, to be stated beside the mean."""
    examples = jnp.isnan(values.reshape(values.shape[0], -1))
    return jnp.sum(jnp.any(examples, axis=-1), dtype=jnp.int32)


__all__ = [
    "ARGUMENTS",
    "METRICS",
    "REMOVALS",
    "SIMILARITIES",
    "SSIM",
    "Accuracy",
    "Alignment",
    "Allegiance",
    "AttackStability",
    "AverageSensitivity",
    "BestIoU",
    "CentreShift",
    "ColourAgreement",
    "Completeness",
    "Confidence",
    "Deletion",
    "EffectiveComplexity",
    "Entropy",
    "ExplanationAttack",
    "FaithfulnessCorrelation",
    "Gini",
    "Infidelity",
    "InputInvariance",
    "Insertion",
    "Kendall",
    "Margin",
    "MaskAUC",
    "MaskReliance",
    "MaxSensitivity",
    "Monotonicity",
    "Noise",
    "NoiseStability",
    "NoisyMaps",
    "ParameterRandomisation",
    "PointingGame",
    "RandomLogit",
    "RankAccuracy",
    "RelativeInputStability",
    "RelativeOutputStability",
    "RelevanceMass",
    "RelevanceMassGiven",
    "Removal",
    "Road",
    "Smoothness",
    "Spearman",
    "TopK",
    "TotalVariation",
    "alignment",
    "allegiance_auc",
    "allegiance_curve",
    "attack_stability",
    "auc",
    "average_sensitivity",
    "average_sensitivity_of",
    "best_iou",
    "blind",
    "centre_shift",
    "colour_agreement",
    "colour_variation",
    "completeness",
    "confidence",
    "correct",
    "count_nan",
    "count_runs",
    "curve_fractions",
    "deletion_auc",
    "deletion_curve",
    "effective_complexity",
    "entropy",
    "faithfulness_correlation",
    "fractions",
    "gini",
    "infidelity",
    "input_invariance",
    "insertion_auc",
    "insertion_curve",
    "kendall",
    "margin",
    "mask_auc",
    "mask_reliance",
    "max_sensitivity",
    "max_sensitivity_of",
    "measure",
    "monotonicity",
    "noise_stability",
    "noise_stability_of",
    "noisy_logits",
    "noisy_maps",
    "parameter_randomisation",
    "parameter_randomisation_of",
    "pointing_game",
    "random_logit",
    "randomised_maps",
    "rank_accuracy",
    "rank_order",
    "relative_input_stability",
    "relative_input_stability_of",
    "relative_output_stability",
    "relative_output_stability_of",
    "relevance",
    "relevance_mass",
    "relevance_mass_given",
    "remove_pixels",
    "removed_pixels",
    "road",
    "road_curve",
    "run",
    "smoothness",
    "spearman",
    "ssim",
    "top_k_intersection",
    "total_variation",
]
