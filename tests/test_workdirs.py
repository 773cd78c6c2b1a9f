"""Workdirs: one process at a time, one config for good."""

import json
import math
import re
import signal
import subprocess
import sys

import pytest

from robust_saliency import config, initialise, records, workdirs
from tests import tiny

_LOCKER = """
import sys, time
from robust_saliency import records, workdirs
with workdirs.Workdir(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def workdir(tmp_path):
    """A locked workdir that holds a checkpoint."""
    with workdirs.Workdir(tmp_path / "run") as path:
        (path / "checkpoints" / "4").mkdir(parents=True)
        yield path


def test_the_lock_refuses_another_process_and_dies_with_its_holder(tmp_path):
    with subprocess.Popen([sys.executable, "-c", _LOCKER, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "locked\n"
            with pytest.raises(ValueError, match=rf"in use by process {holder.pid} on .*another workdir\.$"):
                workdirs.Workdir(tmp_path).__enter__()
        finally:
            holder.send_signal(signal.SIGKILL)
    with workdirs.Workdir(tmp_path) as path:
        assert path == tmp_path


def test_the_lock_refuses_the_same_process_and_is_given_back(tmp_path):
    with workdirs.Workdir(tmp_path), pytest.raises(ValueError, match="in use by process"):
        workdirs.Workdir(tmp_path).__enter__()
    with workdirs.Workdir(tmp_path):
        pass


def test_workdirs_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"Workdir .*file/run cannot be written: Not a directory\.$"):
        workdirs.Workdir(tmp_path / "file" / "run").__enter__()
    with pytest.raises(ValueError, match=r"Workdir .*run does not exist\.$"):
        workdirs.Workdir(tmp_path / "run", create=False).__enter__()
    assert not (tmp_path / "run").exists()
    with workdirs.Workdir(tmp_path / "new" / "run") as path:
        assert path.is_dir()


def test_claim_writes_once_and_accepts_the_same(workdir):
    config = {"seed": 0, "train": {"epochs": 2}, "schedule": (1, 2), "limit": math.inf}
    workdirs.claim(workdir, config)
    assert "config.json" in json.loads((workdir / "manifest.json").read_text())
    written = (workdir / "config.json").read_bytes()
    workdirs.claim(workdir, config)
    assert (workdir / "config.json").read_bytes() == written


def test_claim_shows_the_difference_and_keeps_the_file(workdir):
    workdirs.claim(workdir, {"seed": 0, "train": {"epochs": 2, "lr": 0.1}, "name": "a", "title": "x"})
    written = (workdir / "config.json").read_bytes()
    with pytest.raises(ValueError) as error:
        workdirs.claim(workdir, {"seed": 0, "train": {"epochs": 3}, "name": "b", "title": "y", "new": {}}, ["title"])
    first, *lines = str(error.value).splitlines()
    assert "holds a run of another config" in first
    assert lines == [
        '  name: "a" -> "b"',
        "  new: (absent) -> {}",
        "  train.epochs: 2 -> 3",
        "  train.lr: 0.1 -> (absent)",
    ]
    assert (workdir / "config.json").read_bytes() == written


def test_claim_ignores_a_section_but_not_its_namesake(workdir):
    workdirs.claim(workdir, {"study": {"seeds": 1}, "study_name": "a"})
    workdirs.claim(workdir, {"study": {"seeds": 3}, "study_name": "a"}, ["study"])
    with pytest.raises(ValueError, match="study_name"):
        workdirs.claim(workdir, {"study": {"seeds": 3}, "study_name": "b"}, ["study"])


def test_claim_shows_at_most_twenty_differences(workdir):
    workdirs.claim(workdir, {f"key{i:02}": 0 for i in range(25)})
    with pytest.raises(ValueError) as error:
        workdirs.claim(workdir, {f"key{i:02}": 1 for i in range(25)})
    assert len(str(error.value).splitlines()) == 1 + 20 + 1
    assert str(error.value).endswith("... and 5 more")


@pytest.mark.parametrize("result", ["checkpoints/4", "seed0/linf/checkpoints/4", "evaluation", "study.json"])
def test_a_workdir_without_results_takes_another_config_and_one_with_any_keeps_its_own(tmp_path, result):
    with workdirs.Workdir(tmp_path / "run") as workdir:
        workdirs.claim(workdir, {"data": "unreadable"})
        workdirs.claim(workdir, {"data": "readable"})
        (workdir / result).mkdir(parents=True)
        with pytest.raises(ValueError, match='data: "readable" -> "unreadable"'):
            workdirs.claim(workdir, {"data": "unreadable"})
        assert json.loads((workdir / "config.json").read_text()) == {"data": "readable"}


def test_a_study_is_not_taken_for_a_run_and_its_runs_are_named(tmp_path):
    workdirs.refuse_study(tmp_path)
    records.write_json(tmp_path / "study.json", {"runs": [{"dir": "seed0/linf"}, {"dir": "seed0/l2"}]})
    with pytest.raises(ValueError, match=r"holds a study; give one of its runs: .*seed0/linf, .*seed0/l2\.$"):
        workdirs.refuse_study(tmp_path)


def test_a_study_is_known_before_its_first_run_is_finished(tmp_path):
    assert not workdirs.holds_study(tmp_path)
    records.write_json(tmp_path / "config.json", {"seed": 0})
    assert not workdirs.holds_study(tmp_path)
    records.write_json(tmp_path / "config.json", {"seed": 0, "study": {"runs": [{"label": "standard"}]}})
    assert workdirs.holds_study(tmp_path)
    (tmp_path / "config.json").unlink()
    records.write_json(tmp_path / "study.json", {"runs": []})
    assert workdirs.holds_study(tmp_path)


def test_weights_of_a_study_folder_are_answered_with_its_runs(tmp_path):
    records.write_json(tmp_path / "study.json", {"runs": [{"dir": "seed0/linf"}, {"dir": "seed0/l2"}]})
    message = f"Workdir {tmp_path} holds a study; give one of its runs: {tmp_path}/seed0/linf, {tmp_path}/seed0/l2."
    for read in (
        lambda: initialise.load(str(tmp_path)),
        lambda: initialise.from_run({}, config.InitFrom(workdir=str(tmp_path)), str(tmp_path / "other")),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            read()


def test_a_run_of_phases_is_named_by_the_seed_of_its_config(tmp_path):
    """Not by that of its last phase, which is made of it."""
    phases = [{"label": "first", "overrides": {"train": {"epochs": 1}}}, {"label": "second"}]
    experiment = config.parse(tiny.plain(seed=3, phases=phases))
    assert experiment.seed != 3
    assert workdirs.run_name(tmp_path / "linf", experiment.plain) == "linf, seed 3"
