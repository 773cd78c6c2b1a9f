"""A prepared TensorFlow Datasets split, read at random without TensorFlow.

Records are parsed and images decoded here, not by TFDS: only the fields asked for, and in a third of the time.
"""

import bisect
import functools
import itertools
from typing import Any, NamedTuple

import numpy as np

from robust_saliency import checks
from robust_saliency.data import images


class Fields(NamedTuple):
    """Names of features; a feature within another one is 'outer/inner'. '' = none."""

    image: str
    label: str
    mask: str = ""
    group: str = ""


class Example(NamedTuple):
    """One parsed record; image and mask are still encoded."""

    image: bytes
    label: int
    mask: bytes | None
    group: Any


class TfdsSource:
    """One split of a builder as a ``Source``; its classes are ``class_names`` where given, those of training.

    With ``keep`` set, records are read once and stay in memory, encoded.
    """

    keep = False

    def __init__(
        self,
        builder,
        split: str,
        fields: Fields,
        *,
        image_size: int,
        channels: int,
        class_names: tuple[str, ...] = (),
    ):
        import tensorflow_datasets as tfds

        self.where = f"{builder.info.full_name}, split {split!r}"
        self._fields = fields
        self._training_classes = class_names
        self._features = _flat(builder.info.features)
        self._check_fields(tfds.features)
        try:
            info = builder.info.splits[split]
            if not info.num_examples:
                raise ValueError("it holds no example")
            self._records = builder.as_data_source(
                split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
            )
        except ValueError as error:
            if split.partition("[")[0] in builder.info.splits:
                raise ValueError(f"{self.where} cannot be opened: {images.one_line(error)}.") from error
            raise ValueError(
                f"{builder.info.full_name} has no split {split!r}. Choices: {', '.join(sorted(builder.info.splits))}."
            ) from error
        self._files = info.file_instructions
        self.has_mask = bool(fields.mask)
        self.image_shape = self._shape(image_size, channels)

    def __len__(self) -> int:
        return len(self._records)

    @property
    def labels(self) -> np.ndarray:
        return self._checked(self._metadata[0])

    @property
    def groups(self) -> np.ndarray | None:
        return self._metadata[1] if self._fields.group else None

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        if self._training_classes:
            return self._training_classes
        feature = self._features[self._fields.label]
        if getattr(feature, "num_classes", None) is not None:
            return tuple(feature.names)
        is_bool = np.dtype(feature.np_dtype) == np.bool_
        return tuple(str(label) for label in range(2 if is_bool else int(self._metadata[0].max(initial=-1)) + 1))

    def check_numbers(self) -> None:
        """Raises ValueError where labels that are mere numbers are not those of training; names are of all splits."""
        if getattr(self._features[self._fields.label], "num_classes", None) is None:
            _ = self.labels

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        height, width, channels = self.image_shape
        image = np.empty((len(rows), height, width, channels), np.uint8)
        mask = np.empty((len(rows), height, width), np.uint8)
        label = np.empty(len(rows), np.int32)

        kept = self._kept if self.keep else None

        def fill(start: int, stop: int):
            chunk = [int(row) for row in rows[start:stop]]
            examples = [kept[row] for row in chunk] if kept else self._parse(chunk)
            label[start:stop] = [example.label for example in examples]
            image[start:stop] = self._decode_all([example.image for example in examples], chunk)
            if self.has_mask:
                mask[start:stop] = self._decode_masks([example.mask for example in examples], chunk)

        images.in_chunks(fill, len(rows), threads=1 if height * width <= images.SMALL else 0)
        return {"image": image, "label": self._checked(label)} | ({"lesion_mask": mask} if self.has_mask else {})

    @functools.cached_property
    def _metadata(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Labels and groups of all examples: one pass over the records, without decoding an image."""
        label = np.empty(len(self), np.int32)
        group: list[Any] = []
        for start in range(0, len(self), images.CHUNK):
            rows = range(start, min(start + images.CHUNK, len(self)))
            examples = self._kept[start : rows.stop] if self.keep else self._parse(rows)
            label[start : rows.stop] = [example.label for example in examples]
            group += [example.group for example in examples]
        return label, _each_alone_without(group) if self._fields.group else None

    @functools.cached_property
    def _kept(self) -> list[Example]:
        starts = range(0, len(self), images.CHUNK)
        chunks = (self._parse(range(start, min(start + images.CHUNK, len(self)))) for start in starts)
        return list(itertools.chain.from_iterable(chunks))

    def _checked(self, labels: np.ndarray) -> np.ndarray:
        num = len(self.class_names)
        where = f"{self.where} (training has {num} classes)" if self._training_classes else self.where
        checks.check_labels(labels, num, where)
        return labels

    def _parse(self, rows) -> list[Example]:
        from tensorflow_datasets.proto import tf_example_pb2

        fields = self._fields
        parsed = []
        for row, record in zip(rows, self._raw(list(rows)), strict=True):
            try:
                values = tf_example_pb2.Example.FromString(record).features.feature
                parsed.append(
                    Example(
                        image=values[fields.image].bytes_list.value[0],
                        label=values[fields.label].int64_list.value[0],
                        mask=values[fields.mask].bytes_list.value[0] if fields.mask else None,
                        group=_scalar(values[fields.group]) if fields.group else None,
                    )
                )
            except Exception as error:
                raise ValueError(self._damaged(row, error)) from error
        return parsed

    def _raw(self, rows: list[int]) -> list[bytes]:
        try:
            return self._records.__getitems__(rows)
        except Exception:
            for row in rows:
                try:
                    self._records[row]
                except Exception as error:
                    raise ValueError(self._damaged(row, error)) from error
            raise

    def _decode_all(self, data: list[bytes], rows: list[int]) -> np.ndarray | list[np.ndarray]:
        plain = images.decode_plain_pngs(data, self.image_shape)
        return [self._decode(one, row) for one, row in zip(data, rows, strict=True)] if plain is None else plain

    def _decode(self, data: bytes, row: int) -> np.ndarray:
        height, width, channels = self.image_shape
        try:
            image = images.decode(data, size=self._resized, channels=channels)
        except ValueError as error:
            raise ValueError(self._damaged(row, error)) from error
        if image.shape[:2] != (height, width):
            raise ValueError(
                f"{self.where}: image sizes differ ({height} x {width} and {image.shape[0]} x {image.shape[1]}); "
                "set data.image_size."
            )
        return image

    def _decode_masks(self, data: list[bytes], rows: list[int]) -> list[np.ndarray]:
        size = self.image_shape[:2]
        plain = images.decode_plain_pngs(data, (*size, 1))
        masks = []
        for place, row in enumerate(rows):
            try:
                stored = images.decode(data[place], size=None, channels=1) if plain is None else plain[place]
                masks.append(images.to_mask(stored[:, :, 0], size))
            except ValueError as error:
                raise ValueError(self._damaged(row, error, self._fields.mask)) from error
        return masks

    def _damaged(self, row: int, error: BaseException, field: str = "") -> str:
        ends = list(itertools.accumulate(file.take for file in self._files))
        file = self._files[min(bisect.bisect_right(ends, row), len(ends) - 1)].filename
        what = f"field {field!r} of example {row}" if field else f"example {row}"
        return f"{self.where}: cannot read {what} from {file}: {images.one_line(error)}."

    def _shape(self, image_size: int, channels: int) -> tuple[int, int, int]:
        self._resized = (image_size, image_size) if image_size else None
        height, width, stored = self._features[self._fields.image].shape
        if image_size:
            height = width = image_size
        if None in (height, width) or (stored or 0) not in (1, 3):
            height, width, stored = self._first_shape(channels)
        return height, width, channels or stored

    def _first_shape(self, channels: int) -> tuple[int, int, int]:
        first = self._parse([0])[0]
        try:
            return images.decode(first.image, size=self._resized, channels=channels).shape
        except ValueError as error:
            raise ValueError(self._damaged(0, error)) from error

    def _check_fields(self, kinds) -> None:
        for key, name in self._fields._asdict().items():
            if name:
                checks.one_of(f"data.{key}_field", name, self._features)
        for key in ("image", "mask"):
            feature = self._features.get(getattr(self._fields, key))
            if feature is not None and not (isinstance(feature, kinds.Image) and feature.np_dtype == np.uint8):
                name = getattr(self._fields, key)
                raise ValueError(f"{self.where}: data.{key}_field {name!r} must be an 8-bit image, got {feature}.")
        label = self._features[self._fields.label]
        if label.shape != () or np.dtype(label.np_dtype).kind not in "iub":
            raise ValueError(
                f"{self.where}: data.label_field {self._fields.label!r} must be one integer an example, got {label}."
            )


def _flat(features, prefix: str = "") -> dict[str, Any]:
    """Every feature by its path: how TFDS names it in a record."""
    flat = {}
    for name, feature in features.items():
        nested = hasattr(feature, "items") and not hasattr(feature, "feature")
        flat |= _flat(feature, f"{prefix}{name}/") if nested else {prefix + name: feature}
    return flat


def _scalar(value) -> str | int:
    if value.HasField("bytes_list"):
        return value.bytes_list.value[0].decode()
    return value.int64_list.value[0]


def _each_alone_without(group: list[Any]) -> np.ndarray:
    """The groups; an example whose group is empty belongs to none, and gets one of its own."""
    return np.array([f"(example {row})" if name == "" else name for row, name in enumerate(group)])
