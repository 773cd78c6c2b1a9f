"""Training: a loop over one jitted step, with checkpoints. The loop knows no regime: that is ``config.objective``."""

import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import (
    checkpoint,
    environment,
    initialise,
    models,
    optimizer,
    preemption,
    processes,
    records,
    sharding,
    trainable,
    workdirs,
)
from robust_saliency import data as data_lib
from robust_saliency.config import Experiment
from robust_saliency.epoch_end import EpochEnd
from robust_saliency.progress import Progress, say
from robust_saliency.train_step import INIT, TrainState, make_train_step

# Sections in which a workdir's config may differ from the one that goes on with it: training does not read them.
FREE_SECTIONS = ("benchmark", "description", "evaluation", "neurons", "roar", "robustness", "study", "title")


class Diverged(ValueError):
    """The loss is no longer finite."""


def train(experiment: Experiment, workdir: str, data: data_lib.Data | None = None) -> dict:
    """Trains in ``workdir``, or goes on training there; returns what it took: steps, seconds, compile_seconds.

    Writes config.json, metrics.jsonl and checkpoints/, and for every phase before the last the same below phases/.
    Raises :class:`Diverged` on a loss that is not finite, naming the step and the last good checkpoint.
    """
    with workdirs.Workdir(workdir):
        workdirs.claim(workdir, experiment.plain, ignore=FREE_SECTIONS)
        data = data or data_lib.load(experiment.data)
        last = _Training(experiment, workdir, data)
        for folder, phase in experiment.phases:
            train(phase, os.path.join(workdir, folder), data)
        return last.run()


def check(experiment: Experiment, data: data_lib.Data) -> models.Classifier:
    """The network to train; ValueError where it cannot be built for the data, or a phase cannot train it."""
    for _, phase in experiment.phases:
        check(phase, data)
    try:
        return _checked(experiment, data)
    except ValueError as error:
        if not experiment.place:
            raise
        raise ValueError(f"{experiment.place}: {error}") from error


def _checked(experiment: Experiment, data: data_lib.Data) -> models.Classifier:
    _check_reads(experiment, data)
    classifier = initialise.classifier_of(experiment.model, data.image_shape, len(data.class_names))
    if experiment.train.accumulate > 1 and experiment.objective.function.keeps_something:
        raise ValueError(
            f"config.train.accumulate is {experiment.train.accumulate}, but {experiment.objective.name!r} keeps "
            "something from step to step that belongs to the rows of a whole batch; expected 1."
        )
    params = jax.eval_shape(classifier.init, jax.random.key(0))["params"]
    trainable.labels(params, experiment.train.trainable)
    experiment.objective.function.check(classifier, experiment.objective.spec)
    initialise.check_layers(classifier, experiment.evaluation)
    return classifier


def _check_reads(experiment: Experiment, data: data_lib.Data) -> None:
    reads = experiment.objective.function.reads
    held = data.train.gather(np.arange(1)) if reads else {}
    lacking = [name for name in reads if name not in held]
    if lacking:
        raise ValueError(
            f"config.objective.name {experiment.objective.name!r} reads {', '.join(lacking)}, which the training data "
            f"of config.data.name {experiment.data.name!r} do not have; they have {', '.join(sorted(held))}. A feature "
            "of the data that is a lesion mask is named by config.data.mask_field."
        )


