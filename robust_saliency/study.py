"""A study: several regimes and seeds, the same images, one report. Goes on where it was stopped."""

import contextlib
import functools
import json
import os
import time
from collections.abc import Iterator, Mapping

from robust_saliency import (
    checks,
    config,
    config_fields,
    data,
    environment,
    evaluate,
    processes,
    records,
    stated,
    study_claims,
    train,
    workdirs,
)
from robust_saliency import report as report_lib
from robust_saliency.progress import say

# What can follow in config.study.modes, each over all runs of the finished study.
MODES = ("neurons", "roar", "robustness")


def study(plain: Mapping, workdir: str) -> str:
    """Trains and evaluates every run of ``plain['study']`` for every seed, then writes the report; returns its path.

    ``plain['study']``: title, description, seeds, reference (a run's label), claims, runs: each with a label, a
    description and overrides laid over the rest of the config. A run lies in ``workdir/seed<s>/<label>``, so that a run
    may start from its sibling with ``init_from.workdir = '../<label>'``; one that says ``evaluated: False`` is there
    for that alone. What is finished is not done again. ``modes``, which follow, are the caller's.

    A run whose loss diverges is left out, with those that start from it: the others are finished and reported, the
    report says so, and then :class:`train.Diverged` is raised.
    """
    experiments = parse(plain)
    claims = study_claims.parse(plain)
    with workdirs.Workdir(workdir):
        about = _run_all(plain, experiments, workdir, claims)
        failed = "; ".join(run["why"].removesuffix(".") for run in about["failed"])
        if failed and plain["study"]["reference"] not in {run["label"] for run in about["runs"]}:
            raise train.Diverged(f"{failed}.")
        page = processes.on_first(lambda: report_lib.report(workdir))
        if failed:
            raise train.Diverged(f"{page} lacks {len(about['failed'])} of {len(experiments)} runs: {failed}.")
        return page


@contextlib.contextmanager
def timed(workdir: str) -> Iterator[None]:
    """Adds the time of what follows the study to that of study.json."""
    began = time.monotonic()
    yield
    with workdirs.Workdir(workdir, create=False):
        about = _before(workdir)
        about["seconds"] += time.monotonic() - began
        records.write_json(os.path.join(workdir, "study.json"), about)


def _run_all(plain: Mapping, experiments: list, workdir: str, claims: list[dict]) -> dict:
    """What study.json then holds."""
    began = time.monotonic()
    settings = plain["study"]
    free = (
        "study.seeds",
        "study.claims",
        "study.modes",
        "description",
        "title",
        "evaluation",
        "neurons",
        "roar",
        "robustness",
    )
    workdirs.claim(workdir, dict(plain), ignore=free)
    listed = study_claims.evaluated(settings)
    runs = [{"label": label, "seed": seed, "dir": directory, "description": text}
            for (label, seed, directory, text), _ in experiments if label in listed]  # fmt: skip
    before = processes.on_first(lambda: _before(workdir))
    evaluations = {label: experiment.plain.get("evaluation") for (label, *_), experiment in experiments}
    ours = {run["dir"] for run in runs}
    runs += [run for run in before["runs"] if run["dir"] not in ours]
    described = {"title": plain.get("title", ""), "description": plain.get("description", "")}
    described |= {"reference": settings["reference"], "command": environment.command()}
    described |= _stated(claims, before)

    loaded: dict = {}
    for (label, *_), experiment in experiments:
        if experiment.data not in loaded:
            loaded[experiment.data] = data.load(experiment.data)
        _check(label, experiment, loaded[experiment.data])
    failed: list[dict] = []
    for number, ((label, seed, directory, _), experiment) in enumerate(experiments, start=1):
        place = os.path.join(workdir, directory)
        say(f"run {number} of {len(experiments)}: {label}, seed {seed}")
        try:
            _check_start(experiment, place, [os.path.join(workdir, run["dir"]) for run in failed])
            train.train(experiment, place, loaded[experiment.data])
        except train.Diverged as error:
            say(f"{label}, seed {seed} failed: {error}")
            failed.append({"label": label, "seed": seed, "dir": directory, "why": str(error)})
        else:
            is_start = label not in listed
            if not is_start and not processes.on_first(functools.partial(evaluate.is_done, experiment, place)):
                evaluate.evaluate(experiment, place, loaded[experiment.data])
        described |= {"failed": failed, "seconds": before["seconds"] + time.monotonic() - began}
        about = processes.on_first(functools.partial(_written, workdir, described, runs, evaluations, ours))
    return about


def _stated(claims: list[dict], before: Mapping) -> dict:
    """The claims, and by label how many networks had been evaluated when one was added, changed or taken away last."""
    # As claims, not as they are written: a field that came later has its default in the earlier ones.
    now, then = (
        {claim.label: claim for claim in stated.read(listed)} for listed in (claims, before.get("claims") or ())
    )
    changed = stated.changed_after(before)
    if before["runs"]:
        different = [label for label in {**then, **now} if now.get(label) != then.get(label)]
        changed |= dict.fromkeys(different, len(before["runs"]))
    return {"claims": claims, "claims_changed_after": changed}


