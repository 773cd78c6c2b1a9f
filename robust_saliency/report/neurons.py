"""The page of ``--mode=neurons``: what units detect, what they look like, and which of them mistakes hang on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from robust_saliency import records, statistics
from robust_saliency.report import numbers
from robust_saliency.report.neuron_pictures import Pictures

MOST_PAIRS = 6  # of a wrong and a right prediction that are drawn
FEW_UNITS = 12  # rows of the table of units that are seen at once
PATCHES_OF_A_REASON = 3
KINDS = {"detector": "detector", "mixed": "mixed", "none": "no concept", "dead": "dead", "alive": "alive"}


def render(folder: str | Path) -> str:
    """The files of ``folder`` (neurons.json, units.csv, influences.csv, ablation.csv, neurons.npz) as an HTML page."""
    folder = Path(folder)
    about = records.read_json(folder / "neurons.json")
    units = _units(records.read_csv(folder / "units.csv"))
    pictures = Pictures(records.read_npz(folder / "neurons.npz"), about["concepts"])
    influences, ablation = (records.read_csv(folder / f"{name}.csv") for name in ("influences", "ablation"))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("neurons.html").render(
        about=about,
        settings=about["settings"],
        consistency=text(about["consistency"]),
        accuracy=numbers.share(about["num_right"] / about["num_examples"]),
        layers=[
            _layer(layer, about, units, influences, pictures) | {"ablation": _ablation(layer["name"], ablation)}
            for layer in about["layers"]
        ],
        duration=numbers.duration(about["seconds"]),
    )


def text(value: float | None) -> str:
    """``0.545``; a dash for None and NaN."""
    return numbers.DASH if value is None else numbers.plain(float(value))


def _units(columns: Mapping[str, np.ndarray]) -> dict[tuple[str, int], dict[str, Any]]:
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return {(str(row["layer"]), int(row["unit"])): row for row in rows}


def _layer(layer: Mapping, about: Mapping, units: Mapping, influences: Mapping, pictures: Pictures) -> dict:
    name = layer["name"]
    own = [row for (of, _), row in units.items() if of == name]
    masked = layer["concepts"] is not None
    own.sort(key=lambda row: (row["kind"] == "dead", -_or(row["iou"] if masked else row["consistency"], -1)))
    rows = [_row(row, about) for row in own]
    return {
        "name": name,
        "facts": layer,
        "pixels": pictures.pixels(name),
        "concepts": _concepts(layer, about) if masked else [],
        "is_chance": masked and 2 * _or(layer["chance_detectors"], 0) > layer["detectors"] > 0,
        "impossible": [each["name"] for each in layer["concepts"] or () if _cannot(each, about)],
        "chance": {key: numbers.DASH if layer[key] is None else f"{layer[key]:.1f}"
                   for key in ("chance_detectors", "chance_unique")} if masked else {},
        "medians": {key: text(layer[key]) for key in ("consistency", "cs1", "cs2", "r1", "r2")},
        "first": rows[:FEW_UNITS],
        "rest": rows[FEW_UNITS:],
        "shown": _shown(layer, units, about, pictures),
        **_reasons(name, units, about, influences, pictures),
    }  # fmt: skip


def _cannot(concept: Mapping, about: Mapping) -> bool:
    return concept["share"] > 0 and concept["ceiling"] <= about["settings"]["least_iou"]


def _concepts(layer: Mapping, about: Mapping) -> list[dict]:
    found = []
    for concept in layer["concepts"]:
        best = numbers.DASH if concept["unit"] is None else f"{text(concept['iou'])} (unit {concept['unit']})"
        found.append(
            {
                "name": concept["name"],
                "share": numbers.percent(concept["share"]) if concept["share"] >= 0.1 else f"{concept['share']:.1%}",
                "detectors": concept["detectors"],
                "best": best,
                "by_chance": text(concept["by_chance"]),
                "ceiling": text(concept["ceiling"]),
                "is_chance": (concept["iou"] or 0) <= (concept["by_chance"] or 0),
            }
        )
    return found


def _row(row: Mapping, about: Mapping) -> dict:
    """A row of the table of units."""
    return {
        "unit": int(row["unit"]),
        "kind": KINDS[row["kind"]],
        "concept": ", ".join(_concepts_of(row, about)) or str(row.get("concept", "")) or numbers.DASH,
        "iou": text(row.get("iou")),
        "by_chance": text(row.get("by_chance")),
        "is_chance": bool(row["kind"] in ("detector", "mixed") and row["iou"] <= row["by_chance"]),
        "class": f"{row['class']} {numbers.percent(row['class_share'])}" if row["class"] else numbers.DASH,
        **{name: text(row[name]) for name in ("consistency", "cs1", "cs2")},
    }


def _concepts_of(row: Mapping, about: Mapping) -> list[str]:
    """The concepts whose IoU is above the least, the best first."""
    iou = {name: _or(row.get(f"iou:{name}"), -1) for name in about["concepts"]}
    above = [name for name in iou if iou[name] > about["settings"]["least_iou"]]
    return sorted(above, key=lambda name: -iou[name])


def words(row: Mapping, about: Mapping) -> str:
    """'detects dots (IoU 0.21)', 'mixed: dots 0.21, border 0.08', 'no concept', 'dead'; and the class of its top."""
    named = [f"{name} {text(row[f'iou:{name}'])}" for name in _concepts_of(row, about)]
    best = f" (best: {row['concept']} {text(row['iou'])})" if row.get("concept") else ""
    said = {
        "detector": f"detects {row.get('concept')} (IoU {text(row.get('iou'))})",
        "mixed": f"mixed: {', '.join(named)}",
        "none": f"no concept{best}",
        "dead": "dead",
        "alive": "",
    }[row["kind"]]
    top = f"top images: {numbers.percent(row['class_share'])} {row['class']}" if row["class"] else "no top images"
    chance = row["kind"] in ("detector", "mixed") and row["iou"] <= row["by_chance"]
    return "; ".join(part for part in (said, "no more than chance" if chance else "", top) if part)


def _shown(layer: Mapping, units: Mapping, about: Mapping, pictures: Pictures) -> list[dict]:
    """By concept, or by class where there are no masks, its strongest units."""
    names = about["concepts"] or about["class_names"]
    return [
        {
            "name": name,
            "units": [
                {
                    "unit": unit,
                    "words": words(units[layer["name"], unit], about),
                    "top": pictures.top(layer["name"], unit, name),
                    "wishes": pictures.wishes(layer["name"], unit),
                }
                for of, unit in layer["shown"]
                if of == name
            ],
        }
        for name in names
    ]


def _reasons(layer: str, units: Mapping, about: Mapping, influences: Mapping, pictures: Pictures) -> dict:
    """Pairs of a wrong and a right prediction with their units; and what the strongest unit of each detects."""
    rows = [dict(zip(influences, row, strict=True)) for row in zip(*influences.values(), strict=True)]
    rows = [row for row in rows if row["layer"] == layer and row["side"] == "for"]
    strongest = [row for row in rows if row["rank"] == 1]
    counts: dict[str, dict[str, int]] = {}
    for row in strongest:
        unit = units[layer, int(row["unit"])]
        what = _what(unit, about)
        counts.setdefault(what, {"wrong": 0, "right": 0})[row["role"]] += 1
    pairs = []
    for number in sorted({int(row["pair"]) for row in rows})[:MOST_PAIRS]:
        both = [[row for row in rows if row["pair"] == number and row["role"] == role] for role in ("wrong", "right")]
        pairs.append([_prediction(own, units, about, pictures) if own else None for own in both])
    return {
        "pairs": pairs,
        "counts": sorted(counts.items(), key=lambda item: -item[1]["wrong"]),
        "traced": {role: sum(row["role"] == role for row in strongest) for role in ("wrong", "right")},
    }


def _ablation(layer: str, columns: Mapping) -> dict | None:
    """What predictions lose without the units that they are traced to, and how much more than without random ones."""
    rows = np.flatnonzero(columns["layer"] == layer) if len(columns["id"]) else []
    if not len(rows):
        return None
    table = {name: column[rows].astype(float) for name, column in columns.items() if name not in ("role", "layer")}
    found = {"num": len(rows), "units": numbers.plain(float(table["units"].mean()))}
    for what in ("lost", "flipped"):
        traced, random = table[f"{what}_traced"], table[f"{what}_random"]
        more = statistics.paired_difference(traced, random, seed=0)
        values = (float(traced.mean()), float(random.mean()))
        found[what] = (*map(numbers.share, values), " ".join(filter(None, numbers.difference(more))))
    return found


def _what(unit: Mapping, about: Mapping) -> str:
    if about["concepts"]:
        return " and ".join(_concepts_of(unit, about)) or "no concept"
    return f"top images mostly {unit['class']}"


def _prediction(rows: list[dict], units: Mapping, about: Mapping, pictures: Pictures) -> dict:
    first, names = rows[0], about["class_names"]
    layer, example = str(first["layer"]), int(first["id"])
    label, prediction = names[int(first["label"])], names[int(first["prediction"])]
    return {
        "role": str(first["role"]),
        "id": example,
        "label": label,
        "prediction": prediction,
        "confidence": numbers.percent(float(first["confidence"])),
        "image": pictures.plain(example, f"Image {example}: {label}, predicted {prediction}"),
        "reasons": [
            {
                "unit": int(row["unit"]),
                "difference": numbers.signed(float(row["difference"])),
                "words": words(units[layer, int(row["unit"])], about),
                "here": pictures.here(layer, int(row["unit"]), example),
                "top": pictures.top(layer, int(row["unit"]), "")[:PATCHES_OF_A_REASON],
            }
            for row in sorted(rows, key=lambda row: row["rank"])
        ],
    }


def _or(value: float | None, other: float) -> float:
    return other if value is None or not np.isfinite(value) else float(value)
