"""How alike two maps of an image are: top-k, Spearman, Kendall, SSIM, and the shift of the centre of mass.

``function(maps, other_maps, spec) -> [B]``, symmetric in the two. Of two maps and not of one, so they are not among
``METRICS`` but in ``SIMILARITIES``: ``name -> (Spec, function)``; their specs carry the same facts. Relevance comes by
a sign policy as for one map; a map that is zero, or holds NaN or infinity, makes the value NaN.
"""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import checks, map_distances, ranks
from robust_saliency.metrics.sparsity import Relevance, Shares, by_option, check_same_shape, peak, relevance
from robust_saliency.types import Array, Maps, spec

UNITS = ("diagonal", "pixels")
WINDOW, WINDOW_SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03


@spec
class TopK(Relevance):
    """Share of the k most relevant pixels that the two maps have in common."""

    title: ClassVar[str] = "Top-k intersection"
    ties: ClassVar[str] = "share the places left to them evenly"
    direction: ClassVar[str] = "higher"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    k: int = 100


def top_k_intersection(maps: Maps, other_maps: Maps, spec: TopK | None = None) -> Array:
    """``|top-k(a) and top-k(b)| / k`` per example ``[B]``: in [0, 1], higher is more alike; chance is k / n.

    Pixels tied at a k-th value share the places left to them evenly; of the two shares of a pixel the smaller counts.
    So a map has all in common with itself, and where only one map is tied the value is the mean over all orders of its
    ties. ValueError unless k is 1 to n. Source: Ghorbani, Abid, Zou 2019 (1710.10547), who take k = 1000 of 224x224.
    """
    spec = spec or TopK()
    first, second = _both(maps, other_maps, spec.sign)
    shared = jnp.minimum(ranks.top_share(first, spec.k), ranks.top_share(second, spec.k))
    return _unless_meaningless(jnp.sum(shared, axis=(1, 2)) / spec.k, first, second)


@spec
class Spearman(Relevance):
    """Correlation of the ranks that the two maps give the pixels."""

    title: ClassVar[str] = "Spearman rank correlation"
    ties: ClassVar[str] = "have their average rank"
    direction: ClassVar[str] = "higher"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)


def spearman(maps: Maps, other_maps: Maps, spec: Spearman | None = None) -> Array:
    """Pearson correlation of the ranks, ties having their average rank, ``[B]``: in [-1, 1], higher is more alike.

    NaN where a map is constant.
    """
    spec = spec or Spearman()
    first, second = _both(maps, other_maps, spec.sign)
    return _unless_meaningless(rank_correlation(first, second), first, second)


def rank_correlation(first: Array, second: Array) -> Array:
    """Spearman's correlation ``[B]`` of two arrays ``[B, h, w]``: in [-1, 1], NaN where one of them is constant."""
    size = first.shape[1] * first.shape[2]
    x, y = (ranks.centred(values).astype(values.dtype) / size for values in (first, second))
    correlation = _sum(x * y) / (jnp.sqrt(_sum(x * x)) * jnp.sqrt(_sum(y * y)))
    return jnp.clip(correlation, -1, 1)


@spec
class Kendall(Relevance):
    """Share of the pairs of pixels that the two maps order alike, less the share ordered differently."""

    title: ClassVar[str] = "Kendall's tau-b"
    ties: ClassVar[str] = "are left out and corrected for (tau-b)"
    direction: ClassVar[str] = "higher"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)


def kendall(maps: Maps, other_maps: Maps, spec: Kendall | None = None) -> Array:
    """``tau_b = (P - Q) / sqrt(U_a U_b)`` per example ``[B]``: in [-1, 1], higher is more alike.

    P, Q: pairs of pixels that the maps order alike and differently; U: pairs that are not tied in a map. NaN where a
    map is constant. Costs about three times Spearman's. Source: Kendall 1945, *The treatment of ties in ranking
    problems*; of maps, Chen et al. 2019 (1905.09957).
    """
    spec = spec or Kendall()
    first, second = _both(maps, other_maps, spec.sign)
    balance, untied, other_untied = ranks.concordance(first, second)
    tau = balance / jnp.sqrt(untied * other_untied)
    return _unless_meaningless(jnp.clip(tau, -1, 1), first, second)


@spec
class SSIM(Relevance):
    """Structural similarity: local mean, contrast and pattern of the two maps, each divided by its maximum."""

    title: ClassVar[str] = "SSIM"
    direction: ClassVar[str] = "higher"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)


