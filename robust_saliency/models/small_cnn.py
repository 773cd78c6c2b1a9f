"""A small convolutional network for quick studies on 28 to 64 pixels."""

import dataclasses
from collections.abc import Callable

from flax import linen as nn

from robust_saliency import checks
from robust_saliency.models.activations import activation
from robust_saliency.models.blocks import (
    DTYPES,
    AveragePool,
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

POOLS = ("max", "average", "stride")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallCNN:
    """Spec of a four-convolution network without normalisation layers.

    5x5 convolution of ``width`` channels and stride 2, 3x3 of 2 width, pool, 3x3 of 4 width, pool, 3x3 of 4 width,
    global average pool, logits. Pools halve the side, odd sides losing their last row and column; with
    ``pool='stride'`` the second and third convolution have stride 2 instead. Images of any size from 7x7 on
    (``pool='stride'``: any).

    ``smoothing``: a layer under a Gaussian filter of ``smoothing_sigma`` pixels, see :func:`models.with_smoothing`.
    """

    width: int = 16
    pool: str = "max"
    activation: str = "relu"
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    dtype: str = "float32"
    smoothing: str = ""
    smoothing_sigma: float = 1.0


def make(spec: SmallCNN, image_shape: tuple[int, int, int], num_classes: int) -> Classifier:
    """The classifier of ``spec``; its layers: conv1, conv2, pool1, conv3, pool2, conv4, gap, logits, and their parts.

    Raises:
      ValueError: a field out of its choices, or ``mean`` and ``std`` that do not fit the channels.
    """
    check_spec(spec, image_shape, num_classes)
    checks.one_of("SmallCNN.pool", spec.pool, POOLS)
    network = _Network(spec, num_classes, activation(spec.activation))
    return smoothed(from_linen(network, image_shape, num_classes), spec)


class _Network(nn.Module):
    spec: SmallCNN
    num_classes: int
    activation: Callable

    @nn.compact
    def __call__(self, images):
        spec = self.spec
        stride = 2 if spec.pool == "stride" else 1

        def conv(name, features, x, **kwargs):
            dtype = DTYPES[spec.dtype]
            return ConvBlock(features, activation=self.activation, dtype=dtype, name=name, **kwargs)(x)

        def pool(name, x):
            layer = {"max": MaxPool, "average": AveragePool}.get(spec.pool)
            return x if layer is None else layer(2, name=name)(x)

        x = normalize(images, spec.mean, spec.std)
        x = conv("conv1", spec.width, x, kernel=5, stride=2)
        x = pool("pool1", conv("conv2", 2 * spec.width, x, stride=stride))
        x = pool("pool2", conv("conv3", 4 * spec.width, x, stride=stride))
        x = conv("conv4", 4 * spec.width, x)
        x = GlobalAveragePool(name="gap")(x)
        return logits_layer(self.num_classes)(x)
