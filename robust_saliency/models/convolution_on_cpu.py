"""A convolution and its two gradients in the shapes that XLA on CPU runs fast, inside a loop too.

XLA on CPU has a fast kernel and a slow one (jax 0.10). The fast one knows one order of the axes, which XLA itself
brings about outside a loop alone (jax issue 12868); it is not taken where neither side has more than 16 channels; and
it is fast where channels enter in fours. benchmarks/narrow_convolutions.py measures the last two. All values are those
of the plain convolution but for the order of their sums.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from robust_saliency.models.windows import Window, convolved
from robust_saliency.types import Array

FEW = 16  # channels, of which the fast kernel wants more on one side at least


def convolution(x: Array, k: Array, *, window: Window) -> Array:
    return _of_any_width(x, k, window.padding, window.strides, window)


def image_gradient(y: Array, k: Array, *, window: Window) -> Array:
    """The kernel, turned about, slides over ``y``, whose pixels stand ``strides`` apart."""
    if 0 in y.shape:  # the kernel is larger than the image
        return jnp.zeros((y.shape[0], *window.image, k.shape[2]), y.dtype)
    padding = []
    for image, kernel, spread, (before, _) in _sides(y, window):
        low = kernel - 1 - before
        padding.append((low, image + kernel - 1 - spread - low))
    swapped = k.swapaxes(2, 3)
    if window.strides != (1, 1):
        return convolved(y, jnp.flip(swapped, (0, 1)), padding, window, lhs_dilation=window.strides)
    if k.size < y.size:
        return _of_any_width(y, jnp.flip(swapped, (0, 1)), padding, (1, 1), window)
    # To turn and swap a kernel takes four times as long as to swap it; the images may be turned instead.
    turned = _of_any_width(jnp.flip(y, (1, 2)), swapped, [pair[::-1] for pair in padding], (1, 1), window)
    return jnp.flip(turned, (1, 2))


def kernel_gradient(x: Array, y: Array, *, window: Window) -> Array:
    """``y`` slides over ``x``, its pixels ``strides`` apart; channels stand for the batch, and the batch for them."""
    if 0 in y.shape:
        return jnp.zeros((*window.kernel, x.shape[3], y.shape[3]), x.dtype)
    if window.kernel == (1, 1) and not any(map(any, window.padding)):
        seen = x[:, :: window.strides[0], :: window.strides[1]]
        found = jnp.einsum("bhwc,bhwd->cd", seen, y, precision=window.precision)  # up to 17 times as fast
        return found[None, None]
    padding = [(low, kernel - 1 + spread - image - low) for image, kernel, spread, (low, _) in _sides(y, window)]
    images, kernels = x.transpose(3, 1, 2, 0), y.transpose(1, 2, 0, 3)
    return convolved(images, kernels, padding, window, rhs_dilation=window.strides).transpose(1, 2, 0, 3)


def _sides(y: Array, window: Window):
    """Of both axes the sizes of the image, of the kernel and of ``y`` spread by the stride, and the padding."""
    spread = [(size - 1) * stride + 1 for size, stride in zip(y.shape[1:3], window.strides, strict=True)]
    return zip(window.image, window.kernel, spread, window.padding, strict=True)


def _of_any_width(x: Array, k: Array, padding: Sequence, strides: tuple[int, int], window: Window) -> Array:
    """The convolution, in a shape that the fast kernel takes."""
    entering, leaving = k.shape[2:]
    if x.dtype not in (jnp.float32, jnp.float64):
        return convolved(x, k, padding, window, window_strides=strides)
    if entering <= FEW and 2 * leaving <= entering:
        x, k = _with_entering(FEW + 4, x, k)
        return convolved(x, k, padding, window, window_strides=strides)
    if entering > 1 and leaving <= 2 * FEW:
        x, k = _with_entering(entering + -entering % 4, x, k)
    if max(entering, leaving) > FEW:
        return convolved(x, k, padding, window, window_strides=strides)
    return _side_by_side(x, k, padding, strides, window)


def _with_entering(channels: int, x: Array, k: Array) -> tuple[Array, Array]:
    """Images and kernel with channels of zeros behind their own."""
    more = (0, channels - x.shape[3])
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), more)), jnp.pad(k, ((0, 0), (0, 0), more, (0, 0)))


def _side_by_side(x: Array, k: Array, padding: Sequence, strides: tuple[int, int], window: Window) -> Array:
    """Several neighbours of a row at once, as channels of one pixel: a wider kernel has a copy for each, moved on."""
    kernel, leaving = k.shape[1], k.shape[3]
    pixels = (x.shape[2] + sum(padding[1]) - kernel) // strides[1] + 1
    together = -(-2 * FEW // leaving)
    while pixels % together:
        together -= 1
    moved = [(i * strides[1], (together - 1 - i) * strides[1]) for i in range(together)]
    wide = jnp.concatenate([jnp.pad(k, ((0, 0), by, (0, 0), (0, 0))) for by in moved], 3)
    y = convolved(x, wide, padding, window, window_strides=(strides[0], together * strides[1]))
    return y.reshape(*y.shape[:2], pixels, leaving)
