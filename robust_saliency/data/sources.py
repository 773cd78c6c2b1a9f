"""From a ``DataSpec`` to the three splits of a data set, wherever it comes from."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from robust_saliency import checks
from robust_saliency.data import folder, planted_lesions, tfds_builder, tfds_source
from robust_saliency.data.augment import AugmentSpec
from robust_saliency.data.planted_lesions import PlantedLesions
from robust_saliency.data.splits import LazySplit, MemorySplit, Source, Split, equal_subset, hold_out, subset

SPLITS = ("train", "validation", "test")
NUM_RENDERED = {"train": 4096, "validation": 512, "test": 1024}
HOLD_OUT, SUBSET = range(2)  # purposes of random numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Which data, which part of them, and how they are fed.

    name: 'planted_lesions' (rendered here), 'folder' (``data_dir/<class>/*.png``, also below train, validation, test),
      or a data set prepared with TensorFlow Datasets: 'name', 'name/config', 'name:version'.
    data_dir: where the data lie; '' = $TFDS_DATA_DIR, then ~/tensorflow_datasets.
    image_size: pixels a side; images are squeezed to that square (antialiased), masks take the nearest pixel, planted
      lesions are drawn in that size. 0 = as stored. channels: 1 or 3; 0 = as stored.
    image_field, label_field, mask_field, group_field: TFDS features; '' = none. A group (a patient, a lesion) is never
      torn apart by a split made here.
    train_split, validation_split, test_split: TFDS splits, slices such as 'train[:80%]' too. Where the last two are '',
      and where a folder has no such subfolder, a seeded share ``validation_fraction`` of train is held out, class by
      class; test first.
    num_train, num_validation, num_test: a seeded random subset with the classes in proportion; 0 = all. Of planted
      lesions the number rendered; 0 = 4096, 512, 1024.
    classes: names of classes to keep, labelled in this order; () = all.
    class_balanced: every class equally often in a training epoch. equal_classes: splits that keep as many examples of
      each class, those of the rarest or, with ``num_<split>``, that many in all: the others are left out.
    in_memory: 'yes' decodes everything once, 'no' streams, 'auto' streams what is over ``memory_limit_gb``.
    batch_size: examples a step over all devices. seed: of the splits made here and of the rendering.
    planted: what is drawn. augment: random changes of training batches.
    """

    name: str = "planted_lesions"
    data_dir: str = ""
    image_size: int = 0
    channels: int = 0
    image_field: str = "image"
    label_field: str = "label"
    mask_field: str = ""
    group_field: str = ""
    train_split: str = "train"
    validation_split: str = ""
    validation_fraction: float = 0.1
    test_split: str = "test"
    num_train: int = 0
    num_validation: int = 0
    num_test: int = 0
    classes: tuple[str, ...] = ()
    class_balanced: bool = False
    equal_classes: tuple[str, ...] = ()
    in_memory: str = "auto"
    memory_limit_gb: float = 4.0
    batch_size: int = 128
    seed: int = 0
    planted: PlantedLesions = dataclasses.field(default_factory=PlantedLesions)
    augment: AugmentSpec = dataclasses.field(default_factory=AugmentSpec)

    def __post_init__(self):
        checks.one_of("data.in_memory", self.in_memory, ("auto", "yes", "no"))
        for split in self.equal_classes:
            checks.one_of("split in data.equal_classes", split, SPLITS)
        if self.equal_classes and self.name == "planted_lesions":
            raise ValueError(
                "data.equal_classes is for stored data sets: planted lesions are drawn as often of each class."
            )
        if self.channels not in (0, 1, 3):
            raise ValueError(f"data.channels must be 0 (as stored), 1 or 3, got {self.channels}.")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"data.validation_fraction must lie between 0 and 1, got {self.validation_fraction}.")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"data.classes names a class twice: {', '.join(self.classes)}.")
        for field in ("seed", "image_size", "num_train", "num_validation", "num_test"):
            if getattr(self, field) < 0:
                raise ValueError(f"data.{field} must be at least 0, got {getattr(self, field)}.")
        if self.batch_size < 1:
            raise ValueError(f"data.batch_size must be at least 1, got {self.batch_size}.")


# Fields of a DataSpec that decide which image lies in which split.
MEMBERSHIP = (
    "name", "seed", "train_split", "validation_split", "validation_fraction", "test_split", "classes", "label_field",
    "group_field",
)  # fmt: skip


