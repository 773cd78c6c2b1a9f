"""What training wrote down: the rows of its metrics and what it took, phase after phase."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robust_saliency import records, workdirs


@dataclass(frozen=True)
class Phase:
    """One phase of a run, the only one where it has none: ``label`` is then ''.

    rows: of its metrics.jsonl, with ``epoch`` and ``step`` counted from the beginning of the run.
    training: its training.json; ``{}`` where there is none.
    """

    label: str
    rows: list[dict[str, Any]]
    training: dict[str, Any]


def read(workdir: Path, config: Mapping[str, Any]) -> tuple[Phase, ...]:
    """The phases of the run in ``workdir``, in order."""
    found, step, epoch = [], 0, 0.0
    labels = [phase["label"] for phase in config.get("phases") or ()] or [""]
    for label, folder in zip(labels, workdirs.phase_folders(labels), strict=True):
        rows = records.MetricsLog(workdir / folder).read()
        rows = [_later(row, step, epoch) for row in rows]
        step = max((row["step"] for row in rows), default=step)
        epoch = max((row["epoch"] for row in rows if "epoch" in row), default=epoch)
        facts = workdir / folder / "training.json"
        found.append(Phase(label, rows, records.read_json(facts) if records.is_there(facts) else {}))
    return tuple(found)


def curve(phase: Phase, split: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """``(epochs, values)`` of a metric: a mean where several rows are of one epoch."""
    rows = [row for row in phase.rows if row.get("split", "train") == split and is_finite(row, name)]
    at = np.array([row.get("epoch", row["step"]) for row in rows], float)
    x = np.unique(at)
    y = np.array([row[name] for row in rows], float)
    return x, np.array([y[at == place].mean() for place in x])


def is_finite(row: Mapping[str, Any], name: str) -> bool:
    return isinstance(row.get(name), int | float) and bool(np.isfinite(row[name]))


def _later(row: Mapping[str, Any], step: int, epoch: float) -> dict[str, Any]:
    moved = {"step": row["step"] + step} | ({"epoch": row["epoch"] + epoch} if "epoch" in row else {})
    return {**row, **moved}
