"""An objective whose loss is NaN in the second epoch of small_run.py: where two images share a batch."""

import jax.numpy as jnp

from robust_saliency import losses
from robust_saliency.data.batches import epoch_order
from robust_saliency.objectives.types import Objective, mean
from robust_saliency.types import spec

NUM_TRAIN, BATCH = 64, 16


def _pair() -> tuple[int, int]:
    """Two examples that no batch of the first epoch holds, and the second batch of the next one does."""
    first, second = (epoch_order(0, epoch, range(NUM_TRAIN)) for epoch in (0, 1))
    place = {int(example): number // BATCH for number, example in enumerate(first)}
    one, *others = (int(example) for example in second[BATCH : 2 * BATCH])
    return one, next(other for other in others if place[other] != place[one])


STEP = NUM_TRAIN // BATCH + 2
ONE, OTHER = _pair()


@spec
class Poisoned:
    pass


def perturb(classifier, variables, key, batch, spec):
    return batch


def loss(classifier, variables, carry, key, batch, spec):
    output = classifier.apply(variables, batch["image"], mode="train", key=key)
    poison = jnp.where((batch["id"] == ONE).any() & (batch["id"] == OTHER).any(), jnp.nan, 1.0)
    value = mean(losses.cross_entropy(output.logits, batch["label"]), batch) * poison
    return value, (output.state, {"loss": value})


objective = (Poisoned, Objective(perturb, loss))
