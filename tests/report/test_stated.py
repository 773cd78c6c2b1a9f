"""Claims that a study states beforehand: what is measured of them, and when they hold."""

import html
import json
import math

import numpy as np
import pytest

from robust_saliency import records, report
from robust_saliency.report import load, stated, stated_plain, stated_table, terms
from tests.report import fabricated_study


def expected(metric, run="linf", direction="higher", **changes):
    names = {"map": "gradient", "than_run": "standard", "than_map": "", "by": 0.0}
    return {"metric": metric, "run": run, "direction": direction, **names, **changes}


def accuracy(by, run="linf"):
    return expected("accuracy", run, map="", by=by)


CLAIMS = {
    "sparser": [expected("gini"), expected("gini", map="input_x_gradient")],
    "smoother": [expected("gini"), expected("gini", "linf", "lower")],
    "as_accurate": [accuracy(-0.2)],
    "more_accurate": [accuracy(0.0)],
    "robust": [expected("robust:linf 4/255", map="", by=0.3)],
    "over_floors": [expected("evidence_mass", "linf", than_run="", than_map="floors")],
    "over_its_mean": [expected("gini", "linf", map="input_x_gradient", than_run="", than_map="floors")],
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return fabricated_study.study_of(tmp_path_factory.mktemp("stated") / "study", CLAIMS)


@pytest.fixture(scope="module")
def found(study):
    return {each.claim.label: each for each in stated.judged(study)}


def test_a_claim_holds_where_all_of_its_differences_are_shown_and_partly_where_some_are(found):
    assert [found[label].verdict for label in ("sparser", "smoother")] == ["holds", "partly"]
    assert [each.finding for each in found["smoother"].differences] == ["shown", "opposite"]


def test_what_is_measured_is_the_mean_of_the_rows_on_disk(study, found):
    [first, _] = found["sparser"].differences
    rows = {label: _gini(study, label) for label in ("linf", "standard")}
    assert math.isclose(first.mean, np.mean(rows["linf"])) and math.isclose(first.other_mean, np.mean(rows["standard"]))
    by_seed = np.mean(rows["linf"] - rows["standard"], axis=1)
    np.testing.assert_allclose(list(first.by_seed.values()), by_seed)
    assert first.difference.low < first.difference.mean < first.difference.high
    assert math.isclose(first.difference.mean, by_seed.mean())


def _gini(study, label):
    tables = [records.read_csv(run.folder / "maps.csv") for run in study.of(label)]
    return np.array([table["gini"][table["method"] == "gradient"] for table in tables])


def test_a_loss_that_is_allowed_is_no_loss_and_one_that_is_not_is(found):
    """The fabricated linf network loses six points."""
    assert found["as_accurate"].verdict == "holds"
    assert found["more_accurate"].verdict == "does not hold"
    [less] = found["more_accurate"].differences
    [allowed] = found["as_accurate"].differences
    assert less.finding == "opposite" and less.difference.mean == allowed.difference.mean < 0


def test_more_than_a_difference_can_be_claimed(found):
    [robust] = found["robust"].differences
    assert robust.finding == "shown" and robust.difference.low > 0.3


def test_against_the_floors_is_against_each(study, found):
    against = [each.expected.than_map for each in found["over_floors"].differences]
    assert against == ["random", "centre_gaussian"]
    assert all(each.expected.run == each.expected.other[1] == "linf" for each in found["over_floors"].differences)
    against = [each.expected.than_map for each in found["over_its_mean"].differences]
    assert against == ["random", "centre_gaussian", "average of input_x_gradient"]


def test_holm_corrects_over_all_stated_differences(study, found):
    """Of p-values that are all the least possible the first is multiplied by their number."""
    alone = stated.judged(load.read_study(study.runs[0].folder.parents[2]))
    number = sum(len(each.differences) for each in alone)
    least = 1 / (1 + stated._FLIPS_A_TEST * number)
    assert found["sparser"].differences[0].p_value == pytest.approx(number * least)


def test_seeds_that_disagree_show_nothing(tmp_path):
    study = fabricated_study.study_of(tmp_path / "study", {"sparser": [expected("gini")]})
    path = study.of("linf")[1].folder / "maps.csv"
    table = records.read_csv(path)
    rows = table["method"] == "gradient"
    table["gini"][rows] = table["gini"][rows] - 0.2
    path.unlink()
    records.write_csv(path, table)
    [judged] = stated.judged(load.read_study(tmp_path / "study"))
    [difference] = judged.differences
    assert difference.difference.low > 0 and difference.finding == "not shown"
    assert (judged.verdict, difference.reason) == ("does not hold", "not all seeds lie on one side of zero")


def test_of_a_run_that_failed_with_one_seed_nothing_is_claimed(tmp_path):
    fabricated_study.study_of(tmp_path / "study", {"sparser": [expected("gini")], "robust": [expected("gini", "l2")]})
    path = tmp_path / "study" / "study.json"
    about = records.read_json(path)
    about["runs"] = [run for run in about["runs"] if (run["label"], run["seed"]) != ("linf", 1)]
    records.write_json(path, about)
    sparser, other = stated.judged(load.read_study(tmp_path / "study"))
    assert (sparser.verdict, other.verdict != "not measured") == ("not measured", True)
    assert list(sparser.differences[0].by_seed) == [0, 1, 2] and math.isnan(sparser.differences[0].by_seed[1])


def test_of_a_run_that_failed_altogether_the_page_says_so(tmp_path):
    fabricated_study.study_of(tmp_path / "study", {"sparser": [expected("gini")], "robust": [expected("gini", "l2")]})
    path = tmp_path / "study" / "study.json"
    about = records.read_json(path)
    failed = [{**run, "why": "it diverged"} for run in about["runs"] if run["label"] == "linf"]
    about["runs"] = [run for run in about["runs"] if run["label"] != "linf"]
    records.write_json(path, about | {"failed": failed})
    assert "not measured" in report.report(tmp_path / "study").read_text()


@pytest.mark.parametrize(("direction", "by", "said"), [("lower", -0.05, "0.05"), ("higher", 0.2, "0.2")])
def test_where_a_least_difference_was_stated_the_reason_names_it_and_not_zero(direction, by, said, tmp_path):
    """The fabricated linf network is sparser by 0.15."""
    fabricated_study.study_of(tmp_path / "study", {"sparser": [expected("gini", direction=direction, by=by)]})
    [judged] = stated.judged(load.read_study(tmp_path / "study"))
    assert judged.differences[0].reason.startswith(f"all 3 seeds agree and the interval excludes {said},")
    assert judged.differences[0].finding == {"lower": "opposite", "higher": "less than stated"}[direction]
    exported = json.loads(json.dumps(stated_plain.described(load.read_study(tmp_path / "study"))))
    assert said in exported["claims"][0]["differences"][0]["reason"]


def test_the_glossary_defines_what_claims_are_of_besides_metrics_of_maps():
    differences = [{"metric": "roar", "than_metric": ""}, {"metric": "neurons:flipped_right:conv4", "than_metric": ""}]
    claims = [
        {"differences": differences, "correlations": [{"metric": "kar"}]},
        {"differences": [{"metric": "gini", "than_metric": "neurons:r2:conv4"}], "correlations": []},
    ]
    names = [name for name, _ in terms.of_claims(claims)]
    assert names == ["ROAR score", "KAR score", "r2", "Share of predictions that change"]


def test_means_are_of_the_images_that_both_have(tmp_path):
    study = fabricated_study.study_of(tmp_path / "study", {"sparser": [expected("gini")]})
    for run in study.of("linf"):
        table = records.read_csv(run.folder / "maps.csv")
        easy = (table["method"] == "gradient") & (table["id"] % 2 == 0)
        table["gini"][easy] = np.nan
        (run.folder / "maps.csv").unlink()
        records.write_csv(run.folder / "maps.csv", table)
    [judged] = stated.judged(load.read_study(tmp_path / "study"))
    [found] = judged.differences
    assert math.isclose(found.mean - found.other_mean, found.difference.mean, rel_tol=1e-9)


def test_a_difference_that_is_there_but_less_than_stated_is_not_the_opposite(tmp_path):
    study = fabricated_study.study_of(
        tmp_path / "study", {"much": [expected("gini", by=0.9)], "worse": [expected("gini", direction="lower")]}
    )
    much, worse = stated.judged(study)
    assert (much.differences[0].finding, worse.differences[0].finding) == ("less than stated", "opposite")
    assert much.verdict == worse.verdict == "does not hold"


def test_claims_that_were_changed_after_networks_were_evaluated_say_so(tmp_path):
    fabricated_study.study_of(tmp_path / "study", {"sparser": [expected("gini")]})
    path = tmp_path / "study" / "study.json"
    assert "networks were measured" not in report.report(tmp_path / "study").read_text()
    for changed in ({"sparser": 4, "gone": 5}, 4):
        records.write_json(path, records.read_json(path) | {"claims_changed_after": changed})
        page = report.report(tmp_path / "study").read_text()
        assert "(sparser: since 4 networks were measured)" in page
        assert ("A claim gone was taken away when 5 networks" in page) == (changed != 4)


def test_a_claim_of_ours_is_told_from_one_of_the_paper(tmp_path):
    fabricated_study.study_of(tmp_path / "study", {"sparser": [expected("gini")]})
    path = tmp_path / "study" / "study.json"
    about = records.read_json(path)
    records.write_json(path, about | {"claims": [about["claims"][0] | {"source": "ours"}], "claims_changed_after": 3})
    text = stated_table.markdown(stated_plain.described(load.read_study(tmp_path / "study")))
    assert "| **sparser (ours, since 3 networks were measured): holds.** sparser! |" in text
    records.write_json(path, about | {"claims": [about["claims"][0] | {"source": "theirs"}]})
    with pytest.raises(ValueError, match="source must be one of paper, ours, got 'theirs'"):
        load.read_study(tmp_path / "study")


@pytest.mark.parametrize("claims", [5, [{"label": "a"}], [{"label": "a", "sentence": "", "expected": [{"x": 1}]}]])
def test_claims_that_cannot_be_read_are_one_sentence(tmp_path, claims):
    path = fabricated_study.write_study(tmp_path / "study", seeds=(0,)) / "study.json"
    records.write_json(path, records.read_json(path) | {"claims": claims})
    with pytest.raises(ValueError, match=r"study\.json: its claims cannot be read"):
        load.read_study(tmp_path / "study")


def test_of_one_seed_nothing_is_claimed(tmp_path):
    study = fabricated_study.study_of(tmp_path / "study", {"sparser": [expected("gini")]}, seeds=(0,))
    [judged] = stated.judged(study)
    assert judged.verdict == "one seed" == judged.differences[0].finding


def test_the_page_and_the_file_beside_it_say_the_same(study, found):
    directory = study.runs[0].folder.parents[2]
    page = html.unescape(report.report(directory).read_text())
    described = json.loads((directory / "report" / "claims.json").read_text())
    assert {claim["label"]: claim["verdict"] for claim in described["claims"]} == {
        label: each.verdict for label, each in found.items()
    }
    for section in stated_table.sections(described):
        assert all(text in page for row in section.rows for text in row)
    assert described["claims"][0]["differences"][0]["by_seed"].keys() == {"0", "1", "2"}


def test_the_table_in_words(study):
    lines = stated_table.markdown(stated_plain.described(study)).splitlines()
    assert "| **sparser: holds.** sparser! |  |  |  |  |  |  |" in lines
    said = [line.split(" | ")[0].removeprefix("| ") for line in lines]
    assert "Gini of gradient: linf above standard" in said
    assert "Accuracy: linf not lower than standard by more than 0.2" in said
    assert "Accuracy under linf 4/255: linf above standard by at least 0.3" in said
    assert "Mass in evidence of gradient: linf above that of centre_gaussian" in said
    first = next(line for line in lines if line.startswith("| Gini of gradient: linf above"))
    assert "| 3 of 3: +0.148, +0.154, +0.149 |" in first and first.endswith("| < 0.001 | shown |")
    assert any("| not shown: the interval includes zero |" in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"map": "smoothgrad"}, "A stated claim is of the map 'smoothgrad'; measured were gradient,"),
        ({"metric": "road"}, "A stated claim is of gradient road, which was not measured"),
    ],
)
def test_a_claim_of_what_was_not_measured_is_told(tmp_path, changes, message):
    study = fabricated_study.study_of(tmp_path / "study", {"sparser": [expected("gini") | changes]})
    with pytest.raises(ValueError, match=message):
        stated.judged(study)


