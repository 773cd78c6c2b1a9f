"""Saliency maps: ``method(logits_fn, key, images, labels, spec) -> maps [B, H, W]``.

``logits_fn`` treats its images independently of one another and takes batches of any size (a model in eval mode). A
map has the dtype of its images, float32 at least.
"""

from typing import Any

from robust_saliency.saliency._reduce import MapSpec
from robust_saliency.saliency.blur_ig import BlurIG, blur_ig
from robust_saliency.saliency.class_maps import ClassMaps, class_maps
from robust_saliency.saliency.contrast import Contrast, contrast
from robust_saliency.saliency.expected_gradients import ExpectedGradients, expected_gradients
from robust_saliency.saliency.grad_cam import GradCAM, GradCAMPlusPlus, grad_cam, grad_cam_plus_plus
from robust_saliency.saliency.gradient import Gradient, InputXGradient, gradient, input_x_gradient
from robust_saliency.saliency.guided_backprop import GuidedBackprop, guided_backprop
from robust_saliency.saliency.guided_ig import GuidedIG, guided_ig
from robust_saliency.saliency.integrated_gradients import (
    IntegratedGradients,
    completeness_error,
    integrated_gradients,
)
from robust_saliency.saliency.occlusion import Occlusion, occlusion
from robust_saliency.saliency.polarity import (
    Active,
    Inactive,
    Negative,
    Original,
    Polarities,
    Positive,
    active,
    inactive,
    polarities,
)
from robust_saliency.saliency.rise import RISE, rise
from robust_saliency.saliency.smoothgrad import SmoothGrad, smoothgrad
from robust_saliency.types import Images, Key, Labels, LogitsFn, Maps

SALIENCY = {
    "active": (Active, active),
    "blur_ig": (BlurIG, blur_ig),
    "contrast": (Contrast, contrast),
    "expected_gradients": (ExpectedGradients, expected_gradients),
    "grad_cam": (GradCAM, grad_cam),
    "grad_cam_plus_plus": (GradCAMPlusPlus, grad_cam_plus_plus),
    "gradient": (Gradient, gradient),
    "guided_backprop": (GuidedBackprop, guided_backprop),
    "guided_ig": (GuidedIG, guided_ig),
    "inactive": (Inactive, inactive),
    "input_x_gradient": (InputXGradient, input_x_gradient),
    "integrated_gradients": (IntegratedGradients, integrated_gradients),
    "negative": (Negative, gradient),
    "occlusion": (Occlusion, occlusion),
    "original": (Original, gradient),
    "positive": (Positive, gradient),
    "rise": (RISE, rise),
    "smoothgrad": (SmoothGrad, smoothgrad),
}

__all__ = [
    "RISE",
    "SALIENCY",
    "Active",
    "BlurIG",
    "ClassMaps",
    "Contrast",
    "ExpectedGradients",
    "GradCAM",
    "GradCAMPlusPlus",
    "Gradient",
    "GuidedBackprop",
    "GuidedIG",
    "Inactive",
    "InputXGradient",
    "IntegratedGradients",
    "MapSpec",
    "Negative",
    "Occlusion",
    "Original",
    "Polarities",
    "Positive",
    "SmoothGrad",
    "active",
    "blur_ig",
    "class_maps",
    "completeness_error",
    "contrast",
    "expected_gradients",
    "grad_cam",
    "grad_cam_plus_plus",
    "gradient",
    "guided_backprop",
    "guided_ig",
    "inactive",
    "input_x_gradient",
    "integrated_gradients",
    "occlusion",
    "polarities",
    "rise",
    "run",
    "smoothgrad",
]


def run(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: Any) -> Maps:
    """The maps that ``spec`` describes."""
    for known, method in SALIENCY.values():
        if type(spec) is known:
            return method(logits_fn, key, images, labels, spec)
    raise ValueError(f"No saliency method has the spec {type(spec).__name__}. Choices: {', '.join(sorted(SALIENCY))}.")
