"""PGD with the update rules of optax: against optax itself, one example at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robust_saliency import attacks
from robust_saliency.attacks import PGD, rules
from robust_saliency.threat import Threat
from tests.attacks.test_pgd_momentum import curved_loss

OPTIMISERS = {
    "adabelief": optax.adabelief, "adam": optax.adam, "lion": lambda rate: optax.lion(rate, weight_decay=0.0),
    "radam": optax.radam, "rmsprop": optax.rmsprop, "yogi": optax.yogi,
}  # fmt: skip


def test_every_rule_is_tested():
    assert set(OPTIMISERS) == set(rules.RULES)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_it_is_the_optimiser_of_optax_on_each_image_alone(name, middle, rng):
    centre = rng.uniform(0.4, 0.6, middle.shape).astype(np.float32)
    spec = PGD(threat=Threat(epsilon=1.0), step_size=0.01, num_steps=7, start="none", rule=name, unroll=False)
    run = jax.jit(lambda x: attacks.run(curved_loss(centre), jax.random.key(0), x, spec))
    optimiser = OPTIMISERS[name](0.01)
    slope = jax.grad(lambda x, c: jnp.sum((x - c) ** 4))

    @jax.jit
    def step(x, c, state):
        update, state = optimiser.update(slope(x, c), state, x)
        return jnp.clip(optax.apply_updates(x, update), 0, 1), state

    for found, x, c in zip(np.asarray(run(middle)), middle, centre, strict=True):
        state = optimiser.init(x)
        for _ in range(7):
            x, state = step(x, c, state)
        np.testing.assert_allclose(found, x, atol=2e-6)


def test_a_nan_gradient_stops_its_example_and_leaves_its_state_finite(middle):
    def loss_fn(x):
        spoilt = jnp.array([0.0, 1.0, 0.0, 0.0])
        return jnp.sum(x, (1, 2, 3)) + jnp.sqrt(0 * spoilt * jnp.sum(x, (1, 2, 3)) + (spoilt == 0))

    spec = PGD(threat=Threat(epsilon=0.1), step_size=0.01, num_steps=3, start="none", rule="adam")
    found = np.asarray(jax.jit(lambda x: attacks.run(loss_fn, jax.random.key(0), x, spec))(middle))
    np.testing.assert_allclose(found[1], middle[1], atol=1e-7)
    np.testing.assert_allclose(found[0], middle[0] + 0.03, atol=1e-4)


def test_bad_rules_are_one_sentence():
    with pytest.raises(ValueError, match=r"Unknown rule 'adan'\. Did you mean 'adam'\?"):
        PGD(rule="adan")
    with pytest.raises(ValueError, match=r"PGD\.momentum is of the rule 'steepest'; 'adam' has its own\."):
        PGD(rule="adam", momentum=0.9)
    with pytest.raises(ValueError, match=r"PGD\.num_restarts must be at least 1, got 0\."):
        PGD(num_restarts=0)
