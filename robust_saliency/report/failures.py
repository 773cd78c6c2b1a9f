"""Which images have no value, and why: of which map of which network, and of which scores."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from robust_saliency.report.load import Run, Study

# Ids of images that are written out.
_FIRST = 8
NO_REASON = "the score has no meaning here"


@dataclass(frozen=True)
class Failure:
    """Images that fail for one ``reason``; ``metrics``: the titles of the scores, ``values``: how many are missing."""

    where: str
    reason: str
    metrics: tuple[str, ...]
    values: int
    ids: tuple[int, ...]

    @property
    def first(self) -> list[str]:
        return [str(i) for i in self.ids[:_FIRST]]

    @property
    def more(self) -> int:
        return len(self.ids) - len(self.first)


@dataclass
class _Found:
    metrics: dict[str, None] = field(default_factory=dict)
    ids: set[int] = field(default_factory=set)
    values: int = 0


def failures(study: Study) -> list[Failure]:
    """All seeds of a network together; what fails alike for several networks or maps is one entry.

    Each missing value of a map's score is counted in one entry. Its reason is the first of: a mask that the score reads
    is empty; the map is not finite, zero or constant; such a mask fills the image; none that is known. A map that is
    not finite, zero or constant is listed even where all its scores have a value.
    """
    alike: dict[tuple, dict[str, list[str]]] = {}
    for method in study.methods:
        for label in study.labels:
            for reason, found in _found(study, label, method).items():
                key = reason, tuple(found.metrics), found.values, tuple(sorted(found.ids))
                alike.setdefault(key, {}).setdefault(label, []).append(method)
    return [
        Failure(where, reason, metrics, values * times, ids)
        for (reason, metrics, values, ids), methods_of in alike.items()
        for where, times in _where(study, methods_of)
    ]


def _found(study: Study, label: str, method: str) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for run in study.of(label):
        flaws = run.conditions.flaws.get(method, np.full(len(run.scores.ids), ""))
        for flaw in np.unique(flaws[flaws != ""]):
            entry = found.setdefault(_of_flaw(flaw), _Found())
            entry.ids |= set(run.scores.ids[flaws == flaw].tolist())
        for metric in study.map_metrics:
            about = study.first.summary["metrics"][metric]
            missing = np.isnan(run.scores.values[:, run.scores.columns.index((method, metric))])
            for reason, places in _reasons(run, about, flaws, missing):
                entry = found.setdefault(reason, _Found())
                entry.ids |= set(run.scores.ids[places].tolist())
                entry.metrics[about["title"]] = None
                entry.values += int(places.sum())
    return found


def _of_flaw(flaw: str) -> str:
    return f"the map is {flaw}"


def _reasons(run: Run, about: dict, flaws: np.ndarray, missing: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """``(reason, which examples)``, each missing value in one."""
    settings = about.get("settings", {})
    masks = [mask for mask in map(settings.get, ("mask", "within")) if mask in run.conditions.masks]
    covered = {mask: run.conditions.masks[mask] for mask in masks}
    causes = [(f"the {mask} mask is empty", share == 0) for mask, share in covered.items()]
    causes += [(_of_flaw(flaw), flaws == flaw) for flaw in np.unique(flaws[flaws != ""])]
    causes += [(f"the {mask} mask fills the image", share == 1) for mask, share in covered.items()]
    for reason, which in [*causes, (NO_REASON, np.ones_like(missing))]:
        if (missing & which).any():
            yield reason, missing & which
        missing = missing & ~which


def _where(study: Study, methods_of: dict[str, list[str]]) -> list[tuple[str, int]]:
    """'linf, l2: gradient' and how many networks and maps these are; networks with the same maps share an entry."""
    labels_of: dict[tuple[str, ...], list[str]] = {}
    for label, methods in methods_of.items():
        labels_of.setdefault(tuple(methods), []).append(label)
    return [
        (
            f"{_listed(labels, study.labels, 'run')}: {_listed(methods, study.methods, 'map')}",
            len(labels) * len(methods),
        )
        for methods, labels in labels_of.items()
    ]


def _listed(names, all_names, what: str) -> str:
    return f"every {what}" if len(names) == len(all_names) > 1 else ", ".join(names)
