"""The tables of the report as plain rows of cells, which page.py renders as HTML and markdown.py as Markdown."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from robust_saliency import statistics
from robust_saliency.report import numbers
from robust_saliency.report.compare import Comparison, Measured
from robust_saliency.report.load import CONFIDENCE, Column, Study

ARROWS = {"higher": "\u2191", "lower": "\u2193", "none": ""}
_MARKED = ("better", "worse", "higher", "lower", "mixed")


@dataclass(frozen=True)
class Cell:
    """A number and what belongs to it; ``verdict`` is the word of :meth:`robust_saliency.statistics.Verdict.word`.

    ``by_run`` stands for ``value`` where every run has a number of its own.
    """

    value: str = ""
    by_run: dict[str, str] = field(default_factory=dict)
    interval: str = ""
    difference: str = ""
    difference_interval: str = ""
    effect: str = ""
    verdict: str = ""
    counts: bool = False
    blind_is_as_good: bool = False
    note: str = ""

    @property
    def mark(self) -> str:
        """The verdict to be shown: ``better``, or ``better?`` where it does not count; empty where zero is included."""
        if self.verdict not in _MARKED:
            return ""
        return self.verdict if self.counts or self.verdict == "mixed" else f"{self.verdict}?"


@dataclass(frozen=True)
class Head:
    """A column's title, whether higher or lower is better, and its definition."""

    title: str
    direction: str = "none"
    help: str = ""

    @property
    def arrow(self) -> str:
        return ARROWS[self.direction]


@dataclass(frozen=True)
class Row:
    """``kind`` is run, seed, blind, oracle or section (a heading without cells); ``run`` gives the row its colour."""

    kind: str
    header: str
    cells: list[Cell] = field(default_factory=list)
    run: str = ""
    help: str = ""


@dataclass(frozen=True)
class Table:
    name: str
    corner: str
    heads: list[Head]
    rows: list[Row]


def accuracy_table(study: Study, comparison: Comparison) -> Table:
    """Clean, balanced and robust accuracy, each with an interval (``statistics.share_interval``)."""
    columns = [column for column in study.first.scores.columns if column[0] == "accuracy"]
    heads = [Head("Clean accuracy", "higher", "share of test images classified correctly")]
    heads.append(Head("Balanced accuracy", "higher", "mean over the classes of the share classified correctly"))
    for name, about in study.first.summary["attacks"].items():
        heads.append(Head(f"Under {name}", "higher", about))
    rows = []
    for label in study.labels:
        runs = study.of(label)
        measured = [comparison[label][column] for column in columns]
        balanced = {run.seed: _balanced(run.scores.labels, run.scores.values[:, 0]) for run in runs}
        cells = [_measured_cell(m, "higher", with_interval=True) for m in measured]
        cells.insert(1, Cell(numbers.plain(float(np.mean(list(balanced.values()))))))
        header = f"{label}, {len(runs)} seeds" if len(runs) > 1 else f"{label}, seed {runs[0].seed}"
        rows.append(Row("run", header, cells, label))
        for run in runs if len(runs) > 1 else ():
            cells = [_seed_accuracy(m, run.seed) for m in measured]
            cells.insert(1, Cell(numbers.plain(balanced[run.seed])))
            rows.append(Row("seed", f"seed {run.seed}", cells, label))
    return Table("accuracy", "Run", heads, rows)


def method_table(study: Study, comparison: Comparison, method: str) -> Table:
    """One map method: runs x metrics, seeds one by one, then the floors (blind maps) and true masks (oracles)."""
    rows = []
    for label in study.labels:
        runs = study.of(label)
        floors = best_blind(study, comparison, label, method)
        measured = {metric: comparison[label][method, metric] for metric in study.first.summary["metrics"]}
        cells = [
            replace(_measured_cell(m, direction(study, metric)), blind_is_as_good=no_better(study, metric, m, floors))
            for metric, m in measured.items()
        ]
        rows.append(Row("run", f"{label}, {len(runs)} seeds" if len(runs) > 1 else label, cells, label))
        if len(runs) > 1:
            for run in runs:
                cells = [_seed_cell(m, run.seed) for m in measured.values()]
                rows.append(Row("seed", f"seed {run.seed}", cells, label))
    return Table(f"maps {method}", "Run", metric_heads(study), rows + _bounds(study, comparison, method))


