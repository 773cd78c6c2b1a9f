"""What is found by going over a split: of each unit of a network its threshold, its top examples and its concepts."""

from typing import NamedTuple

import jax
import numpy as np

from robust_saliency import data as data_lib
from robust_saliency import neurons, sharding
from robust_saliency.config_sections import Neurons
from robust_saliency.neuron_adversaries import compared, top_of
from robust_saliency.neuron_overlaps import chance, overlaps
from robust_saliency.neuron_subject import Examples, Layer, Subject
from robust_saliency.progress import Progress

# Of one device: it joins the examples of a batch.
_tail = jax.jit(neurons.tail, static_argnames="most")


def measure(subject: Subject, settings: Neurons) -> tuple[Examples, list[Layer]]:
    """Goes over the split for what is asked of all images at once, then for what is asked with it."""
    examples, first = _first_pass(subject, settings)
    thresholds = {name: neurons.tail_thresholds(found.tail, settings.dissection) for name, found in first.items()}
    values = {name: np.asarray(found.values) for name, found in thresholds.items()}
    totals = overlaps(subject, settings, values) if subject.concepts else None
    made = compared(subject, settings, examples, _class_means(subject, examples, first))
    layers = [
        Layer(
            name=name,
            size=found.size,
            thresholds=jax.device_get(thresholds[name]),
            mean=found.sum / (len(examples.ids) * found.size[0] * found.size[1]),
            top=jax.device_get(found.top),
            adversarial=jax.device_get(made.top[name]),
            totals=totals[name][0] if totals else None,
            chance=chance(totals[name]) if totals else None,
            r1=made.ratios[name][:, 0],
            r2=made.ratios[name][:, 1],
        )
        for name, found in first.items()
    ]
    return examples._replace(taken_for=made.taken_for, fooled=made.fooled), layers


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


def _class_means(subject: Subject, examples: Examples, first: dict[str, _First]) -> dict[str, np.ndarray]:
    """Of each layer the mean activations of the real images of each class, ``[classes, h w U]``; NaN for no image."""
    counts = np.bincount(examples.labels, minlength=len(subject.class_names)).astype(np.float64)
    counts[counts == 0] = np.nan
    return {name: (found.class_sums / counts[:, None]).astype(np.float32) for name, found in first.items()}
