"""A convolution and its two gradients in the shapes that XLA on CPU runs fast, inside a loop too.

XLA on CPU has a fast kernel and a slow one (jax 0.10). The fast one knows one order of the axes, which XLA itself
brings about outside a loop alone (jax issue 12868); it is not taken where neither side has more than 16 channels; and
it is fast where channels enter in fours. benchmarks/convolutions.py measures the last two. Wide ones of 3 x 3 are
faster as products of matrices (:mod:`winograd`). What is finite is that of the plain convolution but for rounding.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from robust_saliency.models import winograd
from robust_saliency.models.windows import Window, convolved
from robust_saliency.types import Array

FEW = 16  # channels, of which the fast kernel wants more on one side at least
# As many times as large as an image, a kernel is large. Not as a batch: a gradient must not depend on the batch.
_MANY_TAPS = 64


def convolution(x: Array, k: Array, *, window: Window) -> Array:
    return _of_any_width(x, k, window.padding, window.strides, window)


def image_gradient(y: Array, k: Array, *, window: Window) -> Array:
    """The kernel, turned about, slides over ``y``, whose pixels stand ``strides`` apart."""
    if 0 in y.shape + k.shape:  # the kernel is larger than the image, or there are no channels
        return jnp.zeros((y.shape[0], *window.image, k.shape[2]), y.dtype)
    if window.strides != (1, 1) and k.shape[2] <= FEW:
        return _image_gradient_by_phase(y, k, window)
    padding = []
    for image, kernel, spread, (before, _) in _sides(y, window):
        low = kernel - 1 - before
        padding.append((low, image + kernel - 1 - spread - low))
    if winograd.fits(y, k, padding, window.strides):
        return winograd.turned_convolution(y, k, padding, window.precision)
    swapped = k.swapaxes(2, 3)
    if window.strides != (1, 1):
        return convolved(y, jnp.flip(swapped, (0, 1)), padding, window, lhs_dilation=window.strides)
    if k.size < _MANY_TAPS * y[0].size:
        return _of_any_width(y, jnp.flip(swapped, (0, 1)), padding, (1, 1), window)
    # To turn and swap a kernel takes four times as long as to swap it; the images may be turned instead.
    turned = _of_any_width(jnp.flip(y, (1, 2)), swapped, [pair[::-1] for pair in padding], (1, 1), window)
    return jnp.flip(turned, (1, 2))


def _image_gradient_by_phase(y: Array, k: Array, window: Window) -> Array:
    """Of all pixels between two of ``y`` at once, as its channels: each sees the taps whose remainder it has.

    Pixel ``s a + r`` of an axis is the sum over t of ``k[s t + r + low] y[a - t]``.
    """
    padding, before, cut, numbers = [], [], [], []
    for image, kernel, stride, (low, _), seen in zip(
        window.image, window.kernel, window.strides, window.padding, y.shape[1:3], strict=True
    ):
        first, last = -((stride - 1 + low) // stride), (kernel - 1 - low) // stride
        taps, number = last - first + 1, -(-image // stride)
        before.append((-(stride * first + low), stride * (last + 1) + low - kernel))
        cut.append((taps, stride))
        padding.append((last, number + taps - 1 - seen - last))
        numbers.append(number)
    (high, down), (broad, across) = cut
    entering, leaving = k.shape[2:]
    padded = jax.lax.pad(k, jnp.zeros((), k.dtype), [(*before[0], 0), (*before[1], 0), (0, 0, 0), (0, 0, 0)])
    phases = jnp.flip(padded.reshape(high, down, broad, across, entering, leaving), (0, 2))
    phases = phases.transpose(0, 2, 5, 1, 3, 4).reshape(high, broad, leaving, down * across * entering)
    found = _of_any_width(y, phases, padding, (1, 1), window)
    found = found.reshape(-1, *numbers, down, across, entering).transpose(0, 1, 3, 2, 4, 5)
    found = found.reshape(-1, numbers[0] * down, numbers[1] * across, entering)
    return found[:, : window.image[0], : window.image[1]]


def kernel_gradient(x: Array, y: Array, *, window: Window) -> Array:
    """``y`` slides over ``x``, its pixels ``strides`` apart; channels stand for the batch, and the batch for them."""
    if 0 in x.shape + y.shape:
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
    if x.dtype not in (jnp.float32, jnp.float64) or 0 in k.shape:
        return convolved(x, k, padding, window, window_strides=strides)
    if winograd.fits(x, k, padding, strides):
        return winograd.convolution(x, k, padding, window.precision)
    together = _neighbours(x, k, padding, strides) if max(entering, leaving) <= FEW else 1
    if max(entering, together * leaving) <= FEW or 2 * leaving <= entering <= FEW:
        x, k, together = *_with_entering(FEW + 4, x, k), 1
    elif entering > 1 and leaving <= 2 * FEW:
        x, k = _with_entering(entering + -entering % 4, x, k)
    if together > 1:
        return _side_by_side(x, k, padding, strides, window, together)
    return convolved(x, k, padding, window, window_strides=strides)


def _neighbours(x: Array, k: Array, padding: Sequence, strides: tuple[int, int]) -> int:
    """As many pixels of a row as have together twice as many channels as are few, if they divide the row."""
    together = -(-2 * FEW // k.shape[3])
    return max(number for number in range(1, together + 1) if _pixels(x, k, padding, strides) % number == 0)


def _pixels(x: Array, k: Array, padding: Sequence, strides: tuple[int, int]) -> int:
    """How long a row of the convolution is; none, where the kernel is longer than the image."""
    return max(0, (x.shape[2] + sum(padding[1]) - k.shape[1]) // strides[1] + 1)


def _with_entering(channels: int, x: Array, k: Array) -> tuple[Array, Array]:
    """Images and kernel with channels of zeros behind their own."""
    more = (0, channels - x.shape[3])
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), more)), jnp.pad(k, ((0, 0), (0, 0), more, (0, 0)))


def _side_by_side(
    x: Array, k: Array, padding: Sequence, strides: tuple[int, int], window: Window, together: int
) -> Array:
    """Neighbours of a row as channels of one pixel: a wider kernel has a copy for each, moved on."""
    moved = [(i * strides[1], (together - 1 - i) * strides[1]) for i in range(together)]
    wide = jnp.concatenate([jnp.pad(k, ((0, 0), by, (0, 0), (0, 0))) for by in moved], 3)
    y = convolved(x, wide, padding, window, window_strides=(strides[0], together * strides[1]))
    return y.reshape(*y.shape[:2], _pixels(x, k, padding, strides), k.shape[3])
