"""A permutation test of a paired difference, and the correction of many p-values."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from robust_saliency.statistics.groups import Seed, all_signs, group_sums, random_signs, rows

ENOUGH_HITS = 400


def sign_flip_test(differences: Any, groups: Any = None, *, num_draws: int = 10_000, seed: Seed) -> Any:
    r"""Two-sided p-value of "the sums of the differences in a group are symmetric about zero".

    Statistic: :math:`|\sum_g s_g S_g|` over random signs :math:`s_g`, of the groups' sums :math:`S_g`: it is of the
    mean over rows, whose interval :func:`bootstrap_mean` gives. All :math:`2^G` signs when these are no more than
    ``num_draws`` (exact), else ``(1 + hits) / (1 + draws)``, where the draws end at ``num_draws``, or earlier once
    there are 400 hits, which tell p to 5 %. NaN without values. Source: Fisher 1935; Phipson and Smyth 2010 for the
    added one; Besag and Clifford 1991 for the early end.
    """
    values, codes = rows(differences, groups)
    columns = [group_sums(column, codes) for column in np.atleast_2d(values.T)]
    p_values = np.full(len(columns), np.nan)
    for size in {len(sums) for sums, _ in columns if len(sums)}:
        members = [index for index, (sums, _) in enumerate(columns) if len(sums) == size]
        sums = np.stack([columns[m][0] for m in members], axis=1)
        observed = np.abs(sums.sum(0)) - 1e-9 * np.abs(sums).sum(0)
        exact = size < 63 and 2**size <= num_draws
        signs = all_signs(size) if exact else random_signs(size, num_draws, seed)
        hits, drawn = _count_hits(signs, sums, observed, np.inf if exact else ENOUGH_HITS)
        p_values[members] = hits / drawn if exact else (1 + hits) / (1 + drawn)
    return p_values.item() if values.ndim == 1 else p_values


def _count_hits(
    signs: Iterable[np.ndarray], sums: np.ndarray, observed: np.ndarray, enough: float
) -> tuple[np.ndarray, np.ndarray]:
    """How many of how many draws reach what was observed, by column; one with ``enough`` hits takes no more blocks."""
    hits, drawn = np.zeros(len(observed), int), np.zeros(len(observed), int)
    for block in signs:
        going = np.flatnonzero(hits < enough)
        if not len(going):
            break
        hits[going] += (np.abs(block @ sums[:, going]) >= observed[going]).sum(0)
        drawn[going] += len(block)
    return hits, drawn


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
