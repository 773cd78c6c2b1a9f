"""Do predictions hang on the units that they are traced to: taken away together, beside as many random units.

A random set is drawn from the units without which the score of that prediction changes at all, so that it is no easy
rival: a dead unit is never drawn. Source: ours; Dong et al. 2019 (1901.09035) say that a prediction can be traced back
to units, and show it by pictures.
"""

import jax
import numpy as np

from robust_saliency import sharding
from robust_saliency.config_sections import Neurons
from robust_saliency.neuron_subject import Examples, Layer, Subject
from robust_saliency.neuron_tracing import Traced, absent_of, batches, seen_images

RANDOM_SETS = 10


def columns(subject: Subject, settings: Neurons, examples: Examples, layers: list[Layer], traced: Traced) -> dict:
    """The rows of ablation.csv: of each traced prediction and layer, what its score loses without the units that
    support it most (lost_traced) and without as many random ones (lost_random, the mean of ``RANDOM_SETS`` sets), and
    whether it is another class then (flipped_traced; flipped_random: the share of the sets)."""
    rows: dict[str, list] = {name: [] for name in ("id", "role", "layer", "units", "lost_traced", "lost_random",
                                                   "flipped_traced", "flipped_random")}  # fmt: skip
    if not len(traced.places):
        return rows
    supporting = {name: _taken(of.supporting, traced.differences[name]) for name, of in traced.influences.items()}
    absent = absent_of(settings, layers)
    own = _ablated(subject, settings, examples, traced, absent, supporting)
    rng = np.random.default_rng(0)
    drawn = [
        _ablated(subject, settings, examples, traced, absent, _as_many(supporting, traced.differences, rng))
        for _ in range(RANDOM_SETS)
    ]
    wrong = examples.predictions[traced.places] != examples.labels[traced.places]
    for name, taken in supporting.items():
        lost, flipped = own[name]
        others = [np.mean([each[name][part] for each in drawn], axis=0) for part in (0, 1)]
        rows["id"] += examples.ids[traced.places].tolist()
        rows["role"] += np.where(wrong, "wrong", "right").tolist()
        rows["layer"] += [name] * len(taken)
        rows["units"] += taken.sum(1).tolist()
        rows["lost_traced"] += lost.tolist()
        rows["lost_random"] += others[0].tolist()
        rows["flipped_traced"] += flipped.astype(int).tolist()
        rows["flipped_random"] += others[1].tolist()
    return rows


def _taken(units: np.ndarray, differences: np.ndarray) -> np.ndarray:
    """bool ``[n, U]``: which units are among ``units [n, k]``, -1 standing for none."""
    return (units[:, :, None] == np.arange(differences.shape[1])).any(1)


def _as_many(taken: dict, differences: dict, rng: np.random.Generator) -> dict:
    """Sets of random units that change the score, of each prediction as many as it has in ``taken``."""
    found = {}
    for name, of in taken.items():
        lots = np.where(differences[name] != 0, rng.uniform(size=of.shape), 2)
        ranks = lots.argsort(1).argsort(1)
        found[name] = (ranks < of.sum(1, keepdims=True)) & (differences[name] != 0)
    return found


def _ablated(
    subject: Subject, settings: Neurons, examples: Examples, traced: Traced, absent: dict, taken: dict
) -> dict:
    """By layer what the scores lose and which predictions change, ``[n]`` each."""
    found = []
    for places in batches(np.arange(len(traced.places)), subject, settings.batch_size):
        rows = traced.places[places]
        held = {name: of[places] for name, of in taken.items()}
        held["class"] = examples.predictions[rows].astype(np.int32)
        placed = sharding.put_batch(held, subject.mesh)
        classes, images = placed.pop("class"), seen_images(subject, rows)
        result = subject.programs.ablated(subject.variables, images, classes, absent, placed)
        found.append(jax.device_get(sharding.waited(result, subject.mesh)))
    return {name: [np.concatenate([each[name][part] for each in found])[: len(traced.places)] for part in (0, 1)]
            for name in taken}  # fmt: skip
