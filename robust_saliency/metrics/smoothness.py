"""How much a map changes between neighbours: total variation, and the smoothness of Margeloiu et al."""

from typing import ClassVar

import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.metrics.sparsity import Relevance, by_option, peak, relevance
from robust_saliency.types import Array, Maps, spec

_UNITS = {"mean": "", "map": ", in the map's unit"}


@spec
class TotalVariation(Relevance):
    """Mean absolute difference of neighbouring pixels, divided by the mean relevance."""

    title: ClassVar[str] = "Total variation"
    direction: ClassVar[str] = "lower"
    range: ClassVar[tuple[float, float]] = (0.0, 3.0)


def total_variation(maps: Maps, spec: TotalVariation | None = None) -> Array:
    """Relative total variation ``[B]`` of maps ``[B, H, W]``: in [0, 3], lower = smoother, 0 for a constant map.

    ``mean over the H(W-1) + (H-1)W neighbouring pairs (i, j) of |a_i - a_j|``, divided by ``mean |a|``: anisotropic L1,
    no wrap at the border. The division makes it free of scale (reconstruction: the sources sum without dividing). The
    bound 3 is reached by the centre of 3 x 3; on large maps it is about 2 (checkerboard, single pixel).

    Sparse maps vary more: over random arrangements of the same values the mean is ``2 n / (n - 1) * gini``. So a higher
    value at a higher Gini index need not mean a less ordered map; compare with that mean.
    A map of one pixel has no neighbours: NaN. sign='raw' keeps the differences signed.
    """
    spec = spec or TotalVariation()
    values = relevance(maps, spec.sign)
    unit = peak(values)
    height, width = values.shape[1:]
    pairs = height * (width - 1) + (height - 1) * width
    total = sum(jnp.sum(jnp.abs(jnp.diff(values, axis=axis)) / unit, axis=(1, 2)) for axis in (1, 2))
    mean = jnp.mean(jnp.abs(values) / unit, axis=(1, 2))
    return total / (pairs * mean) if pairs else jnp.full_like(mean, jnp.nan)


@spec
class Smoothness(Relevance):
    """Mean difference of each pixel from the one above and the one on its left, which at the border are the last."""

    title = by_option(lambda self: f"Smoothness (l{self.power}{_UNITS[self.unit]})")
    direction: ClassVar[str] = "lower"
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    power: int = 1
    unit: str = "mean"

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("unit", self.unit, _UNITS)
        if self.power not in (1, 2):
            raise ValueError(f"power must be 1 or 2, got {self.power}.")


def smoothness(maps: Maps, spec: Smoothness | None = None) -> Array:
    """``mean_ij |a_ij - a_i,j-1|^p + |a_ij - a_i-1,j|^p`` of maps ``[B, H, W]``, indices modulo H and W: in [0, inf).

    Lower is smoother, 0 for a constant map. p: ``power``. unit='map', as published: in the unit of the map, so that a
    network with smaller gradients is smoother by that alone; 'mean' (reconstruction): of ``a / mean |a|``, free of it.
    Source: compute_smoothness in the code of Margeloiu et al. 2020 (2012.01166).
    """
    spec = spec or Smoothness()
    values = relevance(maps, spec.sign)
    if spec.unit == "mean":
        unit = peak(values)
        values = values / unit / jnp.mean(jnp.abs(values) / unit, axis=(1, 2), keepdims=True)
    differences = sum(jnp.abs(values - jnp.roll(values, 1, axis)) ** spec.power for axis in (1, 2))
    return jnp.mean(differences, axis=(1, 2))
