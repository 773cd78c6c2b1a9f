"""What became of the claims that a study's config states: every difference measured, and a verdict on each claim.

A difference is of two columns of scores, each of one run and one map, on the same images and seed. It is shown where
:func:`robust_saliency.statistics.difference_counts` counts it, in the direction that was stated: every seed has its
sign, the interval of all seeds, grouped, excludes zero, and so does Holm's correction over all stated differences.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from robust_saliency import statistics
from robust_saliency.report import measures
from robust_saliency.report.load import Study
from robust_saliency.stated import FLOORS, Claim, Expected

_SEED = 0
_FLIPS_A_TEST = 1_100


@dataclass(frozen=True)
class Difference:
    """What was measured of ``expected``: both means, and the difference of all seeds and of each.

    finding: shown, opposite, less than stated (where a least difference was), not shown, one seed, too few or not
    measured. p_value: after Holm's correction over all stated differences. Means are of the images that both have.
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

    @property
    def shown(self) -> int:
        return sum(each.finding == "shown" for each in self.differences)

    @property
    def verdict(self) -> str:
        """holds, partly, does not hold; or one seed, not measured, too few, where nothing can be said of all of it."""
        if any(len(each.by_seed) == 1 for each in self.differences):
            return "one seed"
        lacking = {each.finding for each in self.differences} & {"not measured", "too few"}
        if lacking:
            return min(lacking)
        if self.shown == len(self.differences):
            return "holds"
        return "partly" if self.shown else "does not hold"


def judged(study: Study) -> list[Judged]:
    """The claims of the study, each with its differences; ValueError where a map of them was not measured."""
    claims = [(claim, list(_each(study, claim))) for claim in study.claims]
    read = measures.reader(study)
    pairs = [[_paired(study, expected, read) for expected in listed] for _, listed in claims]
    p_values = iter(_tests([pair for listed in pairs for pair in listed]))
    return [
        Judged(claim, tuple(_measured(pair, float(next(p_values))) for pair in of_claim))
        for (claim, _), of_claim in zip(claims, pairs, strict=True)
    ]


def described(study: Study) -> dict[str, Any]:
    """The verdicts as plain values, with what they rest on: seeds, images, command, hardware, versions, time."""
    summary = study.first.summary
    return {
        "title": study.title,
        "claims": [_plain(each, study) for each in judged(study)],
        "seeds": study.seeds,
        "changed_after": study.changed_after,
        "failed": [list(pair) for pair in study.failed],
        "images": summary["num_examples"],
        "groups": len(set(study.first.scores.groups.tolist())),
        "data": summary.get("data", ""),
        "command": study.command,
        "seconds": study.seconds,
        "hardware": summary.get("hardware", {}),
        "versions": summary.get("versions", {}),
    }


def _plain(found: Judged, study: Study) -> dict[str, Any]:
    differences = []
    for each in found.differences:
        limits = {"difference": each.difference.mean, "low": each.difference.low, "high": each.difference.high}
        measured = {"mean": each.mean, "other_mean": each.other_mean, **limits, "holm": each.p_value}
        differences.append(
            {
                **asdict(each.expected),
                "title": measures.title(study, each.expected.metric),
                "than_title": measures.title(study, each.expected.other[0]),
                **{name: _number(value) for name, value in measured.items()},
                "by_seed": {str(seed): _number(value) for seed, value in each.by_seed.items()},
                "finding": each.finding,
                "reason": each.reason,
            }
        )
    return {
        "label": found.claim.label,
        "sentence": found.claim.sentence,
        "verdict": found.verdict,
        "differences": differences,
    }


def _number(value: float) -> float | None:
    """Six digits; None for what is not defined, which JSON lacks."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


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


def _tests(pairs: list[_Pair]) -> np.ndarray:
    draws = _FLIPS_A_TEST * max(len(pairs), 1)
    found = [statistics.sign_flip_test(pair.differences, pair.groups, num_draws=draws, seed=_SEED) for pair in pairs]
    return statistics.holm(found)


def _measured(pair: _Pair, p_value: float) -> Difference:
    expected = pair.expected
    means = [_mean(np.concatenate([both[i] for both in pair.by_seed.values()])) for i in (0, 1)]
    plain = np.concatenate([a - b for a, b, _ in pair.by_seed.values()])
    by_seed = {seed: _mean(a - b) for seed, (a, b, _) in pair.by_seed.items()}
    beyond = statistics.bootstrap_mean(pair.differences, pair.groups, seed=_SEED)
    seeds = [pair.sign * each - expected.by for each in by_seed.values()]
    limits = (beyond.low, beyond.high)
    verdict = statistics.difference_counts(seeds, limits, int(beyond.num_groups), p_value)
    difference = statistics.bootstrap_mean(plain, pair.groups, seed=_SEED)
    finding = _finding(verdict, by_seed, difference, pair.sign)
    return Difference(expected, *means, difference, by_seed, p_value, finding, verdict.reason)


def _mean(values: np.ndarray) -> float:
    """NaN where there is none."""
    return float(values.mean()) if len(values) else math.nan


def _finding(verdict: statistics.Verdict, by_seed: dict[int, float], difference: statistics.Estimate, sign: int) -> str:
    if verdict.finding in ("too few", "not measured"):
        return verdict.finding
    if len(by_seed) == 1:
        return "one seed"
    if not verdict.counts:
        return "not shown"
    if verdict.finding == "higher":
        return "shown"
    is_opposite = max(sign * difference.low, sign * difference.high) < 0
    return "opposite" if is_opposite else "less than stated"