class _Training:
    """One run. What its config asks of the network, and its phases, is checked when it is made: before any training."""

    def __init__(self, experiment: Experiment, workdir: str, data: data_lib.Data):
        self.experiment, self.workdir, self.data = experiment, workdir, data
        self.name = os.path.basename(os.path.abspath(workdir))
        spec, settings = experiment.data, experiment.train
        self.mesh = sharding.make_mesh(experiment.num_devices, spec.batch_size, "config.data.batch_size")
        self.root = sharding.put_replicated(jax.random.key(experiment.seed), self.mesh)
        self.metrics = records.MetricsLog(workdir)
        self.replays = experiment.objective.function.replays(experiment.objective.spec)
        batches = data_lib.steps_per_epoch(data.train, spec.batch_size, spec.class_balanced)
        self.steps_per_epoch = self.replays * batches
        self.total_steps = settings.epochs * self.steps_per_epoch
        self.classifier = check(experiment, data)
        sharding.check_parts(self.mesh, spec.batch_size, settings.accumulate)
        self.transformation, self.schedule = optimizer.make(experiment.optimizer, self.total_steps, settings.trainable)
        trained = self.classifier
        if settings.batch_norm == "frozen":
            trained = models.with_frozen_statistics(trained)
        if settings.remat:
            trained = models.with_rematerialisation(trained)
        self.step = make_train_step(trained, experiment, self.transformation, self.schedule, self.total_steps)
        self.judge = EpochEnd(
            trained, experiment, data.validation, self._make_batches, self.mesh, self.root, self.total_steps
        )

    def run(self) -> dict:
        with preemption.deferred() as self.asked_to_end:
            return self._run()

    def _run(self) -> dict:
        began = time.monotonic()
        settings = self.experiment.train
        options = {
            "keep_last": settings.keep_last,
            "keep_best": settings.keep_best,
            "best_metric": self.judge.best_metric,
            "best_mode": self.judge.best_mode,
        }
        with checkpoint.Checkpointer(workdirs.checkpoints(self.workdir), **options) as self.checkpointer:
            self.batches = self._make_batches()
            state, first = self._first_state()
            self.why = self.judge.ended(self._rows(), first)
            steps, timing = 0, {}
            if not self.why:
                processes.on_first(lambda: self.metrics.cut_back(first))
                if first:
                    say(f"{self.name}: going on from step {first} of {self.total_steps}")
                if first < self.total_steps:
                    steps, timing = self._loop(state, first)
        took = {"steps": steps, "seconds": time.monotonic() - began, **timing}
        done = self._rows()[-1]["step"] if self.why else first + steps
        if self.why:
            say(f"{self.name}: ended after {done} of {self.total_steps} steps: {self.why}")
        processes.on_first(self.metrics.seal)
        processes.on_first(lambda: None if not steps and self._is_recorded() else self._record(took, done))
        return took

    @property
    def _facts(self) -> str:
        return os.path.join(self.workdir, "training.json")

    def _is_recorded(self) -> bool:
        try:
            return bool(records.read_json(self._facts))
        except ValueError:  # missing after a kill, or damaged
            return False

    def _record(self, took: dict, done: int) -> None:
        """training.json: how the weights came about, for the report; of a killed run only the last steps are timed."""
        facts = {"command": environment.command(), "hardware": environment.hardware(), "steps": done}
        timing = {"timed_steps": took["steps"], "seconds": took["seconds"]}
        if self.why:
            kept = checkpoint.steps(workdirs.checkpoints(self.workdir))[-1]
            facts["ended"] = {"why": self.why, "of_steps": self.total_steps, "checkpoint": kept}
        records.write_json(self._facts, facts | timing)

    def _first_state(self) -> tuple[TrainState, int]:
        state = self._new_state()
        saved = self.checkpointer.restore(_abstract(state.variables), _abstract(state.trainer))
        processes.check_same("checkpoint", saved and saved.step)
        processes.on_first(lambda: self.metrics.mend(saved.position.get("metrics", []) if saved else []))
        if saved is not None:
            # config.json may have been lost and written anew.
            workdirs.check_same(self.workdir, saved.config["config"], self.experiment.plain, FREE_SECTIONS)
            trainer = dict(saved.trainer)
            live = trainer.pop("live", saved.variables)
            self.batches.restore(saved.position)
            return state._replace(params=live["params"], model_state=live["state"], **trainer), saved.step
        if self.experiment.init_from.workdir:
            taken = initialise.from_run(state.variables, self.experiment.init_from, self.workdir)
            taken = sharding.put_state(taken, self.mesh, self.experiment.parameters)
            state = state._replace(params=taken["params"], model_state=taken["state"])
            if self.experiment.train.average_decay:
                state = state._replace(average=jax.tree.map(jnp.copy, state.params))
        return state, 0

    def _new_state(self) -> TrainState:
        variables = self.classifier.init(jax.random.fold_in(self.root, INIT))
        params = variables["params"]
        average = jax.tree.map(jnp.copy, params) if self.experiment.train.average_decay else ()
        opt_state = self.transformation.init(params)
        state = TrainState(jnp.zeros((), jnp.int32), params, variables["state"], opt_state, (), average)
        state = sharding.put_state(state, self.mesh, self.experiment.parameters)
        batch = data_lib.to_float(sharding.put_batch(next(self._make_batches()), self.mesh))
        objective = self.experiment.objective
        return state._replace(carry=objective.function.start(batch, objective.spec))

    def _loop(self, state: TrainState, first: int) -> tuple[int, dict]:
        """How many steps were done, and what they took."""
        settings = self.experiment.train
        step_fn, compile_seconds = self._compiled_step(state)
        scale = self._learning_rate_scale()
        began = time.monotonic()
        window: list[dict] = []
        window_began = began
        with Progress(self.name, self.total_steps, first, self.experiment.data.batch_size) as progress:
            for done in range(first + 1, self.total_steps + 1):
                if (done - 1) % self.replays == 0:
                    batch = sharding.put_batch(next(self.batches), self.mesh)
                state, metrics = step_fn(state, batch, self.root, scale)
                if sharding.must_wait(self.mesh):
                    jax.block_until_ready(metrics)
                window.append(metrics)
                end_of_epoch = done % self.steps_per_epoch == 0
                logs = end_of_epoch or done % settings.log_every == 0
                stops = self._is_to_end(logs) and done % self.replays == 0 and done < self.total_steps
                if logs or stops:
                    values = self._mean_of(window, done)
                    seconds = time.monotonic() - window_began
                    rate = len(window) * self.experiment.data.batch_size / seconds
                    self._write("train", done, images_per_second=rate, **values)
                    progress.update(len(window), loss=values["loss"])
                    window = []
                if end_of_epoch:
                    self.why = self._end_of_epoch(state, done)
                    scale = self._learning_rate_scale()
                if not window:
                    window_began = time.monotonic()
                if self.why:
                    break
                if stops:
                    self._stop(state, done)
        return done - first, {"compile_seconds": compile_seconds, "loop_seconds": time.monotonic() - began}

    def _make_batches(self) -> data_lib.TrainBatches:
        return data_lib.train_batches(
            self.data.train,
            batch_size=self.experiment.data.batch_size,
            seed=self.experiment.seed,
            class_balanced=self.experiment.data.class_balanced,
            shard=(processes.index(), processes.count()),
            fields=(*data_lib.TRAINING_FIELDS, *self.experiment.objective.function.reads),
        )

    def _compiled_step(self, state: TrainState):
        places = jax.tree.map(lambda leaf: leaf.sharding, state)
        example = sharding.put_batch(next(self._make_batches()), self.mesh)
        began = time.monotonic()
        jitted = jax.jit(self.step, donate_argnums=0, out_shardings=(places, sharding.replicated(self.mesh)))
        compiled = jitted.lower(state, example, self.root, self._learning_rate_scale()).compile()
        seconds = time.monotonic() - began
        say(f"{self.name}: training step compiled in {seconds:.1f} s")
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

    def _end_of_epoch(self, state: TrainState, done: int) -> str:
        """Validates and saves where it is time to; why training ends here, '' where it does not."""
        settings, epoch = self.experiment.train, done // self.steps_per_epoch
        last = done == self.total_steps
        validates, saves = (
            last or epoch % every == 0 for every in (settings.validate_every, settings.checkpoint_every)
        )
        # The guard goes back by one epoch, so that each must be there.
        saves = saves or settings.guard_drop > 0
        if not (validates or saves):
            return ""
        variables, metrics, why = self.judge.kept_variables(state), {}, ""
        if settings.guard_drop:
            self._write("guard", done, pgd_accuracy=self.judge.pgd_accuracy(variables))
            why = self.judge.collapse(self._rows())
            if why:
                return why
        if validates:
            metrics = self.judge.validated(variables)
            self._write("validation", done, **metrics)
            why = "" if last else self.judge.patience_is_over(self._rows())
        if saves or why:
            self._save(state, done, variables, metrics)
        return why

    def _save(self, state: TrainState, done: int, variables: dict, metrics: dict) -> None:
        self.checkpointer.save(
            done,
            variables=variables,
            trainer=state.trainer,
            position=self.batches.position() | {"metrics": processes.on_first(self.metrics.rows)},
            config=self._described(),
            metrics=metrics,
        )

    def _is_to_end(self, logs: bool) -> bool:
        """Several processes must end at the same step: they agree at those that are logged, where they wait anyway."""
        if processes.count() > 1 and not logs:
            return False
        return any(processes.gathered(self.asked_to_end()))

    def _stop(self, state: TrainState, done: int) -> None:
        """Saves the step, unless a guard may have to go back to the last epoch, and ends the program."""
        if not self.experiment.train.guard_drop:
            self._save(state, done, self.judge.kept_variables(state), {})
            self.checkpointer.wait()
        kept = checkpoint.steps(workdirs.checkpoints(self.workdir))
        saved = f"step {kept[-1]} of {self.total_steps} is saved" if kept else "no step had been saved yet"
        raise preemption.Stopped(f"{self.name}: ended by SIGTERM after step {done}; {saved}. The same command goes on.")

    def _learning_rate_scale(self) -> jax.Array:
        return sharding.put_replicated(jnp.float32(self.judge.learning_rate_scale(self._rows())), self.mesh)

    def _rows(self) -> list[dict]:
        return processes.on_first(self.metrics.read)

    def _write(self, split: str, done: int, **values: float) -> None:
        if processes.is_first():
            self.metrics.write(done, split=split, epoch=done / self.steps_per_epoch, **values)

    def _described(self) -> dict:
        """What a checkpoint says of itself, so that it can be loaded without its data."""
        return {
            "config": self.experiment.plain,
            "image_shape": list(self.data.image_shape),
            "class_names": list(self.data.class_names),
        }


def _abstract(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree)
