"""Data: where they come from (``load``), in which order they are fed (batches) and what a batch undergoes (augment).

Importing this package imports neither TensorFlow Datasets, Grain nor Pillow.
"""

from robust_saliency.data.augment import AugmentSpec, augment, to_float
from robust_saliency.data.batches import (
    TRAINING_FIELDS,
    BatchOrder,
    TrainBatches,
    epoch_order,
    eval_batches,
    steps_per_epoch,
    train_batches,
)
from robust_saliency.data.images import load_images
from robust_saliency.data.planted_lesions import PlantedLesions
from robust_saliency.data.sources import MEMBERSHIP, Data, DataSpec, check_unseen, load
from robust_saliency.data.splits import LazySplit, MemorySplit, Split, choose

__all__ = [
    "MEMBERSHIP",
    "TRAINING_FIELDS",
    "AugmentSpec",
    "BatchOrder",
    "Data",
    "DataSpec",
    "LazySplit",
    "MemorySplit",
    "PlantedLesions",
    "Split",
    "TrainBatches",
    "augment",
    "check_unseen",
    "choose",
    "epoch_order",
    "eval_batches",
    "load",
    "load_images",
    "steps_per_epoch",
    "to_float",
    "train_batches",
]
