"""A network written down as a tuple of layers: Llorente's basic CNN, Kim's CNN, VGG and the like."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn

from robust_saliency.models.activations import activation
from robust_saliency.models.blocks import (
    DTYPES,
    AveragePool,
    ConvBlock,
    DenseBlock,
    GlobalAveragePool,
    MaxPool,
    batch_norm,
    check_spec,
    logits_layer,
    normalize,
)
from robust_saliency.models.classifier import Classifier
from robust_saliency.models.linen import from_linen
from robust_saliency.models.smoothing import smoothed

_NUMBER = r"([1-9]\d*)"
_LAYERS = {
    "conv": rf"{_NUMBER}(?:k{_NUMBER})?(?:s{_NUMBER})?",
    "max": rf"{_NUMBER}(?:s{_NUMBER})?",
    "avg": _NUMBER,
    "dense": _NUMBER,
    "dropout": r"(0?\.\d+)",
    "gap": "",
    "flatten": "",
    "bn": "",
}
_GRAMMAR = (
    "conv32 (32 channels, 3x3), conv32k7s2 (7x7, stride 2), max2, max3s2 (window 3, stride 2), avg2, "
    "gap, flatten, dense512, dropout0.5, bn"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainCNN:
    """Spec of a chain of layers; the default is the basic CNN of Llorente et al. 2023 (2309.12913), section 4.

    | layer        | meaning                                                                                         |
    | ------------ | ----------------------------------------------------------------------------------------------- |
    | `conv32k7s2` | convolution of 32 channels, kernel 7 (default 3), stride 2 (default 1), padding 3, activation   |
    | `max3s2`     | maximum of 3x3 pixels, stride 2 (default the window); overlapping windows are padded by 1       |
    | `avg2`       | mean of 2x2 pixels, stride 2                                                                    |
    | `bn`         | BatchNorm; after `conv` or `dense` it stands before their activation and replaces their bias    |
    | `gap`        | global average pool: a vector                                                                   |
    | `flatten`    | all pixels and channels: a vector                                                               |
    | `dense512`   | dense layer of 512 units, activation                                                            |
    | `dropout0.5` | dropout with this rate                                                                          |

    Paddings are ``(window - 1) // 2``. The layer of the logits follows by itself.

    ``smoothing``: a layer under a Gaussian filter of ``smoothing_sigma`` pixels, see :func:`models.with_smoothing`.
    """

    layers: tuple[str, ...] = (
        *("conv32k7s2", "max3s2"),
        *("conv32", "conv32s2", "conv32"),
        *("conv64", "conv64s2", "conv64"),
        *("conv128", "conv128s2", "conv128"),
        "gap",
    )
    activation: str = "relu"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    dtype: str = "float32"
    smoothing: str = ""
    smoothing_sigma: float = 1.0


LLORENTE = PlainCNN()

# Kim et al. 2019 (1903.11626): pixels scaled to [-1, 1]. Their padding is not stated: a reconstruction.
KIM = PlainCNN(
    layers=("conv32", "conv32", "max2", "conv64", "conv64", "max2", "flatten", "dense512"),
    mean=(0.5,),
    std=(0.5,),
)

# The convolutions of VGG-11 with BatchNorm (1409.1556), from 32 pixels on, without its two dense layers.
VGG11ISH = PlainCNN(
    layers=(
        *("conv64", "bn", "max2"),
        *("conv128", "bn", "max2"),
        *("conv256", "bn", "conv256", "bn", "max2"),
        *("conv512", "bn", "conv512", "bn", "max2"),
        *("conv512", "bn", "conv512", "bn", "max2"),
        "gap",
    ),
    mean=(0.5,),
    std=(0.25,),
)


def make(spec: PlainCNN, image_shape: tuple[int, int, int], num_classes: int) -> Classifier:
    """The classifier of ``spec``; its layers are conv1, max1, dense1, ... counted by kind, and logits.

    Raises:
      ValueError: a layer that cannot be read or does not fit the one before; a pool larger than its input; a field
        out of its choices.
    """
    check_spec(spec, image_shape, num_classes)
    network = _Network(spec, _parse(spec.layers), num_classes, activation(spec.activation))
    return smoothed(from_linen(network, image_shape, num_classes), spec)


class _Layer(NamedTuple):
    kind: str
    name: str
    numbers: tuple[float | None, ...]
    batch_norm: bool


class _Network(nn.Module):
    spec: PlainCNN
    parsed: tuple[_Layer, ...]
    num_classes: int
    activation: Callable

    @nn.compact
    def __call__(self, images):
        x = normalize(images, self.spec.mean, self.spec.std)
        for layer in self.parsed:
            x = self._apply(layer, x)
        return logits_layer(self.num_classes)(x)

    def _apply(self, layer, x):
        activation, dtype = self.activation, DTYPES[self.spec.dtype]
        kind, name, numbers = layer.kind, layer.name, layer.numbers
        if kind == "conv":
            channels, kernel, stride = numbers
            return ConvBlock(channels, kernel or 3, stride or 1, layer.batch_norm, activation, dtype, name=name)(x)
        if kind == "dense":
            return DenseBlock(numbers[0], layer.batch_norm, activation, dtype, name=name)(x)
        if kind == "max":
            window, stride = numbers[0], numbers[1] or numbers[0]
            return MaxPool(window, stride, (window - 1) // 2 if stride < window else 0, name=name)(x)
        if kind == "avg":
            return AveragePool(numbers[0], name=name)(x)
        if kind == "bn":
            return batch_norm(dtype, name=name)(x)
        if kind == "dropout":
            return nn.Dropout(numbers[0], name=name)(x)
        return GlobalAveragePool(name=name)(x) if kind == "gap" else x.reshape(x.shape[0], -1)


def _parse(tokens):
    if isinstance(tokens, str):
        raise ValueError(f"PlainCNN.layers must be a tuple of layers, got the string {tokens!r}.")
    read = [_read(token, place) for place, token in enumerate(tokens)]
    parsed, counts, is_map = [], Counter(), True
    for place, (kind, numbers) in enumerate(read):
        where = f"PlainCNN.layers[{place}] = {tokens[place]!r}"
        if kind == "dense" and is_map:
            raise ValueError(f"{where} needs a vector: put 'gap' or 'flatten' before it.")
        if kind in ("conv", "max", "avg", "gap", "flatten") and not is_map:
            raise ValueError(f"{where} needs a map, but 'gap' or 'flatten' comes before it.")
        if kind == "bn" and place and read[place - 1][0] in ("conv", "dense"):
            parsed[-1] = parsed[-1]._replace(batch_norm=True)
            continue
        is_map = is_map and kind not in ("gap", "flatten")
        counts[kind] += 1
        parsed.append(_Layer(kind, f"{kind}{counts[kind]}" if numbers or kind == "bn" else kind, numbers, False))
    if is_map:
        raise ValueError("PlainCNN.layers must come down to a vector: add 'gap' or 'flatten'.")
    return tuple(parsed)


def _read(token, place):
    for kind, numbers in _LAYERS.items():
        match = re.fullmatch(kind + numbers, str(token))
        if match:
            convert = float if kind == "dropout" else int
            return kind, tuple(None if number is None else convert(number) for number in match.groups())
    raise ValueError(f"Unknown layer PlainCNN.layers[{place}] = {token!r}. Layers are: {_GRAMMAR}.")
