"""Reads a study directory, or the workdir of one run, into plain records; one sentence names a damaged file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robust_saliency import records, stated
from robust_saliency.report import history

_SUMMARY_KEYS = ("split", "num_examples", "class_names", "attacks", "methods", "metrics")


Column = tuple[str, str]  # ("accuracy", "correct" or "robust:<attack>"), CONFIDENCE, or (method, metric)
CORRECT: Column = ("accuracy", "correct")
CONFIDENCE: Column = ("network", "confidence")  # of the predicted class; where examples.csv has it


class Scores(NamedTuple):
    """All per-example scores of one run: ``values [N, M]`` (NaN where not defined), the examples sorted by id."""

    ids: np.ndarray
    groups: np.ndarray
    labels: np.ndarray
    columns: tuple[Column, ...]
    values: np.ndarray


class Conditions(NamedTuple):
    """What is known of each example and its maps besides scores, in the order of :class:`Scores`; empty where unsaid.

    predictions: the classes that the network names ``[N]``. masks: by name the share of the image that it covers
    ``[N]``. flaws: by method the words of :mod:`robust_saliency.flaws` ``[N]``.
    """

    predictions: np.ndarray | None
    masks: dict[str, np.ndarray]
    flaws: dict[str, np.ndarray]


@dataclass(frozen=True)
class Run:
    """One trained and evaluated network; ``folder`` holds the files of its evaluation."""

    label: str
    seed: int
    description: str
    folder: Path
    config: dict[str, Any]
    phases: tuple[history.Phase, ...]
    summary: dict[str, Any]
    scores: Scores
    conditions: Conditions
    curves: dict[str, np.ndarray] | None
    pictures: dict[str, np.ndarray] | None
    randomised: dict[str, np.ndarray] | None


@dataclass(frozen=True)
class Study:
    """Runs to be compared; ``reference`` is the label they are compared with, None where there is only one.

    failed: 'label, seed' and why, of the runs that could not be trained. claims: what was expected; changed_after:
    by label of a claim how many networks had been evaluated when it was added, changed or taken away last. folder:
    where it lies.
    """

    title: str
    description: str
    reference: str | None
    command: str
    seconds: float | None
    runs: tuple[Run, ...]
    failed: tuple[tuple[str, str], ...] = ()
    claims: tuple[stated.Claim, ...] = ()
    changed_after: Mapping[str, int] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def labels(self) -> list[str]:
        """Run labels in the order of the study, the reference first."""
        labels = list(dict.fromkeys(run.label for run in self.runs))
        return sorted(labels, key=lambda label: label != self.reference)

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})

    @property
    def first(self) -> Run:
        """The run whose summary names the methods, metrics, attacks and classes: the reference, lowest seed."""
        return self.of(self.labels[0])[0]

    def of(self, label: str) -> list[Run]:
        """The runs of one label, by seed."""
        return sorted((run for run in self.runs if run.label == label), key=lambda run: run.seed)

    def name_of(self, run: Run) -> str:
        """Which run it is among those of the study: its label, with its seed where there are several."""
        return f"{run.label}, seed {run.seed}" if len(self.seeds) > 1 else run.label

    def class_name(self, label: int) -> str:
        names = self.first.summary["class_names"]
        return str(names[int(label)]) if 0 <= int(label) < len(names) else f"class {int(label)}"

    @property
    def methods(self) -> dict[str, dict[str, str]]:
        return self.first.summary["methods"]

    @property
    def explaining_methods(self) -> list[str]:
        """Methods that look at the network; the others (blind, oracle) are floors and true masks."""
        return [name for name, about in self.methods.items() if about["kind"] in ("signed", "magnitude")]

    def floors(self, method: str) -> list[str]:
        """The maps that a method must beat: those that never look at a network, and its own average."""
        blind = (name for name, about in self.methods.items() if about["kind"] == "blind")
        return [name for name in blind if self.methods[name].get("of", method) == method]

    @property
    def map_metrics(self) -> list[str]:
        """The metrics of a map; the others are of the network, and the same whatever the map."""
        return [name for name, about in self.first.summary["metrics"].items() if about.get("of_map", True)]

    @property
    def bounding_methods(self) -> list[str]:
        return [name for name in self.methods if name not in self.explaining_methods]


def read_study(directory: str | Path) -> Study:
    """Reads ``study.json`` and its runs; or, without one, the single run whose workdir ``directory`` is."""
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(f"{directory} is no directory; give a study directory or the workdir of an evaluated run.")
    if not records.is_there(directory / "study.json"):
        return _single_run(directory)
    about = _read(directory / "study.json", records.read_json)
    entries = _field(directory / "study.json", about, "runs")
    if not entries:
        raise ValueError(f"{directory / 'study.json'} names no runs.")
    runs = tuple(_read_run(directory / entry["dir"], entry) for entry in entries)
    for run in runs[1:]:
        if run.scores.columns != runs[0].scores.columns:
            raise ValueError(
                f"{directory}: {run.label} seed {run.seed} was evaluated with other attacks, methods or metrics than "
                f"{runs[0].label} seed {runs[0].seed}; evaluate both with the same config."
            )
        _check_alike(directory, runs[0], run)
    labels = list(dict.fromkeys(run.label for run in runs))
    reference = about.get("reference") or labels[0]
    if reference not in labels:
        path = directory / "study.json"
        raise ValueError(f"{path}: the reference {reference!r} is none of the runs: {', '.join(labels)}.")
    return Study(
        title=about.get("title") or directory.name,
        description=about.get("description", ""),
        reference=reference if len(labels) > 1 else None,
        command=about.get("command", ""),
        seconds=about.get("seconds"),
        runs=runs,
        failed=tuple((f"{run['label']}, seed {run['seed']}", run["why"]) for run in about.get("failed", ())),
        claims=_claims(directory / "study.json", about),
        changed_after=stated.changed_after(about),
        folder=directory,
    )


def _claims(path: Path, about: Mapping[str, Any]) -> tuple[stated.Claim, ...]:
    try:
        return stated.read(about.get("claims") or ())
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its claims cannot be read ({error}); run --mode=study again.") from None


def _check_alike(directory: Path, first: Run, run: Run) -> None:
    """Raises ValueError where two runs were not measured in the same way, so that their scores cannot be compared."""
    for key in ("split", "explained", "images", "attacks", "methods", "metrics"):
        one, other = _measured(first.summary.get(key)), _measured(run.summary.get(key))
        if one != other:
            if isinstance(one, dict) and isinstance(other, dict):
                name = next(name for name in {**one, **other} if one.get(name) != other.get(name))
                key, one, other = f"{key} {name!r}", one.get(name), other.get(name)
            raise ValueError(
                f"{directory}: {run.label} seed {run.seed} was evaluated otherwise than {first.label} seed "
                f"{first.seed} ({key}: {other} instead of {one}); evaluate both with the same config."
            )


def _measured(section: Any) -> Any:
    """Without the words for a measure that its name and settings say already: other words, the same measure."""
    if not isinstance(section, dict):
        return section
    return {name: _without_words(about) for name, about in section.items()}


def _without_words(about: Any) -> Any:
    if not isinstance(about, dict) or "settings" not in about:
        return about
    return {field: value for field, value in about.items() if field not in ("title", "description")}


def _single_run(directory: Path) -> Study:
    if not (directory / "evaluation").is_dir():
        raise ValueError(
            f"{directory} holds neither study.json nor evaluation/; run --mode=study, or --mode=evaluate, first."
        )
    config = _read_if_there(directory / "config.json", records.read_json) or {}
    name = config.get("objective", {}).get("name")
    label = str(name if name and not config.get("phases") else directory.resolve().name)
    run = _read_run(directory, {"label": label, "seed": config.get("seed", 0), "description": ""})
    return Study(
        title=f"{config.get('title') or label}: one run",
        description=str(config.get("description") or ""),
        reference=None,
        command=run.summary.get("command", ""),
        seconds=run.summary.get("seconds"),
        runs=(run,),
    )


def _read_run(directory: Path, entry: Mapping[str, Any]) -> Run:
    evaluation = directory / "evaluation"
    summary = _read(evaluation / "summary.json", records.read_json)
    for key in _SUMMARY_KEYS:
        _field(evaluation / "summary.json", summary, key)
    config = _read_if_there(directory / "config.json", records.read_json) or {}
    scores, conditions = _read_rows(evaluation, summary)
    return Run(
        label=str(entry["label"]),
        seed=int(entry["seed"]),
        description=str(entry.get("description", "")),
        folder=evaluation,
        config=config,
        phases=history.read(directory, config),
        summary=summary,
        scores=scores,
        conditions=conditions,
        curves=_read_curves(evaluation / "curves.npz"),
        pictures=_read_arrays(evaluation / "pictures.npz", ("ids", "label", "prediction", "confidence", "image")),
        randomised=_read_arrays(evaluation / "randomisation.npz", ("ids",)),
    )


def _read_rows(evaluation: Path, summary: Mapping[str, Any]) -> tuple[Scores, Conditions]:
    path = evaluation / "examples.csv"
    examples = _read(path, records.read_csv)
    outcomes = ["correct", *(f"robust:{attack}" for attack in summary["attacks"])]
    _need_columns(path, examples, ["id", "label", *outcomes])
    order = np.argsort(examples["id"], kind="stable")
    ids = examples["id"][order]
    if len(np.unique(ids)) != len(ids):
        raise ValueError(f"{path} is damaged: an example id occurs twice.")
    groups = _groups(ids, examples["group"][order]) if "group" in examples else ids
    columns = [("accuracy", outcome) for outcome in outcomes]
    values = [_numbers(path, examples, outcome)[order] for outcome in outcomes]
    if "confidence" in examples:
        columns.append(CONFIDENCE)
        values.append(_numbers(path, examples, "confidence")[order])
    masks = {name: _numbers(path, examples, name)[order] for name in examples if name.startswith("mask:")}
    predictions = examples["prediction"][order] if "prediction" in examples else None
    flaws = {}
    path, metrics = evaluation / "maps.csv", list(summary["metrics"])
    maps = _read(path, records.read_csv)
    _need_columns(path, maps, ["id", "method", *metrics])
    if "flaw" in maps and maps["flaw"].dtype.kind == "f":  # another program wrote a column of nothing
        maps["flaw"] = np.full(len(maps["flaw"]), "")
    for method in summary["methods"]:
        rows = np.flatnonzero(maps["method"].astype(str) == method)
        places = np.searchsorted(ids, maps["id"][rows]).clip(max=len(ids) - 1)
        if not np.array_equal(ids[places], maps["id"][rows]):
            raise ValueError(f"{path} is damaged: it holds an example id that examples.csv lacks.")
        if "flaw" in maps:
            flaws[method] = np.full(len(ids), "", maps["flaw"].dtype)
            flaws[method][places] = maps["flaw"][rows]
        for metric in metrics:
            column = np.full(len(ids), np.nan)
            column[places] = _numbers(path, maps, metric)[rows]
            columns.append((method, metric))
            values.append(column)
    scores = Scores(ids, groups, examples["label"][order], tuple(columns), np.stack(values, axis=1))
    return scores, Conditions(predictions, {name.removeprefix("mask:"): of for name, of in masks.items()}, flaws)


def _groups(ids: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The group of each example; an example without one is a group of its own."""
    if groups.dtype.kind in "iu":
        return groups
    return np.array(
        [
            f"group {name}" if name not in ("", "nan") else f"example {i}"
            for i, name in zip(ids, groups.astype(str), strict=True)
        ]
    )


