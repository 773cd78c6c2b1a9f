"""Networks as pure functions: :class:`Classifier`, the bundled nets, and adapters for a user's own Flax networks."""

from typing import Any

from robust_saliency.models import plain_cnn, resnet, small_cnn
from robust_saliency.models.activations import ACTIVATIONS, activation, softplus
from robust_saliency.models.backward import backward_through
from robust_saliency.models.blocks import DTYPES
from robust_saliency.models.classifier import MODES, Classifier, Output, Variables, with_frozen_statistics
from robust_saliency.models.convolution import conv_general_dilated
from robust_saliency.models.linen import from_linen
from robust_saliency.models.nnx import from_nnx
from robust_saliency.models.plain_cnn import KIM, LLORENTE, VGG11ISH, PlainCNN
from robust_saliency.models.pooling import average_pool, max_pool
from robust_saliency.models.rematerialisation import with_rematerialisation
from robust_saliency.models.resnet import ResNet18, ResNet50
from robust_saliency.models.small_cnn import SmallCNN
from robust_saliency.models.smoothing import with_smoothing
from robust_saliency.models.surrogate import with_activation
from robust_saliency.models.torchvision import from_torchvision, torchvision_spec

MODELS = {
    "small_cnn": (SmallCNN, small_cnn.make),
    "plain_cnn": (PlainCNN, plain_cnn.make),
    "resnet18": (ResNet18, resnet.make),
    "resnet50": (ResNet50, resnet.make),
}


def make(spec: Any, image_shape: tuple[int, int, int], num_classes: int) -> Classifier:
    """The classifier of a bundled net's ``spec`` for images ``(H, W, C)`` and ``num_classes`` classes."""
    for kind, function in MODELS.values():
        if isinstance(spec, kind):
            return function(spec, image_shape, num_classes)
    kinds = ", ".join(kind.__name__ for kind, _ in MODELS.values())
    raise ValueError(f"models.make takes a spec of type {kinds}, got {type(spec).__name__}.")


__all__ = [
    "ACTIVATIONS",
    "DTYPES",
    "KIM",
    "LLORENTE",
    "MODELS",
    "MODES",
    "VGG11ISH",
    "Classifier",
    "Output",
    "PlainCNN",
    "ResNet18",
    "ResNet50",
    "SmallCNN",
    "Variables",
    "activation",
    "average_pool",
    "backward_through",
    "conv_general_dilated",
    "from_linen",
    "from_nnx",
    "from_torchvision",
    "make",
    "max_pool",
    "softplus",
    "torchvision_spec",
    "with_activation",
    "with_frozen_statistics",
    "with_rematerialisation",
    "with_smoothing",
]
