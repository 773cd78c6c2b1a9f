"""Metrics: pure functions that judge a network or its maps, per example ``[B]`` or as a curve ``[B, points]``.

``METRICS`` holds ``name -> (Spec, function, needs)``; a metric is called as ``function(*needed, spec)`` with ``needs``
in the order of :data:`ARGUMENTS`, which :func:`run` does. A spec also carries the facts that a table needs, on the
class for the defaults and on an instance for its options: ``title``, ``direction`` ('higher', 'lower' or 'none' is
better), ``range`` (low, high), and the first line of its docstring as the definition. NaN means "no meaning here" (an
empty mask, a zero map): leave those out of means, and state :func:`count_nan`.

Not in ``METRICS``, since they need what is in no evaluation: the similarities of two maps (``SIMILARITIES``),
:func:`parameter_randomisation`, of two sets of weights, and :func:`input_invariance`, of two networks.
"""

import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.metrics import blind
from robust_saliency.metrics.accuracy import (
    Accuracy,
    Confidence,
    Margin,
    confidence,
    correct,
    image_accuracy,
    image_confidence,
    image_margin,
    margin,
)
from robust_saliency.metrics.faithfulness import (
    Deletion,
    Insertion,
    auc,
    deletion_auc,
    deletion_curve,
    fractions,
    insertion_auc,
    insertion_curve,
    rank_order,
)
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
from robust_saliency.metrics.noise import Noise, NoisyMaps, noisy_logits, noisy_maps
from robust_saliency.metrics.random_logit import RandomLogit, random_logit
from robust_saliency.metrics.randomisation import (
    ParameterRandomisation,
    parameter_randomisation,
    parameter_randomisation_of,
    randomised_maps,
)
from robust_saliency.metrics.relative_stability import (
    RelativeInputStability,
    RelativeOutputStability,
    relative_input_stability,
    relative_input_stability_of,
    relative_output_stability,
    relative_output_stability_of,
)
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
from robust_saliency.metrics.smoothness import TotalVariation, total_variation
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
from robust_saliency.types import Array

ARGUMENTS = ("logits_fn", "saliency_fn", "key", "images", "labels", "maps", "masks")

_PERTURBED = ("logits_fn", "key", "images", "labels", "maps")
_EXPLAINED = ("saliency_fn", "key", "images", "labels", "maps")
_BOTH = ("logits_fn", *_EXPLAINED)

METRICS = {
    "accuracy": (Accuracy, image_accuracy, ("logits_fn", "images", "labels")),
    "confidence": (Confidence, image_confidence, ("logits_fn", "images")),
    "margin": (Margin, image_margin, ("logits_fn", "images", "labels")),
    "gini": (Gini, gini, ("maps",)),
    "entropy": (Entropy, entropy, ("maps",)),
    "total_variation": (TotalVariation, total_variation, ("maps",)),
    "pointing_game": (PointingGame, pointing_game, ("maps", "masks")),
    "relevance_mass": (RelevanceMass, relevance_mass, ("maps", "masks")),
    "evidence_given_lesion": (RelevanceMassGiven, relevance_mass_given, ("maps", "masks")),
    "rank_accuracy": (RankAccuracy, rank_accuracy, ("maps", "masks")),
    "deletion_auc": (Deletion, deletion_auc, _PERTURBED),
    "insertion_auc": (Insertion, insertion_auc, _PERTURBED),
    "noise_stability": (NoiseStability, noise_stability, _EXPLAINED),
    "max_sensitivity": (MaxSensitivity, max_sensitivity, _EXPLAINED),
    "average_sensitivity": (AverageSensitivity, average_sensitivity, _EXPLAINED),
    "relative_input_stability": (RelativeInputStability, relative_input_stability, _BOTH),
    "relative_output_stability": (RelativeOutputStability, relative_output_stability, _BOTH),
    "random_logit": (RandomLogit, random_logit, _BOTH),
}


def run(spec, **available) -> Array:
    """The metric that ``spec`` describes, on those of the ``available`` arguments that it needs.

    ValueError for a spec of no metric, an argument of no metric, or a needed argument that is missing or None.
    """
    for name in available:
        checks.one_of("metric argument", name, ARGUMENTS)
    for name, (known, function, needs) in METRICS.items():
        if type(spec) is known:
            missing = [need for need in needs if available.get(need) is None]
            if missing:
                raise ValueError(f"Metric {name!r} needs {', '.join(missing)}; given: {', '.join(available)}.")
            return function(*(available[need] for need in needs), spec)
    raise ValueError(f"No metric has the spec {type(spec).__name__}. Choices: {', '.join(sorted(METRICS))}.")


def count_nan(values: Array) -> Array:
    """How many examples of a metric ``[B]`` or a curve ``[B, points]`` are NaN: int32, to be stated beside the mean."""
    examples = jnp.isnan(values.reshape(values.shape[0], -1))
    return jnp.sum(jnp.any(examples, axis=-1), dtype=jnp.int32)


__all__ = [
    "ARGUMENTS",
    "METRICS",
    "SIMILARITIES",
    "SSIM",
    "Accuracy",
    "AverageSensitivity",
    "CentreShift",
    "Confidence",
    "Deletion",
    "Entropy",
    "Gini",
    "InputInvariance",
    "Insertion",
    "Kendall",
    "Margin",
    "MaxSensitivity",
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
    "Spearman",
    "TopK",
    "TotalVariation",
    "auc",
    "average_sensitivity",
    "average_sensitivity_of",
    "blind",
    "centre_shift",
    "confidence",
    "correct",
    "count_nan",
    "deletion_auc",
    "deletion_curve",
    "entropy",
    "fractions",
    "gini",
    "input_invariance",
    "insertion_auc",
    "insertion_curve",
    "kendall",
    "margin",
    "max_sensitivity",
    "max_sensitivity_of",
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
    "run",
    "spearman",
    "ssim",
    "top_k_intersection",
    "total_variation",
]