class Data(NamedTuple):
    """What :func:`load` returns; ``image_shape`` is (height, width, channels)."""

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    concept_names: tuple[str, ...]
    description: str


def load(spec: DataSpec) -> Data:
    """The data of ``spec``, decoded if they fit in memory. An example's ``id`` is its index in the stored split.

    Raises:
      ValueError: data not found or not prepared, a file that cannot be read (named), an unknown field, split or class
        (with the choices), fewer than two classes, labels that training does not have, an empty split, a class
        without training examples where they are to be balanced, or more examples asked for than there are.
    """
    if spec.name == "planted_lesions":
        return _planted(spec)
    if spec.name == "folder":
        for field in ("mask_field", "group_field"):
            if getattr(spec, field):
                raise ValueError(f"data.{field} is for TFDS data sets: a folder of images has no fields.")
        return _stored(spec, _folder_sources(spec), spec.data_dir)
    builder = tfds_builder.open_builder(spec.name, spec.data_dir)
    return _stored(spec, _tfds_sources(spec, builder), str(builder.data_dir))


def _planted(spec: DataSpec) -> Data:
    if spec.channels == 1:
        raise ValueError("data.channels must be 0 or 3 for planted_lesions: colour is one of their cues.")
    drawn = dataclasses.replace(spec.planted, size=spec.image_size) if spec.image_size else spec.planted
    relabel, names = _relabel(planted_lesions.CLASS_NAMES, spec)
    splits = {}
    for split in SPLITS:
        num = getattr(spec, f"num_{split}") or NUM_RENDERED[split]
        arrays = planted_lesions.generate(drawn, spec.seed, num, split)
        kept = relabel[arrays["label"]] >= 0
        _check_not_empty(kept.sum(), split, f"data.num_{split} {num} with data.classes {', '.join(names)}")
        splits[split] = MemorySplit({name: array[kept] for name, array in arrays.items()})
        splits[split].arrays["label"] = relabel[splits[split].labels]
    return _data(spec, splits, names, (drawn.size, drawn.size, 3), planted_lesions.CONCEPTS, "planted lesions",
                 planted_lesions.ABOUT)  # fmt: skip


def _tfds_sources(spec: DataSpec, builder) -> dict[str, Source]:
    if not spec.train_split:
        raise ValueError("data.train_split must not be empty.")
    fields = tfds_source.Fields(spec.image_field, spec.label_field, spec.mask_field, spec.group_field)
    shape = {"image_size": spec.image_size, "channels": spec.channels}
    sources: dict[str, Source] = {}
    for split in SPLITS:
        name = getattr(spec, f"{split}_split")
        if name:
            names = sources["train"].class_names if sources else ()
            source = tfds_source.TfdsSource(builder, name, fields, class_names=names, **shape)
            source.keep = _fits(spec, _bytes(source, len(source)))
            source.check_numbers()
            sources[split] = source
    return sources


def _folder_sources(spec: DataSpec) -> dict[str, Source]:
    shape = {"image_size": spec.image_size, "channels": spec.channels}
    sources: dict[str, Source] = {}
    for split, root in folder.folders(spec.data_dir).items():
        names = sources["train"].class_names if sources else ()
        sources[split] = folder.FolderSource(root, class_names=names, **shape)
    return sources


def _stored(spec: DataSpec, sources: dict[str, Source], place: str) -> Data:
    train = sources["train"]
    for source in sources.values():
        if source.image_shape != train.image_shape:
            raise ValueError(
                f"Images differ in shape: {train.where} {train.image_shape}, {source.where} {source.image_shape}; "
                "set data.image_size and data.channels."
            )
    relabel, names = _relabel(train.class_names, spec)
    rows = {split: _of_classes(source, spec, relabel) for split, source in sources.items()}
    for split in ("test", "validation"):
        if split not in sources:
            sources[split] = train
            rows["train"], rows[split] = _held_out(train, rows["train"], spec, SPLITS.index(split))
    for split in SPLITS:
        rows[split] = _chosen(sources[split], rows[split], spec, split)
    splits: dict[str, Split] = {split: LazySplit(sources[split], rows[split], relabel) for split in SPLITS}
    fits = _fits(spec, sum(_bytes(sources[split], len(rows[split])) for split in SPLITS))
    if fits:
        splits = {split: lazy.in_ram() for split, lazy in splits.items()}
    how = "in memory" if fits else "streamed"
    # The last part of the place, such as the version: reports are passed on, and the rest is of this machine.
    description = f"{spec.name} ({os.path.basename(os.path.normpath(place))}, {how})"
    return _data(spec, splits, names, train.image_shape, (), description)


