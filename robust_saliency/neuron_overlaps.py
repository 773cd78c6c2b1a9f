"""Where the units of a network are active and where the concepts of its images are: how much of it is the same."""

from collections.abc import Iterator, Mapping

import jax
import numpy as np

from robust_saliency import data as data_lib
from robust_saliency import neurons, sharding
from robust_saliency.config_sections import Neurons
from robust_saliency.data.splits import permutation
from robust_saliency.neuron_subject import Subject, masks_of
from robust_saliency.progress import Progress


def overlaps(
    subject: Subject, settings: Neurons, thresholds: Mapping[str, np.ndarray]
) -> dict[str, list[neurons.Overlaps]]:
    """Of each layer the overlaps with the masks of the images themselves, then with those of other images, S times."""
    programs, mesh, size = subject.programs, subject.mesh, settings.batch_size
    orders = [subject.indices, *others(subject.indices, settings.num_shuffles)]
    totals: dict[str, list] = {name: [None] * len(orders) for name in thresholds}
    batches = [data_lib.eval_batches(subject.split, batch_size=size, indices=order) for order in orders]
    with Progress("concepts", -(-len(subject.indices) // size), 0, size) as progress:
        for rows in zip(*batches, strict=True):
            batch = sharding.put_batch({name: rows[0][name] for name in ("image", "valid")}, mesh)
            images = programs.to_float(batch["image"])
            real = sharding.waited(programs.look(subject.variables, images), mesh)["activations"]
            for number, held in enumerate(rows):
                masks = sharding.put_batch({"masks": masks_of(held)}, mesh)["masks"]
                counted = programs.overlaps(real, thresholds, masks, batch["valid"])
                for name, each in jax.device_get(sharding.waited(counted, mesh)).items():
                    summed = neurons.Overlaps(*(count.sum(0, dtype=np.int64) for count in each))
                    before = totals[name][number]
                    totals[name][number] = summed if before is None else before + summed
            progress.update()
    return totals


def chance(totals: list[neurons.Overlaps]) -> np.ndarray:
    """``[S, U, K]``: the IoUs of the units with the masks of other images, of the overlaps of a layer."""
    found = [np.asarray(neurons.iou(each)) for each in totals[1:]]
    return np.stack(found) if found else np.zeros((0, *totals[0].intersection.shape))


def others(indices: np.ndarray, wanted: int) -> Iterator[np.ndarray]:
    """``wanted`` times for each example another one, never itself: a seeded circle of all, turned further each time."""
    order = permutation(len(indices), 0)
    for turn in range(1, min(wanted, len(indices) - 1) + 1):
        other = np.empty_like(indices)
        other[order] = indices[np.roll(order, turn)]
        yield other
