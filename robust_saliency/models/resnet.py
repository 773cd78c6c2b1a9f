"""ResNet-18 with BatchNorm (He et al. 2015, 1512.03385; pre-activation is not used)."""

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
class ResNet18:
    """Spec of ResNet-18: four stages of two basic blocks with ``width * (1, 2, 4, 8)`` channels.

    ``stem='imagenet'`` has the shapes, strides and paddings of torchvision's network (11,689,512 parameters for 1000
    classes); 'cifar' a 3x3 stem of stride 1 and no pool, for images of about 32 pixels. ``zero_init_residual`` starts
    the scale of each block's last BatchNorm at zero, so that every block begins as its shortcut.

    ``smoothing``: a layer under a Gaussian filter of ``smoothing_sigma`` pixels, see :func:`models.with_smoothing`.
    """

    stem: str = "cifar"
    width: int = 64
    zero_init_residual: bool = False
    activation: str = "relu"
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    dtype: str = "float32"
    smoothing: str = ""
    smoothing_sigma: float = 1.0


def make(spec: ResNet18, image_shape: tuple[int, int, int], num_classes: int) -> Classifier:
    """The classifier of ``spec``; its layers: stem, (pool,) block1_1, block1_2, ..., block4_2, gap, logits, and parts.

    A block's activation is the one after its sum.

    Raises:
      ValueError: a field out of its choices, or ``mean`` and ``std`` that do not fit the channels.
    """
    check_spec(spec, image_shape, num_classes)
    checks.one_of("ResNet18.stem", spec.stem, _STEMS)
    network = _Network(spec, num_classes, activation(spec.activation))
    return smoothed(from_linen(network, image_shape, num_classes), spec)


class _Block(nn.Module):
    features: int
    stride: int
    activation: Callable
    dtype: Any
    scale_init: Callable

    @nn.compact
    def __call__(self, x):
        def conv(name, x, **kwargs):
            return ConvBlock(self.features, batch_norm=True, dtype=self.dtype, name=name, **kwargs)(x)

        y = conv("conv1", x, stride=self.stride, activation=self.activation)
        y = conv("conv2", y, scale_init=self.scale_init)
        if self.stride != 1 or x.shape[-1] != self.features:
            x = conv("shortcut", x, kernel=1, stride=self.stride)
        return self.activation(x + y)


class _Network(nn.Module):
    spec: ResNet18
    num_classes: int
    activation: Callable

    @nn.compact
    def __call__(self, images):
        spec = self.spec
        dtype = DTYPES[spec.dtype]
        scale_init = nn.initializers.zeros if spec.zero_init_residual else nn.initializers.ones
        kernel, stride, pool = _STEMS[spec.stem]

        x = normalize(images, spec.mean, spec.std)
        x = ConvBlock(spec.width, kernel, stride, True, self.activation, dtype, name="stem")(x)
        if pool:
            x = MaxPool(3, 2, 1, name="pool")(x)
        for stage in range(4):
            for index in range(2):
                stride = 2 if stage and not index else 1
                name = f"block{stage + 1}_{index + 1}"
                x = _Block(spec.width * 2**stage, stride, self.activation, dtype, scale_init, name=name)(x)
        x = GlobalAveragePool(name="gap")(x)
        return logits_layer(self.num_classes)(x)
