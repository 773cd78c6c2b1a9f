"""How much of the variance of each score, and of each difference, lies between images and how much between seeds."""

import numpy as np

from robust_saliency import statistics
from robust_saliency.report import numbers
from robust_saliency.report.compare import paired, pooled
from robust_saliency.report.load import Scores, Study
from robust_saliency.report.tables import Cell, Head, Row, Table

_HEADS = (
    Head("Between images", help="share of the variance that lies between images"),
    Head("Between seeds", help="share of the variance that lies between training seeds"),
    Head("Rest", help="share of their interaction and of what a single score varies by"),
    Head("Mean", help="mean over images (groups) and seeds"),
    Head("Standard error", help="of the mean over new images and new training seeds"),
    Head("95 % interval", help="for new images and new seeds: Student's t, Satterthwaite's degrees of freedom"),
)


def table(study: Study, method: str) -> Table:
    """One map method: a section a run (and a difference), a row a metric; a component below zero is shown as 0 %."""
    rows = []
    for label in study.labels:
        own = {run.seed: run.scores for run in study.of(label)}
        rows += _section(study, label, label, own, method)
        if label != study.reference and study.reference is not None:
            rows += _section(study, f"{label} minus {study.reference}", label, paired(study, own), method)
    return Table(f"components {method}", "Run and score", list(_HEADS), rows)


def _section(study: Study, title: str, run: str, by_seed: dict[int, Scores], method: str) -> list[Row]:
    values, groups = pooled(by_seed)
    seeds = np.repeat(list(by_seed), [len(scores.ids) for scores in by_seed.values()])
    metrics = study.first.summary["metrics"]
    at = [study.first.scores.columns.index((method, metric)) for metric in metrics]
    found = statistics.variance_components(values[:, at], groups, seeds)
    rows = [Row("section", title, run=run)]
    for index, about in enumerate(metrics.values()):
        rows.append(Row("run", about["title"], _cells(found.column(index), title != run), run))
    return rows


def _cells(found: statistics.Components, signed: bool) -> list[Cell]:
    shares = [Cell(numbers.percent(share)) for share in found.shares]
    limits = (numbers.signed_interval if signed else numbers.interval)(found.low, found.high) or numbers.DASH
    mean = numbers.signed(found.mean) if signed else numbers.plain(found.mean)
    return [*shares, Cell(mean), Cell(numbers.plain(found.standard_error)), Cell(limits)]
