"""Pooling whose gradient is fast: no select-and-scatter, which XLA runs slowly on CPU.

Values are those of ``flax.linen.max_pool``. Among equal maxima the gradient is shared, while ``nn.max_pool`` gives it
to the first; its sum over the window is the same.
"""

import functools

import jax.numpy as jnp

from robust_saliency.types import Array


def max_pool(x: Array, window: int, stride: int | None = None, padding: int = 0) -> Array:
    """Maximum over ``window`` x ``window`` pixels of ``x [B, H, W, C]``, ``stride`` (default ``window``) apart.

    ``padding`` pixels of minus infinity are added on each side; rows and columns that do not fill a window are left
    out, so the side of the result is ``(H + 2 * padding - window) // stride + 1``.
    """
    stride = window if stride is None else stride
    if padding:
        sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        x = jnp.pad(x, sides, constant_values=-jnp.inf)
    if stride == window:
        return _tiles(x, window).max((2, 4))
    _check_fits(x, window)
    for axis in (1, 2):
        x = functools.reduce(jnp.maximum, _shifted(x, axis, window, stride))
    return x


def average_pool(x: Array, window: int) -> Array:
    """Mean over the ``window`` x ``window`` tiles of ``x [B, H, W, C]``; an incomplete last tile is left out."""
    return _tiles(x, window).mean((2, 4))


def _tiles(x, window):
    _check_fits(x, window)
    batch, height, width, channels = x.shape
    rows, columns = height // window, width // window
    x = x[:, : rows * window, : columns * window]
    return x.reshape(batch, rows, window, columns, window, channels)


def _shifted(x, axis, window, stride):
    count = (x.shape[axis] - window) // stride + 1
    before = (slice(None),) * axis
    return [x[*before, slice(i, i + (count - 1) * stride + 1, stride)] for i in range(window)]


def _check_fits(x, window):
    if min(x.shape[1:3]) < window:
        raise ValueError(f"A pool of {window}x{window} does not fit its input of {x.shape[1]}x{x.shape[2]} pixels.")
