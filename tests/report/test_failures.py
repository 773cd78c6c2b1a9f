"""Which images have no value, of which map, and why; each missing value is counted once."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from robust_saliency.report import load, report
from robust_saliency.report.failures import NO_REASON, failures
from tests.report.fabricated_study import METHODS, write_study


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path, seeds=(0, 1), num_examples=40)


def change(study, run, name, edit):
    for path in study.glob(f"seed*/{run}/evaluation/{name}"):
        table = pd.read_csv(path)
        edit(table)
        table.to_csv(path, index=False)


def found(study):
    return {(failure.where, failure.reason): failure for failure in failures(load.read_study(study))}


def test_what_fails_alike_in_all_is_one_entry_and_flaws_are_listed_though_scores_have_values(study):
    entries = found(study)
    assert set(entries) == {
        ("every run: every map", "the evidence mask is empty"),
        ("l2: gradient", "the map is zero"),
        ("l2: input_x_gradient", "the map is not finite"),
    }
    empty = entries["every run: every map", "the evidence mask is empty"]
    assert (empty.ids, empty.metrics, empty.values) == ((3,), ("Pointing game",), 3 * 2 * len(METHODS))
    zero = entries["l2: gradient", "the map is zero"]
    assert (zero.ids, zero.metrics, zero.values) == ((1,), (), 0)


def test_each_missing_value_is_counted_once(study):
    def without(table):
        table.loc[(table["method"] == "gradient") & table["id"].isin([1, 3, *range(20, 35)]), ["gini", "pointing"]] = (
            np.nan
        )

    change(study, "l2", "maps.csv", without)
    entries = found(study)
    missing = sum(
        int(pd.read_csv(path)[["gini", "pointing", "entropy"]].isna().sum().sum()) for path in study.rglob("maps.csv")
    )
    assert sum(entry.values for entry in entries.values()) == missing
    zero = entries["l2: gradient", "the map is zero"]
    assert (zero.ids, zero.metrics, zero.values) == ((1,), ("Gini", "Pointing game"), 4)
    # Of image 3 the pointing game needs the mask that is empty; why it has no Gini nobody wrote down.
    other = entries["l2: gradient", NO_REASON]
    assert other.ids == (3, *range(20, 35)) and other.values == 2 * (1 + 2 * 15)
    assert other.first == ["3", *map(str, range(20, 27))] and other.more == 8


def test_the_page_links_the_images_that_it_shows_and_says_how_many_more_there_are(study):
    change(
        study, "l2", "maps.csv", lambda table: table.loc[table["method"] == "random", ["gini"]].__setitem__("gini", 0)
    )

    def without(table):
        table.loc[(table["method"] == "random") & (table["id"] >= 2), "gini"] = np.nan

    change(study, "l2", "maps.csv", without)
    page = report(study).read_text()
    row = next(row for row in re.findall(r'<tr class="failure">.*?</tr>', page) if NO_REASON in row)
    assert "l2: random" in row and "<td>Gini</td><td>76</td><td>38</td>" in row
    links = "".join(f'<a href="#image-{i}">{i}</a>, ' for i in (2, 3, 4))
    assert f"<td>{links}5, 6, 7, 8, 9 and 30 more</td>" in row


def test_a_mask_that_fills_the_image_is_a_reason_too(study):
    def full(table):
        table.loc[table["id"] == 7, "mask:evidence"] = 1.0

    def without(table):
        table.loc[table["id"] == 7, "pointing"] = np.nan

    for run in ("standard", "linf", "l2"):
        change(study, run, "examples.csv", full)
        change(study, run, "maps.csv", without)
    assert found(study)["every run: every map", "the evidence mask fills the image"].ids == (7,)


def test_rows_of_an_older_evaluation_give_no_reason(study):
    for path in study.rglob("*.csv"):
        table = pd.read_csv(path)
        table.drop(columns=[name for name in table if name == "flaw" or name.startswith("mask:")]).to_csv(
            path, index=False
        )
    assert {reason for _, reason in found(study)} == {NO_REASON}
    for path in study.rglob("summary.json"):
        summary = json.loads(path.read_text())
        for about in summary["metrics"].values():
            del about["settings"]
        path.write_text(json.dumps(summary))
    assert [(entry.where, entry.ids) for entry in failures(load.read_study(study))] == [("every run: every map", (3,))]
