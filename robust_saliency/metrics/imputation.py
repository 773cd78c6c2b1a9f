"""Pixels filled in from their neighbours, so that a deleted pixel neither stands out nor tells where it was."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import checks, randomness
from robust_saliency.types import Array, Images, Key, Scalar

# Conjugate gradients with a coarse system over blocks of pixels, which carries over a hole what its edge says: how many
# steps it takes depends on the side of a block, hardly on that of the image. After these the solution is within 1e-4 of
# the exact one at 32 pixels and 2e-3 at 224, below the noise that is added, even in a hole of nine tenths of the image.
_LEAST_BLOCK = 8
_MOST_BLOCKS = 16  # a side
_STEPS_A_PIXEL = 4


def noisy_linear(key: Key, images: Images, removed: Array, sigma: Scalar = 0.01) -> Images:
    """Images whose ``removed [B, H, W]`` pixels are imputed by :func:`linear` plus ``sigma`` times a standard normal.

    Source: Rong et al. 2022 (2202.00449), noisy linear imputation; the noise hides that imputed pixels are smooth.
    """
    return with_noise(linear(images, removed), removed, noise(key, images, sigma))


def noise(key: Key, images: Images, sigma: Scalar) -> Array:
    """``sigma`` times a standard normal, of the shape and type of ``images``."""
    return sigma * randomness.draw(jax.random.normal, key, images.shape).astype(images.dtype)


def with_noise(filled: Images, removed: Array, noise: Array) -> Images:
    """``filled`` and on its ``removed [B, H, W]`` pixels the noise."""
    return filled + jnp.where(removed[..., None], noise, 0)


def linear(images: Images, removed: Array) -> Images:
    """Images ``[B, H, W, C]`` in which each of the ``removed [B, H, W]`` pixels is the mean of its eight neighbours.

    Of weights 1/6 beside and 1/12 across, divided by their sum at the border; neighbours that were removed too enter
    with their own imputed value: one linear system an image, the same for all channels. It is solved by a fixed number
    of conjugate gradient steps, from the mean of what is left. An image of which nothing is left is NaN.

    Source: Rong et al. 2022 (2202.00449), equation 7 and their code's treatment of the border.
    """
    checks.rank("removed", removed, 3)
    block = max(_LEAST_BLOCK, -(-max(images.shape[1:3]) // _MOST_BLOCKS))
    gone = removed.astype(bool)[..., None]
    left = jnp.where(gone, 0, images)
    mean = jnp.sum(left, (1, 2), keepdims=True) / jnp.sum(~gone, (1, 2), keepdims=True)
    parts = (_pixels_first(jnp.broadcast_to(values, images.shape)) for values in (left, gone, mean))
    solved = _solve(*parts, images=len(images), block=block)
    rows, columns = images.shape[1:3]
    filled = solved[:rows, :columns].reshape(rows, columns, len(images), -1)
    return jnp.where(gone, jnp.moveaxis(filled, 2, 0), images)


def _pixels_first(values: Array) -> Array:
    """``[B, H, W, C]`` as ``[H, W, B * C]``: XLA on CPU sums along the last axis number by number."""
    return jnp.moveaxis(values, 0, 2).reshape(*values.shape[1:3], -1)


def _solve(left: Array, gone: Array, start: Array, images: int, block: int) -> Array:
    """The values ``[H, W, images * C]`` of the ``gone`` pixels, zero elsewhere; H and W grow to whole blocks."""
    weight = _neighbours(jnp.ones_like(left[:, :, :1]))
    left, gone, start, weight = (_whole_blocks(values, block) for values in (left, gone, start, weight))

    def system(values):
        return jnp.where(gone, weight * values - _neighbours(values), 0)

    coarse = _coarse_solver(gone.reshape(*gone.shape[:2], images, -1)[..., 0], weight, block)
    right = jnp.where(gone, _neighbours(left), 0)
    start = jnp.where(gone, start, 0)
    steps = _STEPS_A_PIXEL * block
    return _conjugate_gradients(system, right, start, lambda r: jnp.where(gone, r + coarse(r), 0), steps)


def _whole_blocks(values: Array, block: int) -> Array:
    """With zeros after the last row and column, up to a multiple of the block's side."""
    return jnp.pad(values, [(0, -side % block) for side in values.shape[:2]] + [(0, 0)])


