"""Means and paired differences with intervals from a bootstrap over groups."""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from robust_saliency.statistics.groups import Seed, group_sums, pair, resampled_weights, rows

INTERVALS = ("bca", "percentile")
_ROUNDING = 1e-12


class Estimate(NamedTuple):
    """A mean with its interval ``[low, high]``, and what it rests on; no interval (NaN) with fewer than two groups."""

    mean: Any
    low: Any
    high: Any
    n: Any
    n_nan: Any
    num_groups: Any

    def column(self, index: int) -> "Estimate":
        """The estimate of one column of ``values [N, M]``."""
        return Estimate(*(np.asarray(field)[index].item() for field in self))

    @property
    def note(self) -> str:
        """Why there is no interval (or no mean), in words; empty when there is one."""
        if self.n == 0:
            return "no values"
        return "one group only, so no interval" if self.num_groups < 2 else ""


def bootstrap_mean(
    values: Any,
    groups: Any = None,
    *,
    num_draws: int = 2000,
    level: float = 0.95,
    seed: Seed,
    interval: str = "bca",
) -> Estimate:
    r"""Mean with a bootstrap interval that resamples groups.

    With group sums :math:`S_g` and sizes :math:`n_g`, a draw takes G groups with replacement (weights :math:`w_g`) and
    gives :math:`\theta^* = \sum_g w_g S_g / \sum_g w_g n_g`: a ratio of sums, right for groups of unequal size.
    ``groups`` is ``[N]``, of any type that sorts; without it each row is a group.

    ``interval='percentile'`` takes the quantiles of the draws at :math:`\alpha` and :math:`1 - \alpha`. ``'bca'``, bias
    corrected and accelerated, takes them at :math:`\Phi(z_0 + (z_0 + z_\alpha) / (1 - a (z_0 + z_\alpha)))`, with
    :math:`z_0 = \Phi^{-1}(P(\theta^* < \hat\theta) + P(\theta^* = \hat\theta)/2)` and the acceleration from the
    jackknife over groups, :math:`a = \sum_g d_g^3 / (6 (\sum_g d_g^2)^{3/2})`,
    :math:`d_g = \bar\theta_{(.)} - \hat\theta_{(g)}`. Where all draws lie on one side of the mean the bias cannot be
    told and :math:`z_0` is 0; where all groups agree the interval is the mean; of one group there is none (NaN). Below
    some hundred draws :math:`z_0` is too noisy.

    Measured over 8000 simulations each, 2000 draws, how many of 100 true means a 95 % interval holds, percentile and
    BCa: 20 normal values 92.3, 92.4; 20 exponential 90.3, 90.9; 20 lognormal 85.3, 86.9; 20 shares, Beta(8, 0.8), 91.2,
    92.1; lognormal in 20 groups of 1 to 8 83.5, 85.5, in 60 groups 88.8, 89.6; 200 lognormal 93.4, 93.2. BCa divides
    the misses more evenly: of 20 lognormal it is too low in 10.4 and too high in 2.6 (percentile 13.8 and 0.9), of 200
    in 3.9 and 2.9 (5.3 and 1.3). So it is the default. It does not help where the values are few and normal (9: 89.6,
    89.3), nor know what no draw shows: for 20 images, each right with 0.95, both hold the share in 63.

    Source: Efron 1987 (BCa); Efron and Tibshirani 1993, chapters 13 and 14; Davison and Hinkley 1997, section 3.8
    (clusters).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, got {level}.")
    if interval not in INTERVALS:
        raise ValueError(f"interval must be one of {', '.join(INTERVALS)}, got {interval!r}.")
    values, codes = rows(values, groups)
    columns = [group_sums(column, codes) for column in np.atleast_2d(values.T)]
    sums_by_column, sizes_by_column = zip(*columns, strict=True)
    n = np.array([sizes.sum() for sizes in sizes_by_column], int)
    num_groups = np.array([len(sizes) for sizes in sizes_by_column], int)
    totals = np.array([sums.sum() for sums in sums_by_column])
    mean = np.divide(totals, n, out=np.full(len(n), np.nan), where=n > 0)
    limits = np.full((2, len(n)), np.nan)
    for size in np.unique(num_groups[num_groups > 1]):
        members = np.flatnonzero(num_groups == size)
        sums = np.stack([sums_by_column[m] for m in members], axis=1)
        sizes = np.stack([sizes_by_column[m] for m in members], axis=1)
        uniform = sizes.min() == sizes.max()
        draws = np.concatenate(
            [
                (weights @ sums) / (sizes.sum(0) if uniform else weights @ sizes)
                for weights in resampled_weights(size, num_draws, seed)
            ]
        )
        tails = np.array([(1.0 - level) / 2.0, (1.0 + level) / 2.0])[:, None]
        if interval == "bca":
            tails = _corrected_tails(tails, draws, sums, sizes)
        limits[:, members] = _quantiles(draws, np.broadcast_to(tails, (2, len(members))))
    estimate = Estimate(mean, limits[0], limits[1], n, len(values) - n, num_groups)
    return estimate.column(0) if values.ndim == 1 else estimate


def paired_difference(
    a: Any,
    b: Any,
    groups: Any = None,
    *,
    num_draws: int = 2000,
    level: float = 0.95,
    seed: Seed,
    interval: str = "bca",
) -> Estimate:
    """Mean of ``a - b`` over the pairs in which both are finite, with the interval of :func:`bootstrap_mean`."""
    return bootstrap_mean(pair(a, b), groups, num_draws=num_draws, level=level, seed=seed, interval=interval)


def _corrected_tails(tails: np.ndarray, draws: np.ndarray, sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The probabilities ``[2, M]`` at which BCa takes the quantiles of the ``draws``; see :func:`bootstrap_mean`."""
    total, count = sums.sum(0), sizes.sum(0)
    rounding = _ROUNDING * np.abs(sums).sum(0) / count
    above_mean = draws - total / count
    below, ties = (above_mean < -rounding).mean(0), (np.abs(above_mean) <= rounding).mean(0)
    below = below + ties / 2.0
    bias = np.where((below > 0.0) & (below < 1.0), ndtri(below), 0.0)
    left_out = (total - sums) / (count - sizes)
    spread = left_out.mean(0) - left_out
    spread = np.where(np.abs(spread) > rounding, spread, 0.0)
    scale = 6.0 * (spread**2).sum(0) ** 1.5
    acceleration = np.divide((spread**3).sum(0), scale, out=np.zeros_like(scale), where=scale > 0.0)
    shifted = bias + ndtri(tails)
    shrink = 1.0 - acceleration * shifted
    ends = np.divide(shifted, shrink, out=np.copysign(np.inf, shifted), where=shrink > 0.0)
    return ndtr(bias + ends)


def _quantiles(draws: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """``np.quantile`` of each column of ``draws [D, M]`` at probabilities of its own, ``[Q, M]``."""
    ordered = np.sort(draws, axis=0)
    places = probabilities * (len(draws) - 1)
    lower = np.floor(places).astype(int)
    upper = np.minimum(lower + 1, len(draws) - 1)
    at_lower, at_upper = (np.take_along_axis(ordered, at, axis=0) for at in (lower, upper))
    return at_lower + (at_upper - at_lower) * (places - lower)
