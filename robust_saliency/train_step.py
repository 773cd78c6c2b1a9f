"""The programs that training compiles: a step, a validation step, and two that some runs need; all pure."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from robust_saliency import attacks, averaging, losses, microbatches, schedules, trainable
from robust_saliency import data as data_lib
from robust_saliency.config import Experiment
from robust_saliency.models import Classifier
from robust_saliency.objectives.single_step import made_like
from robust_saliency.randomness import per_example_keys
from robust_saliency.types import Array

# Each use of randomness folds its own number into the root key.
INIT, STEP, AUGMENT, VALIDATION, GUARD = range(5)


class TrainState(NamedTuple):
    """Everything that a step changes. No key: keys are folded from the root and the step.

    average: the running average of the parameters, () without one.
    """

    step: Array
    params: Any
    model_state: Any
    opt_state: Any
    carry: Any
    average: Any = ()

    @property
    def variables(self) -> dict:
        return {"params": self.params, "state": self.model_state}

    @property
    def trainer(self) -> dict:
        """What a checkpoint holds beside the variables that are evaluated, which are not these where there is an
        average."""
        kept = {"step": self.step, "opt_state": self.opt_state, "carry": self.carry}
        return kept if self.average == () else kept | {"live": self.variables, "average": self.average}


def make_train_step(classifier: Classifier, experiment: Experiment, transformation, schedule, total_steps: int):
    """``step(state, batch, root, scale) -> (state, metrics)``: augment, perturb, differentiate, update.

    scale: factor on the learning rate. With ``train.accumulate`` the batch goes through all but the update in parts.
    """
    objective, settings = experiment.objective.function, experiment.train
    prepare = _preparation(classifier, experiment, total_steps)

    def step(state: TrainState, batch: dict, root: Array, scale: Array) -> tuple[TrainState, dict]:
        def differentiate(model_state, batch, part=None):
            variables = {"params": state.params, "state": model_state}
            own = root if part is None else jax.random.fold_in(root, part)
            batch, key, spec = prepare(variables, batch, own, state.step, state.step)

            def loss_fn(params, carry):
                return objective.loss(classifier, {**variables, "params": params}, carry, key, batch, spec)

            of_both = jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True)
            (_, (after, metrics)), (gradient, along) = of_both(state.params, state.carry)
            return (gradient, objective.advance(state.carry, along, batch, spec), metrics), after

        parts = settings.accumulate
        accumulate = functools.partial(microbatches.accumulated, parts=parts) if parts > 1 else _at_once
        (gradient, carry, metrics), model_state = accumulate(differentiate, state.model_state, batch)
        updates, opt_state = transformation.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, jax.tree.map(lambda update: scale * update, updates))
        average = state.average
        if settings.average_decay:
            average = averaging.updated(average, params, state.step, settings.average_decay)
        metrics = {
            **metrics,
            "gradient_norm": optax.global_norm(trainable.trained_leaves(gradient, settings.trainable)),
            "learning_rate": scale * jnp.asarray(schedule(state.step)),
        }
        return TrainState(state.step + 1, params, model_state, opt_state, carry, average), metrics

    return step


def _at_once(function, model_state: Any, batch: dict):
    return function(model_state, batch)


def make_statistics_step(classifier: Classifier, experiment: Experiment, total_steps: int):
    """``statistics(variables, carry, batch, root, number, step) -> state``: BatchNorm's after a training batch.

    The weights stay as they are, and see what they are trained on at ``step``, adversaries too. number: of the batch.
    """
    prepare = _preparation(classifier, experiment, total_steps)

    def statistics(variables: dict, carry: Any, batch: dict, root: Array, number: Array, step: Array) -> Any:
        batch, key, spec = prepare(variables, batch, root, number, step)
        _, (state, _) = experiment.objective.function.loss(classifier, variables, carry, key, batch, spec)
        return state

    return statistics


def make_guard_step(classifier: Classifier, experiment: Experiment):
    """``guard(variables, batch, root) -> accuracy`` under PGD of a few steps within the threat of the objective.

    FGSM, against which a network may train, does not see what it overlooks.
    """
    steps, attack = experiment.train.guard_steps, experiment.attack
    step_size = 2.5 / steps * attack.threat.epsilon
    pgd = attacks.PGD(threat=attack.threat, num_steps=steps, step_size=step_size, **made_like(attack))

    def guard(variables, batch, root) -> Array:
        images, labels = data_lib.to_float(batch)["image"], batch["label"]
        logits_fn = classifier.logits_fn(variables)
        keys = per_example_keys(jax.random.fold_in(root, GUARD), batch["id"])
        adversaries = attacks.run(lambda x: losses.cross_entropy(logits_fn(x), labels), keys, images, pgd)
        return jnp.mean(losses.margin(logits_fn(adversaries), labels) < 0)

    return guard


def _preparation(classifier: Classifier, experiment: Experiment, total_steps: int):
    """``prepare(variables, batch, root, number, step) -> (batch, key, spec)``: what the loss of a step gets.

    number: what the keys are folded from; step: where the schedules stand.
    """
    objective, ramps, augmentation = experiment.objective, experiment.ramps, experiment.data.augment
    replays = objective.function.replays(objective.spec)

    def prepare(variables, batch, root, number, step):
        key_augment = jax.random.fold_in(jax.random.fold_in(root, AUGMENT), number // replays)
        key_perturb, key_loss = jax.random.split(jax.random.fold_in(jax.random.fold_in(root, STEP), number))
        spec = schedules.apply(objective.spec, ramps, step / total_steps)
        # As a constant, for training batches are whole: to count the valid rows the devices would ask each other.
        batch = {**batch, "valid": jnp.ones(batch["valid"].shape, bool)}
        batch = data_lib.augment(key_augment, data_lib.to_float(batch), augmentation)
        return objective.function.perturb(classifier, variables, key_perturb, batch, spec), key_loss, spec

    return prepare


def make_validation_step(classifier: Classifier, experiment: Experiment):
    """``validate(variables, batch, root) -> sums`` over the valid examples, by class ``[K]``: examples, loss, accuracy.

    For an objective with an attack there are robust_loss and robust_accuracy too: cross-entropy and accuracy under that
    attack at full strength, with the same adversary for an example at every epoch.
    """
    attack = experiment.attack

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
            attacked = logits_fn(adversaries)
            sums["robust_loss"] = by_class(losses.cross_entropy(attacked, labels))
            sums["robust_accuracy"] = by_class(losses.margin(attacked, labels) < 0)
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
