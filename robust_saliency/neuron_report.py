"""What the units of a trained network mean, and which of them its mistakes hang on: tables, pictures and a page."""

import dataclasses
import os
import time
from typing import Any

import jax
import numpy as np

from robust_saliency import (
    attacks,
    descriptions,
    environment,
    initialise,
    models,
    neuron_ablation,
    neuron_pictures,
    neuron_summary,
    neuron_tracing,
    neuron_units,
    records,
    sharding,
    workdirs,
)
from robust_saliency import data as data_lib
from robust_saliency import report as report_lib
from robust_saliency.config import Experiment
from robust_saliency.config_fields import Method
from robust_saliency.config_sections import Neurons
from robust_saliency.neuron_adversaries import NONE
from robust_saliency.neuron_facts import measure
from robust_saliency.neuron_subject import Examples, Layer, Subject, subject
from robust_saliency.progress import say

# Of the files that are written; those of another number are made again.
FORMAT = 3


def neuron_report(
    experiment: Experiment, workdir: str, data: data_lib.Data | None = None, kept: dict[str, dict] | None = None
) -> str:
    """Looks into the run in ``workdir`` as ``config.neurons`` says; returns the path of neurons.html.

    kept: what a call left there is not made again by the next with the same ensemble: the adversarial images.

    Writes ``workdir/neurons/``: units.csv (one row a layer and unit), examples.csv (one row an example: what it is
    taken for, and what its adversarial images are most, -1 = none was made; the share of these that fooled, NaN = none
    was made; r1 and r2 of each layer), influences.csv (one row a traced prediction, layer and
    unit), ablation.csv (one row a traced prediction and layer: what it loses without those units, and without random
    ones), neurons.npz (top examples and their patches, what the page draws), neurons.json (settings, counts,
    provenance) and neurons.html. Products of matrices and convolutions run at the highest precision.
    """
    began = time.monotonic()
    with workdirs.Workdir(workdir, create=False), jax.default_matmul_precision("highest"):
        data = data or data_lib.load(experiment.data)
        looked_into, step = subject_of(experiment, workdir, data, _kept(kept, experiment, workdir))
        folder = os.path.join(workdir, "neurons")
        # The page is of all the files: while they are written there is none.
        records.remove(os.path.join(folder, "neurons.html"))
        summary = _write(folder, looked_into, experiment.neurons)
        described = {
            "title": experiment.plain.get("title", ""),
            "run": workdirs.run_name(workdir, experiment.plain),
            "settings": _plain(experiment.neurons),
            "identity": _identity(experiment, workdir),
            "data": data.description,
            "data_config": experiment.plain.get("data"),
            "checkpoint_step": step,
            **summary,
            "precision": "highest",
            "command": environment.command(),
            "hardware": environment.hardware(),
            "versions": environment.versions(),
            "seconds": time.monotonic() - began,
        }
        records.write_json(os.path.join(folder, "neurons.json"), described)
        for layer in summary["layers"]:
            say(neuron_summary.sentence(layer))
        return str(report_lib.neurons_page(folder))


def _kept(kept: dict[str, dict] | None, experiment: Experiment, workdir: str) -> dict[int, Any]:
    """Of ``kept``, by what they are made of, the adversarial images of this ensemble; those of others are dropped."""
    if kept is None:
        return {}
    places = [os.path.abspath(place) for place in _ensemble(experiment, workdir)]
    of = repr((places, _identity(experiment, workdir), experiment.plain.get("data"), _plain(experiment.neurons)))
    for other in set(kept) - {of}:
        del kept[other]
    return kept.setdefault(of, {})


def subject_of(experiment: Experiment, workdir: str, data: data_lib.Data, kept: dict[int, Any]) -> tuple[Subject, int]:
    """The trained network in ``workdir`` with what it is looked into with, and the step of its checkpoint.

    Raises ValueError where the config says of the network what is not true of it, where it does not fit the data or
    would be shown images of its training, and for a layer that it does not have.
    """
    settings = experiment.neurons
    classifier, variables, described, step = initialise.load_described(workdir, experiment.evaluation.step)
    initialise.check_unchanged(described, experiment.plain)
    initialise.check_fits(described, data)
    data_lib.check_unseen(described["config"]["data"], experiment.plain["data"])
    mesh = sharding.make_mesh(experiment.num_devices, settings.batch_size, "config.neurons.batch_size")
    ensemble = [_member(place, experiment, data) for place in _ensemble(experiment, workdir)]
    return subject(classifier, variables, data, mesh, settings, ensemble, kept), step


