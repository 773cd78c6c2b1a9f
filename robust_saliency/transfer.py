"""Adversaries made on one network, shown to others (Szegedy et al. 2014, 1312.6199): forward passes only."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from robust_saliency import metrics, models, sharding
from robust_saliency.progress import Progress


class Network(NamedTuple):
    """A network, and where and in batches of which size it computes."""

    classifier: models.Classifier
    variables: Any
    mesh: Mesh
    batch_size: int


def transfer(networks: Sequence[Network], adversaries: Iterable[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Whether network t is right on the adversaries of source s: bool ``[S, T, N]``.

    adversaries: of every source in turn, images ``[N, H, W, C]``, all of the same N examples; labels ``[N]``. A tie
    and NaN count as wrong.
    """
    rows = []
    with Progress("adversaries shown to every network", len(networks) ** 2, 0, len(labels)) as progress:
        for images in adversaries:
            rows.append([])
            for network in networks:
                rows[-1].append(_correct(network, images, labels))
                progress.update()
    return np.array(rows, bool)


def different_examples(examples: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """One sentence that says which run was attacked on other examples than the first; '' where all are the same.

    examples: by run, rows with 'id', 'label' and 'image'. The same id may name another image, or have another label.
    """
    (first, expected), *others = examples.items()
    for name, rows in others:
        if not np.array_equal(rows["id"], expected["id"]):
            shared = len(np.intersect1d(rows["id"], expected["id"]))
            return f"{name} was attacked on other examples than {first}: they share {shared} of {len(expected['id'])}."
        for field, words in (("label", "have other labels"), ("image", "are other images")):
            if not np.array_equal(rows[field], expected[field]):
                return f"{name} was attacked on other examples than {first}: under the same ids they {words}."
    return ""


def _correct(network: Network, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    program, size, parts = _program(network.classifier), network.batch_size, []
    for first in range(0, len(labels), size):
        places = np.minimum(np.arange(first, first + size), len(labels) - 1)
        batch = sharding.put_batch({"image": images[places], "label": labels[places]}, network.mesh)
        parts.append(np.asarray(program(network.variables, batch["image"], batch["label"])))
    return np.concatenate(parts)[: len(labels)] > 0


@functools.lru_cache(maxsize=8)
def _program(classifier: models.Classifier) -> Callable:
    """Compiled once for a network, whatever its weights."""

    def correct(variables, images, labels):
        return metrics.correct(classifier.logits_fn(variables)(images), labels)

    return jax.jit(correct)