def ssim(maps: Maps, other_maps: Maps, spec: SSIM | None = None) -> Array:
    """Mean over windows of the structural similarity index ``[B]``: in [-1, 1], higher is more alike, 1 only if equal.

    ``(2 mu_a mu_b + C1)(2 s_ab + C2) / ((mu_a^2 + mu_b^2 + C1)(s_a^2 + s_b^2 + C2))``, with means, variances and the
    covariance under an 11x11 Gaussian of sigma 1.5 that sums to one, at the (H - 10)(W - 10) places where it fits into
    the map; ``C1 = (0.01 L)^2``, ``C2 = (0.03 L)^2``. Each map is divided by its own largest ``|m|``, so the data range
    L is 1, and 2 with sign='raw'. ValueError for maps of fewer than 11 pixels a side.

    Source: Wang, Bovik, Sheikh, Simoncelli 2004, *Image quality assessment*, equations 13 to 17.
    """
    spec = spec or SSIM()
    values = _both(maps, other_maps, spec.sign)
    if min(maps.shape[1:]) < WINDOW:
        raise ValueError(f"SSIM needs maps of at least {WINDOW}x{WINDOW} pixels, got {maps.shape[1]}x{maps.shape[2]}.")
    a, b = (v / peak(v) for v in values)
    data_range = 2 if spec.sign == "raw" else 1
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_a, mean_b = _windowed(a), _windowed(b)
    spread = _windowed(a * a) - mean_a**2 + _windowed(b * b) - mean_b**2
    together = _windowed(a * b) - mean_a * mean_b
    index = (2 * mean_a * mean_b + c1) * (2 * together + c2) / ((mean_a**2 + mean_b**2 + c1) * (spread + c2))
    return jnp.mean(index, axis=(1, 2))


@spec
class CentreShift(Shares):
    """Distance between the centres of mass of the two maps."""

    title = by_option(lambda self: f"Centre shift, {'pixels' if self.unit == 'pixels' else 'share of the diagonal'}")
    direction: ClassVar[str] = "lower"
    range = by_option(lambda self: (0.0, 1.0 if self.unit == "diagonal" else math.inf))

    unit: str = "pixels"

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("unit", self.unit, UNITS)


def centre_shift(maps: Maps, other_maps: Maps, spec: CentreShift | None = None) -> Array:
    """``|c(a) - c(b)|_2``, ``c = sum_i a_i (row_i, column_i) / sum_i a_i``, per example ``[B]``: lower is more alike.

    unit: 'pixels', or 'diagonal', which divides by the distance between the centres of opposite corner pixels: [0, 1].
    Source: Ghorbani, Abid, Zou 2019 (1710.10547).
    """
    spec = spec or CentreShift()
    first, second = (map_distances.shares(values) for values in _both(maps, other_maps, spec.sign))
    shift = map_distances.centre_of_mass(first) - map_distances.centre_of_mass(second)
    length = jnp.sqrt(jnp.sum(jnp.square(shift), axis=-1))
    return length / max(math.hypot(maps.shape[1] - 1, maps.shape[2] - 1), 1) if spec.unit == "diagonal" else length


def _both(maps: Maps, other_maps: Maps, sign: str) -> tuple[Array, Array]:
    check_same_shape(maps, other_maps)
    return relevance(maps, sign), relevance(other_maps, sign)


def _unless_meaningless(values: Array, first: Array, second: Array) -> Array:
    """``values``, NaN where a relevance is: it is then NaN at every pixel."""
    return jnp.where(jnp.isnan(first[:, 0, 0] + second[:, 0, 0]), jnp.nan, values)


def _sum(values: Array) -> Array:
    return jnp.sum(values, axis=(1, 2))


def _windowed(values: Array) -> Array:
    """Weighted means ``[B, H - 10, W - 10]`` of the Gaussian windows that fit; one small matrix product an axis."""
    rows, columns = (jnp.asarray(_windows(size), values.dtype) for size in values.shape[1:])
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("jw,biw->bij", columns, jnp.einsum("ih,bhw->biw", rows, values, precision=exact), precision=exact)


def _windows(size: int) -> np.ndarray:
    """One window a row, ``[size - 10, size]``."""
    weights = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * WINDOW_SIGMA**2))
    return sum(np.eye(size - WINDOW + 1, size, k=i) * weight for i, weight in enumerate(weights / weights.sum()))


SIMILARITIES = {
    "top_k_intersection": (TopK, top_k_intersection),
    "spearman": (Spearman, spearman),
    "kendall": (Kendall, kendall),
    "ssim": (SSIM, ssim),
    "centre_shift": (CentreShift, centre_shift),
}
