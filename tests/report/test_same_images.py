"""The comparison on three sets of images, the variance components and the claims, against pandas from the files."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest

from robust_saliency.report import answer, claims, load, report
from robust_saliency.report.compare import class_comparisons, compare
from tests.report.fabricated_study import METRICS, write_study
from tests.report.read_page import Page

RUNS, SEEDS = ("standard", "linf", "l2"), (0, 1)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Both kinds of table are full: one run in three images has a confidence like the reference's."""
    folder = write_study(tmp_path_factory.mktemp("study"), seeds=SEEDS)
    for run, shift in (("linf", 0.01), ("l2", 0.3)):
        for seed in SEEDS:
            path, base = (folder / f"seed{seed}" / name / "evaluation" / "examples.csv" for name in (run, "standard"))
            examples = pd.read_csv(path)
            near = examples.id % 3 == 0 if run == "linf" else np.zeros(len(examples), bool)
            confidence = np.where(near, pd.read_csv(base).confidence - shift, 0.2)
            examples.assign(confidence=confidence).to_csv(path, index=False)
    return folder


@pytest.fixture(scope="module")
def page(study):
    return Page(report(study).read_text())


def table(study, name, seed, run):
    return pd.read_csv(study / f"seed{seed}" / run / "evaluation" / name)


def differences(study, run, metric, ids):
    """Of the gradient, a row an image and seed, on ``ids[seed]``."""
    rows = []
    for seed in SEEDS:
        own, base = (table(study, "maps.csv", seed, name) for name in (run, "standard"))
        own, base = (t[t.method == "gradient"].set_index("id") for t in (own, base))
        part = pd.DataFrame({"value": own[metric] - base[metric], "group": own.group, "seed": seed})
        rows.append(part.loc[sorted(ids[seed])])
    return pd.concat(rows)


def image_sets(study, run):
    examples = {
        (seed, name): table(study, "examples.csv", seed, name).set_index("id") for seed in SEEDS for name in RUNS
    }
    right = set.intersection(*(set(t.index[t.correct == 1]) for t in examples.values()))
    equal = {}
    for seed in SEEDS:
        own, base = examples[seed, run], examples[seed, "standard"]
        both = (own.correct == 1) & (base.correct == 1) & ((own.confidence - base.confidence).abs() <= 0.05)
        equal[seed] = set(own.index[both])
    everything = set(examples[0, run].index)
    return {
        "all images": dict.fromkeys(SEEDS, everything),
        "all networks right": dict.fromkeys(SEEDS, right),
        "equally confident": equal,
    }


