"""A hand-written linear classifier, whose losses, gradients and worst images are known."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy import special

SHAPE, CLASSES = (6, 2, 2, 1), 3
LABELS = np.array([0, 1, 2, 0, 1, 2])
EPSILON = 0.1


class Output(NamedTuple):
    logits: Any
    state: Any
    features: Any


class Linear(NamedTuple):
    """As much of a classifier as the objectives use: 'train' records the batch, 'batch' turns the logits round."""

    def apply(self, variables, images, *, mode="eval", key=None, capture=(), edit=None):
        logits = images.reshape(images.shape[0], -1) @ variables["params"]["w"]
        state = {"seen": jnp.mean(images)} if mode == "train" else variables["state"]
        return Output(-logits if mode == "batch" else logits, state, {})

    def logits_fn(self, variables, *, mode="eval"):
        return lambda images: self.apply(variables, images, mode=mode).logits


MODEL = Linear()


def variables(w):
    return {"params": {"w": jnp.asarray(w)}, "state": {"seen": jnp.array(-1.0)}}


def batch_of(images, valid=None, labels=LABELS):
    return {
        "image": jnp.asarray(images),
        "label": jnp.asarray(labels, jnp.int32),
        "valid": jnp.ones(len(images), bool) if valid is None else jnp.asarray(valid),
    }


def cross_entropy(images, w, labels=LABELS):
    logits = images.reshape(len(images), -1).astype(np.float64) @ w.astype(np.float64)
    return special.logsumexp(logits, -1) - logits[np.arange(len(images)), labels]


def gradient(images, w, labels=LABELS):
    """Of the mean cross-entropy by ``w``, images held fixed: ``x^T (softmax - one_hot) / B``."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    return flat.T @ (special.softmax(flat @ w, -1) - np.eye(CLASSES)[labels]) / len(images)


def worst(images, w, sign=1.0):
    """FGSM by hand: the gradient of cross-entropy at x is ``w (softmax - one_hot)``."""
    logits = sign * images.reshape(len(images), -1) @ w
    slope = sign * (special.softmax(logits, -1) - np.eye(CLASSES)[LABELS]) @ w.T
    return images + EPSILON * np.sign(slope).reshape(images.shape).astype(np.float32)
