"""Training: a loop over one jitted step, with checkpoints. The loop knows no regime: that is ``config.objective``."""

import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import checkpoint, checks, environment, initialise, optimizer, records, sharding, workdirs
from robust_saliency import data as data_lib
from robust_saliency.config import Experiment
from robust_saliency.progress import Progress, say
from robust_saliency.train_step import (
    INIT,
    TrainState,
    attack_of,
    make_train_step,
    make_validation_step,
    validation_metrics,
)

# Sections in which a workdir's config may differ from the one that goes on with it: training does not read them.
FREE_SECTIONS = ("benchmark", "description", "evaluation", "robustness", "study", "title")


class Diverged(ValueError):
    """The loss is no longer finite."""


def train(experiment: Experiment, workdir: str, data: data_lib.Data | None = None) -> dict:
    """Trains in ``workdir``, or goes on training there; returns what it took: steps, seconds, compile_seconds.

    Writes config.json, metrics.jsonl and checkpoints/. Raises :class:`Diverged` on a loss that is not finite, naming
    the step and the last good checkpoint.
    """
    with workdirs.Workdir(workdir):
        workdirs.claim(workdir, experiment.plain, ignore=FREE_SECTIONS)
        return _Training(experiment, workdir, data or data_lib.load(experiment.data)).run()


