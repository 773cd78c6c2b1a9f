"""How means over images go with a number, such as the strength that networks were trained against."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from robust_saliency.statistics.groups import Seed, resampled_weights

_ROUNDING = 1e-9


class Correlation(NamedTuple):
    """Pearson's r of each seed ``[S]``, their mean, its interval ``[low, high]``, and a p-value."""

    by_seed: np.ndarray
    mean: float
    low: float
    high: float
    num_groups: int
    p_value: float


def correlation_of_means(
    values: Sequence[Any],
    groups: Sequence[Any],
    numbers: Any,
    *,
    num_draws: int = 2000,
    num_permutations: int = 10_000,
    level: float = 0.95,
    seed: Seed,
) -> Correlation:
    r"""Pearson's correlation, over R networks, of ``numbers [R]`` with the mean of each network's values.

    ``values`` holds an array ``[N, R]`` a training seed, images by networks, ``groups`` the groups ``[N]`` of images.
    Images without a finite value of every network are left out. :math:`r_s = \operatorname{corr}_r(x_r, \frac1N
    \sum_n v_{snr})`, in [-1, 1]; ``mean`` is over seeds.

    The interval: quantiles of :math:`\bar r` over draws of groups with replacement, the same for all networks and
    seeds: what other images would say of these networks. Where means of a draw do not vary its r counts as 0. It is
    widened to hold :math:`\bar r` where all draws lie to one side; of one group there is none (NaN). The noise of
    images draws r towards 0: of five networks whose r is 0.956 (200 images, 600 simulations) the interval lies too far
    from 0 in 0 to 1.3 of 100 cases, too near in 3 where an image's values spread a third of what the means do, in 7
    where as much, in 31 where three times as much, and more often with more seeds. So it can say that r is above a
    limit, hardly that it is below.

    p_value: how often :math:`|\bar r|` gets so large when the numbers are dealt out anew to the networks of each seed,
    (1 + hits) / (1 + permutations). It is of "the networks of a seed are all of one kind", and right where they differ
    in nothing but their number. Where they differ in something else that has nothing to do with it, and all seeds share
    that, p is below 0.05 in a third of the cases (3 to 9 networks, 3 seeds), not in 5 of 100. The least p is
    2 / R!^S: 0.009 of three networks and three seeds.

    All are NaN where a seed has no images, or numbers or means are all the same. ValueError for other than three
    networks or more. Source: Pearson 1895; the permutation test Pitman 1937; Phipson and Smyth 2010 for the added one.
    """
    numbers = np.asarray(numbers, float)
    if numbers.ndim != 1 or len(numbers) < 3:
        raise ValueError(f"A correlation needs three networks or more, got numbers of shape {numbers.shape}.")
    sums, sizes = _sums_by_group(values, groups)
    means = _quotient(sums.sum(0), sizes.sum(0)[:, None])
    by_seed = _pearson(numbers, means)
    observed = float(by_seed.mean())
    if not np.isfinite(observed):
        return Correlation(by_seed, np.nan, np.nan, np.nan, len(sums), np.nan)
    low, high = np.nan, np.nan
    if len(sums) > 1:
        weights = resampled_weights(len(sums), num_draws, seed)
        draws = np.concatenate([_of_draws(block, sums, sizes, numbers) for block in weights])
        low, high = np.quantile(draws, [(1.0 - level) / 2.0, (1.0 + level) / 2.0]).tolist()
        low, high = min(low, observed), max(high, observed)
    dealt = np.tile(numbers, (num_permutations, len(means), 1))
    dealt = np.random.default_rng(seed).permuted(dealt, axis=-1)
    hits = np.sum(np.abs(_pearson(dealt, means).mean(-1)) >= abs(observed) - _ROUNDING)
    p_value = float(1 + hits) / (1 + num_permutations)
    return Correlation(by_seed, observed, low, high, len(sums), p_value)


def _sums_by_group(values: Sequence[Any], groups: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Sums ``[G, S, R]`` and numbers of images ``[G, S]`` by group and seed."""
    tables = [np.asarray(table, float) for table in values]
    known = [np.isfinite(table).all(axis=1) for table in tables]
    kept = [np.asarray(of_seed)[rows].astype(str) for of_seed, rows in zip(groups, known, strict=True)]
    names = np.unique(np.concatenate(kept))
    sums = np.zeros((len(names), len(tables), tables[0].shape[1]))
    sizes = np.zeros(sums.shape[:2])
    for at, (table, rows, of_seed) in enumerate(zip(tables, known, kept, strict=True)):
        codes = np.searchsorted(names, of_seed)
        np.add.at(sums[:, at], codes, table[rows])
        np.add.at(sizes[:, at], codes, 1)
    return sums, sizes


def _of_draws(weights: np.ndarray, sums: np.ndarray, sizes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The mean correlation of seeds in each draw of groups, ``weights [D, G]``; 0 where means do not vary."""
    drawn = _quotient(np.tensordot(weights, sums, 1), (weights @ sizes)[..., None])
    return np.nan_to_num(_pearson(numbers, drawn)).mean(-1)


def _pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Over the last axis; NaN where one of them does not vary."""
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    return _quotient((a * b).sum(-1), np.sqrt((a**2).sum(-1) * (b**2).sum(-1)))


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """NaN where ``b`` is zero."""
    b = np.broadcast_to(b, np.shape(a))
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0)
