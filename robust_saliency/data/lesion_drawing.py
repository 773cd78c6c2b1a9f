"""Closed-form drawing for :mod:`robust_saliency.data.planted_lesions`: every shape is a distance, nothing is stamped.

Coordinates run from -1 to 1 over the image, ``x`` to the right and ``y`` downwards, so a picture looks the same at
every size. A *cover* is a float image ``[size, size]`` in [0, 1]: the share of each pixel that a shape covers.
"""

from collections.abc import Sequence
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency.types import Array, Key, Scalar

GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))
MAX_HAIRS = 4
MAX_BUBBLES = 3


class Numbers:
    """Random numbers of one picture from one call, handed out in order; lives for one trace.

    XLA compiles each use of the generator anew (0.5 to 1 s on a CPU core), and each sine: so a picture that draws in
    thirty places calls them once.
    """

    def __init__(self, key: Key, num: int, num_words: int):
        bits = jax.random.bits(key, (num + num_words,), jnp.uint32)
        uniform = (bits[:num] >> 8).astype(jnp.float32) * 2.0**-24
        turns = 2 * np.pi * uniform
        self._drawn = jax.lax.optimization_barrier((uniform, jnp.cos(turns), jnp.sin(turns)))
        self.words = bits[num:]
        self._used = 0

    def draw(self, shape: tuple[int, ...] = (), **ranges: tuple[Scalar, Scalar]) -> SimpleNamespace:
        """One uniform draw of ``shape`` for each named ``(low, high)``."""
        part = self._next(len(ranges) * int(np.prod(shape)))
        uniform = self._drawn[0][part].reshape(len(ranges), *shape)
        scaled = {name: low + (high - low) * uniform[i] for i, (name, (low, high)) in enumerate(ranges.items())}
        return SimpleNamespace(**scaled)

    def directions(self, shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
        """Cosines and sines of uniform angles, each of ``shape``."""
        part = self._next(int(np.prod(shape)))
        return self._drawn[1][part].reshape(shape), self._drawn[2][part].reshape(shape)

    def _next(self, num: int) -> slice:
        start, self._used = self._used, self._used + num
        if self._used > self._drawn[0].size:
            raise ValueError(f"A picture has {self._drawn[0].size} random numbers, {self._used} were asked for.")
        return slice(start, self._used)


def ticks(size: int) -> Array:
    """Coordinates of the pixel centres along an axis, ``[size]``."""
    return (jnp.arange(size) + 0.5) * (2 / size) - 1


def length(x: Array, y: Array) -> Array:
    """Euclidean length, without the guards against overflow that make ``jnp.hypot`` slow."""
    return jnp.sqrt(x * x + y * y)


def cover(distance: Array, softness: Scalar) -> Array:
    """1 inside (``distance`` < 0), 0 outside, a ramp ``softness`` wide on the outline."""
    return jnp.clip(0.5 - distance / softness, 0.0, 1.0)


def union(covers: Array, active: Array | None = None) -> Array:
    """Greatest of ``covers [n, size, size]``, those with ``active [n]`` false left out."""
    return jnp.max(covers if active is None else jnp.where(active[:, None, None], covers, 0.0), axis=0)


def smooth_fields(numbers: Numbers, size: int, bands: Sequence[tuple[float, float]], num_waves: int = 5) -> Array:
    """A smooth texture ``[size, size]`` for each band of half-periods an image, zero mean and unit variance."""
    low, high = np.array(bands, np.float32).T[:, :, None]
    shape = (len(bands), num_waves)
    frequency = (np.pi / 2) * (low + (high - low) * numbers.draw(shape, wave=(0.0, 1.0)).wave)
    cosine, sine = numbers.directions(shape)
    phase = numbers.draw(shape, phase=(0.0, 2 * np.pi)).phase
    # cos(a + b) = cos a cos b - sin a sin b: cosines of the ticks, not of the pixels
    along_x = (frequency * cosine)[:, :, None] * ticks(size)[None, None, :]
    along_y = (frequency * sine)[:, :, None] * ticks(size)[None, None, :] + phase[:, :, None]
    x = jnp.concatenate([jnp.cos(along_x), -jnp.sin(along_x)], axis=1)
    y = jnp.concatenate([jnp.cos(along_y), jnp.sin(along_y)], axis=1)
    return jnp.einsum("fny,fnx->fyx", y, x) * np.sqrt(2 / num_waves)


def scattered(numbers: Numbers, num: int, reach: float, jitter: float) -> tuple[Array, Array]:
    """``num`` points spread evenly over the disc of radius ``reach``: a sunflower turned at random, and jittered."""
    index = np.arange(num)
    radius, angle = reach * np.sqrt((index + 0.5) / num), index * GOLDEN_ANGLE
    x, y = np.float32(radius * np.cos(angle)), np.float32(radius * np.sin(angle))
    cosine, sine = numbers.directions()
    moved = numbers.draw((num,), x=(-jitter, jitter), y=(-jitter, jitter))
    return x * cosine - y * sine + moved.x, x * sine + y * cosine + moved.y


def discs(x: Array, y: Array, centres: tuple[Array, Array], radii: Array, softness: Scalar) -> Array:
    """Covers ``[n, size, size]`` of ``n`` discs."""
    return jax.vmap(lambda cx, cy, radius: cover(length(x - cx, y - cy) - radius, softness))(*centres, radii)


def hairs(numbers: Numbers, x: Array, y: Array, pixel: float) -> Array:
    """Cover of one to four bent hairs, each through a point well inside the image."""
    hair = numbers.draw(
        (MAX_HAIRS,), x=(-0.7, 0.7), y=(-0.7, 0.7), bend=(-0.6, 0.6), reach=(0.5, 1.5), width=(0.012, 0.024)
    )

    def one(cx, cy, cosine, sine, bend, reach, width):
        along = (x - cx) * cosine + (y - cy) * sine
        across = (y - cy) * cosine - (x - cx) * sine
        distance = jnp.abs(across - bend * along**2) * jax.lax.rsqrt(1 + (2 * bend * along) ** 2)
        return cover(jnp.maximum(distance - width, jnp.abs(along) - reach), pixel)

    covers = jax.vmap(one)(hair.x, hair.y, *numbers.directions((MAX_HAIRS,)), hair.bend, hair.reach, hair.width)
    return union(covers, _some(numbers, MAX_HAIRS))


def ruler(numbers: Numbers, x: Array, y: Array, pixel: float, lesion_x: Array, lesion_y: Array) -> Array:
    """Cover of a line with tick marks along an image edge, on the side where the lesion is not."""
    mark = numbers.draw(inset=(0.05, 0.12), pitch=(0.2, 0.28), shift=(0.0, 1.0), tick=(0.16, 0.22), axis=(0.0, 1.0))
    horizontal = mark.axis < 0.5
    along, across = jnp.where(horizontal, x, y), jnp.where(horizontal, y, x)
    away = jnp.where(jnp.where(horizontal, lesion_y, lesion_x) > 0, 1.0, -1.0)
    depth = 1 - mark.inset + across * away
    half_width = 0.02
    phase = jnp.mod(along / mark.pitch + mark.shift, 1.0) - 0.5
    tick = jnp.maximum(jnp.abs(phase) * mark.pitch - half_width, jnp.abs(depth - mark.tick / 2) - mark.tick / 2)
    return cover(jnp.minimum(tick, jnp.abs(depth) - half_width), pixel)


def bubbles(numbers: Numbers, x: Array, y: Array, pixel: float) -> tuple[Array, Array]:
    """Cover of one to three gel bubbles, and of their bright rims and glints."""
    bubble = numbers.draw((MAX_BUBBLES,), x=(-0.8, 0.8), y=(-0.8, 0.8), radius=(0.1, 0.2))

    def one(cx, cy, radius):
        distance = length(x - cx, y - cy)
        glint = length(x - cx + 0.4 * radius, y - cy + 0.4 * radius) - 0.25 * radius
        return cover(distance - radius, pixel), cover(jnp.minimum(jnp.abs(distance - radius) - 0.02, glint), pixel)

    whole, bright = jax.vmap(one)(bubble.x, bubble.y, bubble.radius)
    active = _some(numbers, MAX_BUBBLES)
    return union(whole, active), union(bright, active)


def _some(numbers: Numbers, most: int) -> Array:
    """True for the first one to ``most`` of ``most`` things."""
    return jnp.arange(most) < numbers.draw(number=(1.0, most + 1.0)).number.astype(jnp.int32)
