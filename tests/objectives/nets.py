"""Networks so small that what an objective does with them can be worked out by hand."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp


class Output(NamedTuple):
    logits: Any
    state: Any
    features: Any


class Net(NamedTuple):
    """As much of a classifier as the objectives use; ``forward(params, flat) -> logits``. 'train' records the batch."""

    forward: Callable

    def apply(self, variables, images, *, mode="eval", key=None, capture=(), edit=None):
        logits = self.forward(variables["params"], images.reshape(images.shape[0], -1))
        state = {"seen": jnp.mean(images)} if mode == "train" else variables["state"]
        return Output(-logits if mode == "batch" else logits, state, {})

    def logits_fn(self, variables, *, mode="eval"):
        return lambda images: self.apply(variables, images, mode=mode).logits


LINEAR = Net(lambda params, flat: flat @ params["w"] + params["b"][None])
SMOOTH = Net(lambda params, flat: jnp.tanh(flat @ params["first"]) @ params["second"])
# One class has the logit sum_i a_i x_i^2 / 2, so that its map |a x| moves with the image; the other has 0.
QUADRATIC = Net(
    lambda params, flat: jnp.stack([jnp.sum(params["a"][None] * flat**2, axis=1) / 2, 0 * flat[:, 0]], axis=1)
)


def variables(**params):
    return {"params": {name: jnp.asarray(value) for name, value in params.items()}, "state": {"seen": jnp.array(-1.0)}}


def smooth_variables(rng, shape, classes=3, hidden=8, dtype="float32"):
    first = rng.normal(size=(shape[1] * shape[2] * shape[3], hidden)) / 2
    return variables(first=first.astype(dtype), second=(2 * rng.normal(size=(hidden, classes))).astype(dtype))


def batch_of(images, labels, **more):
    return {
        "image": jnp.asarray(images),
        "label": jnp.asarray(labels, jnp.int32),
        "id": jnp.arange(len(images), dtype=jnp.int32),
        "valid": jnp.ones(len(images), bool),
        **more,
    }
