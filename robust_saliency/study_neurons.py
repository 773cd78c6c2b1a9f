"""The neurons of a whole study: the report of every run, and one table of them all."""

import dataclasses
import os
from collections.abc import Mapping

from robust_saliency import environment, neuron_report, records, study_runs, workdirs
from robust_saliency import report as report_lib
from robust_saliency.progress import say


def study_neurons(plain: Mapping, workdir: str) -> str:
    """Looks into every finished run of the study in ``workdir`` as ``config.neurons`` says; returns the page's path.

    A run whose report was made by the same settings, on the same data, of the same checkpoint, is not looked into
    again. Writes ``workdir/neurons/``: neurons.json (which runs) and neurons.html (a table of them, with their pages).
    """
    with workdirs.Workdir(workdir, create=False):
        runs, failed = study_runs.finished(plain, workdir), _failed(workdir)
        runs = [_against_those_that_are_there(run, failed) for run in runs]
        study_runs.common(runs, "neurons", ignore=("batch_size",))
        kept: dict[str, dict] = {}  # adversarial images of an ensemble, of which the runs of a seed are shown the same
        for number, run in enumerate(runs, start=1):
            done = neuron_report.is_done(run.experiment, run.place)
            say(f"run {number} of {len(runs)}: {run.name}{': its report is there' if done else ''}")
            if not done:
                neuron_report.neuron_report(run.experiment, run.place, run.data, kept)
        described = {
            "title": plain.get("title", ""),
            "runs": [{**run.about, "name": run.name} for run in runs],
            "command": environment.command(),
        }
        records.write_json(os.path.join(workdir, "neurons", "neurons.json"), described)
        return str(report_lib.study_neurons_page(workdir))


def _failed(workdir: str) -> set[str]:
    """Folders of the runs whose training failed."""
    failed = records.read_json(os.path.join(workdir, "study.json")).get("failed", [])
    return {os.path.normpath(os.path.join(workdir, each["dir"])) for each in failed}


def _against_those_that_are_there(run: study_runs.Run, failed: set[str]) -> study_runs.Run:
    """Without those of its ensemble whose training failed; ValueError where that leaves none."""
    whole = run.experiment.neurons.ensemble
    if not whole:
        return run
    there = tuple(place for place in whole if os.path.normpath(os.path.join(run.place, place)) not in failed)
    if there == whole:
        return run
    if not there:
        raise ValueError(f"config.neurons.ensemble: all of {', '.join(whole)} failed for {run.name}.")
    say(f"{run.name}: the ensemble lacks {', '.join(place for place in whole if place not in there)}, which failed")
    settings = dataclasses.replace(run.experiment.neurons, ensemble=there)
    return run._replace(experiment=run.experiment._replace(neurons=settings))
