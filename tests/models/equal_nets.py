"""One network written five times, in Linen and NNX, with every way to tell training from evaluation."""

import functools

import jax
import pytest
from flax import linen as nn
from flax import nnx

from robust_saliency.models import MODES, from_linen, from_nnx

SHAPE, CLASSES, MOMENTUM, EPSILON = (6, 6, 3), 3, 0.8, 1e-5
LAYERS = ("conv", "norm", "drop", "head")


class LinenTrain(nn.Module):
    """The flag is ``train``; BatchNorm and Dropout get theirs in the constructor."""

    rate: float

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM, epsilon=EPSILON, name="norm")(x)
        x = nn.Dropout(self.rate, deterministic=not train, name="drop")(nn.relu(x))
        return nn.Dense(CLASSES, name="head")(x.mean((1, 2)))


class LinenDeterministic(nn.Module):
    """The flag is ``deterministic``; BatchNorm and Dropout get theirs in the call, by place and by name."""

    rate: float

    def setup(self):
        self.conv = nn.Conv(4, (3, 3))
        self.norm = nn.BatchNorm(momentum=MOMENTUM, epsilon=EPSILON)
        self.drop = nn.Dropout(self.rate)
        self.head = nn.Dense(CLASSES)

    def __call__(self, x, *, deterministic=True):
        x = nn.relu(self.norm(self.conv(x), deterministic))
        return self.head(self.drop(x, deterministic=deterministic).mean((1, 2)))


class LinenFixed(nn.Module):
    """No flag: BatchNorm and Dropout are written down for training only."""

    rate: float

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        x = nn.BatchNorm(use_running_average=False, momentum=MOMENTUM, epsilon=EPSILON, name="norm")(x)
        x = nn.Dropout(self.rate, deterministic=False, name="drop")(nn.relu(x))
        return nn.Dense(CLASSES, name="head")(x.mean((1, 2)))


class Nnx(nnx.Module):
    """No flag: what NNX networks look like."""

    def __init__(self, rngs, rate):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=MOMENTUM, epsilon=EPSILON, rngs=rngs)
        self.drop = nnx.Dropout(rate, rngs=rngs)
        self.head = nnx.Linear(4, CLASSES, rngs=rngs)

    def __call__(self, x):
        x = self.drop(nnx.relu(self.norm(self.conv(x))))
        return self.head(x.mean((1, 2)))


class NnxTraining(Nnx):
    """The flag is ``training`` and the layers' switches are given in the call; so is dropout's ``rngs``."""

    def __call__(self, x, rngs, training=False):
        x = nnx.relu(self.norm(self.conv(x), use_running_average=not training))
        return self.head(self.drop(x, deterministic=not training, rngs=rngs).mean((1, 2)))


NETS = {
    "linen train": lambda rate: from_linen(LinenTrain(rate), SHAPE),
    "linen deterministic": lambda rate: from_linen(LinenDeterministic(rate), SHAPE, CLASSES),
    "linen fixed": lambda rate: from_linen(LinenFixed(rate), SHAPE),
    "nnx": lambda rate: from_nnx(lambda rngs: Nnx(rngs, rate), SHAPE, CLASSES),
    "nnx training": lambda rate: from_nnx(lambda rngs: NnxTraining(rngs, rate), SHAPE),
}
every_net = pytest.mark.parametrize("name", NETS)


def statistics(state):
    """``mean`` and ``var`` of the one BatchNorm, wherever the adapter keeps them."""
    state = state.get("batch_stats", state)
    return state["norm"]["mean"], state["norm"]["var"]


classifier_of = functools.cache(lambda name, rate: NETS[name](rate))


def setup(name, rate, weights):
    classifier, (params, running) = classifier_of(name, rate), weights
    state = running if name.startswith("nnx") else {"batch_stats": running}
    return classifier, {"params": params, "state": state}


def run(classifier, variables, images, mode, **kwargs):
    return jax.jit(lambda v, x: classifier.apply(v, x, mode=mode, **kwargs))(variables, images)


def run_modes(classifier, variables, images, **kwargs):
    return jax.jit(lambda v, x: {mode: classifier.apply(v, x, mode=mode, **kwargs) for mode in MODES})(
        variables, images
    )
