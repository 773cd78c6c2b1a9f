"""What the layers of a network make of adversarial images: which raise a unit most, and how they are represented."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from robust_saliency import data as data_lib
from robust_saliency import neurons, sharding
from robust_saliency.config_sections import Neurons
from robust_saliency.neuron_subject import Examples, Subject
from robust_saliency.progress import Progress
from robust_saliency.randomness import key_of, per_example_keys

NONE = -1  # class of an adversarial image that was not made
MOST_KEPT = 2**30  # bytes of adversarial images that wait for the next network; what does not fit is made again
# Of one device: they join the examples of a batch.
top_of = jax.jit(neurons.top, static_argnames="k")
_representation_ratios = jax.jit(neurons.representation_ratios)


class Compared(NamedTuple):
    """Adversarial images beside the N examples that they were made of, A of each.

    taken_for: classes ``[N, A]``, NONE where none was made. fooled: bool ``[N, A]``, taken for another class than the
    label, which the example itself was taken for. top: of each layer, of those that fooled; its ids count all, A of
    each example in turn. ratios: r1 and r2 of each layer ``[N, 2]``, means over those of an example that fooled and
    have one; NaN where there are none.
    """

    taken_for: np.ndarray
    fooled: np.ndarray
    top: dict[str, neurons.Top]
    ratios: dict[str, np.ndarray]


class _One(NamedTuple):
    """Of one adversarial image of each example of a batch; by layer its top and its ratios ``[B, 2]``."""

    taken_for: np.ndarray
    fooled: np.ndarray
    tops: dict[str, neurons.Top]
    ratios: dict[str, np.ndarray]


def compared(
    subject: Subject, settings: Neurons, examples: Examples, class_means: Mapping[str, np.ndarray]
) -> Compared:
    """Makes the adversarial images of ``settings.num_attacked`` of the examples, and looks at them.

    class_means: of the real images, flat activations ``[K, D]`` of each layer.
    """
    programs, mesh, size = subject.programs, subject.mesh, settings.batch_size
    chosen = data_lib.choose(len(examples.ids), settings.num_attacked)
    count = settings.optimisation.num_adversaries if settings.ensemble else 1
    taken_for = np.full((len(examples.ids), count), NONE)
    fooled = np.zeros(taken_for.shape, bool)
    ratios = {name: np.full((*taken_for.shape, 2), np.nan) for name in class_means}
    top: dict[str, neurons.Top] = {}
    with Progress("adversarial images", -(-len(chosen) // size), 0, size) as progress:
        batches = data_lib.eval_batches(subject.split, batch_size=size, indices=subject.indices[chosen])
        for number, held in enumerate(batches):
            valid = held["valid"]
            places = chosen[np.minimum(np.arange(number * size, (number + 1) * size), len(chosen) - 1)]
            batch = sharding.put_batch({name: held[name] for name in ("image", "label", "id")}, mesh)
            images = programs.to_float(batch["image"])
            real = _look(subject, images)["activations"]
            made = _attacked(subject, number, batch | {"image": images})
            right = valid & (examples.predictions == examples.labels)[places]
            for which in range(count):
                ids = places * count + which
                one = _one(subject, settings, made[:, which], held["label"], right, ids, real, class_means)
                taken_for[places[valid], which] = one.taken_for[valid]
                fooled[places[valid], which] = one.fooled[valid]
                for name, found in one.tops.items():
                    top[name] = neurons.merge(top[name], found) if name in top else found
                    ratios[name][places[valid], which] = np.where(one.fooled[:, None], one.ratios[name], np.nan)[valid]
            progress.update()
    return Compared(taken_for, fooled, top, {name: _means(values) for name, values in ratios.items()})


def _attacked(subject: Subject, number: int, batch: Mapping[str, jax.Array]) -> jax.Array:
    """The adversarial images of a batch ``[B, A, H, W, C]``, which a network before may have been shown."""
    if number in subject.kept:
        return sharding.put_batch({"image": subject.kept[number]}, subject.mesh)["image"]
    keys = per_example_keys(key_of("neurons"), batch["id"])
    made = subject.programs.attacked(subject.variables, subject.ensemble, keys, batch["image"], batch["label"])
    made = sharding.waited(made, subject.mesh)
    if subject.ensemble and sum(each.nbytes for each in subject.kept.values()) + made.nbytes <= MOST_KEPT:
        subject.kept[number] = np.asarray(made)
    return made


def _one(
    subject: Subject,
    settings: Neurons,
    images: jax.Array,
    labels: np.ndarray,
    right: np.ndarray,
    ids: np.ndarray,
    real: Mapping[str, np.ndarray],
    class_means: Mapping[str, np.ndarray],
) -> _One:
    seen = _look(subject, images)
    taken_for = seen["logits"].argmax(-1).astype(labels.dtype)
    fooled = right & (taken_for != labels)
    tops, ratios = {}, {}
    for name, values in seen["activations"].items():
        tops[name] = top_of(values, ids, k=settings.num_top, valid=fooled)
        found = _representation_ratios(values, real[name], labels, taken_for, class_means[name])
        ratios[name] = np.stack([found.r1, found.r2], axis=-1)
    return _One(taken_for, fooled, tops, ratios)


def _look(subject: Subject, images: jax.Array) -> dict:
    return jax.device_get(sharding.waited(subject.programs.look(subject.variables, images), subject.mesh))


def _means(values: np.ndarray) -> np.ndarray:
    """``[N, 2]`` of ``[N, A, 2]``, of the finite ones."""
    known = np.isfinite(values)
    counts = known.sum(1)
    return np.where(counts, np.where(known, values, 0).sum(1) / np.maximum(counts, 1), np.nan).astype(np.float32)
