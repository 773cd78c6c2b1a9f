"""An attack holds as many images whatever its number of steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import attacks, losses
from robust_saliency.threat import Threat

SHAPE = (4, 16, 16, 3)
WEIGHTS = np.random.default_rng(0).normal(size=(*SHAPE[1:], 4)).astype(np.float32)
L2 = Threat(norm="l2", epsilon=0.5)
# what it takes a number of steps: a spec of that number
SPECS = {
    "pgd": lambda n: attacks.Untargeted(attack=attacks.PGD(threat=L2, num_steps=n, unroll=False)),
    "pgd, unrolled": lambda n: attacks.Untargeted(attack=attacks.PGD(threat=L2, num_steps=n, unroll=True)),
    "pgd, five restarts": lambda n: attacks.Untargeted(
        attack=attacks.PGD(threat=L2, num_steps=n, num_restarts=5, unroll=False)
    ),
    "apgd": lambda n: attacks.Untargeted(attack=attacks.APGD(threat=L2, num_steps=n, unroll=False)),
    "carlini_wagner": lambda n: attacks.CarliniWagner(num_steps=n),
    "deepfool": lambda n: attacks.DeepFool(threat=L2, num_steps=n),
    "fab": lambda n: attacks.FAB(threat=L2, num_steps=n),
    "square": lambda n: attacks.Square(threat=L2, num_steps=n),
}


def bytes_of(spec) -> int:
    """Of the compiled attack's own memory, beside what goes in and comes out."""
    function = next(decide for Spec, decide in attacks.DECISIONS.values() if isinstance(spec, Spec))

    def logits_fn(images):
        return jnp.tanh(jnp.tensordot(images, WEIGHTS, 3))

    def attack(images, labels):
        return function(logits_fn, jax.random.key(0), images, labels, spec)

    compiled = jax.jit(attack).lower(jnp.zeros(SHAPE), jnp.zeros(len(SHAPE), jnp.int32)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("name", SPECS)
def test_memory_does_not_grow_with_the_steps(name):
    few, many = (bytes_of(SPECS[name](num_steps)) for num_steps in (8, 24))
    image = 4 * np.prod(SHAPE)
    assert many <= few + image / 2, f"{(many - few) / image:.1f} batches of images more for 16 steps more"


def test_memory_of_a_trace_grows_by_one_number_a_step():
    def spec(num_steps):
        return attacks.Untargeted(attack=attacks.PGD(threat=L2, num_steps=num_steps, unroll=False), trace=True)

    assert bytes_of(spec(24)) - bytes_of(spec(8)) < 16 * SHAPE[0] * 4 * 4


def test_the_comparison_would_notice_iterates_that_are_kept():
    def kept(num_steps):
        def attack(images):
            def step(x, _):
                x = x + 0.01 * jax.grad(lambda z: losses.margin(jnp.tensordot(z, WEIGHTS, 3), labels).sum())(x)
                return x, x

            labels = jnp.zeros(len(images), jnp.int32)
            return jax.lax.scan(step, images, None, length=num_steps)[1].max(0)

        return jax.jit(attack).lower(jnp.zeros(SHAPE)).compile().memory_analysis().temp_size_in_bytes

    assert kept(24) - kept(8) >= 16 * 4 * np.prod(SHAPE)
