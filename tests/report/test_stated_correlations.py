"""Claims that something goes along with a number that each network has: measured from the rows on disk."""

import html
import json
import math
import shutil

import numpy as np
import pytest
from scipy import stats

from robust_saliency import records, report
from robust_saliency.report import load, stated, stated_table
from tests.report import fabricated_study

RUNS = ("standard", "linf", "l2")
ROBUST = [0.0, 1.0, 0.9]  # about as their accuracy under linf rises


def correlated(**changes):
    names = {"metric": "robust:linf 4/255", "runs": list(RUNS), "numbers": ROBUST, "along": "strength"}
    return {**names, "direction": "higher", "map": "", "beyond": 0.0, **changes}


CLAIMS = {
    "along": [correlated()],
    "maps": [correlated(metric="gini", map="gradient", numbers=[0.0, 1.0, 0.01], beyond=0.9)],
}


def study_of(directory, claims, **changes):
    return fabricated_study.study_of(directory, claims, "correlated", **changes)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return study_of(tmp_path_factory.mktemp("stated") / "study", CLAIMS)


@pytest.fixture(scope="module")
def found(study):
    return {each.claim.label: each.correlations[0] for each in stated.judged(study)}


def test_it_is_pearsons_of_the_means_of_the_rows_on_disk(study, found):
    expected = []
    for seed in range(3):
        tables = [records.read_csv(study.of(label)[seed].folder / "examples.csv") for label in RUNS]
        expected.append(stats.pearsonr(ROBUST, [table["robust:linf 4/255"].mean() for table in tables]).statistic)
    np.testing.assert_allclose(list(found["along"].by_seed.values()), expected)
    assert math.isclose(found["along"].measured.mean, np.mean(expected))
    tables = [records.read_csv(run.folder / "maps.csv") for run in study.of("linf")]
    gini = np.mean([table["gini"][table["method"] == "gradient"].mean() for table in tables])
    assert math.isclose(found["maps"].means["linf"], gini)


def test_p_is_of_the_numbers_dealt_out_anew_and_holm_corrects_over_differences_too(tmp_path):
    """Of 6 ** 3 ways to deal out three numbers in three seeds two do as well as the best, forth and back."""
    directory = tmp_path / "study"
    [judged] = stated.judged(study_of(directory, {"along": CLAIMS["along"]}))
    assert judged.correlations[0].p_value == pytest.approx(2 / 216, rel=0.5)
    difference = {"metric": "gini", "run": "linf", "map": "gradient", "than_run": "standard"}
    path = directory / "study.json"
    about = records.read_json(path)
    about["claims"][0]["expected"] = [difference, {**difference, "run": "l2"}]
    records.write_json(path, about)
    [judged] = stated.judged(load.read_study(directory))
    p_values = [each.p_value for each in judged.measured]
    assert p_values[0] == pytest.approx(3 / (1 + 3 * stated._FLIPS_A_TEST))  # the least there can be, of three
    assert 2 / 216 * 0.5 < p_values[2] < 0.05 and judged.verdict == "holds"


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A study of nine networks, whose accuracy under linf falls along the alphabet."""
    labels = tuple("abcdefghi")
    directory = tmp_path_factory.mktemp("many") / "study"
    claims = {
        name: [correlated(runs=list(labels), **{"numbers": list(range(9)), **changes})]
        for name, changes in {
            "rises": {},
            "falls": {"direction": "lower"},
            "far": {"direction": "lower", "beyond": 0.8},
            "too far": {"direction": "lower", "beyond": 0.9999},
            "mirrored": {"numbers": list(range(9, 0, -1)), "beyond": 0.8},
            "loosely": {"numbers": [0, 1, 5, 2, 4, 3, 6, 8, 7], "direction": "lower", "beyond": 0.99},
        }.items()
    }
    fabricated_study.write_study(directory, runs=("standard",))
    path = directory / "study.json"
    about = records.read_json(path)
    runs = [{**run, "label": label, "dir": f"seed{run['seed']}/{label}"} for run in about["runs"] for label in labels]
    for run in runs:
        shutil.copytree(directory / f"seed{run['seed']}" / "standard", directory / run["dir"])
        examples = directory / run["dir"] / "evaluation" / "examples.csv"
        table = records.read_csv(examples)
        wrong = 3 * labels.index(run["label"]) + run["seed"]
        table["robust:linf 4/255"][:] = np.arange(len(table["id"])) >= wrong
        examples.unlink()
        records.write_csv(examples, table)
    listed = [{"label": each, "sentence": f"{each}!", "expected": [], "correlated": claims[each]} for each in claims]
    records.write_json(path, about | {"runs": runs, "reference": "a", "claims": listed})
    return directory


def test_a_ladder_of_nine_is_shown_or_the_opposite_or_not_shown(many):
    found = {each.claim.label: each for each in stated.judged(load.read_study(many))}
    assert {label: each.correlations[0].finding for label, each in found.items()} == {
        "rises": "opposite",
        "falls": "shown",
        "far": "shown",
        "too far": "not shown",
        "mirrored": "shown",
        "loosely": "not shown",
    }
    assert found["loosely"].correlations[0].reason == "the interval does not reach what was stated"
    assert found["loosely"].correlations[0].measured.low > -0.99
    assert {label: each.verdict for label, each in found.items()} == {
        "rises": "does not hold",
        "falls": "holds",
        "far": "holds",
        "too far": "does not hold",
        "mirrored": "holds",
        "loosely": "does not hold",
    }


def test_the_page_and_the_file_beside_it_say_the_same(many, tmp_path):
    page = html.unescape(report.report(many).read_text())
    described = json.loads((many / "report" / "claims.json").read_text())
    [falls] = [claim for claim in described["claims"] if claim["label"] == "falls"]
    assert falls["verdict"] == "holds" and falls["correlations"][0]["means"].keys() == set("abcdefghi")
    for section in stated_table.sections(described):
        assert all(text in page for row in section.rows for text in row)
    lines = stated_table.markdown(described).splitlines()
    [row] = [line for line in lines if "below 0 |" in line]
    assert row.startswith(
        "| Accuracy under linf 4/255: correlation with strength over 9 networks below 0 |  |  | r -1.000 [-1.000, -0.9"
    )
    assert row.endswith("| 3 of 3: -1.000, -1.000, -1.000 | < 0.001 | shown |")
    assert any("correlation with strength over 9 networks below -0.9999 |" in line for line in lines)
    assert any("correlation with strength over 9 networks above 0.8 |" in line for line in lines)
    assert "tells them apart" in page
    assert "tells them apart" not in report.report(fabricated_study.write_study(tmp_path / "plain")).read_text()


def test_of_a_seed_with_which_a_run_failed_nothing_is_claimed(tmp_path):
    study_of(tmp_path / "study", {"along": [correlated()]})
    path = tmp_path / "study" / "study.json"
    about = records.read_json(path)
    about["runs"] = [run for run in about["runs"] if (run["label"], run["seed"]) != ("linf", 1)]
    records.write_json(path, about)
    [judged] = stated.judged(load.read_study(tmp_path / "study"))
    [found] = judged.correlations
    assert judged.verdict == found.finding == "not measured" and math.isnan(found.by_seed[1])
    assert not math.isnan(found.by_seed[0])


def test_of_one_seed_nothing_is_claimed(tmp_path):
    [judged] = stated.judged(study_of(tmp_path / "study", {"along": [correlated()]}, seeds=(0,)))
    assert judged.verdict == "one seed" == judged.correlations[0].finding
