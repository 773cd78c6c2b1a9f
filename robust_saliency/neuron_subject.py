"""Whom a look into neurons is about, and what it finds of examples and of layers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from robust_saliency import data as data_lib
from robust_saliency import models, neurons, sharding
from robust_saliency.config_sections import Neurons
from robust_saliency.neuron_programs import Programs, layers_of, make_programs


class Subject(NamedTuple):
    """A network, the examples ``indices`` of ``split``, and the masks that these have, by name (none: ()).

    ensemble: the variables of the networks that adversarial images are made against together; () = itself alone.
    kept: by number of the batch, those that were made already, which a next network with this ensemble is shown again.
    """

    classifier: models.Classifier
    variables: Any
    ensemble: tuple[Any, ...]
    split: data_lib.Split
    indices: np.ndarray
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    concepts: tuple[str, ...]
    mesh: Mesh
    layers: tuple[str, ...]
    programs: Programs
    kept: dict[int, np.ndarray]


class Examples(NamedTuple):
    """One entry an example ``[N]``, and of its A adversarial images ``[N, A]``: ``taken_for``, their classes, and
    ``fooled``: by it, and right before."""

    ids: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray
    taken_for: np.ndarray
    fooled: np.ndarray

    def places(self, ids: np.ndarray) -> np.ndarray:
        """Where among the examples those of ``ids`` are; of an id of -1, which stands for none, any place."""
        order = np.argsort(self.ids)
        return order[np.searchsorted(self.ids, np.maximum(ids, self.ids.min()), sorter=order)]


class Layer(NamedTuple):
    """Of U units of a layer: thresholds, what they were on average, and top examples, real and adversarial.

    adversarial: its ids count adversarial images, A of each example in turn. totals: of K concepts, and ``chance [S, U,
    K]``: the IoUs with the masks of other images; None where there are no masks. ``r1``, ``r2 [N]``: means over the
    adversarial images that fooled, NaN where none did.
    """

    name: str
    size: tuple[int, int]
    thresholds: neurons.Thresholds
    mean: np.ndarray
    top: neurons.Top
    adversarial: neurons.Top
    totals: neurons.Overlaps | None
    chance: np.ndarray | None
    r1: np.ndarray
    r2: np.ndarray


def subject(
    classifier: models.Classifier,
    variables: Any,
    data: data_lib.Data,
    mesh: Mesh,
    settings: Neurons,
    ensemble: Sequence[tuple[models.Classifier, Any]],
    kept: dict[int, np.ndarray],
) -> Subject:
    """The network with the examples and layers of ``settings``; ValueError as for :func:`layers_of`.

    ensemble: networks, each with its variables, that adversarial images are made against together.
    """
    layers = layers_of(classifier, variables, data.image_shape, settings.layers)
    split = getattr(data, settings.split)
    return Subject(
        classifier=classifier,
        variables=sharding.put_replicated(variables, mesh),
        ensemble=tuple(sharding.put_replicated(held, mesh) for _, held in ensemble),
        split=split,
        indices=data_lib.choose(len(split), settings.num_examples),
        image_shape=tuple(data.image_shape),
        class_names=data.class_names,
        concepts=_concepts(split, data.concept_names),
        mesh=mesh,
        layers=layers,
        programs=make_programs(classifier, layers, settings, tuple(member for member, _ in ensemble)),
        kept=kept,
    )


def masks_of(rows: dict) -> np.ndarray:
    """``[B, H, W, K]``, 0 or 1: the concepts of the data, or else its one mask, of the lesion."""
    return rows["concepts"] if "concepts" in rows else rows["lesion_mask"][..., None]


def _concepts(split: data_lib.Split, names: tuple[str, ...]) -> tuple[str, ...]:
    fields = split.gather(np.arange(1))
    if names and "concepts" in fields:
        return names
    return ("lesion",) if "lesion_mask" in fields else ()
