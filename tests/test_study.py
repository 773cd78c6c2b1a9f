"""A study: runs, seeds, siblings, one report; what is finished is not done again."""

import copy
import pathlib

import pytest

import launch
from configs import common
from robust_saliency import config, records, study, study_claims, train
from tests import tiny


def plain(seeds=1):
    runs = [
        config.to_plain(common.run("standard", "clean", train={"epochs": 1})),
        config.to_plain(common.adversarial_run("linf", "attacked", epochs=1, norm="linf", epsilon=4 / 255)),
    ]
    maps = {"integrated_gradients": None, "smoothgrad": None}
    return tiny.plain(study={"runs": runs, "seeds": seeds}, title="A tiny study", evaluation={"maps": maps})


def _claims(**changes):
    expected = {"metric": "gini", "run": "linf", "map": "gradient", "than_run": "standard", **changes}
    return {"claims": [{"label": "sparser", "sentence": "Its maps are sparser.", "expected": [expected]}]}


def _correlated(**changes):
    names = {"metric": "gini", "runs": ("standard", "linf", "l2"), "numbers": (0, 4, 2), "along": "epsilon"}
    along = {**names, "map": "gradient", **changes}
    return {"claims": [{"label": "rises", "sentence": "It rises.", "correlated": [along]}]}


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
        (_claims(run="linff"), r"Unknown run in config\.study\.claims \('sparser'\) 'linff'\. Did you mean 'linf'"),
        (
            _claims(metric="ginny"),
            r"Unknown metric in .*\('sparser'\) 'ginny'\. Did you mean 'gini'",
        ),
        (
            _claims(map=""),
            r"config\.study\.claims \('sparser'\): gini is of a map, so give map, one of gradient",
        ),
        (
            _claims(map="smoothgrad"),
            r"Unknown map in config\.study\.claims \('sparser'\) 'smoothgrad'.*Choices: average of",
        ),
        (_claims(direction="up"), r"config\.study\.claims\[0\]\.expected\[0\]: direction must be one of higher, lower"),
        (
            _claims(than_run=""),
            r"expected\[0\]: gini of linf is compared with itself: give than_run, than_map or than_m",
        ),
        (_claims(mtric="gini"), r"config\.study\.claims\[0\]\.expected\[0\]: Unknown field 'mtric'"),
        ({"claims": [*_claims()["claims"]] * 2}, r"every claim needs a label of its own, got twice: sparser\."),
        (
            _claims(
                metric="neurons:flipped_right:conv4",
                map="traced",
                than_run="",
                than_metric="neurons:flipped_wrong:conv4",
            ),
            r"flipped_right:conv4 and neurons:flipped_wrong:conv4 are not of the same units or images",
        ),
        ({"claims": 5}, r"config\.study\.claims must be a list of claims, got 5"),
        ({"modes": 5}, r"config\.study\.modes must be a list, got 5"),
        ({"claims": [{"label": "a"}]}, r"config\.study\.claims\[0\] needs sentence\."),
        ({"claims": [{"label": "a", "sentence": ""}]}, r"claims\[0\]: a claim needs a label, and at least one differ"),
        ({"claims": [{"label": "a", "sentence": "", "expected": [{"run": "linf"}]}]}, r"expected\[0\] needs metric\."),
        (_claims(metric="neurons:csl:conv4", map=""), r"Unknown column of neurons in .* 'csl'\. Did you mean 'cs"),
        (_claims(metric="neurons:cs1", map=""), r"'neurons:cs1' must be neurons:<column>:<layer>"),
        (_claims(metric="neurons:lost:conv4", map=""), r"Unknown map of neurons:lost:conv4 .* Choices: random, traced"),
        (
            _claims(metric="neurons:cs1:conv4", map="", than_metric="accuracy"),
            "neurons:cs1:conv4 and accuracy are not of the same units or images",
        ),
        (_claims(metric="roar", than_run="", than_map="floors"), r"Unknown map of roar in .* 'floors'"),
        ({"claims": [{"label": "a", "sentence": "", "expected": []}]}, r"claims\[0\]: a claim needs a label, and at"),
        (_correlated(runs=("linf", "linff", "standard")), r"Unknown run in config\.study\.claims \('rises'\) 'linff'"),
        (_correlated(metric="ginny"), r"Unknown metric in config\.study\.claims \('rises'\) 'ginny'\. Did you mean"),
        (_correlated(numbers=(1, 2)), r"correlated\[0\]: a correlation is of three different runs or more with a num"),
        (
            _correlated(runs=("linf", "linf", "standard")),
            r"three different runs or more .* for the runs linf, linf, st",
        ),
        (_correlated(numbers=(1, 1, 1)), r"correlated\[0\]: nothing goes along with numbers that are all 1\."),
        (_correlated(beyond=1), r"correlated\[0\]: beyond must lie in \[0, 1\), got 1\."),
        (_correlated(direction="up"), r"correlated\[0\]: direction must be one of higher, lower, got 'up'"),
        (_correlated(metric=None), r"correlated\[0\] needs metric\."),
        (_correlated(along=""), r"correlated\[0\]: along must say what the numbers are, such as 'epsilon', got ''\."),
        (_correlated(numbers=(1, 2, 3e9)), r"correlated\[0\]: numbers must lie within 1e9, got 3e\+09\."),
        (_correlated(numbers=(1, 2, 10**400)), r"numbers\[2\] must be finite, got a whole number of 401 digits\."),
        (_claims(metric=None), r"expected\[0\] needs metric\."),
        (_correlated(nubmers=(1, 2, 3)), r"correlated\[0\]: Unknown field 'nubmers'\. Did you mean 'numbers'"),
    ],
)
def test_a_bad_study_is_answered_before_any_work(tmp_path, change, message):
    bad = copy.deepcopy(plain())
    bad["study"].update(change)
    with pytest.raises(ValueError, match=message):
        study.study(bad, str(tmp_path / "study"))
    assert not (tmp_path / "study" / "seed0").exists()


