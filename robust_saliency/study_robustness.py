"""The robustness of a whole study: the report of every run, and how far the adversaries of one fool the others."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from robust_saliency import environment, records, robustness, transfer, workdirs
from robust_saliency import report as report_lib
from robust_saliency.config_sections import Robustness
from robust_saliency.progress import say
from robust_saliency.robustness_facts import Subject, budget, transferable
from robust_saliency.study_runs import Run, common, finished
from robust_saliency.transfer_checks import white_box_beats_transfer

ATTACK = "apgd-ce"  # whose adversaries, after all its steps, are shown to every run


def study_robustness(plain: Mapping, workdir: str) -> str:
    """Attacks every finished run of the study in ``workdir`` as ``config.robustness`` says; returns the page's path.

    A run whose report was made by the same settings, on the same data, of the same checkpoint, is not attacked again.
    Writes ``workdir/robustness/``: transfer.csv (one row an example: whether each run is right on the adversaries of
    each), robustness.json, robustness.html; and of each run ``robustness/transfer.npz``, those adversaries.
    """
    with workdirs.Workdir(workdir, create=False), jax.default_matmul_precision("highest"):
        runs = finished(plain, workdir)
        common(runs, "robustness", ignore=("batch_size",))
        settings = runs[0].experiment.robustness
        done = [_is_done(run) for run in runs]
        for number, (run, is_done) in enumerate(zip(runs, done, strict=True), start=1):
            say(f"run {number} of {len(runs)}: {run.name}{': its report is there' if is_done else ''}")
            if not is_done:
                robustness.robustness(run.experiment, run.place, run.data)
        began = time.monotonic()
        folder = os.path.join(workdir, "robustness")
        described = _described(plain, settings, runs) | _transferred(runs, folder)
        described["transfer_seconds"] = time.monotonic() - began
        records.write_json(os.path.join(folder, "robustness.json"), described)
        return str(report_lib.study_robustness_page(workdir))


def _is_done(run: Run) -> bool:
    subject, step = robustness.subject_of(run.experiment, run.place, run.data)
    path = os.path.join(subject.folder, "transfer.npz")
    if os.path.exists(path):
        _readable(run, subject, lambda: records.read_npz(path))
    return robustness.is_done(run.experiment, subject, step)


def _adversaries(run: Run, subject: Subject) -> np.ndarray:
    """``[N, H, W, C]``: what ``ATTACK`` ended with after all its steps; made where no earlier call has."""
    return _readable(run, subject, lambda: transferable(subject, run.experiment.robustness)).images


def _readable(run: Run, subject: Subject, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except ValueError as error:
        raise ValueError(f"{error} To attack {run.name} again, delete {subject.folder}.") from error


def _transferred(runs: list[Run], folder: str) -> dict:
    """The transfer matrix and its check, for robustness.json; every example of it goes into transfer.csv."""
    if len(runs) == 1:
        return {"transfer": None, "no_transfer": "The study has one run.", "checks": []}
    subjects = [robustness.subject_of(run.experiment, run.place, run.data)[0] for run in runs]
    held = [subject.split.gather(subject.indices) for subject in subjects]
    different = transfer.different_examples({run.name: rows for run, rows in zip(runs, held, strict=True)})
    if different:
        say(f"No transfer between the networks: {different}")
        records.remove(os.path.join(folder, "transfer.csv"))
        return {"transfer": None, "no_transfer": different, "checks": []}
    networks = [
        transfer.Network(subject.classifier, subject.variables, subject.mesh, run.experiment.robustness.batch_size)
        for run, subject in zip(runs, subjects, strict=True)
    ]

    def adversaries() -> Iterator[np.ndarray]:
        return (_adversaries(run, subject) for run, subject in zip(runs, subjects, strict=True))

    correct = transfer.transfer(networks, adversaries(), held[0]["label"])
    check = white_box_beats_transfer(correct, [run.name for run in runs])
    say(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.sentence}")
    columns = {"id": held[0]["id"], "label": held[0]["label"]}
    for source, rows in zip(runs, correct, strict=True):
        for target, right in zip(runs, rows, strict=True):
            columns[f"{source.about['dir']} -> {target.about['dir']}"] = right.astype(int)
    records.write_csv(os.path.join(folder, "transfer.csv"), columns)
    return {"transfer": correct.sum(-1), "checks": [check._asdict()]}


def _described(plain: Mapping, settings: Robustness, runs: list[Run]) -> dict:
    return {
        "title": plain.get("title", ""),
        "norm": settings.threat.norm,
        "epsilon": float(settings.threat.epsilon),
        "settings": plain.get("robustness", {}),
        "attack": ATTACK,
        "budget": budget(settings, len(runs[0].data.class_names))._asdict(),
        "runs": [run.about for run in runs],
        "command": environment.command(),
        "hardware": environment.hardware(),
        "versions": environment.versions(),
    }
