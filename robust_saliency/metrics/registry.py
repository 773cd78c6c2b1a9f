"""The metrics by name, and how one is called."""

from robust_saliency import checks
from robust_saliency.metrics.accuracy import (
    Accuracy,
    Confidence,
    Margin,
    image_accuracy,
    image_confidence,
    image_margin,
)
from robust_saliency.metrics.alignment import Alignment, alignment
from robust_saliency.metrics.allegiance import Allegiance, allegiance_auc
from robust_saliency.metrics.attack_stability import AttackStability, attack_stability
from robust_saliency.metrics.colour import ColourAgreement, colour_agreement
from robust_saliency.metrics.completeness import Completeness, completeness
from robust_saliency.metrics.complexity import EffectiveComplexity, effective_complexity
from robust_saliency.metrics.faithfulness import (
    Deletion,
    Insertion,
    deletion_auc,
    insertion_auc,
)
from robust_saliency.metrics.infidelity import Infidelity, infidelity
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
from robust_saliency.metrics.random_logit import RandomLogit, random_logit
from robust_saliency.metrics.relative_stability import (
    RelativeInputStability,
    RelativeOutputStability,
    relative_input_stability,
    relative_output_stability,
)
from robust_saliency.metrics.reliance import MaskReliance, mask_reliance
from robust_saliency.metrics.road import Road, road
from robust_saliency.metrics.smoothness import Smoothness, TotalVariation, smoothness, total_variation
from robust_saliency.metrics.sparsity import Entropy, Gini, entropy, gini
from robust_saliency.metrics.stability import (
    AverageSensitivity,
    MaxSensitivity,
    NoiseStability,
    average_sensitivity,
    max_sensitivity,
    noise_stability,
)
from robust_saliency.metrics.subsets import FaithfulnessCorrelation, faithfulness_correlation
from robust_saliency.metrics.thresholds import BestIoU, MaskAUC, best_iou, mask_auc
from robust_saliency.types import Array

# What a metric may ask for: logits_fn(images); saliency_fn(key, images, labels) -> maps, the method that is judged;
# attacked_fn(attack) -> images under that ExplanationAttack; key, for what the metric draws; map_key, with which the
# maps were made; images, labels (the class that is explained), maps; masks by name.
ARGUMENTS = ("logits_fn", "saliency_fn", "attacked_fn", "key", "map_key", "images", "labels", "maps", "masks")

_PERTURBED = ("logits_fn", "key", "images", "labels", "maps")
_EXPLAINED = ("saliency_fn", "key", "images", "labels", "maps")
_ATTACKED = ("saliency_fn", "attacked_fn", "map_key", "labels", "maps")
_BOTH = ("logits_fn", *_EXPLAINED)

METRICS = {
    "accuracy": (Accuracy, image_accuracy, ("logits_fn", "images", "labels")),
    "confidence": (Confidence, image_confidence, ("logits_fn", "images")),
    "margin": (Margin, image_margin, ("logits_fn", "images", "labels")),
    "gini": (Gini, gini, ("maps",)),
    "entropy": (Entropy, entropy, ("maps",)),
    "total_variation": (TotalVariation, total_variation, ("maps",)),
    "smoothness": (Smoothness, smoothness, ("maps",)),
    "pointing_game": (PointingGame, pointing_game, ("maps", "masks")),
    "relevance_mass": (RelevanceMass, relevance_mass, ("maps", "masks")),
    "evidence_given_lesion": (RelevanceMassGiven, relevance_mass_given, ("maps", "masks")),
    "rank_accuracy": (RankAccuracy, rank_accuracy, ("maps", "masks")),
    "mask_auc": (MaskAUC, mask_auc, ("maps", "masks")),
    "best_iou": (BestIoU, best_iou, ("maps", "masks")),
    "colour_agreement": (ColourAgreement, colour_agreement, ("images", "maps", "masks")),
    "deletion_auc": (Deletion, deletion_auc, _PERTURBED),
    "insertion_auc": (Insertion, insertion_auc, _PERTURBED),
    "road": (Road, road, _PERTURBED),
    "allegiance_auc": (Allegiance, allegiance_auc, ("logits_fn", "images", "maps")),
    "effective_complexity": (EffectiveComplexity, effective_complexity, _PERTURBED),
    "infidelity": (Infidelity, infidelity, _PERTURBED),
    "faithfulness_correlation": (FaithfulnessCorrelation, faithfulness_correlation, _PERTURBED),
    "monotonicity": (Monotonicity, monotonicity, _PERTURBED),
    "completeness": (Completeness, completeness, _PERTURBED),
    "mask_reliance": (MaskReliance, mask_reliance, ("logits_fn", "images", "labels", "masks")),
    "alignment": (Alignment, alignment, ("logits_fn", "images")),
    "noise_stability": (NoiseStability, noise_stability, _EXPLAINED),
    "attack_stability": (AttackStability, attack_stability, _ATTACKED),
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
