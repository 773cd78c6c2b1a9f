"""What is found by going over a split: of each unit of a network its threshold, its top examples and its concepts."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from robust_saliency import data as data_lib
from robust_saliency import neurons, sharding
from robust_saliency.config_sections import Neurons
from robust_saliency.data.splits import permutation
from robust_saliency.neuron_adversaries import Adversaries, top_of
from robust_saliency.neuron_subject import Examples, Layer, Subject, masks_of
from robust_saliency.progress import Progress

# Of one device: it joins the examples of a batch.
_tail = jax.jit(neurons.tail, static_argnames="most")


def measure(subject: Subject, settings: Neurons) -> tuple[Examples, list[Layer]]:
    """Goes over the split twice: for what is asked of all images at once, and for what is asked with it."""
    examples, first = _first_pass(subject, settings)
    thresholds = {name: neurons.tail_thresholds(found.tail, settings.dissection) for name, found in first.items()}
    second = _Second(subject, settings, examples, first, thresholds)
    second.run()
    adversaries, layers = second.adversaries, []
    for name, found in first.items():
        r1, r2 = adversaries.ratios(name)
        layer = Layer(
            name=name,
            size=found.size,
            thresholds=jax.device_get(thresholds[name]),
            mean=found.sum / (len(examples.ids) * found.size[0] * found.size[1]),
            top=jax.device_get(found.top),
            adversarial=jax.device_get(adversaries.top[name]),
            totals=second.totals(name, 0) if subject.concepts else None,
            chance=second.chance(name) if subject.concepts else None,
            r1=r1,
            r2=r2,
        )
        layers.append(layer)
    return examples._replace(taken_for=adversaries.taken_for, fooled=adversaries.fooled), layers


class _First(NamedTuple):
    """Of a layer, so far: sums over places ``[U]`` and, of each class, over images ``[classes, h w U]``."""

    size: tuple[int, int]
    tail: neurons.Tail
    top: neurons.Top
    sum: np.ndarray
    class_sums: np.ndarray


def _first_pass(subject: Subject, settings: Neurons) -> tuple[Examples, dict[str, _First]]:
    programs, mesh, size = subject.programs, subject.mesh, settings.batch_size
    rows: list[tuple] = []
    found: dict[str, _First] = {}
    with Progress("units", -(-len(subject.indices) // size), 0, size) as progress:
        for held in data_lib.eval_batches(subject.split, batch_size=size, indices=subject.indices):
            valid = held["valid"]
            images = programs.to_float(sharding.put_batch({"image": held["image"]}, mesh)["image"])
            seen = jax.device_get(sharding.waited(programs.look(subject.variables, images), mesh))
            shares = np.asarray(jax.nn.softmax(seen["logits"]))
            rows.append((held["id"][valid], held["label"][valid], shares.argmax(-1)[valid], shares.max(-1)[valid]))
            for name, activations in seen["activations"].items():
                more = _first_of(activations, held, len(subject.indices), len(subject.class_names), settings)
                found[name] = _joined(found[name], more) if name in found else more
            progress.update()
    ids, labels, predictions, confidences = (np.concatenate(column) for column in zip(*rows, strict=True))
    none = np.zeros((len(ids), 0), int)
    return Examples(ids, labels, predictions, confidences, none, none > 0), found


def _first_of(activations: np.ndarray, held: dict, num: int, num_classes: int, settings: Neurons) -> _First:
    valid, (_, height, width, _) = held["valid"], activations.shape
    most = neurons.tail_size(num * height * width, settings.dissection)
    wide = activations[valid].astype(np.float64)
    labels = held["label"][valid]
    flat = wide.reshape(len(wide), -1)
    return _First(
        (height, width),
        _tail(activations, most=most, valid=valid),
        top_of(activations, held["id"], k=settings.num_top, valid=valid),
        wide.sum((0, 1, 2)),
        np.stack([flat[labels == label].sum(0) for label in range(num_classes)]),
    )


def _joined(one: _First, other: _First) -> _First:
    return _First(
        one.size,
        neurons.merge_tails(one.tail, other.tail),
        neurons.merge(one.top, other.top),
        one.sum + other.sum,
        one.class_sums + other.class_sums,
    )


class _Second:
    """Collects, batch by batch, what needs thresholds and class means: overlaps, and adversarial images."""

    def __init__(self, subject: Subject, settings: Neurons, examples: Examples, first: dict, thresholds: dict):
        self._subject, self._settings = subject, settings
        self._thresholds = {name: np.asarray(found.values) for name, found in thresholds.items()}
        counts = np.bincount(examples.labels, minlength=len(subject.class_names)).astype(np.float64)
        counts[counts == 0] = np.nan
        means = {name: (found.class_sums / counts[:, None]).astype(np.float32) for name, found in first.items()}
        self.adversaries = Adversaries(subject, settings, examples, means)
        self._counts: dict[tuple[str, int], neurons.Overlaps] = {}
        self.num_shuffles = 0

    def run(self) -> None:
        subject, size = self._subject, self._settings.batch_size
        orders = [subject.indices, *_others(subject.indices, self._settings.num_shuffles if subject.concepts else 0)]
        self.num_shuffles = len(orders) - 1
        batches = [data_lib.eval_batches(subject.split, batch_size=size, indices=order) for order in orders]
        with Progress("concepts and adversarial images", -(-len(subject.indices) // size), 0, size) as progress:
            for held, *others in zip(*batches, strict=True):
                self._add(held, others)
                progress.update()

    def _add(self, held: dict, others: list[dict]) -> None:
        subject, mesh, programs = self._subject, self._subject.mesh, self._subject.programs
        names = ("image", "label", "id", "valid")
        batch = sharding.put_batch({name: held[name] for name in names}, mesh)
        images = programs.to_float(batch["image"])
        real = sharding.waited(programs.look(subject.variables, images), mesh)["activations"]
        if subject.concepts:
            for shuffle, rows in enumerate((held, *others)):
                masks = sharding.put_batch({"masks": masks_of(rows)}, mesh)["masks"]
                counts = programs.overlaps(real, self._thresholds, masks, batch["valid"])
                self._count(shuffle, jax.device_get(sharding.waited(counts, mesh)))
        self.adversaries.add(batch, images, jax.device_get(real), held["valid"])

    def _count(self, shuffle: int, counts: dict[str, neurons.Overlaps]) -> None:
        for name, each in counts.items():
            summed = neurons.Overlaps(*(count.sum(0, dtype=np.int64) for count in each))
            before = self._counts.get((name, shuffle))
            self._counts[name, shuffle] = summed if before is None else before + summed

    def totals(self, name: str, shuffle: int) -> neurons.Overlaps:
        return self._counts[name, shuffle]

    def chance(self, name: str) -> np.ndarray:
        """``[S, U, K]``: the IoUs of the units with the masks of other images."""
        shape = (0, *self._counts[name, 0].intersection.shape)
        found = [np.asarray(neurons.iou(self._counts[name, shuffle])) for shuffle in range(1, self.num_shuffles + 1)]
        return np.stack(found) if found else np.zeros(shape)


def _others(indices: np.ndarray, wanted: int) -> Iterator[np.ndarray]:
    """``wanted`` times for each example another one, never itself: a seeded circle of all, turned further each time."""
    order = permutation(len(indices), 0)
    for turn in range(1, min(wanted, len(indices) - 1) + 1):
        other = np.empty_like(indices)
        other[order] = indices[np.roll(order, turn)]
        yield other
