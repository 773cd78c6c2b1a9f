"""The page of ``--mode=neurons`` on a study: how many units of which run detect what."""

from collections.abc import Mapping
from pathlib import Path

import jinja2

from robust_saliency import records
from robust_saliency.report import numbers
from robust_saliency.report.neurons import text


def render(study: str | Path) -> str:
    """``neurons/neurons.json`` of a study, and the reports of the runs that it names, as one HTML document."""
    study = Path(study)
    about = records.read_json(study / "neurons" / "neurons.json")
    found = [(run, records.read_json(study / run["dir"] / "neurons" / "neurons.json")) for run in about["runs"]]
    layers = list(dict.fromkeys(layer["name"] for _, report in found for layer in report["layers"]))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("study_neurons.html").render(
        about=about,
        masked=any(report["concepts"] for _, report in found),
        tables=[(name, [_row(run, *own) for run, report in found if (own := _of(report, name))]) for name in layers],
        duration=numbers.duration(sum(report["seconds"] for _, report in found)),
    )


def _of(report: Mapping, name: str) -> tuple[Mapping, Mapping] | None:
    """The report and the layer of that name, where it has one."""
    return next(((report, layer) for layer in report["layers"] if layer["name"] == name), None)


def _row(run: Mapping, report: Mapping, layer: Mapping) -> dict:
    masked = layer["concepts"] is not None
    chance = {key: "" if not masked or layer[key] is None else f"{layer[key]:.1f}"
              for key in ("chance_detectors", "chance_unique")}  # fmt: skip
    return {
        "name": run["name"],
        "page": f"../{run['dir']}/neurons/neurons.html",
        "accuracy": numbers.share(report["num_right"] / report["num_examples"]),
        "units": layer["units"],
        "dead": layer["dead"],
        "detectors": layer["detectors"] if masked else numbers.DASH,
        "unique": layer["unique"] if masked else numbers.DASH,
        "concepts": ", ".join(f"{each['name']} {each['detectors']}" for each in layer["concepts"] or ()
                              if each["detectors"]) or numbers.DASH,
        **chance,
        **{key: text(layer[key]) for key in ("consistency", "cs1", "cs2", "r1", "r2")},
    }  # fmt: skip
