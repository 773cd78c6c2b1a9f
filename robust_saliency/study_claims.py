"""The claims of a study's config, checked before anything is trained."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from robust_saliency import checks, config_fields
from robust_saliency.evaluate_blind import average_label
from robust_saliency.stated import FLOORS, Claim

WHERE = "config.study.claims"
ROAR = ("roar", "kar")  # scores of --mode=roar
NEURONS = r"neurons:\w+:\w+"  # of --mode=neurons: a column of its examples or units, and a layer


def parse(plain: Mapping) -> list[dict]:
    """``plain['study']['claims']`` with every field, as study.json holds them.

    Raises ValueError for a claim of a run, a map or a metric that the study will not have, and for two of one label.
    Which true masks there are depends on the data: they are looked for when the report is made.
    """
    settings = plain["study"]
    listed = settings.get("claims") or ()
    claims = [config_fields.build(Claim, each, f"{WHERE}[{number}]") for number, each in enumerate(listed)]
    labels = [claim.label for claim in claims]
    if len(set(labels)) != len(labels):
        raise ValueError(f"{WHERE}: every claim needs a label of its own, got {', '.join(labels)}.")
    for claim in claims:
        _check(claim, [run["label"] for run in settings["runs"] if run.get("evaluated", True)], plain["evaluation"])
    return [dataclasses.asdict(claim) for claim in claims]


def _check(claim: Claim, runs: Sequence[str], evaluation: Mapping) -> None:
    attacks, maps, metrics = (_chosen(evaluation[kind]) for kind in ("attacks", "maps", "metrics"))
    floors = ("random", "centre_gaussian", "sobel", *map(average_label, maps))
    of_network = ("accuracy", "confidence", *(f"robust:{label}" for label in attacks))
    of_maps = (*metrics, *ROAR)
    where = f"{WHERE} ({claim.label!r})"
    sides = [(each.metric, each.run, each.map, ()) for each in claim.expected]
    sides += [(*each.other, (FLOORS,)) for each in claim.expected]
    for metric, run, method, more in sides:
        checks.one_of(f"run in {where}", run, runs)
        if re.fullmatch(NEURONS, metric):
            checks.one_of(f"units in {where}", method, ("", "traced", "random"))
            continue
        if method and not method.endswith("_mask"):
            checks.one_of(f"map in {where}", method, (*maps, *floors, *more))
        checks.one_of(f"metric in {where}", metric, of_maps if method else of_network)


def _chosen(section: Mapping) -> list[str]:
    """The labels of a section; None stands for one that is taken away."""
    return [label for label, value in section.items() if value is not None]
