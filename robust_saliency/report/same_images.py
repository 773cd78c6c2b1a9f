"""The same comparison on all images, on those that every network gets right, and on those of equal confidence."""

from dataclasses import replace

import numpy as np

from robust_saliency import statistics
from robust_saliency.report.compare import Comparison, Keep, Measured, compare
from robust_saliency.report.load import CONFIDENCE, CORRECT, Run, Study
from robust_saliency.report.tables import Cell, Head, Row, Table, difference_cell, direction, metric_heads

ALL, RIGHT, EQUAL = "all images", "all networks right", "equally confident"


def comparisons(study: Study, on_all: Comparison) -> dict[str, Comparison]:
    """By name of the set of images; ``on_all`` is that of all. Each is a family of its own for Holm's correction."""
    found = {ALL: on_all, RIGHT: compare(study, _all_right(study))}
    if CONFIDENCE in study.first.scores.columns:
        found[EQUAL] = compare(study, _equally_confident(study))
    return found


def table(study: Study, by_images: dict[str, Comparison], method: str) -> Table:
    """One map method: a section a run, a row a set of images: how many are left, differences, effect sizes."""
    rows = []
    for label in study.labels[1:]:
        rows.append(Row("section", f"{label} minus {study.reference}", run=label))
        total = by_images[ALL][label][CORRECT].difference.n
        for name, comparison in by_images.items():
            cells = [Cell(f"{comparison[label][CORRECT].difference.n} of {total}")]
            if EQUAL in by_images:
                cells.append(difference_cell(comparison[label][CONFIDENCE], "none"))
            cells += [
                _cell(comparison[label][method, metric], direction(study, metric))
                for metric in study.first.summary["metrics"]
            ]
            rows.append(Row("run", name, cells, label))
    heads = [Head("Pairs", help="images with both networks, over all seeds")]
    if EQUAL in by_images:
        heads.append(Head("Confidence", help="difference of the probability of the predicted class"))
    return Table(f"same images {method}", "Run and images", heads + metric_heads(study), rows)


def _cell(measured: Measured, better: str) -> Cell:
    """The difference and its effect size, or that too few images are left for one."""
    if not measured.difference.n:
        return Cell("too few", note="no image is left, so nothing can be compared")
    cell = difference_cell(measured, better, with_effect=True)
    return replace(cell, effect="too few") if measured.verdict.finding == "too few" else cell


def _all_right(study: Study) -> Keep:
    ids, correct = zip(*((run.scores.ids, _column(run, CORRECT)) for run in study.runs), strict=True)
    right = statistics.all_correct(ids, correct)
    return lambda run: np.isin(run.scores.ids, right)


def _equally_confident(study: Study) -> Keep:
    """Both networks right, so that the confidence is that of the explained class; the reference keeps all."""
    reference = {run.seed: run for run in study.of(study.reference)}

    def keep(run: Run) -> np.ndarray:
        base = reference.get(run.seed)
        if run.label == study.reference or base is None:
            return np.full(len(run.scores.ids), run.label == study.reference)
        ids, own_at, base_at = np.intersect1d(run.scores.ids, base.scores.ids, assume_unique=True, return_indices=True)
        own, other = (_of_right(each)[at] for each, at in ((run, own_at), (base, base_at)))
        return np.isin(run.scores.ids, ids[statistics.confidence_matched(own, other).keep])

    return keep


def _of_right(run: Run) -> np.ndarray:
    """The confidence where the network is right, else NaN."""
    return np.where(_column(run, CORRECT) == 1.0, _column(run, CONFIDENCE), np.nan)


def _column(run: Run, column: tuple[str, str]) -> np.ndarray:
    return run.scores.values[:, run.scores.columns.index(column)]