def _written(workdir: str, described: Mapping, runs: list[Mapping], evaluations: Mapping, ours: set[str]) -> dict:
    """study.json: of the runs those that are finished. Where nothing but the time is new, it stays as it is."""
    found = {run["dir"]: _evaluation_in(workdir, run["dir"], run["dir"] in ours) for run in runs}
    finished = [run for run in runs if found[run["dir"]] == evaluations.get(run["label"])]
    about = {**described, "runs": finished}
    before = _before(workdir)
    if json.loads(json.dumps({**about, "seconds": before["seconds"]})) != before:
        records.write_json(os.path.join(workdir, "study.json"), about)
    return about


def _check_start(experiment: config.Experiment, place: str, failed: list[str]) -> None:
    """A run does not start from what a failed one happened to have saved."""
    for one in (experiment, *(phase for _, phase in experiment.phases)):
        source = os.path.abspath(os.path.join(place, one.init_from.workdir))
        if one.init_from.workdir and source in map(os.path.abspath, failed):
            raise train.Diverged(f"{place} starts from {one.init_from.workdir}, which failed")


def _check(label: str, experiment: config.Experiment, loaded: data.Data) -> None:
    """A run that cannot be trained is told before the runs in front of it are."""
    try:
        train.check(experiment, loaded)
    except ValueError as error:
        raise ValueError(f"config.study.runs[{label}]: {error}") from error


def parse(plain: Mapping) -> list[tuple[tuple[str, int, str, str], config.Experiment]]:
    """Every run of the study as ((label, seed, folder, description), experiment), in the order of work."""
    settings = {"reference": "", "seeds": 1, **plain["study"]}
    for run in settings["runs"]:
        if not isinstance(run, Mapping):
            raise ValueError(f"config.study.runs: a run must be a section with a label and overrides, got {run!r}.")
    labels = [run.get("label") for run in settings["runs"]]
    if len(set(labels)) != len(labels) or not all(labels):
        raise ValueError(f"config.study.runs: every run needs a label of its own, got {labels}.")
    config.check_labels(labels, "config.study.runs")
    if settings["reference"] not in study_claims.evaluated(settings):
        listed = ", ".join(study_claims.evaluated(settings))
        raise ValueError(f"config.study.reference is {settings['reference']!r}; the runs are {listed}.")
    if not isinstance(settings.get("modes") or (), list | tuple):
        raise ValueError(f"config.study.modes must be a list, got {settings['modes']!r}.")
    for mode in settings.get("modes") or ():
        checks.one_of("mode in config.study.modes", mode, MODES)
    for label in (plain.get("roar") or {}).get("runs") or ():
        checks.one_of("run in config.roar.runs", label, study_claims.evaluated(settings))
    for place in (plain.get("neurons") or {}).get("ensemble") or ():
        folder, _, label = str(place).rpartition("/")
        if folder == "..":
            checks.one_of("run in config.neurons.ensemble", label, labels)
    if settings["seeds"] < 1:
        raise ValueError(f"config.study.seeds must be at least 1, got {settings['seeds']}.")
    first = plain.get("seed", 0)
    return [
        ((run["label"], seed, os.path.join(f"seed{seed}", run["label"]), run.get("description", "")),
         experiment_of(plain, run, seed))
        for seed in range(first, first + settings["seeds"])
        for run in settings["runs"]
    ]  # fmt: skip


def experiment_of(plain: Mapping, run: Mapping, seed: int) -> config.Experiment:
    """The experiment of an entry of ``plain['study']['runs']``: its overrides laid over the rest of the config."""
    base = {name: value for name, value in plain.items() if name != "study"}
    where = f"config.study.runs[{run['label']}].overrides"
    return config.parse({**config_fields.merge(base, run.get("overrides") or {}, where), "seed": seed})


def _before(workdir: str) -> dict:
    """What an earlier call of the study left: its runs, of more seeds perhaps, and the seconds spent."""
    path = os.path.join(workdir, "study.json")
    try:
        return records.read_json(path) if os.path.exists(path) else {"runs": [], "seconds": 0.0}
    except ValueError as error:
        raise ValueError(
            f"{error} Or delete it and start the study again, with all its seeds: what is finished is not done again."
        ) from None


def _evaluation_in(workdir: str, directory: str, is_ours: bool) -> dict | None:
    """The settings with which a run of the study was evaluated; None where it was not, or where that is damaged and
    will be made again, as the study does with a run that is ``ours``."""
    records.check_manifest(os.path.join(workdir, directory))
    path = os.path.join(workdir, directory, "evaluation", "summary.json")
    try:
        return records.read_json(path)["evaluation"] if os.path.exists(path) else None
    except ValueError:
        if is_ours:
            return None
        raise