def _relabel(stored: tuple[str, ...], spec: DataSpec) -> tuple[np.ndarray, tuple[str, ...]]:
    """Stored label -> label, -1 for classes left out; and the names of the classes that stay."""
    names = spec.classes or stored
    if len(names) < 2:
        raise ValueError(f"data {spec.name!r}: at least two classes are needed, found {len(names)}.")
    relabel = np.full(len(stored), -1, np.int32)
    for label, name in enumerate(names):
        relabel[stored.index(checks.one_of("class in data.classes", name, stored))] = label
    return relabel, tuple(names)


def _of_classes(source: Source, spec: DataSpec, relabel: np.ndarray) -> np.ndarray:
    return np.flatnonzero(relabel[source.labels] >= 0) if spec.classes else np.arange(len(source))


def _held_out(source: Source, rows: np.ndarray, spec: DataSpec, purpose: int) -> tuple[np.ndarray, np.ndarray]:
    groups = None if source.groups is None else source.groups[rows]
    held = hold_out(source.labels[rows], groups, spec.validation_fraction, spec.seed, HOLD_OUT, purpose)
    return rows[~held], rows[held]


def _chosen(source: Source, rows: np.ndarray, spec: DataSpec, split: str) -> np.ndarray:
    num = getattr(spec, f"num_{split}")
    if num > len(rows):
        raise ValueError(f"data.num_{split} asks for {num} examples, but {source.where} gives {len(rows)}.")
    _check_not_empty(len(rows), split, source.where)
    if split in spec.equal_classes:
        try:
            return rows[equal_subset(source.labels[rows], num, spec.seed, SUBSET, SPLITS.index(split))]
        except ValueError as error:
            raise ValueError(f"data.num_{split}, {source.where}: {error}") from error
    return rows[subset(source.labels[rows], num, spec.seed, SUBSET, SPLITS.index(split))] if num else rows


def _check_not_empty(num: int, split: str, where: str) -> None:
    if not num:
        raise ValueError(f"The {split} split is empty: {where} gives it no example.")


def _check_balanced(spec: DataSpec, train: Split, names: tuple[str, ...]) -> None:
    """Only where asked for: to read the labels of a streamed split is a pass over all its records."""
    lacking = sorted({*range(len(names))} - {*train.labels.tolist()}) if spec.class_balanced else []
    if lacking:
        raise ValueError(
            f"data.class_balanced needs training examples of every class, but there is none of {names[lacking[0]]!r}; "
            "leave that class out of data.classes, or take more examples."
        )


def _bytes(source: Source, num: int) -> int:
    height, width, channels = source.image_shape
    return num * height * width * (channels + source.has_mask)


def _fits(spec: DataSpec, num_bytes: int) -> bool:
    return {"yes": True, "no": False, "auto": num_bytes <= spec.memory_limit_gb * 2**30}[spec.in_memory]


def _data(spec: DataSpec, splits, class_names, image_shape, concept_names, origin, about="") -> Data:
    _check_balanced(spec, splits["train"], class_names)
    sizes = " / ".join(f"{len(splits[split]):,}" for split in SPLITS)
    height, width, channels = image_shape
    description = (
        f"{origin}: {sizes} train / validation / test images of {height} x {width} x {channels}, "
        f"{len(class_names)} classes{about and '. '}{about}"
    )
    return Data(**splits, class_names=class_names, image_shape=image_shape, concept_names=tuple(concept_names),
                description=description)  # fmt: skip


def check_unseen(trained: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises ValueError where images of the section ``now`` may have been trained on: ``trained`` split otherwise."""
    if trained.get("name") != now.get("name"):
        return
    fields = [name for name in MEMBERSHIP if name != "test_split" or not now.get(name)]
    changed = [name for name in fields if trained.get(name) != now.get(name)]
    if changed:
        listed = ", ".join(f"data.{name} {trained.get(name)!r} -> {now.get(name)!r}" for name in changed)
        raise ValueError(
            f"The run was trained on other splits of {now.get('name')} ({listed}): images that it was trained on "
            "would be among those evaluated. Undo the change, or train again."
        )