@pytest.mark.parametrize(
    ("roar", "message"),
    [
        (
            {"runs": ["standard"]},
            r"^Unknown run of roar in config.study.claims \('sparser'\) 'linf'. Choices: standard\.$",
        ),
        (
            {"methods": ["other"]},
            r"^Unknown map of roar in .* 'gradient'\. Choices: .*other",
        ),
    ],
)
def test_a_claim_by_roar_of_what_is_not_retrained_is_refused(tmp_path, roar, message):
    bad = copy.deepcopy(plain())
    bad["study"] |= _claims(metric="roar")
    bad["roar"] |= roar
    bad["evaluation"]["maps"]["other"] = bad["evaluation"]["maps"]["gradient"]
    with pytest.raises(ValueError, match=message):
        study.study(bad, str(tmp_path / "study"))


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("roar", {"runs": ["lnif"]}, r"^Unknown run in config.roar.runs 'lnif'. Did you mean 'linf'"),
        ("neurons", {"ensemble": ["../lnif"]}, r"^Unknown run in config.neurons.ensemble 'lnif'. Did you mean 'linf'"),
    ],
)
def test_a_run_that_a_later_mode_cannot_find_is_named_at_once(section, change, message):
    bad = copy.deepcopy(plain())
    bad[section].update(change)
    with pytest.raises(ValueError, match=message):
        study.parse(bad)


def test_a_run_that_overrides_what_is_not_there_is_named(tmp_path):
    bad = copy.deepcopy(plain())
    bad["study"]["runs"][1]["overrides"]["train"] = {"epoch": 3}
    with pytest.raises(ValueError, match=r"runs\[linf\].overrides.train: Unknown field 'epoch'.*'epochs'"):
        study.study(bad, str(tmp_path / "study"))


def test_a_correlation_of_units_is_refused():
    """Those of one network are not those of another."""
    bad = plain()
    bad["study"]["runs"].append({"label": "l2", "description": "", "overrides": {}})
    bad["study"] |= _correlated(metric="neurons:iou:conv4", map="")
    with pytest.raises(ValueError, match="neurons:iou:conv4 is not of the same units or images in all networks"):
        study_claims.parse(bad)