class _Training:
    def __init__(self, experiment: Experiment, workdir: str, data: data_lib.Data):
        self.experiment, self.workdir, self.data = experiment, workdir, data
        self.name = os.path.basename(os.path.abspath(workdir))
        spec = experiment.data
        self.mesh = sharding.make_mesh(experiment.num_devices, spec.batch_size, "config.data.batch_size")
        self.root = jax.random.key(experiment.seed)
        self.metrics = records.MetricsLog(workdir)
        self.steps_per_epoch = data_lib.steps_per_epoch(data.train, spec.batch_size, spec.class_balanced)
        self.total_steps = experiment.train.epochs * self.steps_per_epoch
        self._check_reads()
        self.classifier = initialise.classifier_of(experiment.model, data.image_shape, len(data.class_names))
        self.transformation, self.schedule = optimizer.make(experiment.optimizer, self.total_steps)

    def _check_reads(self) -> None:
        reads, objective = self.experiment.objective.function.reads, self.experiment.objective.name
        held = self.data.train.gather(np.arange(1)) if reads else {}
        lacking = [name for name in reads if name not in held]
        if lacking:
            raise ValueError(
                f"config.objective.name {objective!r} reads {', '.join(lacking)}, which the training data of "
                f"config.data.name {self.experiment.data.name!r} do not have; they have {', '.join(sorted(held))}. A "
                "feature of the data that is a lesion mask is named by config.data.mask_field."
            )

    def run(self) -> dict:
        began = time.monotonic()
        settings = self.experiment.train
        best_metric = self._best_metric()
        options = {
            "keep_last": settings.keep_last,
            "keep_best": settings.keep_best,
            "best_metric": best_metric,
            "best_mode": "min" if best_metric == "loss" else "max",
        }
        with checkpoint.Checkpointer(workdirs.checkpoints(self.workdir), **options) as self.checkpointer:
            self.batches = self._make_batches()
            state, first = self._first_state()
            self.metrics.cut_back(first)
            timing = self._loop(state, first) if first < self.total_steps else {}
        took = {"steps": self.total_steps - first, "seconds": time.monotonic() - began, **timing}
        if took["steps"]:
            self._record(took)
        return took

    def _record(self, took: dict) -> None:
        """training.json: how the weights came about, for the report; of a killed run only the last steps are timed."""
        facts = {"command": environment.command(), "hardware": environment.hardware(), "steps": self.total_steps}
        timing = {"timed_steps": took["steps"], "seconds": took["seconds"]}
        records.write_json(os.path.join(self.workdir, "training.json"), facts | timing)

    def _first_state(self) -> tuple[TrainState, int]:
        variables = self.classifier.init(jax.random.fold_in(self.root, INIT))
        opt_state = self.transformation.init(variables["params"])
        state = TrainState(jnp.zeros((), jnp.int32), variables["params"], variables["state"], opt_state, ())
        state = sharding.put_replicated(state, self.mesh)
        saved = self.checkpointer.restore(_abstract(state.variables), _abstract(state.trainer))
        if saved is not None:
            say(f"{self.name}: going on from step {saved.step} of {self.total_steps}")
            variables = saved.variables
            self.batches.restore(saved.position)
            return TrainState(params=variables["params"], model_state=variables["state"], **saved.trainer), saved.step
        if self.experiment.init_from.workdir:
            taken = initialise.from_run(state.variables, self.experiment.init_from, self.workdir)
            taken = sharding.put_replicated(taken, self.mesh)
            state = state._replace(params=taken["params"], model_state=taken["state"])
        return state, 0

    def _loop(self, state: TrainState, first: int) -> dict:
        settings = self.experiment.train
        step_fn, compile_seconds = self._compiled_step(state)
        began = time.monotonic()
        window: list[dict] = []
        window_began = began
        with Progress(self.name, self.total_steps, first, self.experiment.data.batch_size) as progress:
            for done in range(first + 1, self.total_steps + 1):
                state, metrics = step_fn(state, sharding.put_batch(next(self.batches), self.mesh), self.root)
                if sharding.must_wait(self.mesh):
                    jax.block_until_ready(metrics)
                window.append(metrics)
                end_of_epoch = done % self.steps_per_epoch == 0
                if end_of_epoch or done % settings.log_every == 0:
                    values = self._mean_of(window, done)
                    seconds = time.monotonic() - window_began
                    rate = len(window) * self.experiment.data.batch_size / seconds
                    self._write("train", done, images_per_second=rate, **values)
                    progress.update(len(window), **{name: values[name] for name in ("loss",)})
                    window = []
                if end_of_epoch:
                    self._end_of_epoch(state, done)
                if not window:
                    window_began = time.monotonic()
        return {"compile_seconds": compile_seconds, "loop_seconds": time.monotonic() - began}

    def _make_batches(self) -> data_lib.TrainBatches:
        return data_lib.train_batches(
            self.data.train,
            batch_size=self.experiment.data.batch_size,
            seed=self.experiment.seed,
            class_balanced=self.experiment.data.class_balanced,
            shard=(jax.process_index(), jax.process_count()),
            fields=(*data_lib.TRAINING_FIELDS, *self.experiment.objective.function.reads),
        )

    def _compiled_step(self, state: TrainState):
        whole = sharding.replicated(self.mesh)
        step = make_train_step(self.classifier, self.experiment, self.transformation, self.schedule, self.total_steps)
        example = sharding.put_batch(next(self._make_batches()), self.mesh)
        began = time.monotonic()
        jitted = jax.jit(step, donate_argnums=0, out_shardings=(whole, whole))
        compiled = jitted.lower(state, example, self.root).compile()
        seconds = time.monotonic() - began
        say(f"{self.name}: training step compiled in {seconds:.1f} s")
        self.validate = jax.jit(make_validation_step(self.classifier, self.experiment))
        return compiled, seconds

    def _mean_of(self, window: list[dict], done: int) -> dict[str, float]:
        values = jax.device_get(window)
        for offset, metrics in enumerate(values, start=1):
            bad = [name for name, value in metrics.items() if not np.isfinite(value)]
            if bad:
                raise Diverged(self._divergence(done - len(window) + offset, bad))
        return {name: float(np.mean([metrics[name] for metrics in values])) for name in values[0]}

    def _divergence(self, step: int, bad: list[str]) -> str:
        self.checkpointer.wait()
        good = checkpoint.steps(workdirs.checkpoints(self.workdir))
        last = f"the last good checkpoint is of step {good[-1]}" if good else "no checkpoint had been written yet"
        return (
            f"{self.workdir}: {', '.join(bad)} became NaN or infinite in step {step}; {last}. Try a lower "
            "optimizer.learning_rate or optimizer.clip_norm, or a longer ramp of epsilon (schedules.epsilon.until)."
        )

    def _end_of_epoch(self, state: TrainState, done: int) -> None:
        settings, epoch = self.experiment.train, done // self.steps_per_epoch
        last = done == self.total_steps
        metrics = {}
        if last or epoch % settings.validate_every == 0:
            metrics = self._validated(state)
            self._write("validation", done, **metrics)
        if last or epoch % settings.checkpoint_every == 0:
            self.checkpointer.save(
                done,
                variables=state.variables,
                trainer=state.trainer,
                position=self.batches.position(),
                config=self._described(),
                metrics=metrics,
            )

    def _validated(self, state: TrainState) -> dict[str, float]:
        size = self.experiment.data.batch_size
        totals: dict[str, np.ndarray] = {}
        for batch in data_lib.eval_batches(self.data.validation, batch_size=size):
            sums = jax.device_get(self.validate(state.variables, sharding.put_batch(batch, self.mesh), self.root))
            totals = {name: totals.get(name, 0.0) + value.astype(np.float64) for name, value in sums.items()}
        return validation_metrics(totals)

    def _write(self, split: str, done: int, **values: float) -> None:
        self.metrics.write(done, split=split, epoch=done / self.steps_per_epoch, **values)

    def _described(self) -> dict:
        """What a checkpoint says of itself, so that it can be loaded without its data."""
        return {
            "config": self.experiment.plain,
            "image_shape": list(self.data.image_shape),
            "class_names": list(self.data.class_names),
        }

    def _best_metric(self) -> str:
        attacked = attack_of(self.experiment) is not None
        accuracies = ["accuracy", "robust_accuracy"] if attacked else ["accuracy"]
        balanced = [f"balanced_{name}" for name in accuracies]
        usual = (balanced if self.experiment.data.class_balanced else accuracies)[-1]
        chosen = self.experiment.train.best_metric or usual
        return checks.one_of("train.best_metric", chosen, ["loss", *accuracies, *balanced])


def _abstract(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree)
