"""A network trained anew on changed images, as another run was trained: which test images it then gets right."""

import os
import shutil

import numpy as np

from robust_saliency import data as data_lib
from robust_saliency import initialise, records, sharding, train
from robust_saliency.config import Experiment, parse
from robust_saliency.evaluate_programs import make_programs


def experiment_of(experiment: Experiment, like: Experiment, seed: int) -> Experiment:
    """The retraining of ``experiment``: its network and data, trained as ``like`` from random weights.

    Of ``like`` the optimiser and the section train; objective and epochs as ``experiment.roar`` says. Left out is what
    a standard training from random weights does not have: phases, initial weights, schedules and wrappers of the
    objective, parameters that stay, and the guard.
    """
    settings, plain = experiment.roar, experiment.plain
    changed = {"guard_drop": 0.0, "trainable": [], "batch_norm": "train"}
    changed |= {"epochs": settings.epochs} if settings.epochs else {}
    changed |= {"best_metric": ""} if "robust" in like.train.best_metric else {}
    sections = {
        "seed": seed,
        "objective": {**plain["objective"], "name": settings.objective, "wrappers": []},
        "optimizer": like.plain["optimizer"],
        "train": {**like.plain["train"], **changed},
        "schedules": {},
        "phases": [],
        "init_from": {},
    }
    return parse({**plain, **sections})


def identity(experiment: Experiment) -> str:
    """All that the weights of a retraining depend on, but for its images: equal for equal training of any two runs."""
    methods = [(method.name, method.spec) for method in (experiment.model, experiment.objective)]
    return repr((experiment.seed, experiment.data, *methods, experiment.optimizer, experiment.train))


def _seconds(place: str) -> float:
    """Of training; 0 where it was killed behind its last checkpoint, before it could say so."""
    path = os.path.join(place, "training.json")
    return records.read_json(path)["seconds"] if os.path.exists(path) else 0.0


def tested(experiment: Experiment, data: data_lib.Data, place: str, path: str, kept: dict) -> None:
    """Trains on ``data`` in the folder ``place`` and writes ``path``, an npz; a killed call goes on where it was.

    ``correct`` bool ``[N]`` over ``data.test``, with id, label and, where there are groups, group of each; the step of
    the checkpoint; seconds of training (of one that was killed and went on, since then); and what ``kept`` says. Then
    ``place`` is deleted.
    """
    train.train(experiment, place, data)
    classifier, variables, _, step = initialise.load_described(place, "best")
    programs = make_programs(classifier, experiment.evaluation, ())
    mesh = sharding.make_mesh(experiment.num_devices, experiment.evaluation.batch_size, "config.evaluation.batch_size")
    variables = sharding.put_replicated(variables, mesh)
    parts = []
    for rows in data_lib.eval_batches(data.test, batch_size=experiment.evaluation.batch_size):
        batch = programs.to_float(sharding.put_batch(rows, mesh))
        parts.append(np.asarray(programs.predict(variables, batch)["correct"])[rows["valid"]] > 0)
    held = data.test.gather(np.arange(len(data.test)))
    facts = {name: held[name] for name in ("id", "label", "group") if name in held}
    facts |= {"correct": np.concatenate(parts), "step": step, "seconds": _seconds(place)}
    records.write_npz(path, facts | kept)
    shutil.rmtree(place)
