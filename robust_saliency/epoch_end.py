"""What training knows of itself at the end of an epoch: validation, and the rules that end it or slow it down."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from robust_saliency import checks, sharding, stopping
from robust_saliency import data as data_lib
from robust_saliency.config import Experiment
from robust_saliency.models import Classifier
from robust_saliency.train_step import (
    TrainState,
    attack_of,
    make_guard_step,
    make_statistics_step,
    make_validation_step,
    validation_metrics,
)


class EpochEnd:
    """Judges the state of a run. What it decides, it decides from the rows of metrics.jsonl, so that a resumed run
    decides as if it had not been killed.

    fresh_batches(): training batches from the first on. best_metric, best_mode: what 'best' means for this run.
    """

    def __init__(
        self, classifier: Classifier, experiment: Experiment, validation, fresh_batches, mesh: Mesh, root, total_steps
    ):
        self.experiment, self.settings, self.validation = experiment, experiment.train, validation
        self.fresh_batches, self.mesh, self.root = fresh_batches, mesh, root
        self.best_metric = _best_metric(experiment)
        self.best_mode = "min" if self.best_metric == "loss" else "max"
        if self.settings.guard_drop and attack_of(experiment) is None:
            raise ValueError(
                f"config.train.guard_drop guards adversarial training; {experiment.objective.name!r} has no attack."
            )
        self.validate = jax.jit(make_validation_step(classifier, experiment))
        self.statistics = jax.jit(make_statistics_step(classifier, experiment, total_steps))
        self.guard = jax.jit(make_guard_step(classifier, experiment)) if self.settings.guard_drop else None

    def validated(self, variables: dict) -> dict[str, float]:
        """The validation metrics."""
        size = self.experiment.data.batch_size
        totals: dict[str, np.ndarray] = {}
        for batch in data_lib.eval_batches(self.validation, batch_size=size):
            sums = jax.device_get(self.validate(variables, sharding.put_batch(batch, self.mesh), self.root))
            totals = {name: totals.get(name, 0.0) + value.astype(np.float64) for name, value in sums.items()}
        return validation_metrics(totals)

    def kept_variables(self, state: TrainState) -> dict:
        """What is validated, saved and later evaluated: the weights, or their average with statistics of its own."""
        if not self.settings.average_decay:
            return state.variables
        variables = {"params": state.average, "state": state.model_state}
        if state.model_state and self.settings.batch_norm == "train":
            batches = self.fresh_batches()
            for number in range(self.settings.average_batches):
                batch = sharding.put_batch(next(batches), self.mesh)
                found = self.statistics(variables, batch, self.root, jnp.int32(number))
                variables = {"params": state.average, "state": sharding.waited(found, self.mesh)}
        return variables

    def pgd_accuracy(self, state: TrainState) -> float:
        """On the first training batch, the same at the end of every epoch."""
        batch = sharding.put_batch(next(self.fresh_batches()), self.mesh)
        return float(self.guard(state.variables, batch, self.root))

    def collapse(self, rows: list[dict]) -> str:
        """Why training must end now, and without another checkpoint; '' where it need not."""
        values = _history(rows, "guard", "pgd_accuracy")
        if not stopping.has_collapsed(values, self.settings.guard_drop):
            return ""
        return (
            f"accuracy on a training batch under PGD-{self.settings.guard_steps} fell from {max(values[:-1]):.3f} to "
            f"{values[-1]:.3f} (catastrophic overfitting); the last good checkpoint is kept"
        )

    def patience_is_over(self, rows: list[dict]) -> str:
        """Why training ends here; '' where it goes on."""
        patience = self.settings.patience
        since = stopping.without_improvement(_history(rows, "validation", self.best_metric), self.best_mode)
        return f"{since} validations brought no better {self.best_metric}" if patience and since >= patience else ""

    def learning_rate_scale(self, rows: list[dict]) -> float:
        """The factor on the learning rate of the next steps."""
        patience, factor = self.settings.plateau_patience, self.settings.plateau_factor
        values = _history(rows, "validation", self.best_metric)
        return stopping.plateau_scale(values, self.best_mode, patience, factor)


def _history(rows: list[dict], split: str, name: str) -> list[float]:
    return [row[name] for row in rows if row["split"] == split]


def _best_metric(experiment: Experiment) -> str:
    accuracies = ["accuracy"] if attack_of(experiment) is None else ["accuracy", "robust_accuracy"]
    balanced = [f"balanced_{name}" for name in accuracies]
    usual = (balanced if experiment.data.class_balanced else accuracies)[-1]
    chosen = experiment.train.best_metric or usual
    return checks.one_of("train.best_metric", chosen, ["loss", *accuracies, *balanced])
