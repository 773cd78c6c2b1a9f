"""Convolutions of 3 x 3 as products of matrices, with 16 multiplications where 36 were (for :mod:`convolution_on_cpu`).

Of 2 x 2 pixels of a convolution, which see 4 x 4 of the image: ``y = A' [(G k G') * (B' x B)] A``, where ``*`` is taken
pixel by pixel and sums over channels, so that each of the 16 is one product of matrices over all places of all images.
Of float32 the error is about that of plain sums, but zeros come out as zeros only where a whole tile is zero, and what
is not finite spreads over its tile. It takes four times the memory of its image and of its result. A single image of
few pixels and many channels loses time to the transform of the kernel; ``fits`` does not ask how many images there are,
because a gradient must not depend on the batch.

F(2 x 2, 3 x 3) of Lavin and Gray 2016 (1509.09308, section 4.1), after Winograd 1980.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from robust_saliency.types import Array

MANY = 64  # channels: with fewer, to add and subtract takes longer than the multiplications that it saves
_LARGEST = 64  # pixels of a side: on larger images memory is what takes the time
Padding = Sequence[tuple[int, int]]
Grid = Sequence[Sequence[Array]]


def fits(x: Array, k: Array, padding: Padding, strides: tuple[int, int]) -> bool:
    """Whether a batch gains time and loses no digits: many channels on both sides, at least a tile, sizes known."""
    sizes = _sizes(x, padding)
    return (
        x.dtype in (jnp.float32, jnp.float64)
        and (k.shape[:2], strides) == ((3, 3), (1, 1))
        and min(k.shape[2:]) >= MANY
        and all(isinstance(size, int) and 2 <= size <= _LARGEST for size in sizes)
    )


def convolution(x: Array, k: Array, padding: Padding, precision: Any) -> Array:
    return _joined(_products(_tiles(x, padding), _of_kernel(k), 0, precision), _sizes(x, padding))


def turned_convolution(y: Array, k: Array, padding: Padding, precision: Any) -> Array:
    """The convolution with the kernel turned about and its channels swapped.

    To turn a kernel is to swap the first and the last of what G makes of it: so no kernel is copied, and what a
    convolution and its gradient need of it is computed once.
    """
    turned = [[row[j] for j in (3, 1, 2, 0)] for row in (_of_kernel(k)[i] for i in (3, 1, 2, 0))]
    return _joined(_products(_tiles(y, padding), turned, 1, precision), _sizes(y, padding))


def _sizes(x: Array, padding: Padding) -> tuple[int, int]:
    high, wide = (size + sum(pair) - 2 for size, pair in zip(x.shape[1:3], padding, strict=True))
    return high, wide


def _tiles(x: Array, padding: Padding) -> Grid:
    """``B' x B`` of all tiles, ``[B, H / 2, W / 2, C]`` each; what lacks to a last tile is zeros."""
    sizes = _sizes(x, padding)
    rest = [(before, after + size % 2, 0) for (before, after), size in zip(padding, sizes, strict=True)]
    pixels = _every_second(jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *rest, (0, 0, 0)]))
    down, across = (-(-size // 2) for size in sizes)
    grid = [
        [pixels[i % 2][j % 2][:, i // 2 : i // 2 + down, j // 2 : j // 2 + across] for j in range(4)] for i in range(4)
    ]
    return _on_both_axes(lambda p: (p[0] - p[2], p[1] + p[2], p[2] - p[1], p[1] - p[3]), grid)


def _every_second(x: Array) -> Grid:
    """The four pixels of all blocks of 2 x 2."""
    blocks = x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, x.shape[3])
    return [[blocks[:, :, i, :, j] for j in range(2)] for i in range(2)]


def _of_kernel(k: Array) -> Grid:
    """``G k G'``."""

    def spread(taps):
        outer, middle = (taps[0] + taps[2]) / 2, taps[1] / 2
        return taps[0], outer + middle, outer - middle, taps[2]

    # Else XLA does this while it compiles, for seconds a layer, where a function is closed over the weights.
    k = jax.lax.optimization_barrier(k)
    return _on_both_axes(spread, [[k[i, j] for j in range(3)] for i in range(3)])


def _products(tiles: Grid, kernels: Grid, axis: int, precision: Any) -> Grid:
    """Summed over the kernels' ``axis``."""
    return [
        [jax.lax.dot_general(v, u, (((3,), (axis,)), ((), ())), precision=precision) for v, u in zip(*row, strict=True)]
        for row in zip(tiles, kernels, strict=True)
    ]


def _joined(products: Grid, sizes: tuple[int, int]) -> Array:
    """``A' m A``, the tiles side by side."""
    found = _on_both_axes(lambda m: (m[0] + m[1] + m[2], m[1] - m[2] - m[3]), products)
    blocks = jnp.stack([jnp.stack(row, 3) for row in found], 2)  # [B, H / 2, 2, W / 2, 2, D]
    high, wide = blocks.shape[1] * 2, blocks.shape[3] * 2
    return blocks.reshape(-1, high, wide, blocks.shape[5])[:, : sizes[0], : sizes[1]]


def _on_both_axes(transform: Callable[[Sequence[Array]], Sequence[Array]], grid: Grid) -> Grid:
    columns = [transform(column) for column in zip(*grid, strict=True)]
    return [transform(row) for row in zip(*columns, strict=True)]
