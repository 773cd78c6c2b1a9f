"""The blocks that the bundled networks are made of; each is a layer that can be captured and edited."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from robust_saliency import checks
from robust_saliency.models import pooling
from robust_saliency.models.activations import activation
from robust_saliency.models.classifier import check_image_shape

# 'float32' means at least float32: Flax then promotes, and float64 images are computed in float64.
DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}
HE = nn.initializers.he_normal()


class ConvBlock(nn.Module):
    """Convolution, padded by ``(kernel - 1) // 2`` pixels on each side; BatchNorm if asked; activation if given."""

    features: int
    kernel: int = 3
    stride: int = 1
    batch_norm: bool = False
    activation: Callable | None = None
    dtype: Any = None
    scale_init: Callable = nn.initializers.ones

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            self.stride,
            padding=(self.kernel - 1) // 2,
            use_bias=not self.batch_norm,
            kernel_init=HE,
            dtype=self.dtype,
            name="conv",
        )(x)
        if self.batch_norm:
            x = batch_norm(self.dtype, scale_init=self.scale_init, name="norm")(x)
        return x if self.activation is None else self.activation(x)


class DenseBlock(nn.Module):
    """Dense layer, BatchNorm if asked, activation."""

    features: int
    batch_norm: bool
    activation: Callable
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.features, use_bias=not self.batch_norm, kernel_init=HE, dtype=self.dtype, name="dense")(x)
        if self.batch_norm:
            x = batch_norm(self.dtype, name="norm")(x)
        return self.activation(x)


class MaxPool(nn.Module):
    """:func:`pooling.max_pool` as a layer."""

    window: int
    stride: int | None = None
    padding: int = 0

    def __call__(self, x):
        return pooling.max_pool(x, self.window, self.stride, self.padding)


class AveragePool(nn.Module):
    """:func:`pooling.average_pool` as a layer."""

    window: int

    def __call__(self, x):
        return pooling.average_pool(x, self.window)


class GlobalAveragePool(nn.Module):
    """Mean over the pixels: ``[B, H, W, C] -> [B, C]``."""

    def __call__(self, x):
        return x.mean((1, 2))


def batch_norm(dtype: Any, **kwargs) -> nn.BatchNorm:
    """BatchNorm with momentum 0.9 (``running = 0.9 * running + 0.1 * batch``, biased variance) and epsilon 1e-5."""
    return nn.BatchNorm(momentum=0.9, epsilon=1e-5, dtype=dtype, **kwargs)


def logits_layer(num_classes: int) -> nn.Dense:
    """The last layer, computed in at least float32 whatever the rest computes in."""
    return nn.Dense(num_classes, name="logits")


def normalize(images: jnp.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> jnp.ndarray:
    """``(images - mean) / std`` by channel; one number stands for all channels."""
    mean, std = (jnp.asarray(value, images.dtype).reshape(1, 1, 1, -1) for value in (mean, std))
    return (images - mean) / std


def check_spec(spec: Any, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Raises ValueError unless the fields that all bundled networks share fit the images and the classes."""
    kind, channels = type(spec).__name__, check_image_shape(image_shape)[-1]
    activation(spec.activation, f"{kind}.activation")
    checks.one_of(f"{kind}.dtype", spec.dtype, DTYPES)
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        if len(values) not in (1, channels):
            raise ValueError(f"{kind}.{name} must hold 1 or {channels} numbers, one a channel, got {tuple(values)}.")
    if min(spec.std) <= 0:
        raise ValueError(f"{kind}.std must be positive, got {tuple(spec.std)}.")
    if num_classes < 2:
        raise ValueError(f"{kind} needs at least two classes, got {num_classes}.")