def class_table(study: Study, by_class: dict[str, Comparison], method: str) -> Table:
    """One map method, class by class."""
    rows = []
    for name, comparison in by_class.items():
        count = comparison[study.labels[0]]["accuracy", "correct"].mean_by_seed[study.first.seed].n
        rows.append(Row("section", f"{name} ({count} images)"))
        rows += _class_rows(study, comparison, method)
    return Table(f"classes {method}", "Class and run", metric_heads(study), rows)


def class_accuracy_table(study: Study, by_class: dict[str, Comparison]) -> Table:
    """Accuracy within each class, with the intervals of :func:`accuracy_table`."""
    columns = [column for column in study.first.scores.columns if column[0] == "accuracy"]
    heads = [Head("Clean accuracy", "higher")]
    heads += [Head(f"Under {name}", "higher", about) for name, about in study.first.summary["attacks"].items()]
    rows = []
    for name, comparison in by_class.items():
        rows.append(Row("section", name))
        for label in study.labels:
            cells = [_measured_cell(comparison[label][column], "higher", with_interval=True) for column in columns]
            rows.append(Row("run", label, cells, label))
    return Table("classes accuracy", "Class and run", heads, rows)


def overview_table(study: Study, comparison: Comparison) -> Table:
    """Only the differences to the reference: every run and map method x metric."""
    rows = []
    for label in study.labels[1:]:
        rows.append(Row("section", f"{label} minus {study.reference}", run=label))
        for method in study.explaining_methods:
            cells = [
                difference_cell(comparison[label][method, metric], direction(study, metric))
                for metric in study.first.summary["metrics"]
            ]
            rows.append(Row("run", method, cells, help=study.methods[method].get("description", "")))
    return Table("overview", "Run and map", metric_heads(study), rows)


def direction(study: Study, metric: str) -> str:
    """higher, lower or none."""
    return study.first.summary["metrics"][metric]["direction"]


def best_blind(study: Study, comparison: Comparison, label: str, method: str) -> dict[str, tuple[str, float]]:
    """The floor of a run's maps: for each metric with a direction the best of :meth:`Study.floors`, and its mean.

    The network takes part in the deletion and insertion of such a map too, so every run has floors of its own.
    """
    best = {}
    for metric in study.map_metrics:
        sign = {"higher": 1, "lower": -1, "none": 0}[direction(study, metric)]
        means = {floor: comparison[label][floor, metric].mean.mean for floor in study.floors(method)}
        means = {floor: mean for floor, mean in means.items() if np.isfinite(mean)}
        if means and sign:
            floor = max(means, key=lambda name: sign * means[name])
            best[metric] = floor, means[floor]
    return best


def no_better(study: Study, metric: str, measured: Measured, floors: dict[str, tuple[str, float]]) -> bool:
    """True where a blind map scores as well or better; ``floors`` are :func:`best_blind` of the same run."""
    if metric not in floors or not np.isfinite(measured.mean.mean):
        return False
    gain = measured.mean.mean - floors[metric][1]
    return bool(gain <= 0.0 if direction(study, metric) == "higher" else gain >= 0.0)


def _class_rows(study: Study, comparison: Comparison, method: str) -> list[Row]:
    rows = []
    for label in study.labels:
        cells = [
            _measured_cell(comparison[label][method, metric], direction(study, metric))
            for metric in study.first.summary["metrics"]
        ]
        rows.append(Row("run", label, cells, label))
    return rows


