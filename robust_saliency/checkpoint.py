"""Checkpoints: all that a run needs to go on, in a form of which an evaluation reads only its part.

A step is a directory of five items: ``variables`` (params and state), ``trainer`` (optimiser state, step, carry),
``position`` (of the data) and ``config`` as JSON, and ``record``, with which ``checkpoint_reading`` compares what it
reads. These two are the only files that import Orbax.
"""

import contextlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from robust_saliency import checkpoint_reading as reading
from robust_saliency import disk
from robust_saliency.checkpoint_reading import steps
from robust_saliency.checks import lookup, one_of

__all__ = ["Checkpointer", "Restored", "best_step", "load_variables", "steps"]

_LOG = logging.getLogger(__name__)


class Restored(NamedTuple):
    """What :meth:`Checkpointer.restore` gives back."""

    step: int
    variables: Any
    trainer: Any
    position: dict[str, Any]
    config: dict[str, Any]


class Checkpointer:
    """Context manager that saves and restores the steps of one run below ``directory``.

    Kept are the newest ``keep_last`` steps and the ``keep_best`` steps that are best by the validation metric
    ``best_metric`` (``best_mode``: 'max' or 'min'; the earlier step of equals; NaN is never best). Raises ValueError
    for an option out of range, for a directory that cannot be written, and, here or at the next call, for a save that
    fails because the disk is full or read-only: the steps that were whole still are.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep_last: int = 2,
        best_metric: str = "",
        best_mode: str = "max",
        keep_best: int = 1,
        asynchronous: bool = True,
    ):
        if keep_last < 1 or keep_best < 0:
            raise ValueError(f"keep_last must be >= 1 and keep_best >= 0, got {keep_last} and {keep_best}.")
        self.directory = _absolute(directory)
        self._best = {"metric": best_metric, "mode": one_of("best_mode", best_mode, ("max", "min"))}
        self._keep_last, self._keep_best = keep_last, keep_best
        self._damaged: set[int] = set()
        self._saving: int | None = None
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"Checkpoint directory {directory} cannot be written: {error.strerror}.") from None
        self._metrics = _metrics_of(reading.contents(self.directory)[0])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_Preserve(self._kept), enable_async_checkpointing=asynchronous
        )
        handlers = {name: reading.tree_handler() for name in ("variables", "trainer")}
        handlers |= {name: ocp.JsonCheckpointHandler() for name in ("position", "config", "record")}
        with self._writing():
            self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, kind, *exception) -> None:
        # What ended the block is told, not that the disk was full at its end as well.
        with contextlib.suppress(ValueError) if kind else contextlib.nullcontext():
            self.close()

    def save(
        self, step: int, *, variables: Any, trainer: Any, position: dict, config: dict, metrics: dict[str, float]
    ) -> bool:
        """Saves a step; on return the caller may donate or overwrite the arrays, though files may still be written.

        ``metrics`` is empty where nothing was validated; else it must hold the best metric. A step that is there is
        left alone and False returned, unless :meth:`restore` found it damaged: that one is renamed ``<step>.damaged``.
        """
        if self._best["metric"] and metrics:
            lookup("validation metric", self._best["metric"], metrics)
        if step in self._damaged:
            self._set_aside(step)
        if step in self._manager.all_steps():
            return False
        empty = [name for name, leaf in reading.named_leaves((variables, trainer)) if np.size(leaf) == 0]
        if empty:
            raise ValueError(f"A checkpoint cannot hold arrays without elements, got {', '.join(empty)}.")
        position, config = _plain_json("position", position), _plain_json("config", config)
        content = {
            "metrics": {name: float(value) for name, value in metrics.items()},
            "best": self._best,
            "variables": reading.describe(variables),
            "trainer": reading.describe(trainer),
            "position": reading.json_crc(position),
            "config": reading.json_crc(config),
        }
        self._metrics[step] = content["metrics"]
        items = ocp.args.Composite(
            variables=ocp.args.PyTreeSave(variables),
            trainer=ocp.args.PyTreeSave(trainer),
            position=ocp.args.JsonSave(position),
            config=ocp.args.JsonSave(config),
            record=ocp.args.JsonSave({"content": content, "crc32": reading.json_crc(content)}),
        )
        with self._writing():
            self._manager.wait_until_finished()
            self._saving = step
            return self._manager.save(step, args=items, force=True)

    def restore(self, abstract_variables: Any, abstract_trainer: Any) -> Restored | None:
        """The newest step that is whole, placed as the abstract trees say; None where there is no step.

        A damaged step is passed over with a warning; no file is changed. The trees hold ShapeDtypeStructs (their
        sharding, else the first device, is where a leaf goes) or arrays. Raises ValueError where every step is damaged,
        and where a checkpoint and the trees differ in a name, a shape or a dtype.
        """
        self.wait()
        found = steps(self.directory)
        if not found:
            return None
        targets = {"variables": abstract_variables, "trainer": abstract_trainer}
        step, items, damaged = reading.first_whole(self.directory, found[::-1], targets, ("position", "config"))
        self._damaged |= damaged
        return Restored(step, **items)

    def wait(self) -> None:
        """Returns when every save is on disk."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and ends Orbax's threads."""
        with self._writing():
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What Orbax says of a full disk becomes one sentence, and what the step left half written is deleted."""
        failed = ""
        with reading.quiet():
            try:
                yield
            except Exception as error:
                failed = disk.reason(error)
                if not failed:
                    raise
        if failed:
            what = "Checkpoint directory" if self._saving is None else f"Checkpoint {self._saving} in"
            for half in self.directory.glob(f"{self._saving}.orbax-checkpoint-tmp*"):
                shutil.rmtree(half, ignore_errors=True)
            whole = ", ".join(map(str, steps(self.directory))) or "none"
            raise ValueError(f"{what} {self.directory} cannot be written: {failed}. Steps that are there: {whole}.")

    def _kept(self, found: Sequence[int]) -> set[int]:
        whole = sorted(set(found) - self._damaged)
        ranked = _ranked({step: self._metrics.get(step, {}) for step in whole}, self._best)
        return {*whole[-self._keep_last :], *ranked[: self._keep_best], *self._damaged}

    def _set_aside(self, step: int) -> None:
        self.wait()
        if jax.process_index() == 0:
            earlier = len(list(self.directory.glob(f"{step}.damaged*")))
            name = f"{step}.damaged-{earlier + 1}" if earlier else f"{step}.damaged"
            try:
                (self.directory / str(step)).rename(self.directory / name)
            except OSError as error:
                raise ValueError(f"{self.directory / str(step)} cannot be renamed: {error.strerror}.") from None
        multihost_utils.sync_global_devices(f"damaged step {step} set aside")
        self._damaged.remove(step)
        with self._writing():
            self._manager.reload()


def load_variables(
    directory: str | Path, abstract_variables: Any = None, step: str | int = "best"
) -> tuple[Any, dict[str, Any], int]:
    """``(variables, config, step)`` of a run, without its trainer.

    ``step``: a number (digits will do), 'last', or 'best' by the metric that the run recorded (the last where it
    recorded none). Without ``abstract_variables`` the leaves are NumPy arrays. Raises ValueError where there is no such
    step, and where it is damaged, or another that may be the best is: numbers of another network are no replacement.
    """
    directory = _absolute(directory)
    found = steps(directory)
    if not found:
        raise ValueError(f"There is no checkpoint in {directory}.")
    advice = ""
    if str(step) in map(str, found):
        chosen = int(step)
    elif step in ("best", "last"):
        chosen = _best_or_last(directory) if step == "best" else found[-1]
        advice = _advice(other for other in found if other != chosen)
    else:
        choices = ", ".join(map(str, found))
        raise ValueError(f"There is no checkpoint {step!r} in {directory}; there are {choices}, 'best' and 'last'.")
    step, items, _ = reading.first_whole(directory, [chosen], {"variables": abstract_variables}, ("config",), advice)
    return items["variables"], items["config"], step


def _best_or_last(directory: Path) -> int:
    contents, damaged = reading.contents(directory)
    if damaged:
        step, reason = max(damaged.items())
        others = _advice(other for other in steps(directory) if other != step)
        raise ValueError(f"Checkpoint {step} in {directory} may or may not be the best: {reason}.{others}")
    ranked = _ranked(_metrics_of(contents), contents[max(contents)]["best"])
    return ranked[0] if ranked else max(contents)


def _advice(others: Iterable[int]) -> str:
    named = ", ".join(map(str, others))
    return f" Take another by its number ({named}), or train again: that makes a damaged last step anew." * bool(named)


def best_step(directory: str | Path) -> int | None:
    """The step that is best by the recorded metric; None where no step recorded one."""
    return next(iter(_ranked_on_disk(Path(directory))), None)


class _Preserve(NamedTuple):
    """Orbax's interface to :meth:`Checkpointer._kept`."""

    kept: Callable[[Sequence[int]], set[int]]

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        kept = self.kept([checkpoint.step for checkpoint in checkpoints])
        return [checkpoint.step in kept for checkpoint in checkpoints]


def _ranked_on_disk(directory: Path) -> list[int]:
    contents, damaged = reading.contents(directory)
    for step, reason in damaged.items():
        _LOG.warning("Checkpoint %d in %s may or may not be the best: %s.", step, directory, reason)
    return _ranked(_metrics_of(contents), contents[max(contents)]["best"]) if contents else []


def _metrics_of(contents: dict[int, dict]) -> dict[int, dict[str, float]]:
    return {step: content["metrics"] for step, content in contents.items()}


def _ranked(metrics: dict[int, dict[str, float]], best: dict[str, str]) -> list[int]:
    sign = -1.0 if best["mode"] == "max" else 1.0
    scores = {step: sign * values.get(best["metric"], math.nan) for step, values in metrics.items()}
    return sorted((step for step in scores if not math.isnan(scores[step])), key=lambda step: (scores[step], step))


def _absolute(directory: str | Path) -> Path:
    """Without '..', below which Orbax writes but cannot read."""
    return Path(os.path.abspath(directory))


def _plain_json(name: str, value: Any) -> Any:
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise ValueError(f"The {name} of a checkpoint must be JSON: {reading.clause(error)}.") from None
