"""Pixels filled in from their neighbours, so that a deleted pixel neither stands out nor tells where it was."""

import jax
import jax.numpy as jnp

from robust_saliency import checks, randomness
from robust_saliency.types import Array, Images, Key, Scalar

# Steps of conjugate gradients for each pixel of the longer side: the solution is then within 1e-3 of the exact one,
# below the noise that is added, for scattered pixels and for one hole of nine tenths of the image (32 pixels: 1e-4).
_STEPS_A_SIDE = 4


def noisy_linear(key: Key, images: Images, removed: Array, noise: Scalar = 0.01) -> Images:
    """Images whose ``removed [B, H, W]`` pixels are imputed by :func:`linear` plus ``noise`` times a standard normal.

    Source: Rong et al. 2022 (2202.00449), noisy linear imputation; the noise hides that imputed pixels are smooth.
    """
    drawn = randomness.draw(jax.random.normal, key, images.shape).astype(images.dtype)
    return jnp.where(removed[..., None], linear(images, removed) + noise * drawn, images)


def linear(images: Images, removed: Array) -> Images:
    """Images ``[B, H, W, C]`` in which each of the ``removed [B, H, W]`` pixels is the mean of its eight neighbours.

    Of weights 1/6 beside and 1/12 across, divided by their sum at the border; neighbours that were removed too enter
    with their own imputed value: one linear system an image, the same for all channels. It is solved by a fixed number
    of conjugate gradient steps, from the mean of what is left. An image of which nothing is left is NaN.

    Source: Rong et al. 2022 (2202.00449), equation 7 and their code's treatment of the border.
    """
    checks.rank("removed", removed, 3)
    gone = removed[..., None].astype(bool)
    left = jnp.where(gone, 0, images)
    weight = _neighbours(jnp.ones_like(images[:1]))
    mean = jnp.sum(left, (1, 2), keepdims=True) / jnp.sum(~gone, (1, 2), keepdims=True)

    def system(values):
        return jnp.where(gone, weight * values - _neighbours(values), 0)

    start = jnp.where(gone, mean, 0)
    steps = _STEPS_A_SIDE * max(images.shape[1:3])
    return jnp.where(gone, _conjugate_gradients(system, jnp.where(gone, _neighbours(left), 0), start, steps), images)


def _neighbours(values: Array) -> Array:
    """The weighted sum of the eight neighbours; what lies outside counts as zero."""
    padded = jnp.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:] - 4 * values) / 12


def _conjugate_gradients(system, right: Array, start: Array, steps: int) -> Array:
    """Of ``system(x) = right``, each channel of each image by itself, which stays where it is once it is solved.

    Solved is a residual of rounding: what a step divides by is noise from there on, and the solution would leave again.
    """

    def dot(a, b):
        return jnp.sum(a * b, axis=(1, 2), keepdims=True)

    def step(_, state):
        solution, residual, direction, square = state
        image = system(direction)
        going = square > solved
        length = jnp.where(going, _ratio(square, dot(direction, image)), 0)
        residual = residual - length * image
        now = jnp.where(going, dot(residual, residual), square)
        onward = jnp.where(going, residual + _ratio(now, square) * direction, direction)
        return solution + length * direction, residual, onward, now

    residual = right - system(start)
    square = dot(residual, residual)
    solved = jnp.finfo(right.dtype).eps ** 2 * (dot(right, right) + square)
    state = start, residual, residual, square
    return jax.lax.fori_loop(0, steps, step, state)[0]


def _ratio(a: Array, b: Array) -> Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)
