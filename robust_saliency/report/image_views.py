"""The page of one image: what every network says of it, its maps, and all that was measured of them."""

from dataclasses import dataclass

import numpy as np

from robust_saliency.report import numbers
from robust_saliency.report.load import CONFIDENCE, CORRECT, Column, Run, Study
from robust_saliency.report.pictures import PictureRow
from robust_saliency.report.tables import Cell, Head, Row, Table, metric_heads

_OUTCOMES = {1.0: "withstood", 0.0: "fooled"}


@dataclass(frozen=True)
class ImageView:
    """``previous`` and ``next``: the ids of the images beside it, '' at the ends.

    outcomes: a row a network: prediction, confidence, attacks and the metrics of a network. scores: a section a map, a
    row a network.
    """

    picture: PictureRow
    previous: str
    next: str
    outcomes: Table
    scores: Table


def image_views(study: Study, pictures: list[PictureRow]) -> list[ImageView]:
    """A view of each picture, in their order."""
    names = ["", *(picture.name for picture in pictures), ""]
    return [
        ImageView(picture, before, after, _outcomes(study, picture.name), _scores(study, picture.name))
        for picture, before, after in zip(pictures, names, names[2:], strict=False)
    ]


def _outcomes(study: Study, name: str) -> Table:
    metrics = [metric for metric in study.first.summary["metrics"] if metric not in study.map_metrics]
    attacks = list(study.first.summary["attacks"])
    rows = []
    for header, run, place in _networks(study, name):
        cells = [Cell(_prediction(study, run, place)), Cell(numbers.percent(_value(run, place, CONFIDENCE)))]
        cells += [Cell(_outcome(run, place, attack)) for attack in attacks]
        # A score of the network is the same whatever the map.
        cells += [Cell(numbers.plain(_value(run, place, (next(iter(study.methods)), metric)))) for metric in metrics]
        rows.append(Row("run", header, cells, run.label))
    heads = [Head("Prediction"), Head("Confidence", help="probability of the predicted class")]
    heads += [Head(f"Under {attack}") for attack in attacks]
    return Table(f"outcomes {name}", "Run", [*heads, *metric_heads(study, metrics)], rows)


def _scores(study: Study, name: str) -> Table:
    rows = []
    for method in study.methods:
        rows.append(Row("section", method))
        for header, run, place in _networks(study, name):
            values = [_value(run, place, (method, metric)) for metric in study.map_metrics]
            rows.append(Row("run", header, [Cell(numbers.plain(value)) for value in values], run.label))
    return Table(f"scores {name}", "Map and run", metric_heads(study, study.map_metrics), rows)


def _networks(study: Study, name: str) -> list[tuple[str, Run, int]]:
    """What each network that was measured on the image is called, and the image's place in its rows."""
    found = []
    for run in (run for label in study.labels for run in study.of(label)):
        for place in np.flatnonzero(run.scores.ids == int(name)):
            found.append((study.name_of(run), run, int(place)))
    return found


def _prediction(study: Study, run: Run, place: int) -> str:
    mark = "\u2713" if _value(run, place, CORRECT) == 1.0 else "\u2717"
    known = run.conditions.predictions
    return mark if known is None else f"{mark} {study.class_name(known[place])}"


def _outcome(run: Run, place: int, attack: str) -> str:
    if _value(run, place, CORRECT) != 1.0:
        return "wrong without it"
    return _OUTCOMES.get(_value(run, place, ("accuracy", f"robust:{attack}")), numbers.DASH)


def _value(run: Run, place: int, column: Column) -> float:
    columns = run.scores.columns
    return float(run.scores.values[place, columns.index(column)]) if column in columns else float("nan")
