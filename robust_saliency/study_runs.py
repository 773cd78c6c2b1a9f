"""The finished runs of a study, for the modes that look at each of them after it was trained."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from robust_saliency import data as data_lib
from robust_saliency import records, study, workdirs
from robust_saliency.config import Experiment


class Run(NamedTuple):
    """A finished run of the study: its name, what study.json says of it, its config, its folder and its data."""

    name: str
    about: dict
    experiment: Experiment
    place: str
    data: data_lib.Data


def common(runs: list[Run], section: str, ignore: tuple[str, ...] = ()) -> None:
    """ValueError where ``config.<section>`` is not the same for all runs: what it measures could not be compared."""
    for run in runs[1:]:
        both = (each.experiment.plain.get(section, {}) for each in (runs[0], run))
        lines = workdirs.differences(*both, ignore=ignore)
        if lines:
            raise ValueError(
                f"config.{section} must be the same for every run of a study ({runs[0].name} -> {run.name}):\n"
                + "\n".join(lines)
            )


def finished(plain: Mapping, workdir: str) -> list[Run]:
    """The runs that study.json names, in its order; ValueError where there is none, or one that nobody knows."""
    path = os.path.join(workdir, "study.json")
    entries = records.read_json(path)["runs"] if os.path.exists(path) else []
    if not entries:
        raise ValueError(f"The study in {workdir} has no finished run ({path} names none); run --mode=study first.")
    known = {run["label"]: run for run in (plain.get("study") or {}).get("runs") or ()}
    several_seeds = len({about["seed"] for about in entries}) > 1
    loaded: dict = {}
    runs = []
    for about in entries:
        place = os.path.join(workdir, about["dir"])
        if about["label"] not in known:
            listed = ", ".join(known) or "no run"
            raise ValueError(f"{path} names the run {about['label']!r}; config.study.runs has {listed}.")
        if not os.path.isdir(place):
            raise ValueError(f"{path} names the run {about['dir']}; {place} does not exist.")
        experiment = study.experiment_of(plain, known[about["label"]], about["seed"])
        if experiment.data not in loaded:
            loaded[experiment.data] = data_lib.load(experiment.data)
        name = f"{about['label']}, seed {about['seed']}" if several_seeds else about["label"]
        runs.append(Run(name, about, experiment, place, loaded[experiment.data]))
    return runs
