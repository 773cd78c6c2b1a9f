"""A study: runs, seeds, siblings, one report; what is finished is not done again."""

import copy
import pathlib

import pytest

from configs import common
from robust_saliency import config, records, study
from tests import tiny


def plain(seeds=1):
    runs = [
        config.to_plain(common.run("standard", "clean", train={"epochs": 1})),
        config.to_plain(common.adversarial_run("linf", "attacked", epochs=1, norm="linf", epsilon=4 / 255)),
    ]
    maps = {"integrated_gradients": None, "smoothgrad": None}
    return tiny.plain(study={"runs": runs, "seeds": seeds}, title="A tiny study", evaluation={"maps": maps})


def test_two_runs_and_a_second_seed(tmp_path):
    page = study.study(plain(), str(tmp_path))
    text = pathlib.Path(page).read_text(encoding="utf-8")
    assert "A tiny study" in text
    described = records.read_json(tmp_path / "study.json")
    assert [(run["label"], run["seed"]) for run in described["runs"]] == [("standard", 0), ("linf", 0)]
    summary = tmp_path / "seed0" / "standard" / "evaluation" / "summary.json"
    written = summary.stat().st_mtime_ns
    study.study(plain(seeds=2), str(tmp_path))
    assert summary.stat().st_mtime_ns == written
    described = records.read_json(tmp_path / "study.json")
    assert [run["dir"] for run in described["runs"]] == [
        "seed0/standard",
        "seed0/linf",
        "seed1/standard",
        "seed1/linf",
    ]
    assert (tmp_path / "seed1" / "linf" / "evaluation" / "summary.json").exists()
    study.study(plain(seeds=1), str(tmp_path))
    assert len(records.read_json(tmp_path / "study.json")["runs"]) == 4, "fewer seeds must not forget finished runs"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "standrad"}, r"config.study.reference is 'standrad'; the runs are standard, linf"),
        ({"runs": ["standard"]}, r"config.study.runs: a run must be a section with a label and overrides, got 'standa"),
        ({"seeds": 0}, r"config.study.seeds must be at least 1, got 0"),
    ],
)
def test_a_bad_study_is_answered_before_any_work(tmp_path, change, message):
    bad = copy.deepcopy(plain())
    bad["study"].update(change)
    with pytest.raises(ValueError, match=message):
        study.study(bad, str(tmp_path / "study"))
    assert not (tmp_path / "study" / "seed0").exists()


def test_a_run_that_overrides_what_is_not_there_is_named(tmp_path):
    bad = copy.deepcopy(plain())
    bad["study"]["runs"][1]["overrides"]["train"] = {"epoch": 3}
    with pytest.raises(ValueError, match=r"runs\[linf\].overrides.train: Unknown field 'epoch'.*'epochs'"):
        study.study(bad, str(tmp_path / "study"))
