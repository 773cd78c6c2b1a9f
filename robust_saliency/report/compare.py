"""Every run against the reference run: means, paired differences and verdicts for all columns of scores at once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robust_saliency import statistics
from robust_saliency.report.load import Column, Run, Scores, Study

_SEED = 0
_FLIPS_A_TEST = 1_100  # the least p-value after Holm's correction is below 0.001
_FLIPS_A_MARK = 100  # it is 0.01, enough where the page shows no p-value but whether it is below 0.05


@dataclass(frozen=True)
class Measured:
    """One column of one run: all seeds together and one by one; the differences are None for the reference.

    ``holm`` is ``p_value`` corrected over the family of :func:`compare`, ``effect_size`` Hedges' g.
    """

    mean: statistics.Estimate
    mean_by_seed: dict[int, statistics.Estimate]
    difference: statistics.Estimate | None = None
    difference_by_seed: dict[int, statistics.Estimate] | None = None
    verdict: statistics.Verdict | None = None
    p_value: float = float("nan")
    holm: float = float("nan")
    effect_size: float = float("nan")


Comparison = dict[str, dict[Column, Measured]]  # by run label
Keep = Callable[[Run], np.ndarray]  # which examples of a run, [N]


def compare(study: Study, keep: Keep | None = None) -> Comparison:
    """Compares each run with the reference on the same images and seed, on those that ``keep`` leaves of the run.

    Differences are run minus reference, paired by example id; seeds are pooled with an image's group kept as one. The
    differences of one call are one family (:func:`in_family`): a difference counts only where Holm's correction over
    the family leaves its p-value below 0.05.
    """
    own = {label: {run.seed: _kept(run, keep) for run in study.of(label)} for label in study.labels}
    pairs = {label: paired(study, own[label]) for label in study.labels[1:]}
    for label, by_seed in pairs.items():
        if keep is None and not any(len(pair.ids) for pair in by_seed.values()):
            raise ValueError(
                f"Runs {label!r} and {study.reference!r} share no seed and example id, so nothing can be paired."
            )
    tests = _tests(study, pairs, _FLIPS_A_TEST if keep is None else _FLIPS_A_MARK)
    return {label: _measured(study, own[label], pairs.get(label), tests.get(label)) for label in study.labels}


def in_family(study: Study, column: Column) -> bool:
    """Whether the differences of a column are claimed.

    All but those of blind maps and true masks, and of what is said of a network once and not again with each method.
    """
    method, metric = column
    if method in study.methods and metric not in study.map_metrics:
        return [method] == study.explaining_methods[:1]
    return method not in study.bounding_methods


def family_size(study: Study) -> int:
    """How many differences Holm's correction is over."""
    return (len(study.labels) - 1) * sum(in_family(study, column) for column in study.first.scores.columns)


def class_comparisons(study: Study) -> dict[str, Comparison]:
    """A comparison a class that the test images hold; each is a family of its own."""
    names, present = study.first.summary["class_names"], set(study.first.scores.labels.tolist())

    def of_class(label: int) -> Keep:
        return lambda run: run.scores.labels == label

    return {str(name): compare(study, of_class(label)) for label, name in enumerate(names) if label in present}


def pooled(by_seed: dict[int, Scores]) -> tuple[np.ndarray, np.ndarray]:
    """Values and groups of all seeds, one after the other."""
    return (
        np.concatenate([scores.values for scores in by_seed.values()]),
        np.concatenate([scores.groups for scores in by_seed.values()]),
    )


def paired(study: Study, own: dict[int, Scores]) -> dict[int, Scores]:
    """By seed the scores of a run minus those of the reference."""
    base = {run.seed: run.scores for run in study.of(study.labels[0])}
    return {seed: _subtract(scores, base[seed]) for seed, scores in own.items() if seed in base}


