"""ResNet-18 and ResNet-50 with BatchNorm (He et al. 2015, 1512.03385; pre-activation is not used)."""

import dataclasses
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from robust_saliency import checks
from robust_saliency.models.activations import activation
from robust_saliency.models.blocks import (
    DTYPES,
    ConvBlock,
    GlobalAveragePool,
    MaxPool,
    check_spec,
    logits_layer,
    normalize,
)
from robust_saliency.models.classifier import Classifier
from robust_saliency.models.linen import from_linen
from robust_saliency.models.smoothing import smoothed

# kernel and stride of the first convolution, and whether a 3x3 max pool of stride 2 follows
_STEMS = {"cifar": (3, 1, False), "imagenet": (7, 2, True)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ResNet:
    stem: str = "cifar"
    width: int = 64
    zero_init_residual: bool = False
    activation: str = "relu"
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    dtype: str = "float32"
    smoothing: str = ""
    smoothing_sigma: float = 1.0


class ResNet18(_ResNet):
    """Spec of ResNet-18: four stages of two basic blocks with ``width * (1, 2, 4, 8)`` channels.

    ``stem='imagenet'`` has the shapes, strides and paddings of torchvision's network (11,689,512 parameters for 1000
    classes), whose weights :func:`models.from_torchvision` takes; 'cifar' a 3x3 stem of stride 1 and no pool, for
    images of about 32 pixels. ``zero_init_residual`` starts the scale of each block's last BatchNorm at zero, so that
    every block begins as its shortcut.

    ``smoothing``: a layer under a Gaussian filter of ``smoothing_sigma`` pixels, see :func:`models.with_smoothing`.
    """


class ResNet50(_ResNet):
    """Spec of ResNet-50: stages of 3, 4, 6 and 3 bottleneck blocks with ``4 * width * (1, 2, 4, 8)`` channels.

    A block that halves the sides does so in its 3x3 convolution, as torchvision's ("v1.5"; the paper in the 1x1 before
    it); 25,557,032 parameters with ``stem='imagenet'`` and 1000 classes. The fields are those of :class:`ResNet18`.
    """


# number of blocks of each stage, and whether they are bottlenecks
_DEPTHS = {ResNet18: ((2, 2, 2, 2), False), ResNet50: ((3, 4, 6, 3), True)}


def make(spec: ResNet18 | ResNet50, image_shape: tuple[int, int, int], num_classes: int) -> Classifier:
    """The classifier of ``spec``; its layers: stem, (pool,) block1_1, block1_2, ..., gap, logits, and parts of blocks.

    A block's activation is the one after its sum.

    Raises:
      ValueError: a field out of its choices, or ``mean`` and ``std`` that do not fit the channels.
    """
    check_spec(spec, image_shape, num_classes)
    checks.one_of(f"{type(spec).__name__}.stem", spec.stem, _STEMS)
    network = _Network(spec, num_classes, activation(spec.activation))
    return smoothed(from_linen(network, image_shape, num_classes), spec)


class _Block(nn.Module):
    """Two 3x3 convolutions, or as a bottleneck a 3x3 between two of 1x1, of which the last has four times as many."""

    features: int
    stride: int
    bottleneck: bool
    activation: Callable
    dtype: Any
    scale_init: Callable

    @nn.compact
    def __call__(self, x):
        def conv(name, x, features=self.features, **kwargs):
            return ConvBlock(features, batch_norm=True, dtype=self.dtype, name=name, **kwargs)(x)

        features, act = self.features, self.activation
        if self.bottleneck:
            features *= 4
            y = conv("conv1", x, kernel=1, activation=act)
            y = conv("conv2", y, stride=self.stride, activation=act)
            y = conv("conv3", y, features, kernel=1, scale_init=self.scale_init)
        else:
            y = conv("conv1", x, stride=self.stride, activation=act)
            y = conv("conv2", y, scale_init=self.scale_init)
        if self.stride != 1 or x.shape[-1] != features:
            x = conv("shortcut", x, features, kernel=1, stride=self.stride)
        return act(x + y)


class _Network(nn.Module):
    spec: ResNet18 | ResNet50
    num_classes: int
    activation: Callable

    @nn.compact
    def __call__(self, images):
        spec = self.spec
        dtype = DTYPES[spec.dtype]
        scale_init = nn.initializers.zeros if spec.zero_init_residual else nn.initializers.ones
        kernel, stride, pool = _STEMS[spec.stem]
        depths, bottleneck = _DEPTHS[type(spec)]

        x = normalize(images, spec.mean, spec.std)
        x = ConvBlock(spec.width, kernel, stride, True, self.activation, dtype, name="stem")(x)
        if pool:
            x = MaxPool(3, 2, 1, name="pool")(x)
        for stage, depth in enumerate(depths):
            for index in range(depth):
                features, stride = spec.width * 2**stage, 2 if stage and not index else 1
                name = f"block{stage + 1}_{index + 1}"
                x = _Block(features, stride, bottleneck, self.activation, dtype, scale_init, name=name)(x)
        x = GlobalAveragePool(name="gap")(x)
        return logits_layer(self.num_classes)(x)
