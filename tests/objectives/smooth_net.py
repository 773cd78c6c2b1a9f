"""A smooth classifier in float64, and what the gradient of every objective must do on it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from tests.keys import fast_key

SHAPE, CLASSES, HIDDEN = (5, 3, 2, 2), 4, 6
KEEP = 0.9  # of the running mean


class Output(NamedTuple):
    logits: Any
    state: Any
    features: Any


class Smooth(NamedTuple):
    """One hidden layer of tanh; 'train' moves a running mean of the images, as BatchNorm does."""

    def apply(self, variables, images, *, mode="eval", key=None, capture=(), edit=None):
        params, state = variables["params"], variables["state"]
        hidden = jnp.tanh(images.reshape(images.shape[0], -1) @ params["first"])
        if mode == "train":
            state = {"mean": KEEP * state["mean"] + (1 - KEEP) * jnp.mean(images)}
        return Output(hidden @ params["second"], state, {})

    def logits_fn(self, variables, *, mode="eval"):
        return lambda images: self.apply(variables, images, mode=mode).logits


MODEL = Smooth()


def params_and_batch(seed=0):
    """In the widest float that is switched on. The last example is padding."""
    rng = np.random.default_rng(seed)
    params = {"first": rng.normal(size=(12, HIDDEN)), "second": rng.normal(size=(HIDDEN, CLASSES))}
    batch = {
        "image": rng.uniform(0.2, 0.8, SHAPE),
        "label": np.array([0, 1, 2, 3, 1], np.int32),
        "id": np.arange(SHAPE[0], dtype=np.int32),
        "valid": np.array([True, True, True, True, False]),
    }
    return jax.tree.map(jnp.asarray, (params, batch))


def variables_of(params):
    return {"params": params, "state": {"mean": jnp.zeros(())}}


def perturbed(objective, spec, params, batch):
    return objective.perturb(MODEL, variables_of(params), fast_key(1), batch, spec)


def loss(objective, spec, params, batch):
    """(loss, (state, metrics)) of a batch that is already perturbed."""
    return objective.loss(MODEL, variables_of(params), (), fast_key(2), batch, spec)


def log_probabilities(params, images):
    """``[B, K]``, in NumPy."""
    hidden = np.tanh(images.reshape(len(images), -1) @ params["first"])
    return special.log_softmax(hidden @ params["second"], axis=-1)


def gradient_in_the_pixels(params, images, cotangents):
    """``[B, H W C]`` of the sum of ``cotangents * logits``, in NumPy."""
    hidden = np.tanh(images.reshape(len(images), -1) @ params["first"])
    return (cotangents @ params["second"].T * (1 - hidden**2)) @ params["first"].T


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def check_gradient(objective, spec):
    """The gradient is that of finite differences, with what ``perturb`` added held fixed: nothing flows through it."""
    with jax.enable_x64(True):
        params, batch = params_and_batch()
        fixed = jax.jit(lambda p: perturbed(objective, spec, p, batch))(params)
        value = jax.jit(lambda p: loss(objective, spec, p, fixed)[0])
        gradient = jax.jit(jax.grad(lambda p: loss(objective, spec, p, fixed)[0]))(params)
        rng, step = np.random.default_rng(3), 1e-5
        for _ in range(4):
            along = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
            ahead, behind = (jax.tree.map(lambda p, d: p + sign * step * d, params, along) for sign in (1, -1))  # noqa: B023
            slope = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, along)), strict=True))
            assert abs(slope) > 1e-3
            # A central difference errs by about step^2 times the third derivative, and by rounding / step.
            np.testing.assert_allclose(slope, (value(ahead) - value(behind)) / (2 * step), rtol=1e-6, atol=1e-8)
        through = jax.jit(jax.grad(lambda p: loss(objective, spec, p, perturbed(objective, spec, p, batch))[0]))(params)
        for leaf, expected in zip(*map(jax.tree.leaves, (through, gradient)), strict=True):
            np.testing.assert_allclose(leaf, expected, rtol=1e-9, atol=1e-12)
    return fixed
