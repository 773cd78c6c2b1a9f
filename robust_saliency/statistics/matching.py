"""Which images two or more networks are compared on: those that all classify correctly, those of equal confidence."""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

CALIPER = 0.05
_ROUNDING = 1e-9


class Matched(NamedTuple):
    """``keep [N]``: the pairs within the caliper; and the mean difference of confidence of all pairs, and of these."""

    keep: np.ndarray
    gap_before: float
    gap_after: float


def all_correct(ids: Sequence[Any], correct: Sequence[Any]) -> np.ndarray:
    """The sorted ids that every run holds and classifies correctly: ``ids[r]`` and ``correct[r]`` are ``[N_r]``.

    On these the score of a map is about a right decision of every network, and no network's maps are judged on images
    that only it finds easy. The limit: they are the images that the worst network finds easy. No ids where some run
    has none in common with the others.
    """
    right = [np.unique(np.asarray(i)[np.asarray(c, float) == 1.0]) for i, c in zip(ids, correct, strict=True)]
    return reduce(np.intersect1d, right)


def confidence_matched(a: Any, b: Any, *, caliper: float = CALIPER) -> Matched:
    r"""Pairs of one image under two networks whose confidences differ by at most ``caliper``.

    Deletion favours the network with less confidence and insertion the one with more, because both areas follow the
    height at which their curve starts or ends (Nourelahi et al. 2022); robust networks are less confident. ``a`` and
    ``b`` are ``[N]``, the probability of the class that is explained; NaN where a pair is not to be used (such as an
    image that one of them gets wrong). Kept are the pairs with :math:`|a - b| \le` caliper, so the two distributions of
    confidence agree within the caliper at every quantile, and the comparison stays one of the same images.

    What it cannot do: a gap smaller than the caliper remains (``gap_after``, the mean of a - b over the kept pairs);
    the kept images are those on which both networks are about equally sure, mostly easy ones; networks that are never
    equally sure share no image, and then nothing is kept and nothing can be said. Matching at one point of the curve
    does not make the rest of it alike. Source: caliper matching, Cochran and Rubin 1973; that it is used here against
    this bias is a choice of ours.
    """
    if not 0.0 <= caliper <= 1.0:
        raise ValueError(f"caliper must lie between 0 and 1, got {caliper}.")
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise ValueError(f"Pairs need equal shapes, got {a.shape} and {b.shape}.")
    gap = a - b
    keep = np.abs(gap) <= caliper + _ROUNDING
    return Matched(keep, _mean(gap[np.isfinite(gap)]), _mean(gap[keep]))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
