r"""Intervals and tests for scores measured on the same images: how sure a mean or a difference is.

Images of one lesion, or one image seen by several networks, are not independent, so everything here resamples
*groups*. NumPy and SciPy only; the randomness is the ``seed`` argument, an int or a ``numpy.random.Generator``.

``values`` may be ``[N]``, or ``[N, M]`` for M scores at once (each column is treated on its own, with the same draws);
results are then floats, or arrays ``[M]``. Values that are not finite are dropped and counted, and no result depends
on the order of the rows.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri

Seed = int | np.random.Generator
_WEIGHTS_AT_ONCE = 4_000_000
_LEAST_GROUPS = 20


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


class Verdict(NamedTuple):
    """Whether a difference counts; what was found (higher, lower, mixed, unclear, too few or not measured); and why."""

    counts: bool
    finding: str
    reason: str

    def word(self, direction: str) -> str:
        """The finding, as ``better`` or ``worse`` where higher or lower is better; ``direction`` 'none' keeps it."""
        if direction == "none" or self.finding not in ("higher", "lower"):
            return self.finding
        return "better" if self.finding == direction else "worse"


def bootstrap_mean(
    values: Any, groups: Any = None, *, num_draws: int = 2000, level: float = 0.95, seed: Seed
) -> Estimate:
    r"""Mean with a percentile bootstrap interval that resamples groups.

    With group sums :math:`S_g` and sizes :math:`n_g`, a draw takes G groups with replacement (weights :math:`w_g`) and
    gives :math:`\sum_g w_g S_g / \sum_g w_g n_g`: a ratio of sums, right for groups of unequal size.
    ``groups`` is ``[N]``, of any type that sorts; without it each row is a group. Source: Efron and Tibshirani 1993,
    chapter 13 (percentile interval); Davison and Hinkley 1997, section 3.8 (clusters).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, got {level}.")
    values, codes = _rows(values, groups)
    columns = [_group_sums(column, codes) for column in np.atleast_2d(values.T)]
    sums_by_column, sizes_by_column = zip(*columns, strict=True)
    n = np.array([sizes.sum() for sizes in sizes_by_column], int)
    num_groups = np.array([len(sizes) for sizes in sizes_by_column], int)
    totals = np.array([sums.sum() for sums in sums_by_column])
    mean = np.divide(totals, n, out=np.full(len(n), np.nan), where=n > 0)
    limits = np.full((2, len(n)), np.nan)
    tails = [(1.0 - level) / 2.0, (1.0 + level) / 2.0]
    for size in np.unique(num_groups[num_groups > 1]):
        members = np.flatnonzero(num_groups == size)
        sums = np.stack([sums_by_column[m] for m in members], axis=1)
        sizes = np.stack([sizes_by_column[m] for m in members], axis=1)
        uniform = sizes.min() == sizes.max()
        draws = [
            (weights @ sums) / (sizes.sum(0) if uniform else weights @ sizes)
            for weights in _resampled_weights(size, num_draws, seed)
        ]
        limits[:, members] = np.quantile(np.concatenate(draws), tails, axis=0)
    estimate = Estimate(mean, limits[0], limits[1], n, len(values) - n, num_groups)
    return estimate.column(0) if values.ndim == 1 else estimate


def paired_difference(
    a: Any, b: Any, groups: Any = None, *, num_draws: int = 2000, level: float = 0.95, seed: Seed
) -> Estimate:
    """Mean of ``a - b`` over the pairs in which both are finite, with the interval of :func:`bootstrap_mean`."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise ValueError(f"Pairs need equal shapes, got {a.shape} and {b.shape}.")
    both = np.isfinite(a) & np.isfinite(b)
    differences = np.subtract(a, b, out=np.full(a.shape, np.nan), where=both)
    return bootstrap_mean(differences, groups, num_draws=num_draws, level=level, seed=seed)


def share_interval(share: Estimate) -> tuple[float, float]:
    """The 95 % interval of a share of images, from its :func:`bootstrap_mean`.

    Wilson's where every image is a group of its own, else the bootstrap over groups: Wilson's takes the images of a
    group for independent. Where all images agree the bootstrap has no width, and Wilson's of the groups is given.
    """
    if not share.n:
        return float("nan"), float("nan")
    if share.num_groups < share.n and 0.0 < share.mean < 1.0:
        return share.low, share.high
    return wilson_interval(round(share.mean * share.num_groups), share.num_groups)


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    r"""Interval of a proportion :math:`p` of independent trials.

    :math:`(p + z^2/2n \pm z\sqrt{p(1-p)/n + z^2/4n^2}) / (1 + z^2/n)`, with z the normal quantile of the level.
    NaN when ``n`` is 0. Source: Wilson 1927; Brown, Cai and DasGupta 2001.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie in 0..n, got {successes} of {n}.")
    if n == 0:
        return float("nan"), float("nan")
    z = float(ndtri((1.0 + level) / 2.0))
    share, shrink = successes / n, 1.0 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z * np.sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n)) / shrink
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def difference_counts(
    differences_by_seed: Sequence[float], pooled_interval: tuple[float, float], num_groups: int
) -> Verdict:
    """The rule: a difference counts when every seed has its sign and the pooled interval excludes zero.

    ``differences_by_seed`` holds one mean difference a training seed, ``pooled_interval`` is the grouped interval of
    all seeds together (:func:`paired_difference` on the concatenated rows, an image being one group in all seeds), of
    ``num_groups`` groups. Of fewer than 20 groups a percentile bootstrap is too narrow to say anything (it excludes a
    true zero in 13 % of cases with 9 groups, in 25 % with 3, seeds or not): the finding is ``too few``.
    The interval alone knows nothing of training: with one seed there is no claim. The finding is ``unclear`` where the
    interval includes zero, ``mixed`` where it does not but a seed has the other sign or none (exactly 0), ``not
    measured`` where a seed or the interval is NaN.
    """
    differences = np.asarray(differences_by_seed, float)
    low, high = pooled_interval
    if differences.size == 0 or not np.all(np.isfinite([low, high, *differences])):
        lacking = np.isfinite(differences).any() and np.isfinite([low, high]).all()
        return Verdict(False, "not measured", "not measured with every seed" if lacking else "not measured")
    if num_groups < _LEAST_GROUPS:
        return Verdict(False, "too few", f"{num_groups} groups of images are too few for an interval to be trusted")
    if low <= 0.0 <= high:
        return Verdict(False, "unclear", "the interval includes zero")
    finding = "higher" if low > 0.0 else "lower"
    if len(differences) == 1:
        return Verdict(False, finding, "the interval excludes zero, but one seed is no claim")
    if not np.all(np.sign(differences) == np.sign(low)):
        return Verdict(False, "mixed", "the seeds disagree in sign")
    return Verdict(True, finding, f"all {len(differences)} seeds agree and the interval excludes zero")


