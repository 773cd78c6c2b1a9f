"""What became of the correlations that a study states: a metric of its networks along a number that each has."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robust_saliency import statistics
from robust_saliency.report import measures
from robust_saliency.report.load import Study
from robust_saliency.stated import Correlated


@dataclass(frozen=True)
class Correlation:
    """What was measured of ``expected``; by_seed: the correlation of each seed.

    means: of the metric, a run, over images that all runs have and over seeds. finding, p_value: as of a difference.
    """

    expected: Correlated
    means: dict[str, float]
    measured: statistics.Correlation
    by_seed: dict[int, float]
    p_value: float
    finding: str
    reason: str


@dataclass(frozen=True)
class Tested:
    """A correlation before the correction of its p-value: of the tables of images by runs, ``values``, a seed."""

    expected: Correlated
    values: dict[int, np.ndarray]
    found: statistics.Correlation


def tested(study: Study, expected: Correlated, read: measures.Reader, num_permutations: int, seed: int) -> Tested:
    """Of every seed of the study; NaN for one with which a run failed."""
    runs = {label: {run.seed: run for run in study.of(label)} for label in expected.runs}
    tables = {}
    for of_seed in study.seeds:
        columns = [
            read(runs[label][of_seed], expected.metric, expected.map) if of_seed in runs[label] else measures.NOTHING
            for label in expected.runs
        ]
        tables[of_seed] = _together(columns)
    found = statistics.correlation_of_means(
        [values for values, _ in tables.values()],
        [groups for _, groups in tables.values()],
        expected.numbers,
        num_permutations=num_permutations,
        seed=seed,
    )
    return Tested(expected, {of_seed: values for of_seed, (values, _) in tables.items()}, found)


def judged(test: Tested, p_value: float) -> Correlation:
    """``p_value``: after Holm's correction over all that the study states.

    Shown where the correlation of every seed lies beyond what was stated, so does the interval, and ``p_value``, which
    is of no difference between the networks at all, is below 0.05; opposite where that is so of 0 and the other side.
    That it is less than stated is not said: the noise of images alone brings it nearer to 0.
    """
    expected, found = test.expected, test.found
    beyond, opposite = _beyond(test, expected.beyond, p_value), _beyond(test, 0.0, p_value)
    finding, reason = "not shown", beyond.reason
    if beyond.finding in ("too few", "not measured"):
        finding = beyond.finding
    elif len(found.by_seed) == 1:
        finding = "one seed"
    elif opposite.counts and opposite.finding == "lower":
        finding = "opposite"
    elif beyond.counts and beyond.finding == "higher":
        finding = "shown"
    elif beyond.finding == "lower":
        reason = "the interval does not reach what was stated"
    every = np.concatenate(list(test.values.values()))
    return Correlation(
        expected,
        {label: measures.mean(column) for label, column in zip(expected.runs, every.T, strict=True)},
        found,
        dict(zip(test.values, map(float, found.by_seed), strict=True)),
        p_value,
        finding,
        reason,
    )


def _beyond(test: Tested, least: float, p_value: float) -> statistics.Verdict:
    """Whether the correlation, in the direction that was stated, lies above ``least``."""
    sign = 1 if test.expected.direction == "higher" else -1
    low, high = sorted((sign * test.found.low, sign * test.found.high))
    by_seed = [sign * each - least for each in test.found.by_seed]
    than = f"{sign * least:g}" if least else "zero"
    return statistics.difference_counts(by_seed, (low - least, high - least), test.found.num_groups, p_value, than)


def _together(columns: Sequence[measures.Values]) -> tuple[np.ndarray, np.ndarray]:
    """Of the images that all runs have a value of: the values ``[N, R]``, and the groups ``[N]``."""
    ids = functools.reduce(np.intersect1d, [each.ids for each in columns])
    orders = [np.argsort(each.ids) for each in columns]
    places = [order[np.searchsorted(each.ids, ids, sorter=order)] for each, order in zip(columns, orders, strict=True)]
    values = np.stack([each.values[rows] for each, rows in zip(columns, places, strict=True)], axis=1)
    known = np.isfinite(values).all(axis=1)
    return values[known], np.asarray(columns[0].groups)[places[0]][known].astype(str)
