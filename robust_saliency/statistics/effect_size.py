"""How large a paired difference is, in units that do not depend on the score's."""

from typing import Any

import numpy as np
from scipy.special import gammaln

from robust_saliency.statistics.bootstrap import Estimate, bootstrap_mean
from robust_saliency.statistics.groups import Seed, group_sums, rows

_ROUNDING = 1e-12


def standardised_difference(differences: Any, groups: Any = None) -> Any:
    r"""Hedges' g of paired differences: their mean over groups in standard deviations of the groups.

    With :math:`\bar d_g` the mean difference of group g of G and :math:`\nu = G - 1`,
    :math:`g = J(\nu)\,\operatorname{mean}_g \bar d_g / \operatorname{sd}_g \bar d_g` (sd with :math:`\nu` in the
    denominator), and :math:`J(\nu) = \Gamma(\nu/2) / (\sqrt{\nu/2}\,\Gamma((\nu - 1)/2))`, Hedges' exact factor, not
    the approximation :math:`1 - 3/(4\nu - 1)`: it makes g unbiased where the group means are normal. This is the
    :math:`d_z` of a paired design: it says how alike the groups are in their difference, and is larger than a d in
    standard deviations of the score itself where pairs are alike.

    ``differences`` is ``[N]`` or ``[N, M]``, ``groups [N]``. Any real number; above 0 where the first of a pair is
    higher. Every group weighs the same, whatever its size. NaN with fewer than three groups (J(1) is 0) and where the
    groups do not differ. Source: Hedges 1981, equation 6e; Cohen 1988, section 2.3.5 (:math:`d_z`).
    """
    values, codes = rows(differences, groups)
    found = np.array([_hedges(*group_sums(column, codes)) for column in np.atleast_2d(values.T)])
    return found.item() if values.ndim == 1 else found


def probability_of_superiority(
    differences: Any, groups: Any = None, *, num_draws: int = 2000, level: float = 0.95, seed: Seed
) -> Estimate:
    r"""Share of the pairs in which the first is higher, a tie counted half: :math:`P(d > 0) + P(d = 0) / 2`.

    From 0 to 1; 0.5 where neither is higher more often. It knows the sign of each pair alone, so it stays as it is when
    the score is transformed by a growing function in pairs, and one image far off moves it little. ``differences`` is
    ``[N]`` or ``[N, M]``; the interval is that of :func:`bootstrap_mean` over ``groups [N]``. Pairs that are not finite
    are dropped and counted. Source: Grissom and Kim 2012, chapter 6 (dependent groups); ties as Vargha and Delaney
    2000.
    """
    values, _ = rows(differences, groups)
    won = np.where(np.isfinite(values), (np.sign(values) + 1.0) / 2.0, np.nan)
    return bootstrap_mean(won, groups, num_draws=num_draws, level=level, seed=seed)


def _hedges(sums: np.ndarray, sizes: np.ndarray) -> float:
    freedom = len(sums) - 1
    if freedom < 2:
        return float("nan")
    means = sums / sizes
    spread = means.std(ddof=1)
    if spread <= _ROUNDING * np.abs(means).max():
        return float("nan")
    correction = np.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / np.sqrt(freedom / 2)
    return float(correction * means.mean() / spread)