def sign_flip_test(differences: Any, groups: Any = None, *, num_draws: int = 10_000, seed: Seed) -> Any:
    r"""Two-sided p-value of "the group means of the differences are symmetric about zero".

    Statistic: :math:`|\sum_g s_g \bar d_g|` over random signs :math:`s_g`; all :math:`2^G` of them when these are no
    more than ``num_draws`` (exact), else ``(1 + hits) / (1 + num_draws)``. NaN without values. Source: Fisher 1935;
    Phipson and Smyth 2010 for the added one.
    """
    values, codes = _rows(differences, groups)
    columns = [_group_sums(column, codes) for column in np.atleast_2d(values.T)]
    p_values = np.full(len(columns), np.nan)
    for size in {len(sums) for sums, _ in columns if len(sums)}:
        members = [index for index, (sums, _) in enumerate(columns) if len(sums) == size]
        means = np.stack([columns[m][0] / columns[m][1] for m in members], axis=1)
        observed = np.abs(means.sum(0)) - 1e-9 * np.abs(means).sum(0)
        exact = size < 63 and 2**size <= num_draws
        signs = _all_signs(size) if exact else _random_signs(size, num_draws, seed)
        hits = sum((np.abs(block @ means) >= observed).sum(0) for block in signs)
        p_values[members] = hits / 2**size if exact else (1 + hits) / (1 + num_draws)
    return p_values.item() if values.ndim == 1 else p_values


def holm(p_values: Any) -> np.ndarray:
    """Holm's adjusted p-values: they bound the chance of one or more false claims in the family. NaN stays NaN.

    Source: Holm 1979.
    """
    p_values = np.asarray(p_values, float)
    adjusted = np.full(p_values.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def _rows(values: Any, groups: Any) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(values, float)
    if values.ndim not in (1, 2):
        raise ValueError(f"values must be [N] or [N, M], got shape {values.shape}.")
    if groups is None:
        return values, np.arange(len(values))
    groups = np.asarray(groups)
    if groups.shape != values.shape[:1]:
        raise ValueError(f"groups must be [{len(values)}], one a row, got shape {groups.shape}.")
    return values, np.unique(groups, return_inverse=True)[1]


def _group_sums(column: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and sizes of the groups with finite values, in an order that depends on the values alone."""
    finite = np.isfinite(column)
    column, codes = column[finite], codes[finite]
    order = np.lexsort((column, codes))
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    sums = np.add.reduceat(column[order], starts) if len(starts) else np.zeros(0)
    sizes = np.diff(np.append(starts, len(column)))
    order = np.lexsort((sizes, sums))
    return sums[order], sizes[order]


def _resampled_weights(num_groups: int, num_draws: int, seed: Seed):
    """Blocks ``[draws, G]``: how often a draw of G groups with replacement takes each of them."""
    generator = np.random.default_rng(seed)
    for count in _blocks(num_groups, num_draws):
        picks = generator.integers(num_groups, size=(count, num_groups), dtype=np.int32)
        picks = picks + np.arange(count)[:, None] * num_groups
        yield np.bincount(picks.ravel(), minlength=count * num_groups).reshape(count, num_groups).astype(float)


def _random_signs(num_groups: int, num_draws: int, seed: Seed):
    generator = np.random.default_rng(seed)
    for count in _blocks(num_groups, num_draws):
        yield generator.integers(2, size=(count, num_groups), dtype=np.int8) * 2.0 - 1.0


def _all_signs(num_groups: int):
    for first in range(0, 2**num_groups, _WEIGHTS_AT_ONCE // num_groups):
        patterns = np.arange(first, min(2**num_groups, first + _WEIGHTS_AT_ONCE // num_groups))
        yield (patterns[:, None] >> np.arange(num_groups) & 1) * 2.0 - 1.0


def _blocks(num_groups: int, num_draws: int) -> list[int]:
    block = max(1, _WEIGHTS_AT_ONCE // num_groups)
    return [min(block, num_draws - first) for first in range(0, num_draws, block)]
