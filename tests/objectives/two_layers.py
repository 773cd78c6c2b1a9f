"""A hand-written linear network of two layers: as much of a classifier as the objectives use."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy import special

SHAPE, CLASSES, HIDDEN = (6, 2, 2, 1), 3, 5
LABELS = np.array([0, 1, 2, 0, 1, 2])


class Output(NamedTuple):
    logits: Any
    state: Any
    features: Any


class TwoLayers(NamedTuple):
    """``f(x) = x w1 w2 + bias``. 'train' records the batch in the state, 'batch' turns the logits round."""

    layers: tuple[str, ...] = ("hidden", "logits")
    image_shape: Any = None

    def init(self, key):
        return variables(params_of(np.random.default_rng(0)))

    def apply(self, variables, images, *, mode="eval", key=None, capture=(), edit=None):
        params = variables["params"]
        hidden = images.reshape(images.shape[0], -1) @ params["hidden"]["kernel"]
        logits = hidden @ params["logits"]["kernel"] + params["logits"]["bias"][None]
        state = {"seen": jnp.mean(images)} if mode == "train" else variables["state"]
        features = {"hidden": hidden, "logits": logits}
        return Output(-logits if mode == "batch" else logits, state, {name: features[name] for name in capture})

    def logits_fn(self, variables, *, mode="eval"):
        return lambda images: self.apply(variables, images, mode=mode).logits


MODEL = TwoLayers()


def params_of(rng):
    return {
        "hidden": {"kernel": rng.normal(size=(4, HIDDEN)).astype(np.float32)},
        "logits": {
            "kernel": rng.normal(size=(HIDDEN, CLASSES)).astype(np.float32),
            "bias": rng.normal(size=CLASSES).astype(np.float32) / 10,
        },
    }


def variables(params):
    return {"params": params, "state": {"seen": jnp.array(-1.0)}}


def batch_of(images, valid=None, labels=LABELS):
    return {
        "image": jnp.asarray(images),
        "label": jnp.asarray(labels, jnp.int32),
        "valid": jnp.ones(len(images), bool) if valid is None else jnp.asarray(valid),
    }


def hidden(images, params):
    return images.reshape(len(images), -1).astype(np.float64) @ params["hidden"]["kernel"]


def logits(images, params):
    return hidden(images, params) @ params["logits"]["kernel"].astype(np.float64) + params["logits"]["bias"]


def cross_entropy(images, params, labels=LABELS):
    z = logits(images, params)
    return special.logsumexp(z, -1) - z[np.arange(len(z)), labels]


def image_gradient(images, params, labels=LABELS, sign=1.0):
    """Of cross-entropy at the images, under logits times ``sign``."""
    whole = params["hidden"]["kernel"].astype(np.float64) @ params["logits"]["kernel"]
    miss = special.softmax(sign * logits(images, params), -1) - np.eye(CLASSES)[labels]
    return (sign * miss @ whole.T).reshape(images.shape)


def gradient(images, params, labels=LABELS):
    """Of the mean cross-entropy by the parameters, the images held fixed."""
    flat, h = images.reshape(len(images), -1).astype(np.float64), hidden(images, params)
    miss = (special.softmax(logits(images, params), -1) - np.eye(CLASSES)[labels]) / len(images)
    return {
        "hidden": {"kernel": flat.T @ miss @ params["logits"]["kernel"].T.astype(np.float64)},
        "logits": {"kernel": h.T @ miss, "bias": miss.sum(0)},
    }
