"""What is said of each unit of a layer, one entry a unit: what it detects, of which classes its top examples are."""

from typing import Any, NamedTuple

import numpy as np

from robust_saliency import neurons, records
from robust_saliency.config_sections import Neurons
from robust_saliency.neuron_subject import Examples, Layer, Subject

DEAD, DETECTOR, MIXED, NOTHING = "dead", "detector", "mixed", "none"


class Units(NamedTuple):
    """One entry a unit ``[U]``.

    kinds: 'dead' (the same activation everywhere), 'mixed' (an IoU above the least with several concepts), 'detector'
    (with one), 'none'; 'alive' where there are no masks. concepts: the best, -1 = none; ``iou [U, K]``; best: of the
    best concept; by_chance: the highest with any concept when the masks were those of other images. classes: the
    commonest among the top examples, -1 = none, and its share.
    """

    kinds: np.ndarray
    concepts: np.ndarray
    iou: np.ndarray
    best: np.ndarray
    by_chance: np.ndarray
    classes: np.ndarray
    class_shares: np.ndarray
    consistency: np.ndarray
    cs1: np.ndarray
    cs2: np.ndarray


def class_affinity(subject: Subject, settings: Neurons) -> np.ndarray:
    """``[classes, classes]`` by ``config.neurons.hierarchy``; the identity where there is none.

    ValueError for a file that is no JSON object of texts, and for classes that its tree does not join.
    """
    if not settings.hierarchy:
        return np.eye(len(subject.class_names), dtype=np.float32)
    parents = records.read_json(settings.hierarchy)
    texts = isinstance(parents, dict) and all(isinstance(parent, str) for parent in parents.values())
    if not texts:
        raise ValueError(f"{settings.hierarchy} must hold a JSON object {{child: parent}} of texts.")
    try:
        distances = neurons.tree_distances(subject.class_names, parents)
    except ValueError as error:
        raise ValueError(f"{settings.hierarchy}: {error}") from error
    return np.asarray(neurons.affinity(distances, neurons.Affinity(sigma=settings.sigma)))


def describe(layer: Layer, examples: Examples, affinity: np.ndarray, settings: Neurons) -> Units:
    """What is said of the units of ``layer``."""
    dead = np.isnan(np.asarray(layer.thresholds.values))
    real = _classes(layer.top, examples.labels[examples.places(layer.top.ids)], affinity)
    which = np.maximum(layer.adversarial.ids, 0)
    shown = np.repeat(examples.labels, examples.taken_for.shape[1])
    by_label, by_target = (
        _classes(layer.adversarial, labels[which], affinity) for labels in (shown, examples.taken_for.ravel())
    )
    similarities = neurons.class_similarities(real, by_label, by_target)
    known = np.isfinite(real).all(1)
    filled = np.where(known[:, None], real, 0)
    kinds, concepts, iou, best, by_chance = _concepts(layer, dead, settings)
    return Units(
        kinds=kinds,
        concepts=concepts,
        iou=iou,
        best=best,
        by_chance=by_chance,
        classes=np.where(known, filled.argmax(1), -1),
        class_shares=np.where(known, filled.max(1), np.nan),
        consistency=np.asarray(neurons.consistency(real, affinity)),
        cs1=np.asarray(similarities.cs1),
        cs2=np.asarray(similarities.cs2),
    )


def columns(layer: Layer, units: Units, subject: Subject) -> dict[str, Any]:
    """The rows of units.csv."""
    count = len(units.kinds)
    names = [*subject.concepts, ""]
    found = {
        "layer": [layer.name] * count,
        "unit": np.arange(count),
        "kind": list(units.kinds),
        "threshold": layer.thresholds.values,
        "not_finite": layer.thresholds.not_finite,
        "mean": layer.mean,
        "class": [[*subject.class_names, ""][place] for place in units.classes],
        "class_share": units.class_shares,
        "consistency": units.consistency,
        "cs1": units.cs1,
        "cs2": units.cs2,
    }
    if not subject.concepts:
        return found
    found |= {"concept": [names[place] for place in units.concepts], "iou": units.best, "by_chance": units.by_chance}
    return found | {f"iou:{name}": units.iou[:, place] for place, name in enumerate(subject.concepts)}


def _concepts(layer: Layer, dead: np.ndarray, settings: Neurons) -> tuple:
    if layer.totals is None:
        nothing = np.full(len(dead), np.nan)
        return np.where(dead, DEAD, "alive"), np.full(len(dead), -1), nothing[:, None], nothing, nothing
    iou = np.asarray(neurons.iou(layer.totals))
    best = neurons.detectors(iou, settings.dissection)
    several = (iou > settings.least_iou).sum(1) > 1
    kinds = np.select([dead, several, np.asarray(best.detects)], [DEAD, MIXED, DETECTOR], NOTHING)
    chance = np.where(np.isnan(layer.chance), -1, layer.chance).max((0, 2), initial=-1)
    return kinds, np.asarray(best.concepts), iou, np.asarray(best.iou), np.where(chance < 0, np.nan, chance)


def _classes(top: neurons.Top, labels: np.ndarray, affinity: np.ndarray) -> np.ndarray:
    """The class distribution of each unit's top examples, whose ``labels`` are given ``[U, k]``."""
    return np.asarray(neurons.class_distribution(labels, np.asarray(top.activated), len(affinity)))
