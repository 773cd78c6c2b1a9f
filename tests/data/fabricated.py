"""What the tests of the data write to disk, image files and a small TFDS data set, and how they read a split."""

import io

import numpy as np
from PIL import Image

CLASS_NAMES = ("cat", "dog", "fox")
TRAIN, TEST = 60, 12
HEIGHT, WIDTH = 8, 10


def png(array):
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


def write_images(folder, count, *, shape=(8, 8, 3), seed=0, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    for k, image in enumerate(pixels):
        Image.fromarray(image.squeeze()).save(folder / f"{k:03d}{suffix}")
    return pixels


def examples(split):
    """What the data set holds: class c has more examples the smaller c; three examples of a class share a patient.

    No example of test has the visit 2.
    """
    rng = np.random.default_rng(len(split))
    num = TRAIN if split == "train" else TEST
    label = np.repeat(np.arange(3), [num // 2, num // 3, num // 6])
    return {
        "image": rng.integers(0, 256, (num, HEIGHT, WIDTH, 3), dtype=np.uint8),
        "mask": (rng.random((num, HEIGHT, WIDTH)) < 0.3).astype(np.uint8) * 255,
        "label": label,
        "patient": np.array([f"{split}-{c}-{k // 3}" for k, c in enumerate(label)]),
        "visit": label if split == "train" else label // 2,
        "name": np.array([f"{split}{k}" for k in range(num)]),
    }


def everything(split):
    return split.gather(np.arange(len(split)))
