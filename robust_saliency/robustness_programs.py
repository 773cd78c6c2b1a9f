"""The programs of a robustness report: what the checklist asks of a network, and an attack at any epsilon."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import attacks, data, losses, models, randomness, survivors, threat
from robust_saliency.attacks.pgd import clean, value_and_gradient
from robust_saliency.config_sections import Robustness

NUM_NOISE = 10
LOSS_STEPS = (10, 40, 50)


class Programs(NamedTuple):
    """facts(variables, keys, batch) -> columns ``[B]``; attacked(variables, keys, batch, epsilon) -> AttackResult.

    logits(variables, batch) -> ``[B, K]``, to be called twice: within one program XLA computes the same thing once.
    """

    facts: Callable
    attacked: Callable
    logits: Callable


def make_programs(classifier: models.Classifier, settings: Robustness) -> Programs:
    """Compiled once for a network and its settings: the runs of a study share the programs."""
    plain = dataclasses.replace(settings, threat=threat.Threat())
    return _made(classifier, plain, survivors.Frozen(settings.threat))


@functools.lru_cache(maxsize=8)
def _made(classifier: models.Classifier, plain: Robustness, frozen: survivors.Frozen) -> Programs:
    model = frozen.spec
    settings = dataclasses.replace(plain, threat=model)

    def facts(variables, keys, batch):
        logits_fn, labels = classifier.logits_fn(variables), batch["label"]
        images = clean(data.to_float(batch)["image"], model)
        logits = logits_fn(images)
        values, gradient = value_and_gradient(lambda x: losses.cross_entropy(logits_fn(x), labels), images)
        noise, broken = _fooled_by_noise(logits_fn, keys, images, labels, settings)
        return {
            "noise": noise,
            "output_is_broken": broken | ~jnp.all(jnp.isfinite(logits), axis=-1),
            "gradient_is_zero": jnp.all(gradient == 0, axis=(1, 2, 3)),
            "gradient_is_broken": ~jnp.all(jnp.isfinite(gradient), axis=(1, 2, 3)),
            "loss_is_zero": values == 0,
            "logit_scale": jnp.max(logits, -1) - jnp.min(logits, -1),
            "looks_like_probabilities": (jnp.min(logits, -1) >= 0) & (jnp.abs(jnp.sum(logits, -1) - 1) < 1e-3),
            **_losses_on_the_way(logits_fn, keys, images, labels, settings),
        }

    def attacked(variables, keys, batch, epsilon):
        images = data.to_float(batch)["image"]
        spec = attacks.APGD(threat=dataclasses.replace(model, epsilon=epsilon), num_steps=settings.curve_steps)
        decide = attacks.Untargeted(attack=spec, loss="dlr")
        return attacks.untargeted(classifier.logits_fn(variables), keys, images, batch["label"], decide)

    def logits(variables, batch):
        return classifier.logits_fn(variables)(clean(data.to_float(batch)["image"], model))

    return Programs(jax.jit(facts), jax.jit(attacked), jax.jit(logits))


def _fooled_by_noise(logits_fn, keys, images, labels, settings: Robustness):
    """Whether any of ten uniform points of the ball fools an example, and whether any output there is not finite."""
    fooled = broken = jnp.zeros(labels.shape, bool)
    for number in range(NUM_NOISE):
        noisy = threat.start(randomness.fold_in(keys, number), images, settings.threat, "uniform")
        logits = logits_fn(noisy)
        fooled |= ~(losses.margin(logits, labels) < 0)
        broken |= ~jnp.all(jnp.isfinite(logits), axis=-1)
    return fooled, broken


def _losses_on_the_way(logits_fn, keys, images, labels, settings: Robustness):
    """Margins after some steps of one long PGD, and its last cross-entropy: whether more steps were needed."""
    step_size = 2.5 / LOSS_STEPS[-1] * settings.threat.epsilon
    spec = attacks.PGD(threat=settings.threat, num_steps=LOSS_STEPS[-1], step_size=step_size)
    pieces = attacks.iterated(spec)

    def loss_fn(x):
        return losses.cross_entropy(logits_fn(x), labels)

    state, found, done = pieces.start(keys, images, spec), {}, 0
    for steps in LOSS_STEPS:
        state = pieces.advance(loss_fn, state, spec, steps - done)
        found[f"margin_after_{steps}"], done = losses.margin(logits_fn(state.images), labels), steps
    return found | {f"loss_after_{done}": loss_fn(state.images)}
