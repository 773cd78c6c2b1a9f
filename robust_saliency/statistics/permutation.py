"""A permutation test of a paired difference, and the correction of many p-values."""

from typing import Any

import numpy as np

from robust_saliency.statistics.groups import Seed, all_signs, group_sums, random_signs, rows


def sign_flip_test(differences: Any, groups: Any = None, *, num_draws: int = 10_000, seed: Seed) -> Any:
    r"""Two-sided p-value of "the group means of the differences are symmetric about zero".

    Statistic: :math:`|\sum_g s_g \bar d_g|` over random signs :math:`s_g`; all :math:`2^G` of them when these are no
    more than ``num_draws`` (exact), else ``(1 + hits) / (1 + num_draws)``. NaN without values. Source: Fisher 1935;
    Phipson and Smyth 2010 for the added one.
    """
    values, codes = rows(differences, groups)
    columns = [group_sums(column, codes) for column in np.atleast_2d(values.T)]
    p_values = np.full(len(columns), np.nan)
    for size in {len(sums) for sums, _ in columns if len(sums)}:
        members = [index for index, (sums, _) in enumerate(columns) if len(sums) == size]
        means = np.stack([columns[m][0] / columns[m][1] for m in members], axis=1)
        observed = np.abs(means.sum(0)) - 1e-9 * np.abs(means).sum(0)
        exact = size < 63 and 2**size <= num_draws
        signs = all_signs(size) if exact else random_signs(size, num_draws, seed)
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


