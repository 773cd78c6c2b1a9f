"""A network whose units are known detectors, and images in which it is known what they detect.

Units of the layer 'units', means over 2 x 2 pixels: 0 'pure' answers to red, 1 'mixed' to red and to green, 2 'dead' to
nothing. 'mean' is their mean over places, and the logits are linear in it.
"""

import jax.numpy as jnp
import numpy as np

from robust_saliency import models

SIDE, CLASSES = 8, 3
COLOURS = np.array([[1.0, 0.5, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]], np.float32)  # [C, U]
HEAD = np.array([[2.0, -1.0, 0.5], [-3.0, 0.25, 1.0], [7.0, 7.0, 7.0]], np.float32)  # [U, K]


def apply(variables, images, *, mode="eval", key=None, capture=(), edit=None):
    edit = edit or {}
    halves = images.reshape(len(images), images.shape[1] // 2, 2, images.shape[2] // 2, 2, 3).mean((2, 4))
    units = edit.get("units", lambda a: a)(halves @ jnp.asarray(COLOURS, images.dtype))
    mean = edit.get("mean", lambda a: a)(units.mean((1, 2)))
    features = {"units": units, "mean": mean}
    return models.Output(mean @ jnp.asarray(HEAD, images.dtype), {}, {name: features[name] for name in capture})


LOGITS_FN = models.Classifier(init=None, apply=apply, layers=("units", "mean"), num_classes=CLASSES).logits_fn({})


def images_and_masks():
    """``[4, 8, 8, 3]`` and ``[4, 8, 8, 2]``: red 4 x 4 squares on images 0 and 1, a green one on 2, 3 is black."""
    images = np.zeros((4, SIDE, SIDE, 3), np.float32)
    masks = np.zeros((4, SIDE, SIDE, 2), np.float32)
    for image, colour, row, column in ((0, 0, 0, 0), (1, 0, 4, 2), (2, 1, 2, 4)):
        images[image, row : row + 4, column : column + 4, colour] = 1
        masks[image, row : row + 4, column : column + 4, colour] = 1
    return images, masks
