"""What is said of whole layers: how many units detect which concepts, what chance gives, how far an attack carries."""

import numpy as np

from robust_saliency import neurons
from robust_saliency.config_sections import Neurons
from robust_saliency.neuron_adversaries import NONE
from robust_saliency.neuron_subject import Examples, Layer, Subject
from robust_saliency.neuron_units import DEAD, MIXED, Units


def summary(
    subject: Subject,
    settings: Neurons,
    examples: Examples,
    affinity: np.ndarray,
    layers: list[Layer],
    units: list[Units],
    shown: list[list[tuple[str, int]]],
) -> dict:
    """For neurons.json. Numbers that are not defined are None. consistency: of all images, so of a unit that does not
    tell the classes apart."""
    right = examples.predictions == examples.labels
    shares = np.bincount(examples.labels, minlength=len(affinity)) / len(examples.labels)
    return {
        "split": settings.split,
        "num_examples": len(examples.ids),
        "num_right": int(right.sum()),
        "num_fooled": int(examples.fooled.sum()),
        "num_adversaries": int((examples.taken_for != NONE).sum()),
        "consistency": float(shares @ affinity @ shares),
        "class_names": list(subject.class_names),
        "concepts": list(subject.concepts),
        "num_shuffles": len(layers[0].chance) if subject.concepts else 0,
        "layers": [
            _layer(subject, settings, *each) | {"shown": [list(pair) for pair in pairs]}
            for *each, pairs in zip(layers, units, shown, strict=True)
        ],
    }


def sentence(layer: dict) -> str:
    """Of a layer of :func:`summary`."""
    dead = f"{layer['name']}: {layer['units']} units, {layer['dead']} dead"
    if layer["concepts"] is None:
        return dead
    named = ", ".join(concept["name"] for concept in layer["concepts"] if concept["detectors"]) or "none"
    chance = layer["chance_detectors"]
    beside = "" if chance is None else f" (with masks of other images {chance:.1f})"
    return f"{dead}; {layer['detectors']} detect a concept{beside}; unique detectors: {named}"


def _layer(subject: Subject, settings: Neurons, layer: Layer, units: Units) -> dict:
    pixels = len(layer.r1) * subject.image_shape[0] * subject.image_shape[1]
    medians = {name: _median(getattr(layer, name)) for name in ("r1", "r2")}
    medians |= {name: _median(getattr(units, name)) for name in ("consistency", "cs1", "cs2")}
    counts = {
        "name": layer.name,
        "size": list(layer.size),
        "units": len(units.kinds),
        "dead": int((units.kinds == DEAD).sum()),
        "not_finite": int(np.sum(layer.thresholds.not_finite)),
        **medians,
    }
    if not subject.concepts:
        return counts | {"concepts": None}
    found = neurons.detectors(units.iou, settings.dissection)
    detects = np.asarray(found.detects)
    chance, chance_unique = _by_chance(layer, settings)
    concepts = [_concept(place, name, layer, units, detects, pixels) for place, name in enumerate(subject.concepts)]
    return counts | {
        "mixed": int((units.kinds == MIXED).sum()),
        "detectors": int(detects.sum()),
        "above_chance": None if chance is None else int((detects & ~(units.best <= units.by_chance)).sum()),
        "unique": int(np.sum(found.unique)),
        "chance_detectors": chance,
        "chance_unique": chance_unique,
        "concepts": concepts,
    }


def _concept(place: int, name: str, layer: Layer, units: Units, detects: np.ndarray, pixels: int) -> dict:
    """ceiling: the highest IoU that a unit active at as many pixels could have with the concept, never being wrong."""
    iou = units.iou[:, place]
    active, shown = (getattr(layer.totals, part)[..., place].astype(np.float64) for part in ("active", "shown"))
    ceiling = np.minimum(active, shown) / np.maximum(np.maximum(active, shown), 1)
    known = np.isfinite(iou).any()
    return {
        "name": name,
        "share": float(shown[0] / pixels),
        "detectors": int((detects & (units.concepts == place)).sum()),
        "unit": int(np.nanargmax(iou)) if known else None,
        "iou": float(np.nanmax(iou)) if known else None,
        "by_chance": _highest(layer.chance[..., place]),
        "ceiling": float(ceiling.max()),
    }


def _by_chance(layer: Layer, settings: Neurons) -> tuple[float | None, float | None]:
    """How many units detect a concept, and how many concepts are detected, with the masks of other images: means."""
    found = [neurons.detectors(iou, settings.dissection) for iou in layer.chance]
    counts = [(int(np.sum(each.detects)), int(np.sum(each.unique))) for each in found]
    return tuple(np.mean(counts, axis=0).tolist()) if counts else (None, None)


def _median(values: np.ndarray) -> float | None:
    finite = np.asarray(values)[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None


def _highest(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else None
