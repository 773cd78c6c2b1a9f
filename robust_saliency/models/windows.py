"""The window of a convolution: what it is apart from its arrays."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from robust_saliency.types import Array

AXES = ("NHWC", "HWIO", "NHWC")


class Window(NamedTuple):
    """Sizes, strides, padding and precision; the sizes, because a gradient cannot tell them from its own."""

    image: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    precision: Any


def convolved(x: Array, k: Array, padding: Sequence, window: Window, **options: Any) -> Array:
    """JAX's convolution in our order of the axes, of strides 1 if not said."""
    options = {"window_strides": (1, 1), "dimension_numbers": AXES, "precision": window.precision} | options
    return jax.lax.conv_general_dilated(x, k, padding=padding, **options)
