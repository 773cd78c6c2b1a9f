"""Saliency maps: ``method(logits_fn, key, images, labels, spec) -> maps [B, H, W]``.

``logits_fn`` treats its images independently of one another and takes batches of any size (a model in eval mode). A
map has the dtype of its images, float32 at least.
"""

from typing import Any

from robust_saliency.saliency._reduce import MapSpec
from robust_saliency.saliency.class_maps import ClassMaps, class_maps
from robust_saliency.saliency.contrast import Contrast, contrast
from robust_saliency.saliency.gradient import Gradient, InputXGradient, gradient, input_x_gradient
from robust_saliency.saliency.integrated_gradients import (
    IntegratedGradients,
    completeness_error,
    integrated_gradients,
)
from robust_saliency.saliency.polarity import Active, Inactive, Polarities, active, inactive, polarities
from robust_saliency.saliency.smoothgrad import SmoothGrad, smoothgrad
from robust_saliency.types import Images, Key, Labels, LogitsFn, Maps

SALIENCY = {
    "active": (Active, active),
    "contrast": (Contrast, contrast),
    "gradient": (Gradient, gradient),
    "inactive": (Inactive, inactive),
    "input_x_gradient": (InputXGradient, input_x_gradient),
    "integrated_gradients": (IntegratedGradients, integrated_gradients),
    "smoothgrad": (SmoothGrad, smoothgrad),
}

__all__ = [
    "SALIENCY",
    "Active",
    "ClassMaps",
    "Contrast",
    "Gradient",
    "Inactive",
    "InputXGradient",
    "IntegratedGradients",
    "MapSpec",
    "Polarities",
    "SmoothGrad",
    "active",
    "class_maps",
    "completeness_error",
    "contrast",
    "gradient",
    "inactive",
    "input_x_gradient",
    "integrated_gradients",
    "polarities",
    "run",
    "smoothgrad",
]


def run(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: Any) -> Maps:
    """The maps that ``spec`` describes."""
    for known, method in SALIENCY.values():
        if type(spec) is known:
            return method(logits_fn, key, images, labels, spec)
    raise ValueError(f"No saliency method has the spec {type(spec).__name__}. Choices: {', '.join(sorted(SALIENCY))}.")
