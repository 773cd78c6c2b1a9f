"""A network whose gradient map is known by formula, and the attack on it."""

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency.attacks import PGD
from robust_saliency.map_attacks import MapAttack, map_attack
from robust_saliency.threat import Threat
from tests.keys import fast_key

BATCH, SIDE, K, EPSILON = 4, 4, 5, 0.05
SCORES = ("top_k_intersection", "spearman", "centre_shift")  # the maps are too small for SSIM
CORNER = PGD(threat=Threat(epsilon=EPSILON), num_steps=12, step_size=0.01, unroll=False)
SPEC = MapAttack(attack=CORNER, k=K, scores=SCORES)
Q = np.random.default_rng(3).permutation(np.linspace(0.5, 2, SIDE * SIDE)).astype(np.float32).reshape(SIDE, SIDE)


def quadratic(weights, rival=-100.0):
    """``z_0 = sum q x^2 / 2`` against a constant: the gradient map of class 0 is q x."""

    def logits_fn(images):
        score = jnp.sum(weights[None] * images[..., 0] ** 2, axis=(1, 2)) / 2
        return jnp.stack([score, jnp.full_like(score, rival)], axis=-1)

    return logits_fn


NETWORK = quadratic(jnp.asarray(Q))


def attack(logits_fn, images, spec, surrogate=None, goal=None, key=None):
    """The attack on the map of class 0."""

    def run(key, images, spec, goal):
        labels = jnp.zeros(len(images), jnp.int32)
        return map_attack(logits_fn, key, images, labels, spec, surrogate, goal)

    compiled = jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})
    return compiled(fast_key(0) if key is None else key, images, spec, goal)


def middle(rng):
    """Images of which neither the ball nor a flat gradient meets the box."""
    return rng.uniform(0.3, 0.7, (BATCH, SIDE, SIDE, 1)).astype(np.float32)
