"""What can be claimed of a run, by name: a value of every image, or of every unit of a layer.

A metric of the evaluation, of a map or of the network; ``roar`` and ``kar``, scores of the retrainings of
``--mode=roar`` (:mod:`roar_scores`), image by image; ``neurons:<column>:<layer>`` of ``--mode=neurons``: r1 and r2 of
every image that fooled the network, and any column of units.csv of every unit; with the map ``traced`` or ``random``
``lost`` and ``flipped``, of every traced prediction, when these units are taken away (``flipped_wrong``: of the wrong
predictions alone). Where the mode was not run there is no value.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from robust_saliency import records
from robust_saliency.report import roar_scores
from robust_saliency.report.load import CONFIDENCE, CORRECT, Column, Run, Study
from robust_saliency.stated import OF_NEURONS, Expected

ROAR = {"roar": "remove", "kar": "keep"}
NEURONS = "neurons"
OF_UNITS = {
    "cs1": "CS1 (classes shown)",
    "cs2": "CS2 (classes taken for)",
    "iou": "Best IoU with a concept",
    "consistency": "Consistency of classes",
    "r1": "r1",
    "r2": "r2",
}
OF_ABLATION = {"lost": "What {}predictions lose", "flipped": "Share of {}predictions that change"}


class Values(NamedTuple):
    """By id, which is that of an image or of a unit: the value ``[N]`` and the group."""

    ids: np.ndarray
    groups: np.ndarray
    values: np.ndarray


NOTHING = Values(np.zeros(0, int), np.zeros(0, int), np.zeros(0))
Reader = Callable[[Run, str, str], Values]


def reader(study: Study) -> Reader:
    """``read(run, metric, method)``; ValueError for a map or a metric that the evaluation does not have."""
    retrained = {}
    if study.folder and records.is_there(study.folder / "roar" / "roar.json"):
        retrained = {run.about["name"]: run for run in roar_scores.read(study.folder / "roar")}

    def read(run: Run, metric: str, method: str) -> Values:
        if metric in ROAR:
            return _of_retrainings(retrained.get(study.name_of(run)), ROAR[metric], method)
        if metric.startswith(f"{NEURONS}:"):
            _, name, layer = metric.split(":")
            found = _of_neurons(run.folder.parent / "neurons", name, layer, method)
            return _grouped(found, run) if name in (*OF_NEURONS["images"], *OF_NEURONS["predictions"]) else found
        column = _column(study, metric, method)
        scores = run.scores
        return Values(scores.ids, scores.groups, scores.values[:, scores.columns.index(column)])

    return read


def mean(values: np.ndarray) -> float:
    """NaN where there is none."""
    return float(values.mean()) if len(values) else math.nan


def title(study: Study, metric: str) -> str:
    """For a table."""
    about = study.first.summary["metrics"].get(metric)
    if about:
        return about["title"]
    if metric in ROAR:
        return f"{metric.upper()} score"
    if metric.startswith(f"{NEURONS}:"):
        _, column, layer = metric.split(":")
        ablated, role = _ablated(column)
        if ablated in OF_ABLATION:
            return f"{OF_ABLATION[ablated].format(f'{role} ' if role else '')} without units of {layer}"
        place = layer if column in OF_NEURONS["images"] else f"{layer}'s units"
        return f"{OF_UNITS.get(column, column)} of {place}"
    attack = metric.removeprefix("robust:")
    return f"Accuracy under {attack}" if attack != metric else metric.capitalize()


def limits_of_difference(expected: Expected) -> tuple[float, float] | None:
    """Of outcomes, which are so or not, -1 and 1: a rare one may not have been seen. None for what is measured."""
    of_outcomes = ("accuracy", "robust:", f"{NEURONS}:flipped")
    return (-1.0, 1.0) if all(each.startswith(of_outcomes) for each in (expected.metric, expected.other[0])) else None


def _column(study: Study, metric: str, method: str) -> Column:
    if method and method not in study.methods:
        raise ValueError(f"A stated claim is of the map {method!r}; measured were {', '.join(study.methods)}.")
    of_network = {"accuracy": CORRECT, "confidence": CONFIDENCE}.get(metric, ("accuracy", metric))
    column = (method, metric) if method else of_network
    if column not in study.first.scores.columns:
        raise ValueError(f"A stated claim is of {' '.join(column)}, which was not measured.")
    return column


def _of_retrainings(run: roar_scores.Retrained | None, mode: str, method: str) -> Values:
    if run is None or mode not in run.modes or method not in run.maps:
        return NOTHING
    order = np.argsort(run.ids)
    return Values(run.ids[order], run.groups[order], run.score(method, mode).mean(axis=0)[order])


def _grouped(found: Values, run: Run) -> Values:
    """With the groups that the evaluation knows; images that it does not have stand alone."""
    groups = dict(zip(run.scores.ids.tolist(), run.scores.groups.tolist(), strict=True))
    return found._replace(groups=np.array([str(groups.get(i, f"image {i}")) for i in found.ids.tolist()], str))


def _ablated(column: str) -> tuple[str, str]:
    """``flipped_wrong``: the column, and the predictions that it is of, all where that is empty."""
    name, _, role = column.partition("_")
    return (name, role) if name in OF_ABLATION else (column, "")


def _of_neurons(folder: Path, column: str, layer: str, method: str) -> Values:
    of_layer = column not in OF_NEURONS["images"]
    ablated, role = _ablated(column)
    is_ablated = ablated in OF_ABLATION
    name = f"{ablated}_{method}" if is_ablated else column if of_layer else f"{column}:{layer}"
    path = folder / (f"{'ablation' if is_ablated else 'units'}.csv" if of_layer else "examples.csv")
    if not records.is_there(path):
        return NOTHING
    table = records.read_csv(path)
    if name not in table:
        return NOTHING
    rows = np.flatnonzero(table["layer"] == layer) if of_layer else np.arange(len(table[name]))
    if role:
        rows = rows[table["role"][rows] == role]
    ids = table["unit" if "unit" in table else "id"][rows]
    return Values(ids, ids, table[name][rows].astype(float))
