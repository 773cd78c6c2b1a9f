"""On any machine: every training step, attack, map and metric can be lowered for a GPU and for a TPU.

Lowered, not compiled: what is found is an operation that has no rule there, not a slow one.
"""

import jax
import jax.numpy as jnp
import pytest

from robust_saliency import attacks, data, losses, metrics, models, objectives, optimizer, saliency
from robust_saliency.train_step import TrainState, make_train_step
from tests import tiny
from tests.saliency.test_saliency_contract import ROWS as SALIENCY_ROWS
from tests.test_contracts import ATTACK_ROWS, DECISION_ROWS

PLATFORMS = ["cuda", "tpu"]
BATCH, SIZE = 2, 16
CLASSIFIER = models.make(models.SmallCNN(width=2), (SIZE, SIZE, 3), 4)


def shape_of(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


KEYS = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), BATCH))
VARIABLES = jax.eval_shape(CLASSIFIER.init, jax.random.key(0))
IMAGES, LABELS, MAPS = shape_of(BATCH, SIZE, SIZE, 3), shape_of(BATCH, dtype=jnp.int32), shape_of(BATCH, SIZE, SIZE)


def lowers(program, *shapes):
    exported = jax.export.export(jax.jit(program), platforms=PLATFORMS)(*shapes)
    assert exported.platforms == tuple(PLATFORMS) and exported.mlir_module()


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_training_steps(name):
    attack = {"attack": {"num_steps": 2}} if hasattr(objectives.OBJECTIVES[name][0](), "attack") else {}
    experiment = tiny.experiment(objective={"name": name, **attack}, train={"average_decay": 0.9})
    transformation, schedule = optimizer.make(experiment.optimizer, 10)
    step = make_train_step(CLASSIFIER, experiment, transformation, schedule, 10)
    batch = {
        "image": shape_of(BATCH, SIZE, SIZE, 3, dtype=jnp.uint8),
        "label": LABELS,
        "id": LABELS,
        "valid": shape_of(BATCH, dtype=bool),
        "lesion_mask": shape_of(BATCH, SIZE, SIZE, dtype=jnp.uint8),
        "evidence_mask": shape_of(BATCH, SIZE, SIZE, dtype=jnp.uint8),
    }
    objective, params = experiment.objective, VARIABLES["params"]
    opt_state = jax.eval_shape(transformation.init, params)
    carry = jax.eval_shape(lambda batch: objective.function.start(data.to_float(batch), objective.spec), batch)
    state = TrainState(shape_of(dtype=jnp.int32), params, VARIABLES["state"], opt_state, carry, params)
    lowers(step, state, batch, jax.eval_shape(lambda: jax.random.key(0)), shape_of())


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_attacks(name):
    spec = attacks.ATTACKS[name][0](**ATTACK_ROWS[name])

    def attack(variables, keys, images, labels):
        logits_fn = CLASSIFIER.logits_fn(variables)
        return attacks.run(lambda x: losses.cross_entropy(logits_fn(x), labels), keys, images, spec)

    lowers(attack, VARIABLES, KEYS, IMAGES, LABELS)


@pytest.mark.parametrize("name", attacks.DECISIONS)
def test_attacks_that_decide(name):
    spec = attacks.DECISIONS[name][0](**DECISION_ROWS[name])

    def decide(variables, keys, images, labels):
        return attacks.decide(CLASSIFIER.logits_fn(variables), keys, images, labels, spec)

    lowers(decide, VARIABLES, KEYS, IMAGES, LABELS)


@pytest.mark.parametrize("name", saliency.SALIENCY)
def test_maps(name):
    def explain(variables, keys, images, labels):
        return saliency.run(CLASSIFIER.logits_fn(variables), keys, images, labels, SALIENCY_ROWS[name])

    lowers(explain, VARIABLES, KEYS, IMAGES, LABELS)


@pytest.mark.parametrize("name", metrics.METRICS)
def test_metrics(name):
    def measure(variables, keys, images, labels, maps, lesion, evidence):
        logits_fn = CLASSIFIER.logits_fn(variables)
        return metrics.run(
            metrics.METRICS[name][0](),
            logits_fn=logits_fn,
            saliency_fn=lambda keys, x, y: saliency.gradient(logits_fn, keys, x, y, saliency.Gradient()),
            attacked_fn=lambda attack: 1 - images,
            key=keys,
            images=images,
            labels=labels,
            maps=maps,
            masks={"lesion": lesion, "evidence": evidence},
        )

    lowers(measure, VARIABLES, KEYS, IMAGES, LABELS, MAPS, MAPS, MAPS)
