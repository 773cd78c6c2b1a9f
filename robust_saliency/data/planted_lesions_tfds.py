"""Planted lesions as a TFDS data set, prepared without TensorFlow.

prepare('~/tensorflow_datasets', PlantedLesions(), seed=0, num_train=4096, num_test=1024)
tfds.data_source('planted_lesions', data_dir='~/tensorflow_datasets', split='train', download=False)
"""

import io
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from robust_saliency.data import planted_lesions
from robust_saliency.data.planted_lesions import PlantedLesions


class PlantedLesionsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes array_record files; images go in as PNG bytes, because TFDS encodes arrays with TensorFlow only."""

    name = "planted_lesions"
    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = None

    def __init__(self, spec: PlantedLesions, seed: int, sizes: dict[str, int], data_dir: str):
        self._spec, self._seed, self._sizes = spec, seed, sizes
        self.description = f"{planted_lesions.__doc__.strip()}\n\n{spec}, seed {seed}, {sizes}."
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        mask = tfds.features.Image(shape=(self._spec.size, self._spec.size, 1), dtype=np.uint8, encoding_format="png")
        features = {
            "image": tfds.features.Image(shape=(self._spec.size, self._spec.size, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=planted_lesions.CLASS_NAMES),
            "lesion_mask": mask,
            "evidence_mask": mask,
            "id": tfds.features.Scalar(np.int32),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.description,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        return {split: self._generate_examples(split, num) for split, num in self._sizes.items()}

    def _generate_examples(self, split: str, num: int) -> Iterator[tuple[int, dict]]:
        drawn = planted_lesions.generate(self._spec, self._seed, num, split)
        for i in range(num):
            yield (
                i,
                {
                    "image": _png(drawn["image"][i]),
                    "label": int(drawn["label"][i]),
                    "lesion_mask": _png(drawn["lesion_mask"][i]),
                    "evidence_mask": _png(drawn["evidence_mask"][i]),
                    "id": int(drawn["id"][i]),
                },
            )


def prepare(data_dir: str, spec: PlantedLesions, seed: int, num_train: int, num_test: int) -> None:
    """Writes the splits 'train' and 'test' of ``generate(spec, seed, ...)`` below ``data_dir``.

    TFDS shuffles on writing: ``id`` says which example of its split a record is. Masks are 0 and 1. What is there
    already is kept.

    Raises:
      ValueError: ``data_dir`` holds planted lesions of another spec, seed or number.
    """
    builder = PlantedLesionsBuilder(spec, seed, {"train": num_train, "test": num_test}, data_dir)
    if builder.is_prepared() and tfds.builder_from_directory(builder.data_dir).info.description != builder.description:
        raise ValueError(
            f"{builder.data_dir} already holds planted lesions of another description; "
            f"remove it or choose another data_dir. Asked for: {builder.description.splitlines()[-1]}"
        )
    builder.download_and_prepare()


def _png(pixels: np.ndarray) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    file.seek(0)
    return file