def metric_heads(study: Study, metrics: Iterable[str] | None = None) -> list[Head]:
    """A column a metric, of all or of those named: its title, definition and settings."""
    known = study.first.summary["metrics"]
    chosen = [known[metric] for metric in (known if metrics is None else metrics)]
    helps = [f"{about['description']} {settings_of(about)}".strip() for about in chosen]
    return [Head(about["title"], about["direction"], text) for about, text in zip(chosen, helps, strict=True)]


def settings_of(metric: Mapping[str, Any]) -> str:
    """'gini: sign abs.', every setting of a metric by its facts in the summary; '' where an older one has none."""
    if "settings" not in metric:
        return ""
    words = [f"{name} {value}" for name, value in metric["settings"].items()]
    words += [f"ties {metric['ties']}"] if metric["ties"] else []
    return f"{metric['name']}: {', '.join(words) or 'no settings'}."


def _bounds(study: Study, comparison: Comparison, explaining: str) -> list[Row]:
    """The floors of the method ``explaining``, and the true masks."""
    rows = []
    for method in study.bounding_methods:
        about = study.methods[method]
        if about["kind"] == "blind" and method not in study.floors(explaining):
            continue
        cells = [_bound_cell(study, comparison, (method, metric)) for metric in study.first.summary["metrics"]]
        rows.append(Row(about["kind"], method, cells, help=about.get("description", "")))
    return rows


def _bound_cell(study: Study, comparison: Comparison, column: Column) -> Cell:
    """The value on which all runs agree, or the value of each."""
    means = {label: comparison[label][column].mean for label in study.labels}
    texts = {label: numbers.plain(mean.mean) for label, mean in means.items()}
    note = next((mean.note for mean in means.values() if mean.note), "")
    return Cell(by_run=texts, note=note) if len(set(texts.values())) > 1 else Cell(texts[study.labels[0]], note=note)


def _measured_cell(measured: Measured, better: str, *, with_interval: bool = False) -> Cell:
    mean = measured.mean
    cell = Cell(
        value=numbers.plain(mean.mean),
        interval=numbers.interval(*statistics.share_interval(mean)) if with_interval else "",
        note=mean.note,
    )
    if measured.difference is None:
        return cell
    return replace(difference_cell(measured, better), value=cell.value, interval=cell.interval)


def difference_cell(measured: Measured, better: str, *, with_effect: bool = False) -> Cell:
    """The difference with its interval and verdict, and Hedges' g where asked for."""
    text, limits = numbers.difference(measured.difference)
    return Cell(
        difference=text,
        difference_interval=limits,
        effect=f"g {numbers.two_decimals(measured.effect_size)}" if with_effect else "",
        verdict=measured.verdict.word(better),
        counts=measured.verdict.counts,
        note=measured.difference.note or measured.verdict.reason,
    )


def _seed_cell(measured: Measured, seed: int) -> Cell:
    cell = Cell(numbers.plain(measured.mean_by_seed[seed].mean))
    if not measured.difference_by_seed or seed not in measured.difference_by_seed:
        return cell
    text, limits = numbers.difference(measured.difference_by_seed[seed])
    return replace(cell, difference=text, difference_interval=limits)


def _seed_accuracy(measured: Measured, seed: int) -> Cell:
    limits = statistics.share_interval(measured.mean_by_seed[seed])
    return replace(_seed_cell(measured, seed), interval=numbers.interval(*limits))


def _balanced(labels: np.ndarray, correct: np.ndarray) -> float:
    return float(np.mean([correct[labels == label].mean() for label in np.unique(labels)]))


def column_title(study: Study, column: Column) -> str:
    """A score column in words."""
    group, name = column
    if column == CONFIDENCE:
        return name
    if group != "accuracy":
        return f"{group}: {study.first.summary['metrics'][name]['title']}"
    return "clean accuracy" if name == "correct" else f"accuracy under {name.removeprefix('robust:')}"