def _subtract(a: Scores, b: Scores) -> Scores:
    """The differences a - b of the examples that both hold."""
    ids, at_a, at_b = np.intersect1d(a.ids, b.ids, assume_unique=True, return_indices=True)
    return Scores(ids, a.groups[at_a], a.labels[at_a], a.columns, a.values[at_a] - b.values[at_b])


def _tests(study: Study, pairs: dict[str, dict[int, Scores]], flips: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By run the p-values ``[M]`` and the same after Holm's correction over all runs; NaN outside the family."""
    if not pairs:
        return {}
    columns = study.first.scores.columns
    members = [in_family(study, column) for column in columns]
    values, groups = _side_by_side(list(pairs.values()))
    tested = values[:, :, members].reshape(len(values), len(pairs) * sum(members))
    found = statistics.sign_flip_test(tested, groups, num_draws=flips * family_size(study), seed=_SEED)
    p_values = np.full((len(pairs), len(columns)), np.nan)
    p_values[:, members] = np.reshape(found, (len(pairs), sum(members)))
    corrected = statistics.holm(p_values.ravel()).reshape(p_values.shape)
    return {label: (p_values[row], corrected[row]) for row, label in enumerate(pairs)}


def _side_by_side(runs: list[dict[int, Scores]]) -> tuple[np.ndarray, np.ndarray]:
    """Values ``[rows, runs, M]``, NaN where a run lacks the seed and example of a row, and the group of each row."""
    rows = {}  # (seed, id) -> (row, group)
    for by_seed in runs:
        for seed, scores in by_seed.items():
            for i, group in zip(scores.ids.tolist(), scores.groups.tolist(), strict=True):
                rows.setdefault((seed, i), (len(rows), group))
    columns = {len(scores.columns) for by_seed in runs for scores in by_seed.values()}
    values = np.full((len(rows), len(runs), max(columns)), np.nan)
    for number, by_seed in enumerate(runs):
        for seed, scores in by_seed.items():
            values[[rows[seed, i][0] for i in scores.ids.tolist()], number] = scores.values
    return values, np.array([group for _, group in rows.values()])


def _measured(
    study: Study,
    own: dict[int, Scores],
    pairs: dict[int, Scores] | None,
    tests: tuple[np.ndarray, np.ndarray] | None,
) -> dict[Column, Measured]:
    columns = study.first.scores.columns
    mean, mean_by_seed = _estimates(own)
    means = [(mean.column(j), {seed: by.column(j) for seed, by in mean_by_seed.items()}) for j in range(len(columns))]
    if pairs is None:
        return {column: Measured(*means[j]) for j, column in enumerate(columns)}
    claimed = [in_family(study, column) for column in columns]
    difference, by_seed = _estimates(pairs)
    effect_sizes = statistics.standardised_difference(*pooled(pairs))
    p_values, corrected = tests
    return {
        column: Measured(
            *means[j],
            difference.column(j),
            {seed: by.column(j) for seed, by in by_seed.items()},
            statistics.difference_counts(
                [by.mean[j] for by in by_seed.values()],
                (difference.low[j], difference.high[j]),
                int(difference.num_groups[j]),
                float(corrected[j]) if claimed[j] else None,
            ),
            float(p_values[j]),
            float(corrected[j]),
            float(effect_sizes[j]),
        )
        for j, column in enumerate(columns)
    }


def _estimates(by_seed: dict[int, Scores]) -> tuple[statistics.Estimate, dict[int, statistics.Estimate]]:
    """The estimate of all seeds together, and one a seed."""
    each = {seed: statistics.bootstrap_mean(s.values, s.groups, seed=_SEED) for seed, s in by_seed.items()}
    if len(each) == 1:
        return next(iter(each.values())), each
    return statistics.bootstrap_mean(*pooled(by_seed), seed=_SEED), each


def _kept(run: Run, keep: Keep | None) -> Scores:
    if keep is None:
        return run.scores
    scores, mask = run.scores, keep(run)
    return Scores(scores.ids[mask], scores.groups[mask], scores.labels[mask], scores.columns, scores.values[mask])