def _neighbours(values: Array) -> Array:
    """The weighted sum of the eight neighbours; what lies outside counts as zero."""
    padded = jnp.pad(values, ((1, 1), (1, 1), (0, 0)))
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] - 4 * values) / 12


def _coarse_solver(gone: Array, weight: Array, block: int) -> Callable[[Array], Array]:
    """``r -> P A^-1 P' r``: P spreads a value of each block over its pixels ``gone [H, W, B]``, ``A = P' system P``.

    A block touches only the eight around it. So nine images of every third block each show all of A.
    """
    (rows, columns), images, dtype = (side // block for side in gone.shape[:2]), gone.shape[2], weight.dtype
    row, column = (place.reshape(-1) for place in np.indices((rows, columns)))
    colour = row % 3 * 3 + column % 3
    touches = (abs(row[:, None] - row[None]) <= 1) & (abs(column[:, None] - column[None]) <= 1)
    blocks = jnp.eye(9, dtype=dtype)[colour]

    def seen(which):
        values = jnp.where(gone, _spread(which[:, None], rows, columns, block), 0)
        return _block_sums(jnp.where(gone, weight * values - _neighbours(values), 0), block)

    shown = jnp.stack([seen(blocks[:, one]) for one in range(9)], -1)  # [blocks, B, 9]
    matrix = jnp.where(touches[:, None], shown[:, :, colour], 0)  # [blocks, B, blocks]
    # A block of which nothing is gone has no equation.
    empty = _block_sums(gone.astype(dtype), block) == 0
    matrix = matrix + jnp.where(empty[..., None], jnp.eye(len(colour), dtype=dtype)[:, None], 0)
    inverse = jnp.moveaxis(_inverses(jnp.moveaxis(matrix, 1, 2)), 2, 0)

    def solve(residual):
        sums = _block_sums(residual, block).reshape(len(colour), images, -1)
        solved = jnp.einsum("bij,jbc->ibc", inverse, sums)
        return _spread(solved.reshape(len(colour), -1), rows, columns, block)

    return solve


def _block_sums(values: Array, block: int) -> Array:
    """``[H, W, N]`` to ``[blocks, N]``."""
    rows, columns = (side // block for side in values.shape[:2])
    return jnp.sum(values.reshape(rows, block, columns, block, -1), (1, 3)).reshape(rows * columns, -1)


def _spread(values: Array, rows: int, columns: int, block: int) -> Array:
    """``[blocks, N]`` to ``[H, W, N]``."""
    parts = jnp.broadcast_to(values.reshape(rows, 1, columns, 1, -1), (rows, block, columns, block, values.shape[-1]))
    return parts.reshape(rows * block, columns * block, -1)


def _inverses(matrices: Array) -> Array:
    """Of positive definite ``matrices [n, n, B]``, by Gauss and Jordan without pivots.

    Not ``jnp.linalg``: LAPACK in jaxlib 0.10 waits in a thread of the pool that it needs itself, and where each virtual
    device waits so, all wait for ever.
    """

    def step(k, matrix):
        row = (matrix[k] / matrix[k, k][None]).at[k].set(1 / matrix[k, k])
        column = matrix[:, k].at[k].set(0)
        matrix = matrix.at[:, k].set(0) - column[:, None] * row[None]
        return matrix.at[k].set(row)

    return jax.lax.fori_loop(0, len(matrices), step, matrices)


def _conjugate_gradients(system: Callable, right: Array, start: Array, precondition: Callable, steps: int) -> Array:
    """Of ``system(x) = right``, each channel of each image by itself, which stays where it is once it is solved.

    Solved is a residual of rounding: what a step divides by is noise from there on, and the solution would leave again.
    """

    def dot(a, b):
        return jnp.sum(a * b, axis=(0, 1), keepdims=True)

    def step(_, state):
        solution, residual, direction, square = state
        image = system(direction)
        going = square > solved
        length = jnp.where(going, _ratio(square, dot(direction, image)), 0)
        residual = residual - length * image
        better = precondition(residual)
        now = jnp.where(going, dot(residual, better), square)
        onward = jnp.where(going, better + _ratio(now, square) * direction, direction)
        return solution + length * direction, residual, onward, now

    residual = right - system(start)
    better = precondition(residual)
    square = dot(residual, better)
    solved = jnp.finfo(right.dtype).eps ** 2 * (dot(right, right) + square)
    return jax.lax.fori_loop(0, steps, step, (start, residual, better, square))[0]


def _ratio(a: Array, b: Array) -> Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)
