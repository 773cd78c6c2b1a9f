"""By how much the maps of each run are better than the best map that has not seen the network, or not the image."""

from robust_saliency import statistics
from robust_saliency.report import numbers
from robust_saliency.report.compare import Comparison, pooled
from robust_saliency.report.load import Study
from robust_saliency.report.tables import Cell, Head, Row, Table, best_blind, direction


def table(study: Study, comparison: Comparison, method: str) -> Table:
    """One map method: runs x metrics with a direction, positive where the maps are better; and which floor it was.

    The floor is that of the best mean over the run's images, and the excess is taken on the same images. That it was
    chosen by the same images favours it a little.
    """
    metrics = [metric for metric in study.map_metrics if direction(study, metric) != "none"]
    rows = []
    for label in study.labels:
        floors = best_blind(study, comparison, label, method)
        rows.append(Row("run", label, [_cell(study, label, method, metric, floors) for metric in metrics], label))
    heads = [Head(study.first.summary["metrics"][metric]["title"]) for metric in metrics]
    return Table(f"floors {method}", "Run", heads, rows)


def _cell(study: Study, label: str, method: str, metric: str, floors: dict[str, tuple[str, float]]) -> Cell:
    if metric not in floors:
        return Cell(numbers.DASH, note="no floor has a value")
    floor, _ = floors[metric]
    values, groups = pooled({run.seed: run.scores for run in study.of(label)})
    own, best = (values[:, study.first.scores.columns.index((name, metric))] for name in (method, floor))
    sign = 1 if direction(study, metric) == "higher" else -1
    excess = statistics.bootstrap_mean(sign * (own - best), groups, seed=0)
    change, limits = numbers.difference(excess)
    return Cell(difference=change, difference_interval=limits, effect=f"over {floor}", note=excess.note)
