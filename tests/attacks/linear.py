"""A linear model, against which the worst image is known, and PGD run on it."""

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import losses
from robust_saliency.attacks import pgd
from tests.keys import fast_key

SHAPE = (4, 3, 2, 2)
EPSILON = 8 / 255


def linear_loss(weights):
    """Cross-entropy of label 0 in a two-class linear model: the loss rises along ``weights``."""

    def loss_fn(images):
        score = jnp.tensordot(images, weights, 3)
        return losses.cross_entropy(jnp.stack([0 * score, score], -1), jnp.zeros(len(score), jnp.int32))

    return loss_fn


def unit_step(gradient, norm):
    """The step of unit norm along which ``gradient [..., H, W, C]`` rises fastest; in l1 a single value."""
    axes = (-3, -2, -1)
    if norm == "linf":
        return np.sign(gradient)
    if norm == "l1":
        return np.sign(gradient) * (np.abs(gradient) == np.abs(gradient).max(axes, keepdims=True))
    return gradient / np.maximum(np.sqrt(np.sum(gradient**2, axes, keepdims=True)), 1e-30)


def attack(loss_fn, images, spec):
    # Code that runs once for a millisecond need not be optimised for seconds.
    run = jax.jit(lambda k, x, s: pgd(loss_fn, k, x, s), compiler_options={"xla_backend_optimization_level": 0})
    return np.asarray(run(fast_key(0), images, spec))
