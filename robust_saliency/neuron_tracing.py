"""Why a network was wrong: the units that its most confident mistakes hang on, beside right predictions."""

from typing import NamedTuple

import jax
import numpy as np

from robust_saliency import neurons, sharding
from robust_saliency.config_sections import Neurons
from robust_saliency.neuron_subject import Examples, Layer, Subject


class Traced(NamedTuple):
    """Predictions by their place among the examples, and the units they hang on.

    ``pairs``: (wrong, right or -1); ``places [n]``: all of them; influences: by layer, one row a place; differences:
    by layer ``[n, U]``, those of all units.
    """

    pairs: list[tuple[int, int]]
    places: np.ndarray
    influences: dict[str, neurons.Influences]
    differences: dict[str, np.ndarray]


def choose(examples: Examples, wanted: int) -> list[tuple[int, int]]:
    """The ``wanted`` most confident wrong predictions, each beside the most confident right one of the class predicted.

    Places among the examples; a right one is taken once, and is -1 where the class has no more. Ties by id.
    """
    order = np.lexsort((examples.ids, -examples.confidences))
    right = examples.predictions == examples.labels
    mistakes = [int(place) for place in order if not right[place]][:wanted]
    left = {label: [int(p) for p in order if right[p] and examples.predictions[p] == label] for label in
            {int(examples.predictions[place]) for place in mistakes}}  # fmt: skip
    pairs = []
    for place in mistakes:
        beside = left[int(examples.predictions[place])]
        pairs.append((place, beside.pop(0) if beside else -1))
    return pairs


def trace(subject: Subject, settings: Neurons, examples: Examples, layers: list[Layer]) -> Traced:
    """The units that the score of the predicted class loses most without, and gains most, of each chosen prediction."""
    pairs = choose(examples, settings.num_mistakes)
    places = np.array(sorted({place for pair in pairs for place in pair if place >= 0}), int)
    if not len(places):
        return Traced([], places, {}, {})
    absent = absent_of(settings, layers)
    found: list[dict] = []
    for rows in batches(places, subject, settings.batch_size):
        images = seen_images(subject, rows)
        classes = sharding.put_batch({"class": examples.predictions[rows].astype(np.int32)}, subject.mesh)["class"]
        differences = subject.programs.differences(subject.variables, images, classes, absent)
        found.append(jax.device_get(sharding.waited(differences, subject.mesh)))
    differences = {name: np.concatenate([each[name] for each in found])[: len(places)] for name in subject.layers}
    influences = {
        name: jax.device_get(neurons.most_influential(of, settings.num_influential)) for name, of in differences.items()
    }
    return Traced(pairs, places, influences, differences)


def absent_of(settings: Neurons, layers: list[Layer]) -> dict[str, np.ndarray]:
    """By layer what a unit becomes that is taken away, ``[U]``."""
    mean = settings.removed == "mean"
    return {layer.name: np.asarray(layer.mean if mean else 0 * layer.mean, np.float32) for layer in layers}


def columns(traced: Traced, examples: Examples) -> dict:
    """The rows of influences.csv: of each pair the wrong and the right prediction, of each layer the units for and
    against the predicted class, the strongest first, with what the score loses without them."""
    rows = []
    for number, pair in enumerate(traced.pairs):
        for role, place in zip(("wrong", "right"), pair, strict=True):
            if place >= 0:
                rows += [(number, role, place, *row) for row in _influences(traced, place)]
    pairs, roles, places, layers, sides, ranks, units, differences = zip(*rows, strict=True) if rows else [[]] * 8
    places = np.array(places, int)
    return {
        "pair": np.array(pairs, int),
        "role": list(roles),
        "id": examples.ids[places],
        "label": examples.labels[places],
        "prediction": examples.predictions[places],
        "confidence": examples.confidences[places],
        "layer": list(layers),
        "side": list(sides),
        "rank": np.array(ranks, int),
        "unit": np.array(units, int),
        "difference": np.array(differences, float),
    }


def _influences(traced: Traced, place: int) -> list[tuple]:
    """(layer, side, rank, unit, difference) of one prediction."""
    row = int(np.searchsorted(traced.places, place))
    found = []
    for layer, all_of in traced.influences.items():
        supporting, support, opposing, opposition = (part[row] for part in all_of)
        for side, units, values in (("for", supporting, support), ("against", opposing, opposition)):
            ranked = enumerate(zip(units, values, strict=True), start=1)
            found += [(layer, side, rank, unit, value) for rank, (unit, value) in ranked if unit >= 0]
    return found


def batches(places: np.ndarray, subject: Subject, most: int) -> list[np.ndarray]:
    """``places`` in parts of one size, which the devices share evenly; the last place fills up the last part."""
    size = min(most, -(-len(places) // subject.mesh.size) * subject.mesh.size)
    filled = np.concatenate([places, np.repeat(places[-1:], -len(places) % size)])
    return list(filled.reshape(-1, size))


def seen_images(subject: Subject, places: np.ndarray) -> jax.Array:
    """The images of ``places`` among the examples, on the devices."""
    rows = subject.split.gather(subject.indices[places])["image"]
    return subject.programs.to_float(sharding.put_batch({"image": rows}, subject.mesh)["image"])
