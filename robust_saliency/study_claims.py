"""The claims of a study's config, checked before anything is trained."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from robust_saliency import checks, config_fields
from robust_saliency.evaluate_blind import average_label
from robust_saliency.stated import FLOORS, OF_NEURONS, Claim

WHERE = "config.study.claims"
ROAR = ("roar", "kar")  # scores of --mode=roar
ROAR_FLOORS = ("random", "centre_gaussian", "sobel")
UNITS = ("traced", "random")  # that a prediction loses
NEEDED = {"expected": ("metric", "run"), "correlated": ("metric", "runs", "numbers", "along")}  # fields of each


def parse(plain: Mapping) -> list[dict]:
    """``plain['study']['claims']`` with every field, as study.json holds them.

    Raises ValueError for a claim of a run, a map or a metric that the study will not have, and for two of one label.
    Which true masks there are depends on the data, and which layers on the network: they are looked for when the report
    is made.
    """
    settings = plain["study"]
    listed = settings.get("claims") or ()
    if not isinstance(listed, list | tuple):
        raise ValueError(f"{WHERE} must be a list of claims, got {listed!r}.")
    claims = [_built(each, f"{WHERE}[{number}]") for number, each in enumerate(listed)]
    labels = [claim.label for claim in claims]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"{WHERE}: every claim needs a label of its own, got twice: {', '.join(twice)}.")
    for claim in claims:
        _check(claim, evaluated(settings), plain["evaluation"], plain["roar"])
    return [dataclasses.asdict(claim) for claim in claims]


def evaluated(settings: Mapping) -> list[str]:
    """The labels of all runs of a study but those that others only begin from."""
    return [run["label"] for run in settings["runs"] if run.get("evaluated", True)]


def _built(section: Mapping, where: str) -> Claim:
    """Of the fields that have no default none may lack."""
    needed = {where: (section, ("label", "sentence"))}
    for kind, names in NEEDED.items():
        parts = section.get(kind) if isinstance(section, Mapping) else None
        for number, part in enumerate(parts if isinstance(parts, list | tuple) else ()):
            needed[f"{where}.{kind}[{number}]"] = (part, names)
    for place, (given, names) in needed.items():
        lacking = [name for name in names if isinstance(given, Mapping) and given.get(name) is None]
        if lacking:
            raise ValueError(f"{place} needs {', '.join(lacking)}.")
    return config_fields.build(Claim, section, where)


def _check(claim: Claim, runs: Sequence[str], evaluation: Mapping, roar: Mapping) -> None:
    attacks, maps, metrics = (_chosen(evaluation[kind]) for kind in ("attacks", "maps", "metrics"))
    floors = ("random", "centre_gaussian", "sobel", *map(average_label, maps))
    of_network = ("accuracy", "confidence", *(f"robust:{label}" for label in attacks))
    where = f"{WHERE} ({claim.label!r})"
    for metric, run, method, more in _columns(claim):
        checks.one_of(f"run in {where}", run, runs)
        if metric.startswith("neurons:"):
            _check_units(metric, method, where)
        elif metric in ROAR:
            checks.one_of(f"run of {metric} in {where}", run, roar.get("runs") or runs)
            checks.one_of(f"map of {metric} in {where}", method, (*(roar.get("methods") or maps), *ROAR_FLOORS))
        elif not method and metric in metrics:
            raise ValueError(f"{where}: {metric} is of a map, so give map, one of {', '.join((*maps, *floors))}.")
        else:
            if method and not method.endswith("_mask"):
                checks.one_of(f"map in {where}", method, (*maps, *floors, *more))
            checks.one_of(f"metric in {where}", metric, (*metrics, *ROAR) if method else of_network)
    for each in claim.correlated:
        if _of_what(each.metric)[0] != "images":
            raise ValueError(f"{where}: {each.metric} is not of the same units or images in all networks.")
    for each in claim.expected:
        if _of_what(each.metric) != _of_what(each.other[0]):
            raise ValueError(f"{where}: {each.metric} and {each.other[0]} are not of the same units or images.")


def _columns(claim: Claim) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Metric, run and map of all that is compared, and what else may stand in the map's place."""
    for each in claim.expected:
        yield each.metric, each.run, each.map, ()
        yield *each.other, (FLOORS,)
    for each in claim.correlated:
        yield from ((each.metric, run, each.map, ()) for run in each.runs)


def _check_units(metric: str, method: str, where: str) -> None:
    parts = metric.split(":")
    if len(parts) != 3 or not parts[2]:
        raise ValueError(f"{where}: {metric!r} must be neurons:<column>:<layer>.")
    checks.one_of(f"column of neurons in {where}", parts[1], [name for names in OF_NEURONS.values() for name in names])
    choices = UNITS if parts[1] in OF_NEURONS["predictions"] else ("",)
    checks.one_of(f"map of {metric} in {where}", method, choices)


def _of_what(metric: str) -> tuple[str, str, str]:
    """What a value is of, for units of which layer, for traced predictions also which: these can be subtracted."""
    if not metric.startswith("neurons:"):
        return "images", "", ""
    _, column, layer = metric.split(":")
    kind = next(kind for kind, names in OF_NEURONS.items() if column in names)
    role = column.partition("_")[2] if kind == "predictions" else ""  # flipped_right is of other images than _wrong
    return (kind, "", "") if kind == "images" else (kind, layer, role)


def _chosen(section: Mapping) -> list[str]:
    """The labels of a section; None stands for one that is taken away."""
    return [label for label, value in section.items() if value is not None]
