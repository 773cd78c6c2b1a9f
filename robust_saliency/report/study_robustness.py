"""The page of ``--mode=robustness`` on a study: which run withstands what, and whose adversaries fool whom."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from robust_saliency import records
from robust_saliency.report import figures, numbers, transfer_table
from robust_saliency.report.colours import run_colours
from robust_saliency.report.robustness import NOT_ADVERSARIES, interval, words

FIRST = ("clean", "all")  # columns that a narrow screen must show


class Run(NamedTuple):
    """A run's own report: robustness.json, who withstood what ``[N]`` by adversary, and the smallest epsilons.

    groups: ``[N]``, of the images that are not independent, or None.
    """

    label: str
    seed: int
    place: str
    about: dict[str, Any]
    robust: dict[str, np.ndarray]
    smallest: np.ndarray
    groups: np.ndarray | None


def render(study: str | Path) -> str:
    """``robustness/robustness.json`` of a study, and the reports of the runs that it names, as one HTML document."""
    study = Path(study)
    about = records.read_json(study / "robustness" / "robustness.json")
    runs = [_read_run(study, entry) for entry in about["runs"]]
    by_label = {run.label: [other for other in runs if other.label == run.label] for run in runs}
    found = list(dict.fromkeys(name for run in runs for name in run.robust))
    adversaries = [name for name in FIRST if name in found] + [name for name in found if name not in FIRST]
    names = [(run.label, run.seed) for run in runs]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("study_robustness.html").render(
        about=about,
        epsilon=numbers.epsilon(about["epsilon"]),
        num=_count([len(run.smallest) for run in runs]),
        several_seeds=len(runs) > len(by_label),
        is_grouped=any(run.groups is not None and len(np.unique(run.groups)) < len(run.groups) for run in runs),
        answers=_answers(by_label),
        adversaries=[(name, words(name, about["budget"])) for name in adversaries],
        explained=[(name, words(name, about["budget"])) for name in found],
        rows=[row for label, seeds in by_label.items() for row in _rows(label, seeds, adversaries)],
        colours=run_colours(list(by_label)) if len(by_label) > 1 else {},
        curve=figures.robustness_curves(
            {label: [run.smallest for run in seeds] for label, seeds in by_label.items()},
            about["epsilon"],
            about["norm"],
            {label: [run.groups for run in seeds] for label, seeds in by_label.items()},
        ),
        heats=_heats(about, runs, names),
        carried=_carried(about, runs),
        runs=[_checked(run, transfer_table.title(names, run.label, run.seed)) for run in runs],
        data=_texts(runs, names, lambda run: run.about["data"]),
        hardware=_texts(runs, names, lambda run: f"{_listed(run.about['hardware'])}; {_listed(run.about['versions'])}"),
        duration=numbers.duration(sum(run.about["seconds"] for run in runs)),
        transfer_duration=numbers.duration(about["transfer_seconds"]),
    )


def _read_run(study: Path, entry: Mapping[str, Any]) -> Run:
    folder = study / entry["dir"] / "robustness"
    examples = records.read_csv(folder / "examples.csv")
    smallest = examples["smallest_epsilon"].astype(float)
    robust = {name: values.astype(int) for name, values in examples.items() if name not in NOT_ADVERSARIES}
    about = records.read_json(folder / "robustness.json")
    return Run(entry["label"], entry["seed"], entry["dir"], about, robust, smallest, examples.get("group"))


def _answers(by_label: Mapping[str, list[Run]]) -> list[dict]:
    """Each label's accuracy under all adversaries, the highest first."""
    found = {label: [float(run.robust["all"].mean()) for run in seeds] for label, seeds in by_label.items()}
    return [
        {"name": label, **_cell(by_label[label], "all")}
        for label in sorted(found, key=lambda label: -np.mean(found[label]))
    ]


def _rows(label: str, seeds: list[Run], adversaries: list[str]) -> list[dict]:
    rows = [{"kind": "run", "label": label, "name": label, **_cells(seeds, adversaries)}]
    if len(seeds) > 1:
        rows[0] |= {"kind": "mean", "name": f"{label}, {len(seeds)} seeds"}
        rows += [
            {"kind": "seed", "label": label, "name": f"seed {run.seed}", **_cells([run], adversaries)} for run in seeds
        ]
    return rows


def _cells(seeds: list[Run], adversaries: list[str]) -> dict:
    medians = [float(np.median(run.smallest)) for run in seeds]
    median = numbers.plain(float(np.mean(medians))) if np.isfinite(medians).all() else "none"
    cells = [
        _cell(seeds, name) if all(name in run.robust for run in seeds) else {"share": numbers.DASH, "interval": ""}
        for name in adversaries
    ]
    return {"cells": cells, "median": median}


def _cell(seeds: list[Run], name: str) -> dict:
    """One network: its share and the interval of it; several seeds: the mean of their shares, and their range."""
    robust = [run.robust[name] for run in seeds]
    shares = [float(each.mean()) for each in robust]
    if len(robust) == 1:
        limits = numbers.interval(*interval(robust[0], seeds[0].groups))
    else:
        limits = f"{numbers.share(min(shares))}{numbers.DASH}{numbers.share(max(shares))}"
    return {"share": numbers.share(float(np.mean(shares))), "interval": limits}


def _heats(about: dict, runs: list[Run], names: list[tuple[str, int]]) -> list[transfer_table.Heat]:
    if about["transfer"] is None:
        return []
    labels = list(dict.fromkeys(label for label, _ in names))
    order = sorted(range(len(runs)), key=lambda place: labels.index(names[place][0]))
    clean = np.array([runs[place].robust["clean"].mean() for place in order])
    accuracy = np.array(about["transfer"])[np.ix_(order, order)] / len(runs[0].smallest)
    return transfer_table.tables([names[place] for place in order], accuracy, clean)


def _carried(about: dict, runs: list[Run]) -> dict[str, str]:
    """Mean accuracies over the networks: on the adversaries of others, under the own attack, on unchanged images."""
    if about["transfer"] is None:
        return {}
    accuracy = np.array(about["transfer"]) / len(runs[0].smallest)
    others = accuracy[~np.eye(len(runs), dtype=bool)].mean()
    clean = np.mean([run.robust["clean"].mean() for run in runs])
    means = {"others": others, "own": np.trace(accuracy) / len(runs), "clean": clean}
    return {name: numbers.share(float(mean)) for name, mean in means.items()}


def _checked(run: Run, name: str) -> dict:
    checks = run.about["checks"]
    return {
        "name": name,
        "page": f"../{run.place}/robustness/robustness.html",
        "failed": [check for check in checks if not check["passed"]],
        "num_checks": len(checks),
        "step": run.about["checkpoint_step"],
        "duration": numbers.duration(run.about["seconds"]),
    }


def _texts(runs: list[Run], names: list[tuple[str, int]], text_of) -> list[tuple[str, str]]:
    """Each different text with the runs that it is true of; no runs are named where it is true of all."""
    found: dict[str, list[str]] = {}
    for run in runs:
        found.setdefault(text_of(run), []).append(transfer_table.title(names, run.label, run.seed))
    return [("" if len(found) == 1 else ", ".join(of), text) for text, of in found.items()]


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _count(sizes: list[int]) -> str:
    low, high = min(sizes), max(sizes)
    return str(low) if low == high else f"{low} to {high}"
