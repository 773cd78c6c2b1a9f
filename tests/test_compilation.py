"""What may change from step to step, or in a sweep, changes numbers and not programs; counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import attacks, losses, models
from robust_saliency.threat import Threat
from tests.test_training_collectives import ATTACKED, Step


def test_a_training_step_is_one_program_for_all_labels_rates_and_steps():
    step = Step(2, objective=ATTACKED, optimizer={"name": "sgd", "schedule": "cosine"})
    program = jax.jit(step.function, out_shardings=step.places)
    state, batch, root, scale = step.arguments
    losses_seen, rates = [], []
    for turn in range(3):
        labels = (batch["label"] + turn) % 2
        own = jax.device_put(jnp.float32(1 / (1 + turn)), scale.sharding)
        state, metrics = jax.block_until_ready(program(state, batch | {"label": labels}, root, own))
        losses_seen.append(float(metrics["loss"]))
        rates.append(float(metrics["learning_rate"]))
    assert program._cache_size() == 1
    assert len(set(losses_seen)) == len(set(rates)) == 3


@pytest.mark.parametrize("name", ["fgsm", "fgsm_rs", "pgd", "apgd"])
def test_an_attack_is_one_program_for_all_epsilons_step_sizes_and_labels(name):
    classifier = models.make(models.SmallCNN(width=2), (8, 8, 3), 5)
    variables = classifier.init(jax.random.key(0))
    images = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    Spec, attack = attacks.ATTACKS[name]
    steps = {"num_steps": 3} if "num_steps" in Spec.__dataclass_fields__ else {}
    sized = "step_size" in Spec.__dataclass_fields__

    @jax.jit
    def program(variables, key, images, labels, spec):
        logits_fn = classifier.logits_fn(variables)
        return attack(lambda x: losses.cross_entropy(logits_fn(x), labels), key, images, spec)

    reached = []
    for turn in range(1, 4):
        size = {"step_size": turn / 400} if sized else {}
        spec = Spec(threat=Threat(epsilon=turn / 100), **steps, **size)
        labels = np.arange(4, dtype=np.int32) + turn - 1
        found = program(variables, jax.random.key(turn), images, labels % 5, spec)
        reached.append(float(jnp.abs(found - images).max()))
    assert program._cache_size() == 1
    assert reached[0] < reached[1] < reached[2]
