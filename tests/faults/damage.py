"""A finished run, what can happen to one of its files, and what each mode then makes of it."""

import collections
import functools
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import PIL.Image
from ml_collections import ConfigDict

import launch
from robust_saliency import checkpoint, config, environment, explain, records, report, workdirs
from tests import tiny

PLAIN = tiny.plain(
    train={"epochs": 3, "keep_last": 1, "best_metric": "accuracy"},
    evaluation={
        "attacks": {"linf": {"num_steps": 2}, "l2": {"name": "square", "num_steps": 2}},
        "maps": {"integrated_gradients": None, "smoothgrad": None},
    },
)
MODES = ("train", "evaluate", "report", "explain")
KINDS = ("truncate", "empty", "flip", "remove")
_TIMES = re.compile(r"[\d.]+ (s|min|h)\b")


def run(mode: str, workdir: Path) -> None:
    """What ``launch.py`` does in ``mode``: training with the command's config, all else with that of the workdir."""
    if mode == "report":
        with workdirs.Workdir(workdir, create=False):
            report.report(workdir)
        return
    plain = PLAIN if mode == "train" else _remembered(workdir)
    if mode == "explain":
        explain.explain(config.parse(plain), str(workdir), str(workdir.parent / "images"))
    else:
        launch._run(mode, plain, str(workdir))


def _remembered(workdir: Path) -> dict:
    path = workdir / "config.json"
    if not path.exists():
        raise launch.UserError(launch._no_config(str(workdir)))
    return config.to_plain(ConfigDict(launch._as_given(launch._remembered(str(path)))))


def finished_run(folder: Path) -> Path:
    """Trained, evaluated, reported, and two images explained; the best step is not the last."""
    (folder / "images").mkdir()
    for name, value in (("dark.png", 40), ("bright.png", 200)):
        PIL.Image.fromarray(np.full((32, 32, 3), value, np.uint8)).save(folder / "images" / name)
    workdir = folder / "run"
    for mode in MODES:
        run(mode, workdir)
    steps = checkpoint.steps(workdir / "checkpoints")
    assert (steps[-1], checkpoint.best_step(workdir / "checkpoints")) == (12, steps[0]), steps
    return workdir


def names(workdir: Path) -> dict[str, Path]:
    """Every file by a name that is the same in every run: Orbax names its data files at random."""
    found: dict[str, Path] = {}
    files = [path for path in workdir.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: (str(path.parent), path.stat().st_size, path.name)):
        relative = path.relative_to(workdir)
        if re.fullmatch("[0-9a-f]{32}", path.name):
            number = sum(str(Path(name).parent) == str(relative.parent) for name in found)
            relative = relative.parent / f"data{number}"
        found[relative.as_posix()] = relative.parent / path.name
    return found


def damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    if kind == "remove":
        path.unlink()
    elif kind == "flip":
        bit = random.Random(len(content)).randrange(8 * len(content))
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
    else:
        path.write_bytes(content[: len(content) // 2] if kind == "truncate" else b"")


def numbers(mode: str, workdir: Path) -> dict:
    """What ``mode`` ends with, but for times."""
    if mode == "report":
        return {"page": _TIMES.sub("", (workdir / "report.html").read_text())}
    if mode != "train":
        folder = workdir / {"evaluate": "evaluation", "explain": "explanations"}[mode]
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".csv", ".npz")}
    log = records.MetricsLog(workdir).read()
    weights = jax.tree.leaves(checkpoint.load_variables(workdir / "checkpoints", step="last")[0])
    return {
        "rows": json.dumps([{**row, "images_per_second": None} for row in log]),
        "weights": [leaf.tobytes() for leaf in weights],
        "facts": records.read_json(workdir / "training.json")["steps"],
        "config": records.read_json(workdir / "config.json"),
    }


def files(workdir: Path) -> dict[str, bytes]:
    """All but the lock, in which every command writes who holds it."""
    found = {path.relative_to(workdir).as_posix(): path for path in workdir.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != records.LOCK}


class Command(NamedTuple):
    """What is done in a workdir, and what it ends with."""

    run: Callable[[Path], object]
    numbers: Callable[[Path], dict]


def command(mode: str) -> Command:
    return Command(functools.partial(run, mode), functools.partial(numbers, mode))


def outcome(done: Command, kind: str, whole: Path, relative: Path, place: Path, expected: dict) -> tuple[str, str]:
    """('recovers' or 'refuses', what is said), or what went wrong and how, after damage to a copy of ``whole``."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place)
    damage(place / relative, kind)
    before = files(place)
    try:
        done.run(place)
    except Exception as error:
        # The library cuts long paths off, so that the folder above stands there too.
        said = f"{error}".replace(str(place), "RUN").replace(str(place.parent), "DIR")
        if not launch._is_message(error):
            return "TRACEBACK", f"{type(error).__name__}: {said}"
        if files(place) != before:
            return "FILES CHANGED", said
        return ("refuses" if _names(said, relative) else "FILE NOT NAMED"), said
    try:
        now = done.numbers(place)
    except ValueError as error:
        return "UNREADABLE AFTER", str(error)
    wrong = [name for name in {**expected, **now} if now.get(name) != expected.get(name)]
    return ("OTHER NUMBERS", ", ".join(wrong)) if wrong else ("recovers", "")


def _names(said: str, relative: Path) -> bool:
    """Of a checkpoint its directory and step; of a file that the manifest accuses wrongly the manifest."""
    if "checkpoints" in relative.parts:
        at = relative.parts.index("checkpoints") + 1
        folder, step = Path(*relative.parts[:at]), relative.parts[at]
        return f"RUN/{folder}" in said and re.search(rf"\b{step}\b", said) is not None
    if relative.name == "manifest.json":
        return relative.name in said and f"RUN/{relative.parent.as_posix()}".removesuffix("/.") in said
    return relative.as_posix() in said


def conclude(found: dict[tuple[str, str, str], tuple[str, str]], log: str | None) -> None:
    """Writes ``log``, JSON, of the outcomes by (file, kind of damage, mode); AssertionError where one is a mistake."""
    if log:
        Path(log).write_text(json.dumps(_summary(found), indent=1) + "\n")
    assert {case: outcome for case, outcome in found.items() if outcome[0] not in ("recovers", "refuses")} == {}


def _summary(found: dict) -> dict:
    counts = collections.Counter(f"{mode}: {outcome}" for (_, _, mode), (outcome, _) in found.items())
    refused: dict = {}
    for (name, kind, mode), (outcome, said) in found.items():
        if outcome != "recovers":
            refused.setdefault(name, {}).setdefault(f"{mode}, {kind}", f"{outcome}: {said}")
    files = len({name for name, _, _ in found})
    made = {"versions": environment.versions(), "hardware": environment.hardware()}
    return made | {
        "files": files,
        "cases": len(found),
        "outcomes": dict(sorted(counts.items())),
        "not recovered": refused,
    }