def _numbers(path: Path, table: Mapping[str, np.ndarray], column: str) -> np.ndarray:
    if table[column].dtype.kind not in "fiub":
        raise ValueError(f"{path} is damaged: column {column!r} holds text where numbers are expected.")
    values = table[column].astype(float)
    return np.where(np.isfinite(values), values, np.nan)


def _read(path: Path, reader: Callable[[Path], Any]) -> Any:
    if not path.is_file():
        raise ValueError(f"{path} is missing; run --mode=evaluate on {path.parent.parent} first.")
    return reader(path)


def _read_if_there(path: Path, reader: Callable[[Path], Any]) -> Any:
    return reader(path) if records.is_there(path) else None


def _read_curves(path: Path) -> dict[str, np.ndarray] | None:
    """'method/metric' ``[N, points]`` and, for each of these metrics, 'fractions/metric' ``[points]``."""
    arrays = _read_arrays(path, ("ids",))
    if arrays:
        lacking = [name for name in arrays if "/" in name and f"fractions/{name.split('/', 1)[1]}" not in arrays]
        lacking = [name for name in lacking if not name.startswith("fractions/")]
        if lacking:
            raise ValueError(
                f"{path} was written by another version of the program: it does not say where the points of "
                f"{lacking[0]!r} are; run --mode=evaluate on {path.parent.parent} again."
            )
    return arrays


def _read_arrays(path: Path, needed: tuple[str, ...]) -> dict[str, np.ndarray] | None:
    """The arrays; None where there are none, because the evaluation measured no curve or kept no picture."""
    arrays = _read_if_there(path, records.read_npz)
    if not arrays or not set(arrays) - {"ids"}:
        return None
    _need_columns(path, arrays, list(needed))
    return arrays


def _field(path: Path, record: Mapping[str, Any], key: str) -> Any:
    if not isinstance(record, dict) or key not in record:
        raise ValueError(f"{path} is damaged: it has no {key!r}.")
    return record[key]


def _need_columns(path: Path, table: Mapping[str, np.ndarray], columns: list[str]) -> None:
    lacking = [column for column in columns if column not in table]
    if lacking:
        raise ValueError(f"{path} is damaged: it has no {lacking[0]!r}.")
