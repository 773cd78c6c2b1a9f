"""Weights of one run as the start of another, and a finished run as a classifier."""

import dataclasses
import functools
import os
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import checkpoint, checks, config, models, trainable, workdirs
from robust_saliency import data as data_lib

# Sections of a config that say how weights came about.
TRAINED = ("init_from", "model", "objective", "optimizer", "phases", "schedules", "seed", "train")


def load(workdir: str, step: str | int = "best") -> tuple[models.Classifier, dict, dict]:
    """``classifier, variables, config = load(workdir)``: a trained run, ready for attacks and explanations.

    step: 'best' (by the run's validation metric), 'last', or a step number. ``classifier.logits_fn(variables)`` maps
    images ``[B, H, W, C]`` in [0, 1] to logits ``[B, K]``. ValueError, naming the runs, for the folder of a study.
    """
    classifier, variables, described, _ = load_described(workdir, step)
    return classifier, variables, described["config"]


def load_described(workdir: str, step: str | int = "best") -> tuple[models.Classifier, dict, dict, int]:
    """As :func:`load`, with what the checkpoint says of itself (config, image_shape, class_names) and its step."""
    workdirs.refuse_study(workdir)
    variables, described, step = _saved(workdir, step)
    experiment = config.parse(described["config"])
    classifier = classifier_of(experiment.model, tuple(described["image_shape"]), len(described["class_names"]))
    return classifier, {"params": variables["params"], "state": variables.get("state", {})}, described, step


def _saved(workdir: str, step: str | int) -> tuple[dict, dict, int]:
    """The variables of a checkpoint, what it says of itself, and its step; ValueError where a weight is not finite.

    Not left to the outputs, which can look sound: XLA on CPU (jax 0.10) fuses bias, ReLU and pool into one operation
    that turns NaN into 0.
    """
    variables, described, step = checkpoint.load_variables(workdirs.checkpoints(workdir), step=step)
    bad = [
        trainable.name(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and not np.isfinite(np.asarray(leaf, np.float32)).all()
    ]
    if bad:
        which = f"{bad[0]} and {len(bad) - 1} others hold" if len(bad) > 1 else f"{bad[0]} holds"
        raise ValueError(f"{workdir}: in the checkpoint of step {step} {which} NaN or infinity; take another step.")
    return variables, described, step


def in_float32(described: dict) -> models.Classifier | None:
    """The classifier of :func:`load_described` computed in float32; None where it computes in float32 anyway."""
    model = config.parse(described["config"]).model
    if getattr(model.spec, "dtype", "float32") == "float32":
        return None
    wide = model._replace(spec=dataclasses.replace(model.spec, dtype="float32"))
    return classifier_of(wide, tuple(described["image_shape"]), len(described["class_names"]))


def check_unchanged(described: dict, plain: dict) -> None:
    """Raises ValueError where ``plain`` says of the network, or of its training, what is not true of the checkpoint.

    These sections say how weights came about; a mode that only reads weights would ignore a change of them.
    """
    changed = workdirs.differences(
        {name: described["config"].get(name) for name in TRAINED}, {name: plain.get(name) for name in TRAINED}
    )
    if changed:
        raise ValueError(
            "What was trained cannot be changed afterwards; leave these fields out, and --config too where the workdir "
            "has its own (was -> now):\n" + "\n".join(changed)
        )


def check_fits(described: dict, data: data_lib.Data) -> None:
    """Raises ValueError where the checkpoint is of other images or classes than ``data`` holds."""
    shape, names = tuple(described["image_shape"]), list(described["class_names"])
    if shape != tuple(data.image_shape) or names != list(data.class_names):
        raise ValueError(
            f"The run was trained on images {shape} of the classes {', '.join(names)}; the data holds images "
            f"{tuple(data.image_shape)} of the classes {', '.join(data.class_names)}."
        )


def check_layers(classifier: models.Classifier, evaluation: config.Evaluation) -> None:
    """Raises ValueError where a map is to be made of a layer that the network does not have."""
    for label, method in evaluation.maps:
        if layer := getattr(method.spec, "layer", ""):
            checks.one_of(f"layer in config.evaluation.maps.{label}.layer", layer, classifier.layers)


def from_run(variables: dict, init_from: config.InitFrom, workdir: str) -> dict:
    """``variables`` with the leaves of another run's checkpoint that ``init_from`` includes and does not exclude."""
    source = os.path.abspath(os.path.join(workdir, init_from.workdir))
    workdirs.refuse_study(source)
    saved, _, _ = _saved(source, init_from.step)
    leaves = {trainable.name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(saved)}
    taken = []

    def take(path, leaf: Any) -> Any:
        name = trainable.name(path)
        if not re.search(init_from.include, name) or (init_from.exclude and re.search(init_from.exclude, name)):
            return leaf
        if name not in leaves:
            raise ValueError(f"init_from: {source} has no {name}; leave it out with init_from.exclude.")
        if leaves[name].shape != leaf.shape:
            raise ValueError(
                f"init_from: {name} has shape {leaves[name].shape} in {source}, here {leaf.shape}; "
                "leave it out with init_from.exclude."
            )
        taken.append(name)
        return leaves[name]

    result = jax.tree_util.tree_map_with_path(take, variables)
    if not taken:
        raise ValueError(f"init_from: include {init_from.include!r} and exclude {init_from.exclude!r} leave nothing.")
    return result


@functools.lru_cache(maxsize=8)
def classifier_of(model: config.Method, image_shape: tuple[int, int, int], num_classes: int) -> models.Classifier:
    """The classifier of a config; the same object for the same arguments, so that its compiled programs are found."""
    return model.function(model.spec, image_shape, num_classes)


def step_of(workdir: str, step: str | int) -> int | None:
    """The number of the checkpoint that 'best' or 'last' means now; None where there is none."""
    directory = workdirs.checkpoints(workdir)
    last = max(checkpoint.steps(directory), default=None)
    if step == "best":
        best = checkpoint.best_step(directory)
        return last if best is None else best
    return int(step) if str(step).isdigit() else last
