"""Whether maps depend on what was learnt: how alike they stay as layers get fresh weights, drawn and in numbers."""

import numpy as np

from robust_saliency import statistics
from robust_saliency.report import numbers
from robust_saliency.report.colours import run_colours
from robust_saliency.report.figures import Picture, finished, start_figure
from robust_saliency.report.load import Run, Study
from robust_saliency.report.tables import Cell, Head, Row, Table, settings_of

_MARKERS = "os^Dv*XP"


def figures(study: Study) -> list[Picture]:
    """One a method that explains, a panel an order: mean similarity at each point with its 95 % band.

    None where networks of a study have other layers, so that their curves have no axis in common.
    """
    points = [run.summary["randomisation"]["points"] for run in study.runs]
    if any(other != points[0] for other in points):
        return []
    return [_figure(study, method, _orders(study)) for method in study.explaining_methods]


def table(study: Study) -> Table | None:
    """Mean similarity over the points with fresh weights, of each run and method; an order a section.

    What has no value (a map of the fresh network that is zero) is left out; :func:`undefined` counts it.
    """
    orders = _orders(study)
    if not orders:
        return None
    rows = []
    for order, about in orders.items():
        rows.append(Row("section", _short(about)))
        for label in study.labels:
            rows.append(Row("run", label, [_cell(study.of(label), order, m) for m in study.explaining_methods], label))
    return Table("randomisation", "Run", [Head(method, "lower") for method in study.explaining_methods], rows)


def settings(study: Study) -> list[str]:
    return [f"{about['description']} {settings_of(about)}".strip() for about in _orders(study).values()]


def undefined(study: Study) -> list[tuple[str, int, int]]:
    """``(method, how many, of how many)`` similarities with fresh weights have no value, over all runs and orders."""
    found = []
    for method in study.explaining_methods:
        values = [
            _pooled(study.of(label), order, method)[0][:, 1:] for label in study.labels for order in _orders(study)
        ]
        missing = sum(int(np.isnan(part).sum()) for part in values)
        found += [(method, missing, sum(part.size for part in values))] if missing else []
    return found


def num_images(study: Study) -> int:
    return len(study.first.randomised["ids"])


def _orders(study: Study) -> dict[str, dict]:
    """What the summary says of each order; none where a run has no such maps, or others."""
    if any(run.randomised is None for run in study.runs):
        return {}
    orders = [run.summary["randomisation"]["orders"] for run in study.runs]
    return orders[0] if all(other == orders[0] for other in orders) else {}


def _short(about: dict) -> str:
    return about["title"].removeprefix("Parameter randomisation, ")


def _figure(study: Study, method: str, orders: dict[str, dict]) -> Picture:
    figure, panels = start_figure(len(orders))
    # Names of layers stand upright below the axis.
    figure.set_size_inches(figure.get_figwidth(), 3.7)
    figure.subplots_adjust(bottom=0.26, top=0.92)
    colours, said = run_colours(study.labels), []
    names = study.first.summary["randomisation"]["points"]
    for panel, (order, about) in zip(panels, orders.items(), strict=True):
        for label, marker in zip(study.labels, _MARKERS * len(study.labels), strict=False):
            curve = _estimate(study.of(label), order, method)
            style = {"color": colours[label], "linewidth": 1.6, "marker": marker, "markersize": 4}
            panel.plot(range(len(names)), curve.mean, label=label, **style)
            panel.fill_between(range(len(names)), curve.low, curve.high, color=colours[label], alpha=0.18, linewidth=0)
            said.append(f"{label} {order} " + " ".join(map(numbers.plain, np.atleast_1d(curve.mean))))
        panel.axhline(0, color="#5b636d", linewidth=0.8)
        panel.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
        panel.set_ylim(min(-0.1, panel.get_ylim()[0]), 1.05)
        panel.set_title(_short(about), loc="left", fontsize=10)
        panel.legend(frameon=False)
    panels[0].set_ylabel("similarity to the trained map")
    return Picture(
        method, finished(figure), f"Similarity of {method} maps, from {names[0]} to {names[-1]}: {', '.join(said)}"
    )


def _cell(runs: list[Run], order: str, method: str) -> Cell:
    values, groups = _pooled(runs, order, method)
    found = statistics.bootstrap_mean(_mean_over_points(values[:, 1:]), groups, seed=0)
    return Cell(numbers.plain(found.mean), interval=numbers.interval(found.low, found.high))


def _mean_over_points(values: np.ndarray) -> np.ndarray:
    """``[N]``; NaN where an example has no similarity at all, as where its map is constant."""
    known = np.isfinite(values)
    sums = np.where(known, values, 0).sum(1)
    return np.divide(sums, known.sum(1), out=np.full(len(values), np.nan), where=known.any(1))


def _estimate(runs: list[Run], order: str, method: str) -> statistics.Estimate:
    values, groups = _pooled(runs, order, method)
    return statistics.bootstrap_mean(values, groups, seed=0)


def _pooled(runs: list[Run], order: str, method: str) -> tuple[np.ndarray, np.ndarray]:
    """The curves of all seeds ``[N, points]`` with the group of each image."""
    values = np.concatenate([run.randomised[f"{order}/{method}"] for run in runs])
    groups = []
    for run in runs:
        of = dict(zip(run.scores.ids.tolist(), run.scores.groups.tolist(), strict=True))
        groups += [of[i] for i in run.randomised["ids"].tolist()]
    return values, np.asarray(groups)
