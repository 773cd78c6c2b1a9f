"""ROAR, KAR and DiffROAR: remove the pixels that a map calls relevant, train anew, and see what is still classified.

Accuracy after retraining, unlike after deletion, cannot fall because changed images look strange: the new network knows
them. It falls where the removed pixels held what the class can be told by, and nothing else did. Beside every method
stand maps that know nothing (random, centre, edges) and the true mask.

What it does not tell: the shape of the removed region is still there, and may give the class away, the more so the
better the map (Rong et al. 2022): ``roar.masks_alone`` measures that. And a map that finds one of two signs of a class
loses nothing, since the other is left.

Source: Hooker et al. 2019 (1806.10758); keep-and-retrain there too; DiffROAR, Shah et al. 2021 (2102.12781). Ours to
choose, all in ``config.roar``: shares, ties at random, pixels rather than entries, the predicted class, the training.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from robust_saliency import (
    checks,
    descriptions,
    environment,
    metrics,
    records,
    retraining,
    statistics,
    study,
    study_claims,
    study_runs,
    workdirs,
)
from robust_saliency import data as data_lib
from robust_saliency import report as report_lib
from robust_saliency.config import Experiment, parse
from robust_saliency.config_sections import Roar
from robust_saliency.progress import say
from robust_saliency.roar_images import MASKS_ALONE, SPLITS, Subject, changed, fingerprints, maps_of, subject_of
from robust_saliency.train import Diverged

WHOLE = "whole image"  # of which nothing is removed: where every curve begins


class Job(NamedTuple):
    """One retraining: on what ``mode`` leaves of the images, by whose map, and the seed."""

    map: str
    mode: str
    fraction: float
    seed: int


def roar(plain: Mapping, workdir: str) -> str:
    """Retrains as ``config.roar`` says for the run, or for those of the study, in ``workdir``; returns the page.

    Writes ``workdir/roar/``: roar.csv (one row a retraining: accuracy with its interval, and the file that holds the
    images that it gets right), retrainings/ (these files), roar.json, roar.html. A retraining that is there by the same
    settings is not done again, and one that was killed goes on from its last checkpoint. All runs of a study are
    retrained as its reference run was trained; where their networks are equal they share the floors. Table and page are
    of the runs, maps and shares asked for now; retrainings of others stay where they are.
    """
    parse(_without_study(plain))  # what is wrong in the config is told before what is wrong with the workdir
    with workdirs.Workdir(workdir, create=False):
        runs = _runs(plain, workdir)
        study_runs.common([run for run, _ in runs], "roar")
        folder = os.path.join(workdir, "roar")
        described, rows = [], []
        for number, (run, like) in enumerate(runs, start=1):
            say(f"run {number} of {len(runs)}: {run.name}")
            subject = subject_of(run.experiment, run.place, run.data)
            settings = run.experiment.roar
            # Other seeds with every seed of a study: else its runs would share the networks of the floors.
            seeds = [run.about.get("seed", 0) * settings.retrainings + n for n in range(settings.retrainings)]
            trainings = [retraining.experiment_of(run.experiment, like, seed) for seed in seeds]
            jobs = jobs_of(settings, [*settings.methods, *subject.floors])
            of_data, of_weights = fingerprints(subject)
            known = {"data": of_data, "weights": of_weights}
            paths = {job: _path(folder, job, subject, trainings[job.seed], known) for job in jobs}
            _retrain(subject, trainings, paths, folder)
            rows += [_row(run.name, job, path, folder) for job, path in paths.items()]
            described.append(_described(run, subject, trainings[0]))
        shutil.rmtree(os.path.join(folder, "training"), ignore_errors=True)
        records.write_csv(os.path.join(folder, "roar.csv"), {name: [row[name] for row in rows] for name in rows[0]})
        records.write_json(os.path.join(folder, "roar.json"), {
            "title": plain.get("title", ""),
            "settings": dataclasses.asdict(runs[0][0].experiment.roar),
            "runs": described,
            "command": environment.command(),
            "hardware": environment.hardware(),
            "versions": environment.versions(),
        })  # fmt: skip
        return str(report_lib.roar_page(folder))


def jobs_of(settings: Roar, labels: list[str]) -> list[Job]:
    """All retrainings of a run, those of a map in a row; of the whole image, from which curves start, first."""
    modes = list(metrics.REMOVALS) if settings.mode == "both" else [settings.mode]
    modes += [MASKS_ALONE] if settings.masks_alone else []
    kinds = [(WHOLE, "remove", 0.0), *itertools.product(labels, modes, settings.fractions)]
    return [Job(*kind, seed) for kind in kinds for seed in range(settings.retrainings)]


def _runs(plain: Mapping, workdir: str) -> list[tuple[study_runs.Run, Experiment]]:
    """Each run, and the one as which it is retrained."""
    if workdirs.holds_study(workdir):
        settings = plain["study"]
        known = {run["label"]: run for run in settings["runs"]}
        finished = study_runs.finished(plain, workdir)
        study.parse(plain)  # which refuses a run in config.roar.runs that it does not have
        judged = plain["roar"].get("runs") or study_claims.evaluated(settings)
        runs = [run for run in finished if run.about["label"] in judged]
        missing = ", ".join(label for label in judged if label not in {run.about["label"] for run in runs})
        if not runs:
            raise ValueError(f"No run that config.roar.runs names has been finished: {missing}.")
        if missing:
            say(f"not finished, so that its maps are not judged: {missing}")
        reference = checks.lookup("run in config.study.reference", settings["reference"], known)
        return [(run, study.experiment_of(plain, reference, run.about["seed"])) for run in runs]
    experiment = parse(_without_study(plain))
    name = os.path.basename(os.path.abspath(workdir))
    return [(study_runs.Run(name, {"dir": ""}, experiment, workdir, data_lib.load(experiment.data)), experiment)]


def _without_study(plain: Mapping) -> dict:
    return {name: section for name, section in plain.items() if name != "study"}


def _retrain(subject: Subject, trainings: list[Experiment], paths: dict[Job, str], folder: str) -> None:
    missing = [job for job, path in paths.items() if not os.path.exists(path)]
    say(f"{len(paths)} retrainings, of which {len(paths) - len(missing)} are there")
    numbers = itertools.count(1)
    for label, of_map in itertools.groupby(missing, key=lambda job: job.map):
        maps = {} if label == WHOLE else maps_of(subject, label)
        empty = [_empty(maps[split], subject.experiment.roar.sign) for split in SPLITS] if maps else [0, 0, 0]
        for (mode, fraction), seeds in itertools.groupby(of_map, key=lambda job: (job.mode, job.fraction)):
            images = changed(subject, maps, mode, fraction) if maps else subject.data
            for job in seeds:
                say(f"retraining {next(numbers)} of {len(missing)}: {_words(job)}")
                name = os.path.basename(paths[job]).removesuffix(".npz")
                place = os.path.join(folder, "training", name)
                try:
                    retraining.tested(trainings[job.seed], images, place, paths[job], {"empty_maps": empty})
                except Diverged as error:
                    raise ValueError(f"The retraining of {_words(job)}: {error}") from error


def _path(folder: str, job: Job, subject: Subject, training: Experiment, known: dict[str, str]) -> str:
    """Where the result of a retraining lies: named by all that it depends on, so that what is there is right."""
    settings, plain = subject.experiment.roar, subject.experiment.plain
    by = {"training": retraining.identity(training), "job": job, "data": known["data"]}
    if job.map != WHOLE:
        by |= {"removal": repr((settings.sign, settings.baseline))}
    if job.map in settings.methods:
        by |= {"of": [known["weights"], settings.explained, plain["evaluation"]["maps"][job.map]]}
    digest = hashlib.sha256(json.dumps(by, sort_keys=True).encode()).hexdigest()[:12]
    return os.path.join(folder, "retrainings", f"{job.map}_{job.mode}_{job.fraction:g}_seed{job.seed}_{digest}.npz")


def _row(run: str, job: Job, path: str, folder: str) -> dict:
    found = records.read_npz(path)
    correct = statistics.bootstrap_mean(found["correct"].astype(float), found.get("group"), seed=0)
    low, high = statistics.share_interval(correct)
    accuracy = {"accuracy": correct.mean, "low": low, "high": high}
    return {"run": run, **job._asdict(), **accuracy, "file": os.path.relpath(path, folder)}


def _described(run: study_runs.Run, subject: Subject, training: Experiment) -> dict:
    """What the page says of a run, its maps and its retraining."""
    methods = dict(subject.experiment.evaluation.maps)
    maps = {
        label: {"kind": "method", "description": descriptions.described(methods[label])}
        for label in subject.experiment.roar.methods
    }
    return {
        "name": run.name,
        "data": run.data.description,
        "checkpoint_step": subject.step,
        "maps": maps | subject.floors,
        "chance": subject.chance,
        "retrained": f"{training.train.epochs} epochs. {descriptions.training(training)}",
    }


def _empty(maps: np.ndarray, sign: str) -> int:
    """How many maps have no relevance, so that they remove at random."""
    return int(np.isnan(metrics.relevance(maps, sign)[:, 0, 0]).sum())


def _words(job: Job) -> str:
    if job.map == WHOLE:
        return f"{WHOLE}s, seed {job.seed}"
    what = {"remove": "removed", "keep": "kept", MASKS_ALONE: "shown as a mask"}[job.mode]
    return f"{job.map}, {job.fraction:g} {what}, seed {job.seed}"