def test_each_set_holds_its_images_and_each_cell_its_difference_and_effect_size(study, page):
    shown = page.rows("same images gradient", "run")
    assert len(shown) == 6
    for number, row in enumerate(shown):
        run = RUNS[1 + number // 3]
        ids = image_sets(study, run)[row[1][0]]
        total = sum(map(len, ids.values()))
        assert row[2][0]["value"] == f"{total} of 180"
        assert total == 0 if (run, row[1][0]) == ("l2", "equally confident") else 20 < total <= 180
        for cell, metric in zip(row[2][2:], METRICS, strict=True):
            if not total:
                assert cell == {"td": "", "value": "too few"}
                continue
            found = differences(study, run, metric, ids)
            assert cell["number"] == f"{found.value.mean():+.3f}"
            means = found.groupby("group").value.mean()
            g = means.mean() / means.std() * (1 - 3 / (4 * (len(means) - 1) - 1))
            if len(means) < 20:
                assert cell["effect"] == "too few" and "mark" not in cell
            else:
                assert float(cell["effect"].removeprefix("g ")) == pytest.approx(g, abs=0.006, rel=2e-3)
    gap = shown[2][2][1]
    assert gap["number"] == "-0.010" and shown[5][2][1].get("number", "\u2013") == "\u2013"


def test_without_confidences_two_sets_are_left(study, tmp_path):
    copy = shutil.copytree(study, tmp_path / "copy")
    for path in copy.rglob("examples.csv"):
        pd.read_csv(path).drop(columns="confidence").to_csv(path, index=False)
    rows = Page(report(copy).read_text()).rows("same images gradient", "run")
    assert [row[1][0] for row in rows] == ["all images", "all networks right"] * 2
    assert len(rows[0][2]) == 1 + len(METRICS)


def test_variance_components_of_scores_and_differences(study, page):
    shown = iter(page.rows("components gradient")[1:])
    everything = {seed: set(range(90)) for seed in SEEDS}
    for run, minus in (("standard", 0), ("linf", 0), ("linf", 1), ("l2", 0), ("l2", 1)):
        assert next(shown)[1][0] == (f"{run} minus standard" if minus else run)
        for metric, (title, _, _) in METRICS.items():
            rows = differences(study, run, metric, everything)
            if not minus:
                own = [table(study, "maps.csv", seed, run) for seed in SEEDS]
                rows["value"] = pd.concat([t[t.method == "gradient"].set_index("id")[metric] for t in own])
            cells = rows.groupby(["group", "seed"]).value.mean().unstack().dropna()
            total = cells.to_numpy()
            rest = total - cells.mean(axis=1).to_numpy()[:, None] - cells.mean().to_numpy() + total.mean()
            of_rest = (rest**2).sum() / (len(cells) - 1)
            images = (2 * cells.mean(axis=1).var() - of_rest) / 2
            seeds = (len(cells) * cells.mean().var() - of_rest) / len(cells)
            parts = np.maximum([images, seeds, of_rest], 0)
            kind, header, found = next(shown)
            assert (kind, header) == ("run", [title])
            percents = [int(cell["value"].replace("\u00a0%", "")) for cell in found[:3]]
            np.testing.assert_allclose(percents, 100 * parts / parts.sum(), atol=0.51)
            error = np.sqrt(parts @ [1 / len(cells), 1 / 2, 1 / total.size])
            assert float(found[4]["value"]) == pytest.approx(error, abs=6e-4)
    assert next(shown, None) is None


def test_one_seed_has_no_components(tmp_path):
    page = report(write_study(tmp_path, seeds=(0,), runs=("standard", "linf"), num_examples=40)).read_text()
    assert 'id="components"' not in page and 'id="same"' in page and "Between seeds" not in page


def test_a_claim_says_what_it_rests_on_and_the_summary_what_all_come_to(study, page):
    read = load.read_study(study)
    comparison = compare(read)
    for each in answer.answers(read, comparison, class_comparisons(read)):
        said = {item: word for word, items in each.found.items() for item in items}
        for metric, (title, direction, _) in METRICS.items():
            if direction == "none":
                continue
            (item,) = [item for item in said if re.search(rf"(^|: ){title} ", item)]
            measured = comparison[each.run]["gradient", metric]
            by_seed = [differences(study, each.run, metric, {s: set(range(90)) for s in SEEDS})]
            signs = np.sign(by_seed[0].groupby("seed").value.mean())
            agreeing = int((signs == np.sign(by_seed[0].value.mean())).sum())
            assert f"{agreeing}\u00a0of\u00a02\u00a0seeds, Holm\u00a0p\u00a0" in item
            assert measured.verdict.counts == (said[item] in ("better", "worse"))
            assert ("Holm\u00a0p\u00a0<\u00a00.001" in item) == (measured.holm < 0.001)
    linf = next(each for each in answer.answers(read, comparison, class_comparisons(read)) if each.run == "linf")
    assert any(item.startswith("sparser: Gini +0.15") for item in linf.found["better"])
    assert linf.summary.startswith("linf maps are sparser, ") and "than those of standard" in linf.summary
    assert linf.summary in report(study).read_text()


def test_a_difference_that_only_stands_before_the_correction_is_no_claim(study, tmp_path):
    """Total variation of linf is put just beyond what a single test of its groups would call significant."""
    copy = shutil.copytree(study, tmp_path / "copy")
    for seed in SEEDS:
        path = copy / f"seed{seed}" / "linf" / "evaluation" / "maps.csv"
        rows, base = pd.read_csv(path), table(copy, "maps.csv", seed, "standard")
        noise = np.random.default_rng(3).normal(size=45)
        noise = (noise - noise.mean()) / noise.std(ddof=1) * 0.05 + 0.05 * 2.3 / np.sqrt(45)
        gradient = rows.method == "gradient"
        rows.loc[gradient, "total_variation"] = base[gradient].total_variation + np.repeat(noise, 2)
        rows.to_csv(path, index=False)
    read = load.read_study(copy)
    comparison = compare(read)
    measured = comparison["linf"]["gradient", "total_variation"]
    assert measured.p_value < 0.04 < 0.06 < measured.holm and measured.difference.low > 0
    assert measured.verdict[:2] == (False, "higher") and "Holm" in measured.verdict.reason
    assert claims.word(read, "total_variation", measured) == "uncorrected"
    text = report(copy).read_text()
    assert "Lost to the correction for many tests" in text
    row = next(row for row in Page(text).rows("maps gradient", "run") if row[1][0].startswith("linf"))
    cell = row[2][list(METRICS).index("total_variation")]
    assert (cell["td"], cell["mark"]) == ("worse", "worse?")
