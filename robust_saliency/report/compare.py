"""Every run against the reference run: means, paired differences and verdicts for all columns of scores at once."""

from dataclasses import dataclass

import numpy as np

from robust_saliency import statistics
from robust_saliency.report.load import Column, Run, Scores, Study

_SEED = 0


@dataclass(frozen=True)
class Measured:
    """One column of one run: all seeds together and one by one; the differences are None for the reference."""

    mean: statistics.Estimate
    mean_by_seed: dict[int, statistics.Estimate]
    difference: statistics.Estimate | None = None
    difference_by_seed: dict[int, statistics.Estimate] | None = None
    verdict: statistics.Verdict | None = None
    p_value: float = float("nan")


Comparison = dict[str, dict[Column, Measured]]  # by run label


def compare(study: Study, label: int | None = None, *, p_values: bool = False) -> Comparison:
    """Compares each run with the reference on the same images and seed; ``label`` keeps the images of one class.

    Differences are run minus reference, paired by example id; seeds are pooled with an image's group kept as one.
    """
    scores = {(run.label, run.seed): _of_class(run.scores, label) for run in study.runs}
    return {name: _compare_run(study, study.of(name), scores, p_values) for name in study.labels}


def class_comparisons(study: Study) -> dict[str, Comparison]:
    """A comparison a class that the test images hold."""
    names, present = study.first.summary["class_names"], set(study.first.scores.labels.tolist())
    return {str(name): compare(study, label) for label, name in enumerate(names) if label in present}


def _compare_run(study: Study, runs: list[Run], scores: dict, p_values: bool) -> dict[Column, Measured]:
    own = {run.seed: scores[run.label, run.seed] for run in runs}
    mean, mean_by_seed = _estimates(own)
    columns = runs[0].scores.columns
    if study.reference is None or runs[0].label == study.reference:
        return {
            column: Measured(mean.column(j), {seed: by.column(j) for seed, by in mean_by_seed.items()})
            for j, column in enumerate(columns)
        }
    pairs = {
        seed: _subtract(own[seed], scores[study.reference, seed]) for seed in own if (study.reference, seed) in scores
    }
    if not any(len(pair.ids) for pair in pairs.values()):
        raise ValueError(
            f"Runs {runs[0].label!r} and {study.reference!r} share no seed and example id, so nothing can be paired."
        )
    difference, difference_by_seed = _estimates(pairs)
    tested = _sign_flips(pairs) if p_values else np.full(len(columns), np.nan)
    return {
        column: Measured(
            mean.column(j),
            {seed: by.column(j) for seed, by in mean_by_seed.items()},
            difference.column(j),
            {seed: by.column(j) for seed, by in difference_by_seed.items()},
            statistics.difference_counts(
                [by.mean[j] for by in difference_by_seed.values()],
                (difference.low[j], difference.high[j]),
                int(difference.num_groups[j]),
            ),
            float(tested[j]),
        )
        for j, column in enumerate(columns)
    }


def _estimates(by_seed: dict[int, Scores]) -> tuple[statistics.Estimate, dict[int, statistics.Estimate]]:
    """The estimate of all seeds together, and one a seed."""
    each = {seed: statistics.bootstrap_mean(s.values, s.groups, seed=_SEED) for seed, s in by_seed.items()}
    if len(each) == 1:
        return next(iter(each.values())), each
    return statistics.bootstrap_mean(*_pooled(by_seed), seed=_SEED), each


def _sign_flips(by_seed: dict[int, Scores]) -> np.ndarray:
    return statistics.sign_flip_test(*_pooled(by_seed), seed=_SEED)


def _pooled(by_seed: dict[int, Scores]) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.concatenate([scores.values for scores in by_seed.values()]),
        np.concatenate([scores.groups for scores in by_seed.values()]),
    )


def _subtract(a: Scores, b: Scores) -> Scores:
    ids, at_a, at_b = np.intersect1d(a.ids, b.ids, assume_unique=True, return_indices=True)
    return Scores(ids, a.groups[at_a], a.labels[at_a], a.columns, a.values[at_a] - b.values[at_b])


def _of_class(scores: Scores, label: int | None) -> Scores:
    if label is None:
        return scores
    keep = scores.labels == label
    return Scores(scores.ids[keep], scores.groups[keep], scores.labels[keep], scores.columns, scores.values[keep])