def test_a_claim_is_judged_and_can_be_stated_anew(tmp_path):
    expected = common.expected("gini", "linf", map="gradient", than_run="standard")
    claim = common.claim("sparser", "Its maps are sparser.", expected)
    config_of = plain()
    config_of["study"]["claims"] = [config.to_plain(claim)]
    page = pathlib.Path(study.study(config_of, str(tmp_path)))
    assert "Its maps are sparser." in page.read_text()
    [found] = records.read_json(tmp_path / "report" / "claims.json")["claims"]
    assert (found["label"], found["verdict"], found["differences"][0]["than_run"]) == (
        "sparser",
        "one seed",
        "standard",
    )
    before = (tmp_path / "study.json").read_bytes()
    study.study(config_of, str(tmp_path))
    assert (tmp_path / "study.json").read_bytes() == before, "nothing was done"
    other = {**_claims(metric="entropy")["claims"][0], "label": "other"}
    config_of["study"]["claims"] = [config.to_plain(claim) | {"source": "ours"}, other]
    study.study(config_of, str(tmp_path))
    found = records.read_json(tmp_path / "report" / "claims.json")
    assert [each["source"] for each in found["claims"]] == ["ours", "paper"]
    assert found["changed_after"] == {"other": 2}, "whose a claim is changes nothing of what it says"
    config_of["study"]["claims"] = _claims(metric="entropy")["claims"]
    assert (
        "(sparser: since 2 networks were measured)" in pathlib.Path(study.study(config_of, str(tmp_path))).read_text()
    )
    assert records.read_json(tmp_path / "study.json")["claims_changed_after"] == {"sparser": 2, "other": 2}
    study.study(plain(), str(tmp_path))
    assert not (tmp_path / "report" / "claims.json").exists() and "sparser." not in page.read_text()


def test_a_run_that_others_begin_from_is_trained_and_not_compared(tmp_path):
    runs = [
        common.start("pretrained", "on fewer images", data={"num_train": 32}, train={"epochs": 1}),
        common.run("tuned", "clean", train={"epochs": 1}, init_from={"workdir": "../pretrained", "exclude": "logits"}),
        common.run("standard", "clean", train={"epochs": 1}),
    ]
    config_of = plain()
    config_of["study"]["runs"] = [config.to_plain(run) for run in runs]
    page = pathlib.Path(study.study(config_of, str(tmp_path)))
    place = tmp_path / "seed0" / "pretrained"
    assert (place / "training.json").exists() and not (place / "evaluation").exists()
    assert [run["label"] for run in records.read_json(tmp_path / "study.json")["runs"]] == ["tuned", "standard"]
    assert "pretrained" in page.read_text(), "in the settings of the run that began there"
    config_of["study"]["reference"] = "pretrained"
    with pytest.raises(ValueError, match=r"config.study.reference is 'pretrained'; the runs are tuned, standard"):
        study.parse(config_of)


def test_modes_that_follow_a_study_are_over_all_of_its_runs_and_claims_are_of_them_too(tmp_path):
    expected = common.expected("roar", "linf", map="gradient", than_run="standard")
    settings = plain(seeds=2)
    settings["study"] |= {"modes": ["roar"], "claims": [config.to_plain(common.claim("truer", "By ROAR.", expected))]}
    settings["roar"] |= {"fractions": [0.5], "retrainings": 1, "epochs": 1, "methods": ["gradient"]}
    page = pathlib.Path(launch._run("study", settings, str(tmp_path)))
    assert (tmp_path / "roar" / "roar.html").exists() and "By ROAR." in page.read_text()
    [found] = records.read_json(tmp_path / "report" / "claims.json")["claims"]
    [difference] = found["differences"]
    assert set(difference["by_seed"]) == {"0", "1"} and None not in difference["by_seed"].values()
    settings["study"]["modes"] = ["raor"]
    with pytest.raises(ValueError, match=r"Unknown mode in config\.study\.modes 'raor'\. Did you mean 'roar'"):
        study.parse(settings)


def test_a_run_that_diverges_does_not_keep_the_modes_from_the_others(tmp_path, monkeypatch):
    whole = train.train

    def diverging(experiment, workdir, loaded):
        if workdir.endswith("linf"):
            raise train.Diverged(f"{workdir}: the loss is NaN.")
        return whole(experiment, workdir, loaded)

    monkeypatch.setattr(train, "train", diverging)
    settings = plain()
    settings["study"] |= {"modes": ["roar"], **_claims()}
    settings["roar"] |= {"fractions": [0.5], "retrainings": 1, "epochs": 1, "methods": ["gradient"]}
    with pytest.raises(train.Diverged, match="the loss is NaN"):
        launch._run("study", settings, str(tmp_path))
    assert (tmp_path / "roar" / "roar.html").exists() and "Its maps are sparser." in (
        tmp_path / "report.html"
    ).read_text()
