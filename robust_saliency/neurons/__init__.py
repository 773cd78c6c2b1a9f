"""What single units of a network mean: functions of its activations, and of a ``logits_fn`` that can be looked into.

A *unit* is a channel of a layer, or a value of a vector: ``activations(logits_fn, images, layer) -> [B, h, w, U]``.
"""

from robust_saliency.neurons.ascent import Ascent, ascend
from robust_saliency.neurons.consistency import (
    Affinity,
    affinity,
    class_distribution,
    consistency,
    tree_distances,
)
from robust_saliency.neurons.dissection import (
    Detectors,
    Overlaps,
    accumulate,
    detectors,
    iou,
    overlaps,
    upsample,
)
from robust_saliency.neurons.inversion import inversion_error, invert
from robust_saliency.neurons.receptive_fields import receptive_fields
from robust_saliency.neurons.semantics import (
    ClassSimilarities,
    Ratios,
    RepresentationRatios,
    class_means,
    class_similarities,
    representation_ratios,
)
from robust_saliency.neurons.thresholds import (
    Dissection,
    Tail,
    Thresholds,
    merge_tails,
    tail,
    tail_size,
    tail_thresholds,
    thresholds,
)
from robust_saliency.neurons.top import Top, crops, merge, top
from robust_saliency.neurons.tracing import (
    Ablated,
    Influences,
    Tracing,
    ablated,
    most_influential,
    prediction_differences,
)
from robust_saliency.neurons.units import activations, look
from robust_saliency.neurons.visualisation import class_score, unit_score

__all__ = [
    "Ablated",
    "Affinity",
    "Ascent",
    "ClassSimilarities",
    "Detectors",
    "Dissection",
    "Influences",
    "Overlaps",
    "Ratios",
    "RepresentationRatios",
    "Tail",
    "Thresholds",
    "Top",
    "Tracing",
    "ablated",
    "accumulate",
    "activations",
    "affinity",
    "ascend",
    "class_distribution",
    "class_means",
    "class_score",
    "class_similarities",
    "consistency",
    "crops",
    "detectors",
    "inversion_error",
    "invert",
    "iou",
    "look",
    "merge",
    "merge_tails",
    "most_influential",
    "overlaps",
    "prediction_differences",
    "receptive_fields",
    "representation_ratios",
    "tail",
    "tail_size",
    "tail_thresholds",
    "thresholds",
    "top",
    "tree_distances",
    "unit_score",
    "upsample",
]