def _ensemble(experiment: Experiment, workdir: str) -> list[str]:
    """The folders of the runs that adversarial images are made against together."""
    return [os.path.normpath(os.path.join(workdir, place)) for place in experiment.neurons.ensemble]


def _member(place: str, experiment: Experiment, data: data_lib.Data) -> tuple[models.Classifier, Any]:
    try:
        classifier, variables, described, _ = initialise.load_described(place, experiment.evaluation.step)
        initialise.check_fits(described, data)
        data_lib.check_unseen(described["config"]["data"], experiment.plain["data"])
    except ValueError as error:
        raise ValueError(f"config.neurons.ensemble: {error}") from error
    return classifier, variables


def is_done(experiment: Experiment, workdir: str) -> bool:
    """True where ``workdir`` holds a whole report by the present config, of the checkpoint that it names now."""
    folder = os.path.join(workdir, "neurons")
    is_there = all(os.path.exists(os.path.join(folder, name)) for name in ("neurons.json", "neurons.html"))
    if not is_there or not records.is_whole(folder):
        return False
    about = records.read_json(os.path.join(folder, "neurons.json"))
    done = (about.get("settings"), about.get("identity"), about.get("data_config"), about.get("checkpoint_step"))
    step = initialise.step_of(workdir, experiment.evaluation.step)
    return done == (_plain(experiment.neurons), _identity(experiment, workdir), experiment.plain.get("data"), step)


def _identity(experiment: Experiment, workdir: str) -> dict:
    """What the settings do not say: of which format the files are, all of the attack, which checkpoints the ensemble
    has, and what is in the hierarchy."""
    settings, step = experiment.neurons, experiment.evaluation.step
    return {
        "format": FORMAT,
        "attack": repr(settings.optimisation if settings.ensemble else settings.attack),
        "ensemble_steps": [initialise.step_of(place, step) for place in _ensemble(experiment, workdir)],
        "hierarchy": settings.hierarchy and records.read_json(settings.hierarchy),
    }


def _plain(settings: Neurons) -> dict:
    """For neurons.json, the defaults too; the attack in words."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    del values["optimisation"]
    name = next(name for name, (Spec, _) in attacks.ATTACKS.items() if type(settings.attack) is Spec)
    method = Method(name, settings.attack, None)
    if settings.ensemble:
        method = Method(f"optimised against {', '.join(settings.ensemble)}", settings.optimisation, None)
    lists = {"layers": list(settings.layers), "ensemble": list(settings.ensemble)}
    return values | lists | {"attack": descriptions.sentence(method)}


def _write(folder: str, found: Subject, settings: Neurons) -> dict:
    """Measures, and writes all but neurons.json and the page; what these say of it."""
    affinity = neuron_units.class_affinity(found, settings)
    examples, layers = measure(found, settings)
    units = [neuron_units.describe(layer, examples, affinity, settings) for layer in layers]
    traced = neuron_tracing.trace(found, settings, examples, layers)
    shown = [neuron_pictures.shown(each, found, settings.num_shown) for each in units]
    tables = {
        "units.csv": _stacked([neuron_units.columns(*each, found) for each in zip(layers, units, strict=True)]),
        "examples.csv": _examples(examples, layers),
        "influences.csv": neuron_tracing.columns(traced, examples),
        "ablation.csv": neuron_ablation.columns(found, settings, examples, layers, traced),
    }
    for name, columns in tables.items():
        records.write_csv(os.path.join(folder, name), columns)
    arrays = neuron_pictures.of_layers(found, settings, examples, layers, shown, traced)
    records.write_npz(os.path.join(folder, "neurons.npz"), arrays)
    return neuron_summary.summary(found, settings, examples, affinity, layers, units, shown)


def _examples(examples: Examples, layers: list[Layer]) -> dict:
    columns = {
        "id": examples.ids,
        "label": examples.labels,
        "prediction": examples.predictions,
        "confidence": examples.confidences,
        "adversarial_prediction": _commonest(examples.taken_for),
        "fooled": np.where(examples.taken_for == NONE, np.nan, examples.fooled).mean(1),
    }
    return columns | {f"{name}:{layer.name}": getattr(layer, name) for layer in layers for name in ("r1", "r2")}


def _commonest(classes: np.ndarray) -> np.ndarray:
    """Of each row ``[N, A]``, of several the first; of a row of NONE that."""
    counts = (classes[:, :, None] == np.arange(NONE, classes.max(initial=0) + 1)).sum(1)
    return counts.argmax(1) + NONE


def _stacked(parts: list[dict]) -> dict:
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}
