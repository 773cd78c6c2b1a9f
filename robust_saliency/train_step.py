"""The two programs that training compiles: a step and a validation step, both pure."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from robust_saliency import attacks, losses, objectives, schedules
from robust_saliency import data as data_lib
from robust_saliency.config import Experiment
from robust_saliency.models import Classifier
from robust_saliency.randomness import per_example_keys
from robust_saliency.types import Array

# Each use of randomness folds its own number into the root key.
INIT, STEP, AUGMENT, VALIDATION = range(4)


class TrainState(NamedTuple):
    """Everything that a step changes. No key: keys are folded from the root and the step."""

    step: Array
    params: Any
    model_state: Any
    opt_state: Any
    carry: Any

    @property
    def variables(self) -> dict:
        return {"params": self.params, "state": self.model_state}

    @property
    def trainer(self) -> dict:
        return {"step": self.step, "opt_state": self.opt_state, "carry": self.carry}


def make_train_step(classifier: Classifier, experiment: Experiment, transformation, schedule, total_steps: int):
    """``step(state, batch, root) -> (state, metrics)``: augment, perturb, differentiate, update."""
    objective, ramps, augmentation = experiment.objective, experiment.ramps, experiment.data.augment

    def step(state: TrainState, batch: dict, root: Array) -> tuple[TrainState, dict]:
        key_augment = jax.random.fold_in(jax.random.fold_in(root, AUGMENT), state.step)
        key_perturb, key_loss = jax.random.split(jax.random.fold_in(jax.random.fold_in(root, STEP), state.step))
        spec = schedules.apply(objective.spec, ramps, state.step / total_steps)
        batch = data_lib.augment(key_augment, data_lib.to_float(batch), augmentation)
        batch = objective.function.perturb(classifier, state.variables, key_perturb, batch, spec)

        def loss_fn(params):
            variables = {"params": params, "state": state.model_state}
            return objective.function.loss(classifier, variables, state.carry, key_loss, batch, spec)

        (_, (model_state, metrics)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = transformation.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            **metrics,
            "gradient_norm": optax.global_norm(gradient),
            "learning_rate": jnp.asarray(schedule(state.step)),
        }
        return TrainState(state.step + 1, params, model_state, opt_state, state.carry), metrics

    return step


def make_validation_step(classifier: Classifier, experiment: Experiment):
    """``validate(variables, batch, root) -> sums`` over the valid examples, by class ``[K]``: examples, loss, accuracy.

    For an objective with an attack there is robust_accuracy too: that attack at full strength, with the same adversary
    for an example at every epoch.
    """
    attack = attack_of(experiment)

    def validate(variables, batch, root) -> dict[str, Array]:
        batch = data_lib.to_float(batch)
        logits_fn, labels = classifier.logits_fn(variables), batch["label"]
        logits = logits_fn(batch["image"])
        of_class = jax.nn.one_hot(labels, logits.shape[-1]) * batch["valid"][:, None]

        def loss_fn(images):
            return losses.cross_entropy(logits_fn(images), labels)

        def by_class(values):
            return jnp.sum(of_class * values[:, None], axis=0)

        sums = {
            "examples": jnp.sum(of_class, axis=0),
            "loss": by_class(losses.cross_entropy(logits, labels)),
            "accuracy": by_class(losses.margin(logits, labels) < 0),
        }
        if attack is not None:
            keys = per_example_keys(jax.random.fold_in(root, VALIDATION), batch["id"])
            adversaries = attacks.run(loss_fn, keys, batch["image"], attack)
            sums["robust_accuracy"] = by_class(losses.margin(logits_fn(adversaries), labels) < 0)
        return sums

    return validate


def validation_metrics(sums: dict) -> dict[str, float]:
    """Means over examples, and as balanced_accuracy, balanced_robust_accuracy the means over classes."""
    examples = sums["examples"]
    found = examples > 0
    means = {}
    for name, values in sums.items():
        if name == "examples":
            continue
        means[name] = float(values.sum() / examples.sum())
        if name.endswith("accuracy"):
            means[f"balanced_{name}"] = float((values[found] / examples[found]).mean())
    return means


def attack_of(experiment: Experiment):
    """The attack that the objective trains against; None where it trains against none."""
    return getattr(objectives.innermost(experiment.objective.spec), "attack", None)
