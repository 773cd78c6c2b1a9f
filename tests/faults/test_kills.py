"""kill -9 at any moment of a study (training, saving, evaluating, reporting): the same command ends it as if nothing
had happened, number by number."""

import contextlib
import json
import os
import pathlib
import time

import numpy as np
import pytest

from robust_saliency import environment, records
from tests import tiny

CONFIG = "--config=tests/faults/small_study.py"
RUNS = ("seed0/standard", "seed0/linf")
OFTEN = 30


def started(workdir):
    return tiny.launch(CONFIG, f"--workdir={workdir}")


def finished(command):
    _, err = command.communicate(timeout=600)
    assert command.returncode == 0, err
    return err


def ending(workdir) -> dict:
    """All numbers that a study ends with, but for times."""
    found = {}
    for run in RUNS:
        folder = workdir / run
        for table in ("examples", "maps"):
            found[f"{run}/{table}"] = (folder / "evaluation" / f"{table}.csv").read_bytes()
        rows = records.MetricsLog(folder).read()
        found[f"{run}/training"] = [{**row, "images_per_second": None} for row in rows]
        for arrays in ("curves", "pictures", "randomisation"):
            held = records.read_npz(folder / "evaluation" / f"{arrays}.npz")
            found |= {f"{run}/{arrays}/{name}": held[name].tobytes() for name in held}
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The numbers, and how long it took."""
    first, second = (tmp_path_factory.mktemp(name) for name in ("first", "second"))
    finished(started(first))  # compiles
    began = time.monotonic()
    finished(started(second))
    seconds = time.monotonic() - began
    assert ending(first) == ending(second)
    _log({"versions": environment.versions(), "hardware": environment.hardware(), "undisturbed": round(seconds, 2)})
    return ending(second), seconds


def killed_and_finished(workdir, undisturbed, number):
    """How many of the kills met a living command. $KILLS_LOG: a file that gets a line of JSON."""
    expected, seconds = undisturbed
    rng = np.random.default_rng(number)
    moments = np.sort(rng.uniform(0.02, 0.98, size=rng.integers(1, 4))) * seconds
    kills = []
    for moment in moments:
        command = started(workdir)
        time.sleep(moment)
        if command.poll() is None:
            kills.append({"after": round(float(moment), 2), "newest file": _newest(workdir)})
        command.kill()
        _, err = command.communicate()
        if kills and "said" not in kills[-1]:
            kills[-1]["said"] = err.splitlines()[-1:]
    last = finished(started(workdir))
    assert ending(workdir) == expected
    restarted = [line for line in last.splitlines() if "going on from" in line or "Warning" in line]
    _log({"number": number, "kills": kills, "restart said": restarted})
    return len(kills)


def _log(line: dict) -> None:
    if log := os.environ.get("KILLS_LOG"):
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _newest(workdir) -> str:
    """The file that was written last: it tells what the study was at."""
    written = {}
    for folder, _, names in os.walk(workdir):  # it passes over a folder that is removed while it looks, rglob does not
        for path in (pathlib.Path(folder, name) for name in names):
            with contextlib.suppress(FileNotFoundError):  # renamed or removed since
                written[path.relative_to(workdir).as_posix()] = path.stat().st_mtime_ns
    return max(written, key=written.get, default="none")


@pytest.mark.parametrize("number", range(3))
def test_killed_at_random_moments_it_ends_with_the_same_numbers(tmp_path, undisturbed, number):
    assert killed_and_finished(tmp_path, undisturbed, number)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3, 3 + OFTEN))
def test_killed_often(tmp_path, undisturbed, number):
    killed_and_finished(tmp_path, undisturbed, number)