def test_less_than_stated_is_not_the_opposite_whatever_the_seeds_say(tmp_path):
    """Two seeds of the other sign and one of the stated: all lie below the least difference that was stated."""
    study = fabricated_study.study_of(tmp_path / "study", {"much": [expected("gini", by=0.1)]})
    for run, other, by in zip(study.of("linf"), study.of("standard"), (0.05, -0.3, -0.3), strict=True):
        table = records.read_csv(run.folder / "maps.csv")
        table["gini"] = records.read_csv(other.folder / "maps.csv")["gini"] + by
        (run.folder / "maps.csv").unlink()
        records.write_csv(run.folder / "maps.csv", table)
    [judged] = stated.judged(load.read_study(tmp_path / "study"))
    [found] = judged.differences
    assert found.finding == "less than stated" and found.difference.high < 0 < found.by_seed[0]


def test_no_difference_at_all_is_less_than_stated(tmp_path):
    study = fabricated_study.study_of(tmp_path / "study", {"much": [expected("gini", by=0.1)]})
    for run, other in zip(study.of("linf"), study.of("standard"), strict=True):
        table = records.read_csv(run.folder / "maps.csv")
        table["gini"] = records.read_csv(other.folder / "maps.csv")["gini"]
        (run.folder / "maps.csv").unlink()
        records.write_csv(run.folder / "maps.csv", table)
    [judged] = stated.judged(load.read_study(tmp_path / "study"))
    [found] = judged.differences
    assert (found.difference.low, found.difference.high, found.finding) == (0, 0, "less than stated")
