"""Whether a difference counts: seeds, interval, number of groups, and the correction over the family of claims."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_LEAST_GROUPS = 20
_SIGNIFICANT = 0.05


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


def difference_counts(
    differences_by_seed: Sequence[float],
    pooled_interval: tuple[float, float],
    num_groups: int,
    corrected_p: float | None = None,
    than: str = "zero",
) -> Verdict:
    """The rule: a difference counts when every seed has its sign and the pooled interval excludes zero.

    And, where it stands in a family of differences, when ``corrected_p``, its p-value corrected over the family
    (:func:`holm`), is below 0.05; None where it stands alone.
    ``differences_by_seed`` holds one mean difference a training seed, ``pooled_interval`` is the grouped interval of
    all seeds together (:func:`paired_difference` on the concatenated rows, an image being one group in all seeds), of
    ``num_groups`` groups. Of fewer than 20 groups a bootstrap is too narrow to say anything (it excludes a true zero in
    11 % of cases with 9 groups, in 28 % with 3, seeds or not): the finding is ``too few``.
    The interval alone knows nothing of training: with one seed there is no claim. The finding is ``unclear`` where the
    interval includes zero, ``mixed`` where it does not but a seed has the other sign or none (exactly 0), ``not
    measured`` where a seed or the interval is NaN.
    than: what zero stands for in the reason, where a difference was stated that the others are less by.
    """
    differences = np.asarray(differences_by_seed, float)
    low, high = pooled_interval
    if differences.size == 0 or not np.all(np.isfinite([low, high, *differences])):
        lacking = np.isfinite(differences).any() and np.isfinite([low, high]).all()
        return Verdict(False, "not measured", "not measured with every seed" if lacking else "not measured")
    if num_groups < _LEAST_GROUPS:
        return Verdict(False, "too few", f"{num_groups} groups of images are too few for an interval to be trusted")
    if low <= 0.0 <= high:
        return Verdict(False, "unclear", f"the interval includes {than}")
    finding = "higher" if low > 0.0 else "lower"
    if len(differences) == 1:
        return Verdict(False, finding, f"the interval excludes {than}, but one seed is no claim")
    if not np.all(np.sign(differences) == np.sign(low)):
        return Verdict(False, "mixed", f"not all seeds lie on one side of {than}")
    if corrected_p is not None and not corrected_p < _SIGNIFICANT:
        return Verdict(False, finding, f"the interval excludes {than}, but not after Holm's correction over the family")
    agree = f"all {len(differences)} seeds agree and the interval excludes {than}"
    return Verdict(True, finding, agree if corrected_p is None else f"{agree}, Holm's correction too")
