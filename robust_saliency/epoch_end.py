"""What training knows of itself at the end of an epoch: validation, and the rules that end it or slow it down."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from robust_saliency import data as data_lib
from robust_saliency import processes, sharding, stopping
from robust_saliency.config import Experiment
from robust_saliency.models import Classifier
from robust_saliency.train_step import (
    TrainState,
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
        self.total_steps = total_steps
        self.best_metric = self.settings.best_metric
        self.best_mode = "min" if self.best_metric.endswith("loss") else "max"
        everywhere = sharding.replicated(mesh)
        self.validate = jax.jit(make_validation_step(classifier, experiment), out_shardings=everywhere)
        self.statistics = jax.jit(make_statistics_step(classifier, experiment, total_steps))
        guard = make_guard_step(classifier, experiment) if self.settings.guard_drop else None
        self.guard = guard and jax.jit(guard, out_shardings=everywhere)

    def validated(self, variables: dict) -> dict[str, float]:
        """The validation metrics."""
        size = self.experiment.data.batch_size
        totals: dict[str, np.ndarray] = {}
        own = processes.index(), processes.count()
        for batch in data_lib.eval_batches(self.validation, batch_size=size, shard=own):
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
                found = self.statistics(variables, state.carry, batch, self.root, jnp.int32(number), state.step)
                variables = {"params": state.average, "state": sharding.waited(found, self.mesh)}
        return variables

    def pgd_accuracy(self, variables: dict) -> float:
        """On the first training batch, the same at the end of every epoch."""
        batch = sharding.put_batch(next(self.fresh_batches()), self.mesh)
        return float(self.guard(variables, batch, self.root))

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

    def ended(self, rows: list[dict], step: int) -> str:
        """Why an earlier call ended training, whose last checkpoint is of ``step``; '' where training goes on there.

        Not from training.json, which a kill may have left out.
        """
        guarded = [row["step"] for row in rows if row.get("split") == "guard"]
        if guarded[-2:-1] == [step] and (why := self.collapse(rows)):
            return why
        kept = [row for row in rows if row["step"] <= step]
        return self.patience_is_over(kept) if step < self.total_steps else ""

    def learning_rate_scale(self, rows: list[dict]) -> float:
        """The factor on the learning rate of the next steps."""
        patience, factor = self.settings.plateau_patience, self.settings.plateau_factor
        values = _history(rows, "validation", self.best_metric)
        return stopping.plateau_scale(values, self.best_mode, patience, factor)


def _history(rows: list[dict], split: str, name: str) -> list[float]:
    return [row[name] for row in rows if row.get("split") == split and name in row]
