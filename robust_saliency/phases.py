"""Training in phases: each begins with weights of the one before, the best or the last, and a fresh optimiser.

A phase is a run: it differs from the rest of the config in its overrides. All but the last lie in the workdir below
``phases/``; the last is the run itself. So each is killed, resumed and read like any run.
"""

import posixpath
import zlib
from collections.abc import Mapping

from robust_saliency import checks, workdirs
from robust_saliency.config_fields import known_field, merge

SECTIONS = ("objective", "optimizer", "schedules", "train")


def unfolded(plain: Mapping) -> list[tuple[str, dict]]:
    """``(folder, config)`` of every phase in order, '' for the last; of a config without phases that config alone.

    Raises ValueError for a phase without a label of its own, one that changes what a phase cannot, and one of no epoch
    that another begins with.
    """
    listed = plain.get("phases") or ()
    rest = {name: value for name, value in plain.items() if name != "phases"}
    if not listed:
        return [("", rest)]
    _check(listed)
    folders = workdirs.phase_folders([phase["label"] for phase in listed])
    begun = rest.get("init_from") or {}
    if not isinstance(begun, Mapping):
        raise ValueError(f"config.init_from must be a section, got {begun!r}.")
    configs = []
    for number, (phase, folder) in enumerate(zip(listed, folders, strict=True)):
        config = merge(rest, phase.get("overrides") or {}, _where(number, "overrides"))
        if folder and (config.get("train") or {}).get("epochs") == 0:
            raise ValueError(f"{place(plain, number)}: config.train.epochs is 0, so the phase after it has no start.")
        before = folders[number - 1] if number else ""
        config["init_from"] = _start(begun, before, folder, phase.get("init_step", "best"))
        config["seed"] = _seed(rest.get("seed", 0), number)
        configs.append((folder, config))
    return configs


def place(plain: Mapping, number: int) -> str:
    """The phase that an error is of; '' of a config without phases."""
    listed = plain.get("phases") or ()
    return f"{_where(number)} ({listed[number]['label']!r})" if listed else ""


def _seed(seed: int, number: int) -> int:
    """Another for each phase: with one seed each would see the batches of the first in the same order."""
    return zlib.crc32(f"{seed} {number}".encode()) >> 1 if number else seed


def _start(init_from: Mapping, before: str, folder: str, step: str) -> dict:
    """Where a phase in ``folder`` begins: at ``step`` of the phase ``before``, the first as the config says.

    Relative to the phase's own folder, so that the whole run can be moved.
    """
    if before:
        workdir = f"../{posixpath.basename(before)}" if folder else before
        return {"workdir": workdir, "step": step, "include": ".*", "exclude": ""}
    workdir = init_from.get("workdir", "")
    is_relative = workdir and folder and not posixpath.isabs(workdir)
    return {**init_from, "workdir": f"../../{workdir}" if is_relative else workdir}


def _check(listed) -> None:
    for number, phase in enumerate(listed):
        where = _where(number)
        if not isinstance(phase, Mapping) or not phase.get("label"):
            raise ValueError(f"{where} must be a section with a label and overrides, got {phase!r}.")
        for name in phase:
            known_field(where, name, ("label", "overrides", "init_step"))
        label = phase["label"]
        if not isinstance(label, str) or label.startswith(".") or set(label) & set("/\\"):
            raise ValueError(f"{where}.label: a label must not start with a dot or hold a slash, got {label!r}.")
        step = checks.one_of(_where(number, "init_step"), phase.get("init_step", "best"), ("best", "last"))
        if number == 0 and step != "best":
            raise ValueError(f"{where}.init_step is {step!r}, but the first phase begins as config.init_from says.")
        overrides = phase.get("overrides") or {}
        if not isinstance(overrides, Mapping):
            raise ValueError(f"{_where(number, 'overrides')} must be a section, got {overrides!r}.")
        for name in overrides:
            checks.one_of(f"section of {_where(number, 'overrides')}", name, SECTIONS)
    labels = [phase["label"] for phase in listed]
    if len(set(labels)) != len(labels):
        raise ValueError(f"config.phases: every phase needs a label of its own, got {', '.join(labels)}.")


def _where(number: int, field: str = "") -> str:
    return f"config.phases[{number}]" + (f".{field}" if field else "")
