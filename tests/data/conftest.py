"""A small TFDS data set, prepared on the spot, and planted lesions, drawn once."""

import io

import jax
import numpy as np
import pytest

from robust_saliency.data import planted_lesions
from robust_saliency.data.planted_lesions import CLASS_NAMES as LESION_CLASSES
from robust_saliency.data.planted_lesions import PlantedLesions, generate
from tests.data.fabricated import CLASS_NAMES, HEIGHT, WIDTH, examples, png


@pytest.fixture(scope="session")
def tiny_tfds(tmp_path_factory):
    """A directory with the prepared data set 'tiny', two array_record files in train."""
    import tensorflow_datasets as tfds

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "tiny"
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = None

        def _info(self):
            image = tfds.features.Image(shape=(HEIGHT, WIDTH, 3), encoding_format="png")
            mask = tfds.features.Image(shape=(HEIGHT, WIDTH, 1), encoding_format="png")
            features = tfds.features.FeaturesDict(
                {
                    "image": image,
                    "label": tfds.features.ClassLabel(names=CLASS_NAMES),
                    "mask": mask,
                    "patient": tfds.features.Text(),
                    "about": {"name": tfds.features.Text(), "is_cat": np.bool_, "count": np.int64, "visit": np.int64},
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in ("train", "test")}

        def _generate_examples(self, split):
            held = examples(split)
            for k in range(len(held["label"])):
                yield (
                    k,
                    {
                        "image": io.BytesIO(png(held["image"][k])),
                        "label": int(held["label"][k]),
                        "mask": io.BytesIO(png(held["mask"][k])),
                        "patient": str(held["patient"][k]),
                        "about": {
                            "name": str(held["name"][k]),
                            "is_cat": bool(held["label"][k] == 0),
                            "count": int(held["label"][k]) + 4,
                            "visit": int(held["visit"][k]),
                        },
                    },
                )

    directory = tmp_path_factory.mktemp("tfds")
    config = tfds.download.DownloadConfig(num_shards=2)
    Tiny(data_dir=directory, file_format="array_record").download_and_prepare(download_config=config)
    return directory


@pytest.fixture(scope="session")
def planted_train():
    return generate(PlantedLesions(), 0, 1536, "train")


@pytest.fixture(scope="session")
def planted_triplets():
    """256 keys drawn as each class: arrays with a leading class axis."""
    ids = np.arange(256, dtype=np.int32)
    chunks = [
        planted_lesions._draw_chunk(jax.random.key(3), ids, np.full(256, label, np.int32), PlantedLesions())
        for label in range(len(LESION_CLASSES))
    ]
    return {name: np.stack([chunk[name] for chunk in chunks]) for name in chunks[0]}
