"""What became of the claims that a study's config states: every difference measured, and a verdict on each claim.

A difference is of two columns of scores, each of one run and one map, on the same images and seed. It is shown where
:func:`robust_saliency.statistics.difference_counts` counts it, in the direction that was stated: every seed has its
sign, the interval of all seeds, grouped, excludes zero, and so does Holm's correction over all that is stated, the
correlations (:mod:`stated_correlations`) among it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from robust_saliency import statistics
from robust_saliency.report import measures, stated_correlations
from robust_saliency.report.load import Study
from robust_saliency.stated import FLOORS, Claim, Expected

_SEED = 0
_FLIPS_A_TEST = 1_100


@dataclass(frozen=True)
class Difference:
    """What was measured of ``expected``: both means, and the difference of all seeds and of each.

    finding: shown, opposite, less than stated (where a least difference was; it may be of the other sign), not shown,
    one seed, too few or not measured. p_value: of no difference, or of that which was stated at least, after Holm's
    correction over all that is stated. Means are of the images that both have.
    """

    expected: Expected
    mean: float
    other_mean: float
    difference: statistics.Estimate
    by_seed: dict[int, float]
    p_value: float
    finding: str
    reason: str


@dataclass(frozen=True)
class Judged:
    claim: Claim
    differences: tuple[Difference, ...]
    correlations: tuple[stated_correlations.Correlation, ...] = ()

    @property
    def measured(self) -> tuple[Difference | stated_correlations.Correlation, ...]:
        return (*self.differences, *self.correlations)

    @property
    def shown(self) -> int:
        return sum(each.finding == "shown" for each in self.measured)

    @property
    def verdict(self) -> str:
        """holds, partly, does not hold; or one seed, not measured, too few, where nothing can be said of all of it."""
        if any(len(each.by_seed) == 1 for each in self.measured):
            return "one seed"
        lacking = {each.finding for each in self.measured} & {"not measured", "too few"}
        if lacking:
            return min(lacking)
        if self.shown == len(self.measured):
            return "holds"
        return "partly" if self.shown else "does not hold"


def judged(study: Study) -> list[Judged]:
    """The claims of the study, each with what was measured; ValueError where a map of them was not."""
    read = measures.reader(study)
    listed = [(claim, list(_each(study, claim))) for claim in study.claims]
    draws = _FLIPS_A_TEST * sum(len(differences) + len(claim.correlated) for claim, differences in listed)
    tests = []
    for claim, differences in listed:
        pairs = [_tested(_paired(study, expected, read), draws) for expected in differences]
        correlations = [
            stated_correlations.tested(study, expected, read, draws, _SEED) for expected in claim.correlated
        ]
        tests.append((claim, pairs, correlations))
    found = [each.found.p_value for _, _, correlations in tests for each in correlations]
    p_values = iter(statistics.holm([*(p for _, pairs, _ in tests for _, p in pairs), *found]).tolist())
    differences = [[_measured(pair, next(p_values)) for pair, _ in pairs] for _, pairs, _ in tests]
    return [
        Judged(claim, tuple(measured), tuple(stated_correlations.judged(each, next(p_values)) for each in correlations))
        for (claim, _, correlations), measured in zip(tests, differences, strict=True)
    ]


def _each(study: Study, claim: Claim) -> Iterator[Expected]:
    """Every difference of a claim: one a floor where it names all of them."""
    for expected in claim.expected:
        if expected.than_map == FLOORS:
            floors = (floor for floor in study.floors(expected.map) if floor != expected.map)
            yield from (replace(expected, than_map=floor) for floor in floors)
        else:
            yield expected


@dataclass(frozen=True)
class _Pair:
    """By seed the values of both columns where both are defined, with the groups of these images."""

    expected: Expected
    by_seed: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]

    @property
    def sign(self) -> int:
        return 1 if self.expected.direction == "higher" else -1

    @property
    def differences(self) -> np.ndarray:
        """Of all seeds, in the direction that is claimed, less what is claimed at least."""
        return np.concatenate([self.sign * (a - b) - self.expected.by for a, b, _ in self.by_seed.values()])

    @property
    def groups(self) -> np.ndarray:
        return np.concatenate([groups for _, _, groups in self.by_seed.values()])


def _paired(study: Study, expected: Expected, read: measures.Reader) -> _Pair:
    """Of every seed of the study: a run that failed has no values there, and of the other seeds nothing is claimed."""
    metric, label, method = expected.other
    runs, others = ({run.seed: run for run in study.of(each)} for each in (expected.run, label))
    by_seed = {}
    for seed in study.seeds:
        a = read(runs[seed], expected.metric, expected.map) if seed in runs else measures.NOTHING
        b = read(others[seed], metric, method) if seed in others else measures.NOTHING
        _, at_a, at_b = np.intersect1d(a.ids, b.ids, assume_unique=True, return_indices=True)
        values, other_values = a.values[at_a], b.values[at_b]
        known = np.isfinite(values) & np.isfinite(other_values)
        by_seed[seed] = (values[known], other_values[known], np.asarray(a.groups)[at_a][known].astype(str))
    return _Pair(expected, by_seed)


def _tested(pair: _Pair, num_draws: int) -> tuple[_Pair, float]:
    """With its p-value, not corrected yet."""
    by, settings = pair.expected.by, {"num_draws": num_draws, "seed": _SEED}
    if not by:
        return pair, statistics.sign_flip_test(pair.differences, pair.groups, **settings)
    limits = measures.limits_of_difference(pair.expected)
    shifted = limits and tuple(sorted(pair.sign * limit - by for limit in limits))
    return pair, statistics.margin_test(pair.differences, pair.groups, limits=shifted, **settings)


def _measured(pair: _Pair, p_value: float) -> Difference:
    expected = pair.expected
    means = [measures.mean(np.concatenate([both[i] for both in pair.by_seed.values()])) for i in (0, 1)]
    plain = np.concatenate([a - b for a, b, _ in pair.by_seed.values()])
    by_seed = {seed: measures.mean(a - b) for seed, (a, b, _) in pair.by_seed.items()}
    beyond = statistics.bootstrap_mean(pair.differences, pair.groups, seed=_SEED)
    seeds = [pair.sign * each - expected.by for each in by_seed.values()]
    limits = (beyond.low, beyond.high)
    than = f"{pair.sign * expected.by:g}" if expected.by else "zero"
    verdict = statistics.difference_counts(seeds, limits, int(beyond.num_groups), p_value, than)
    difference = statistics.bootstrap_mean(plain, pair.groups, seed=_SEED)
    finding = _finding(verdict, len(by_seed), expected.by)
    return Difference(expected, *means, difference, by_seed, p_value, finding, verdict.reason)


def _finding(verdict: statistics.Verdict, num_seeds: int, by: float) -> str:
    """Below a least difference that was stated says nothing of the other sign."""
    if verdict.finding in ("too few", "not measured"):
        return verdict.finding
    if num_seeds == 1:
        return "one seed"
    if not verdict.counts:
        return "not shown"
    if verdict.finding == "higher":
        return "shown"
    return "less than stated" if by > 0 else "opposite"
