"""A robustness report that looks for its own mistakes: several adversaries, the curve over epsilon, and a checklist."""

import os
import time

import jax
import numpy as np

from robust_saliency import data as data_lib
from robust_saliency import environment, initialise, records, robustness_checks, sharding, survivors, workdirs
from robust_saliency import report as report_lib
from robust_saliency.attacks import stages
from robust_saliency.config import Experiment
from robust_saliency.progress import say
from robust_saliency.robustness_checks import Check, Facts
from robust_saliency.robustness_facts import Subject, measure, plans


def robustness(experiment: Experiment, workdir: str, data: data_lib.Data | None = None) -> str:
    """Attacks the run in ``workdir`` as ``config.robustness`` says; returns the path of robustness.html.

    Writes ``workdir/robustness/``: robustness.json (budget, passes, checklist, provenance), examples.csv (one row an
    example: its group where there are groups, the smallest epsilon found and how wide a bracket was left around it, and
    who withstood what), robustness.html, and what a killed attack needs to go on. Products of matrices and convolutions
    run at the highest precision.
    """
    began = time.monotonic()
    settings = experiment.robustness
    with workdirs.Workdir(workdir, create=False), jax.default_matmul_precision("highest"):
        data = data or data_lib.load(experiment.data)
        subject, step = subject_of(experiment, workdir, data)
        found, facts = measure(subject, settings)
        checks = robustness_checks.checklist(facts)
        described = {
            "title": experiment.plain.get("title", ""),
            "run": workdirs.run_name(workdir, experiment.plain),
            "settings": experiment.plain.get("robustness", {}),
            "data": data.description,
            "data_config": experiment.plain.get("data"),
            "checkpoint_step": step,
            "seconds": time.monotonic() - began,
        }
        path = _written(subject, settings, found, facts, checks, described)
    for check in checks:
        say(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.sentence}")
    return path


def subject_of(experiment: Experiment, workdir: str, data: data_lib.Data) -> tuple[Subject, int]:
    """The trained network in ``workdir`` with what it is attacked on, and the step of its checkpoint.

    Raises ValueError where the config says of the network what is not true of it, or shows it images of its training.
    """
    settings = experiment.robustness
    classifier, variables, described, step = initialise.load_described(workdir, experiment.evaluation.step)
    initialise.check_unchanged(described, experiment.plain)
    data_lib.check_unseen(described["config"]["data"], experiment.plain["data"])
    mesh = sharding.make_mesh(experiment.num_devices, settings.batch_size, "config.robustness.batch_size")
    subject = Subject(
        classifier=classifier,
        variables=sharding.put_replicated(variables, mesh),
        split=data.test,
        indices=data_lib.choose(len(data.test), settings.num_examples),
        num_classes=len(data.class_names),
        mesh=mesh,
        folder=os.path.join(workdir, "robustness"),
        identity=experiment.plain["data"],
        wide=initialise.in_float32(described),
        network=described["config"]["model"],
    )
    return subject, step


def is_done(experiment: Experiment, subject: Subject, step: int) -> bool:
    """True where ``subject.folder`` holds a whole report by the present config, of the present checkpoint.

    One without a budget is of a version that searched epsilons coarsely: it is made again.
    """
    path = os.path.join(subject.folder, "robustness.json")
    is_there = os.path.exists(path) and os.path.exists(os.path.join(subject.folder, "robustness.html"))
    if not is_there or not records.is_whole(subject.folder):
        return False
    about = records.read_json(path)
    done = (about.get("settings"), about.get("data_config"), about.get("checkpoint_step"))
    return "budget" in about and done == (experiment.plain.get("robustness"), experiment.plain.get("data"), step)


def _written(subject: Subject, settings, found: dict, facts: Facts, checks: list[Check], described: dict) -> str:
    held = subject.split.gather(subject.indices)
    columns = {name: held[name] for name in ("id", "label", "group") if name in held}
    columns |= {"smallest_epsilon": facts.smallest_epsilon, "epsilon_width": facts.epsilon_width}
    columns |= {name: robust.astype(int) for name, robust in facts.robust.items()}
    records.write_csv(os.path.join(subject.folder, "examples.csv"), columns)
    passes = {name: [float(each.forwards.mean()), float(each.backwards.mean())] for name, each in found.items()}
    described |= {
        "norm": settings.threat.norm,
        "epsilon": facts.epsilon,
        "budget": facts.budget._asdict(),
        "stages": _stage_log(found["autoattack"], plans(settings, subject.num_classes)["autoattack"]),
        "passes": passes,
        "checks": [check._asdict() for check in checks],
        "precision": "highest",
        "command": environment.command(),
        "hardware": environment.hardware(),
        "versions": environment.versions(),
    }
    records.write_json(os.path.join(subject.folder, "robustness.json"), described)
    return str(report_lib.robustness_page(subject.folder))


def _stage_log(found: survivors.Found, plan: tuple[stages.Stage, ...]) -> list[dict]:
    """After each stage: how many of all examples it fooled, and how many were left."""
    left, log = int(np.sum(found.fooled_by != survivors.BEFORE)), []
    for number, stage in enumerate(plan):
        fooled = int(np.sum(found.fooled_by == number))
        left -= fooled
        log.append({"stage": stage.name, "fooled": fooled, "robust": left})
    return log
