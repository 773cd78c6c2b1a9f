"""The images that ROAR and KAR retrain on: the maps of all three splits, made once, and what is left of the images."""

import functools
import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from robust_saliency import data as data_lib
from robust_saliency import initialise, metrics, models, objectives, sharding
from robust_saliency.baselines import Baseline
from robust_saliency.config import Experiment
from robust_saliency.config_sections import Evaluation
from robust_saliency.data import MemorySplit
from robust_saliency.evaluate_blind import blind_kinds, blind_maps
from robust_saliency.evaluate_programs import make_programs
from robust_saliency.randomness import key_of, per_example_keys

SPLITS = ("train", "validation", "test")
ORACLES = ("evidence", "lesion")  # masks; the first that the data have is the oracle
MASKS_ALONE = "mask"


class Subject(NamedTuple):
    """A trained network whose maps are judged, and its images, all in memory; oracle: the name of a mask, or ''."""

    experiment: Experiment
    data: data_lib.Data
    classifier: models.Classifier
    variables: dict
    step: int
    oracle: str
    mesh: Mesh

    @property
    def floors(self) -> dict[str, dict[str, str]]:
        """Kind and description of the maps that do not look at the network, and of the oracle, by label."""
        return blind_kinds(Evaluation(), self.masks)

    @property
    def masks(self) -> tuple[str, ...]:
        return (self.oracle,) if self.oracle else ()

    @property
    def mean(self) -> np.ndarray:
        """Of the training images by channel, ``[C]``."""
        images = self.data.train.arrays["image"]
        return images.mean((0, 1, 2), dtype=np.float64) / (255 if images.dtype == np.uint8 else 1)

    @property
    def chance(self) -> float:
        """Accuracy on the test images where nothing is left of an image: of the commonest class of training.

        Where training sees all classes equally often there is none: the mean over the class that may be named.
        """
        if self.experiment.data.class_balanced:
            return 1 / len(self.data.class_names)
        return float(np.mean(self.data.test.labels == np.bincount(self.data.train.labels).argmax()))


def subject_of(experiment: Experiment, workdir: str, data: data_lib.Data) -> Subject:
    """The network in ``workdir``; ValueError where the config says of it what is not true, or it saw test images."""
    classifier, variables, described, step = initialise.load_described(workdir, experiment.evaluation.step)
    initialise.check_unchanged(described, experiment.plain)
    initialise.check_fits(described, data)
    data_lib.check_unseen(described["config"]["data"], experiment.plain["data"])
    held = [getattr(data, split).gather(np.arange(1)) for split in SPLITS]
    oracle = next((name for name in ORACLES if all(f"{name}_mask" in rows for rows in held)), "")
    _, retrained = objectives.OBJECTIVES[experiment.roar.objective]
    fields = (*data_lib.TRAINING_FIELDS, *retrained.reads, "group", *([f"{oracle}_mask"] if oracle else []))
    data = data._replace(**{split: _in_memory(getattr(data, split), fields) for split in SPLITS})
    size = experiment.evaluation.batch_size
    mesh = sharding.make_mesh(experiment.num_devices, size, "config.evaluation.batch_size")
    return Subject(experiment, data, classifier, sharding.put_replicated(variables, mesh), step, oracle, mesh)


def fingerprints(subject: Subject) -> tuple[str, str]:
    """Of the images, labels and ids of all splits, and of the weights: equal where these are."""
    held = [getattr(subject.data, split).arrays for split in SPLITS]
    images = (arrays[name] for arrays in held for name in ("image", "label", "id"))
    return _digest(images), _digest(jax.device_get(jax.tree.leaves(subject.variables)))


def _digest(arrays: Iterable[np.ndarray]) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(np.ascontiguousarray(array))
    return found.hexdigest()


def _in_memory(split: data_lib.Split, fields: tuple[str, ...]) -> MemorySplit:
    held = split.gather(np.arange(len(split)))
    return MemorySplit({name: held[name] for name in held if name in fields}, split.groups)


def maps_of(subject: Subject, label: str) -> dict[str, np.ndarray]:
    """By split ``[N, H, W]``: the maps of a method of ``config.evaluation.maps``, of a floor, or of the oracle."""
    if label in subject.floors:
        program = functools.partial(_blind, jax.jit(functools.partial(blind_maps, subject.masks, ())), label)
    else:
        programs = make_programs(subject.classifier, subject.experiment.evaluation, ())
        program = functools.partial(_explained, programs, label, subject)
    return {split: _by_batch(subject, split, program) for split in SPLITS}


def _blind(program: Callable, label: str, split: str, batch: dict):
    return program(per_example_keys(key_of(f"roar {label} {split}"), batch["id"]), batch)[label]


def _explained(programs, label: str, subject: Subject, split: str, batch: dict):
    classes = batch["label"]
    if subject.experiment.roar.explained == "predicted":
        classes = programs.predict(subject.variables, batch)["prediction"].astype(classes.dtype)
    keys = per_example_keys(key_of(f"roar {label} {split}"), batch["id"])
    return programs.maps[label](subject.variables, keys, {**batch, "explained": classes})


def changed(subject: Subject, maps: dict[str, np.ndarray], mode: str, fraction: float) -> data_lib.Data:
    """The data with what ``mode`` leaves of the images; 'mask' leaves nothing but where pixels were removed.

    8-bit images stay 8-bit: a pixel that is left is as it was, one that is removed is rounded.
    """
    settings = subject.experiment.roar
    baseline = settings.baseline or Baseline(kind="constant", value=subject.mean.astype(np.float32))
    alone = mode == MASKS_ALONE
    spec = metrics.Removal(mode="remove" if alone else mode, fraction=fraction, sign=settings.sign, baseline=baseline)
    program = _mask if alone else _image
    splits = {}
    for split in SPLITS:
        arrays = getattr(subject.data, split).arrays

        def of_batch(split: str, batch: dict):
            return program(per_example_keys(key_of(f"roar pixels {split}"), batch["id"]), batch, spec)

        images = _by_batch(subject, split, of_batch, map=maps[split])
        images = np.round(255 * images).astype(np.uint8) if arrays["image"].dtype == np.uint8 else images
        splits[split] = MemorySplit({**arrays, "image": images}, getattr(subject.data, split).groups)
    return subject.data._replace(**splits)


@jax.jit
def _image(keys, batch: dict, spec: metrics.Removal):
    return metrics.remove_pixels(keys, batch["image"], batch["map"], spec)


@jax.jit
def _mask(keys, batch: dict, spec: metrics.Removal):
    gone = metrics.removed_pixels(keys, batch["map"], spec)
    return jnp.broadcast_to(gone[..., None], batch["image"].shape).astype(batch["image"].dtype)


def _by_batch(subject: Subject, split: str, program: Callable, **more: np.ndarray) -> np.ndarray:
    """``program(split, batch)`` of all examples; ``more``: further fields of a batch, ``[N, ...]``."""
    held = MemorySplit({**getattr(subject.data, split).arrays, **more})
    parts = []
    for rows in data_lib.eval_batches(held, batch_size=subject.experiment.evaluation.batch_size):
        batch = data_lib.to_float(sharding.put_batch(rows, subject.mesh))
        parts.append(np.asarray(program(split, batch))[rows["valid"]])
    return np.concatenate(parts)
