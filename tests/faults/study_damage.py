"""A finished study, one of its runs in phases, with its robustness, neurons and ROAR; and what each mode ends with."""

import functools
import json
import re
from pathlib import Path

import jax

import launch
from robust_saliency import checkpoint, records
from tests import tiny
from tests.faults import damage

PHASES = [{"label": "head", "overrides": {"train": {"trainable": ["^params/logits"]}}}, {"label": "whole"}]
PLAIN = tiny.plain(
    title="A study that is damaged",
    data={"image_size": 16},
    train={"epochs": 1},
    evaluation={"attacks": {"linf": {"num_steps": 2}}},
    robustness={
        "version": "fast",
        "steps": 2,
        "num_queries": 5,
        "num_targets": 1,
        "curve_steps": 1,
        "num_searches": 2,
        "num_examples": 10,
        "batch_size": 8,
        "epsilon": 0.05,
    },
    roar={"fractions": [0.5], "retrainings": 1, "methods": ["integrated_gradients"], "epochs": 1},
    study={
        "runs": [{"label": "plain"}, {"label": "phased", "overrides": {"phases": PHASES}}],
        "seeds": 1,
        "reference": "plain",
    },
)
MODES = ("study", "robustness", "neurons", "roar")
# What differs between two runs of the same command.
_TIMES = ("seconds", "transfer_seconds", "command")


def finished(folder: Path) -> Path:
    workdir = folder / "study"
    for mode in MODES:
        run(mode, workdir)
    return workdir


def run(mode: str, workdir: Path) -> None:
    launch._run(mode, PLAIN, str(workdir))


def command(mode: str) -> damage.Command:
    return damage.Command(functools.partial(run, mode), functools.partial(numbers, mode))


def numbers(mode: str, workdir: Path) -> dict:
    """What ``mode`` ends with, but for times: tables, arrays, what is said of them; of the study the weights too."""
    if mode == "study":
        folders = [run.parent for run in workdir.glob("*/*/checkpoints")]
        weights = {f"weights of {folder.name}": _weights(folder) for folder in folders}
        return weights | _files(workdir, "*/*/evaluation/*")
    return _files(workdir, f"{mode}/*") | _files(workdir, f"*/*/{mode}/*")


def _weights(run: Path) -> list[bytes]:
    return [leaf.tobytes() for leaf in jax.tree.leaves(checkpoint.load_variables(run / "checkpoints", step="last")[0])]


def _files(workdir: Path, pattern: str) -> dict:
    found = {path.relative_to(workdir).as_posix(): path for path in workdir.glob(pattern) if path.is_file()}
    return {name: _read(path) for name, path in found.items() if path.name != "summary.json"}


def _read(path: Path) -> object:
    if path.suffix == ".npz":
        return {name: array.tobytes() for name, array in records.read_npz(path).items() if name not in _TIMES}
    if path.suffix == ".json":
        return json.dumps({name: value for name, value in records.read_json(path).items() if name not in _TIMES})
    if path.suffix == ".html":
        return re.sub(r"[\d.,]+ (s|min|h)\b", "", path.read_text())
    return path.read_bytes()


def owners(relative: Path) -> tuple[str, ...]:
    """The modes that the file at ``relative`` concerns: that which wrote it; of a run's own files all.

    The checkpoints of a run are damaged in :mod:`test_damage`, here those of a phase.
    """
    if "checkpoints" in relative.parts and "phases" not in relative.parts:
        return ()
    whose = [mode for mode in MODES[1:] if mode in relative.parts[:3]]
    return tuple(whose) or MODES
