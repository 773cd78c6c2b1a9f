"""What the tests of the threat models try them on: perturbed images, and the exact l2 projection by bisection."""

import jax
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robust_saliency import threat

SHAPE = (2, 2, 3, 2)

project = jax.jit(threat.project)

# No subnormal numbers: XLA flushes them to zero on CPU, so a pixel of 1e-45 does not survive any arithmetic.
some_pixel = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32, allow_subnormal=False))
pixels = arrays(np.float32, SHAPE, elements=some_pixel)
spread = st.builds(
    lambda signs, exponents: (signs * 10.0**exponents).astype(np.float32),
    arrays(np.int8, SHAPE, elements=st.integers(-1, 1)),
    arrays(np.float64, SHAPE, elements=st.floats(-6, 3)),
)
radii = arrays(np.float32, (2,), elements=st.one_of(st.just(0.0), st.floats(2**-10, 4, width=32), st.just(100.0)))


def l2(values):
    return np.sqrt(np.sum(np.asarray(values, np.float64) ** 2, axis=(1, 2, 3)))


def by_bisection(images, origin, epsilon, low=0.0, high=1.0):
    """Projection onto l2 ball and box in float64: ``clip(d / (1 + m))``, the multiplier m >= 0 by bisection."""
    origin = np.asarray(origin, np.float64)
    delta = np.asarray(images, np.float64) - origin

    def inside(m):
        return np.clip(delta / (1 + m)[:, None, None, None], low - origin, high - origin)

    below, above = np.zeros(len(delta)), np.full(len(delta), 1e12)
    fits = l2(inside(below)) <= epsilon
    for _ in range(200):
        middle = (below + above) / 2
        too_long = l2(inside(middle)) > epsilon
        below, above = np.where(too_long, middle, below), np.where(too_long, above, middle)
    return origin + np.where(fits[:, None, None, None], inside(np.zeros(len(delta))), inside(above))


def assert_feasible(images, origin, epsilon, norm):
    images, origin = np.asarray(images, np.float64), np.asarray(origin, np.float64)
    assert images.min() >= 0 and images.max() <= 1
    sizes = np.abs(images - origin)
    lengths = {"l1": sizes.sum((1, 2, 3)), "l2": l2(sizes), "linf": sizes.max((1, 2, 3))}[norm]
    assert (lengths <= epsilon + 1e-6).all(), lengths - epsilon
