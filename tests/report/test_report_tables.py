"""Every number on the page equals one computed here from the files, by other code."""

import json
import shutil
import types

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from robust_saliency.report import answer, load, markdown, report
from robust_saliency.report.compare import class_comparisons, compare
from tests.report.fabricated_study import BOUNDS, METRICS, write_study
from tests.report.read_page import Page

RUNS = ("standard", "linf", "l2")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"), seeds=(0, 1))


@pytest.fixture(scope="module")
def page(study):
    return Page(report(study).read_text())


def table(study, name, seed, run):
    return pd.read_csv(study / f"seed{seed}" / run / "evaluation" / name, keep_default_na=True)


def maps(study, seed, run, method):
    rows = table(study, "maps.csv", seed, run)
    return rows[rows.method == method].set_index("id")


def test_means_and_differences_of_each_seed_and_of_all_seeds(study, page):
    rows = [row for row in page.rows("maps gradient") if row[0] in ("run", "seed")]
    by_run = {"standard": rows[:3], "linf": rows[3:6], "l2": rows[6:]}
    assert len(rows) == 9
    for run, (pooled, *seeds) in by_run.items():
        assert pooled[1][0] == f"{run}, 2 seeds" and [row[1][0] for row in seeds] == ["seed 0", "seed 1"]
        for column, metric in enumerate(METRICS):
            own = [maps(study, seed, run, "gradient")[metric] for seed in (0, 1)]
            base = [maps(study, seed, "standard", "gradient")[metric] for seed in (0, 1)]
            assert pooled[2][column]["value"] == f"{pd.concat(own).mean():.3f}"
            for seed, row in enumerate(seeds):
                assert row[2][column]["value"] == f"{own[seed].mean():.3f}"
                if run != "standard":
                    assert row[2][column]["number"] == f"{(own[seed] - base[seed]).mean():+.3f}"
            if run != "standard":
                difference = pd.concat([a - b for a, b in zip(own, base, strict=True)]).mean()
                assert pooled[2][column]["number"] == f"{difference:+.3f}"


def test_a_pooled_interval_equals_a_loop_that_resamples_groups(study, page):
    rng = np.random.default_rng(3)
    pairs = [
        (
            maps(study, seed, "l2", "gradient").total_variation
            - maps(study, seed, "standard", "gradient").total_variation
        )
        for seed in (0, 1)
    ]
    groups = maps(study, 0, "l2", "gradient").group.to_numpy()
    per_group = pd.concat(pairs).groupby(np.tile(groups, 2)).agg(["sum", "count"]).to_numpy()
    draws = [per_group[rng.integers(len(per_group), size=len(per_group))].sum(0) for _ in range(4000)]
    low, high = np.quantile([total / count for total, count in draws], [0.025, 0.975])
    row = next(row for row in page.rows("maps gradient", "run") if row[1][0].startswith("l2"))
    shown = json.loads(row[2][list(METRICS).index("total_variation")]["difference_limits"].replace("+", ""))
    np.testing.assert_allclose(shown, [low, high], atol=0.0015)


def shown_p(page):
    """By 'run: score' the p-value alone and after Holm's correction, as the table of tests shows them."""
    return {
        row[1][0]: tuple(float(row[2][at]["value"].replace("\u2212", "-")) for at in (5, 6))
        for row in page.rows("tests", "run")
    }


def test_p_values_of_all_runs_and_scores_are_corrected_together_and_rest_on_group_means(study, page):
    shown = shown_p(page)
    assert len(shown) == 2 * (3 + 1 + 2 * len(METRICS)), "accuracies, confidence, two map methods; no floors"
    ordered, least = sorted(shown.values()), 0.0
    for place, (alone, corrected) in enumerate(ordered):
        least = max(least, min(1.0, alone * (len(ordered) - place)))
        assert corrected == pytest.approx(least, abs=0.0006 * len(ordered), rel=0.05)
    pairs = [maps(study, s, "l2", "gradient").gini - maps(study, s, "standard", "gradient").gini for s in (0, 1)]
    groups = np.tile(maps(study, 0, "l2", "gradient").group.to_numpy(), 2)
    means = pd.concat(pairs).groupby(groups).mean().to_numpy()
    test = scipy.stats.permutation_test(
        (means, 0 * means), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=20_000, rng=np.random.default_rng(1),
    )  # fmt: skip
    assert shown["l2: gradient: Gini"][0] == pytest.approx(test.pvalue, abs=0.012)


def test_marks_follow_the_rule_and_the_direction(study, page):
    p_values = shown_p(page)
    for row in page.rows("maps gradient", "run")[1:]:
        run = row[1][0].split(",")[0]
        for cell, metric in zip(row[2], METRICS, strict=True):
            direction = METRICS[metric][1]
            seeds = [
                (maps(study, s, run, "gradient")[metric] - maps(study, s, "standard", "gradient")[metric]).mean()
                for s in (0, 1)
            ]
            low, high = json.loads(cell["difference_limits"].replace("+", ""))
            words = {"higher": ("better", "worse"), "lower": ("worse", "better"), "none": ("higher", "lower")}[
                direction
            ]
            if low > 0 or high < 0:
                agree = np.sign(seeds[0]) == np.sign(seeds[1])
                counts = " counts" if p_values[f"{run}: gradient: {METRICS[metric][0]}"][1] < 0.05 else ""
                assert cell["td"] == (f"{words[0] if seeds[0] > 0 else words[1]}{counts}" if agree else "mixed")
            else:
                assert "mark" not in cell


def test_cells_answers_and_tests_say_the_same_of_a_seed_without_a_difference_or_a_value(study, tmp_path):
    """With seed 1, linf equals the reference in Gini and l2 in total variation; linf has no pointing score."""
    copy = shutil.copytree(study, tmp_path / "copy")
    reference = maps(study, 1, "standard", "gradient")
    for run, metric, column in (("linf", "gini", reference.gini), ("l2", "total_variation", reference.total_variation),
                                ("linf", "pointing", reference.pointing * np.nan)):  # fmt: skip
        path = copy / "seed1" / run / "evaluation" / "maps.csv"
        rows = pd.read_csv(path)
        rows.loc[rows.method == "gradient", metric] = column.to_numpy()
        rows.to_csv(path, index=False)
    expected = {("linf", "gini"): "mixed", ("l2", "total_variation"): "mixed", ("linf", "pointing"): "not measured"}
    read, shown = load.read_study(copy), Page(report(copy).read_text())
    found = answer.answers(read, compare(read), class_comparisons(read))
    readings = {row[1][0]: row[2][-1]["value"] for row in shown.rows("tests")[1:]}
    for (run, metric), word in expected.items():
        title = METRICS[metric][0]
        lists = next(each.found for each in found if each.run == run)
        assert [name for name, items in lists.items() if any(f"{title} " in item for item in items)] == [word]
        row = next(row for row in shown.rows("maps gradient", "run") if row[1][0].startswith(run))
        cell = row[2][list(METRICS).index(metric)]
        assert (cell["td"], cell.get("mark")) == (("mixed", "mixed") if word == "mixed" else ("", None))
        reasons = {"mixed": "not all seeds lie on one side of zero", "not measured": "not measured with every seed"}
        assert readings[f"{run}: gradient: {title}"] == reasons[word]
    for each in found:
        headline = (
            f"Of 5 map metrics: {', '.join(f'{title.lower()} on {len(items)}' for _, title, items in each.lists)}."
        )
        assert each.headline == headline and sum(map(len, each.found.values())) == 5


def own_mean(study, run, method, metric):
    """The mean over all images and both seeds."""
    return np.nanmean([maps(study, seed, run, method)[metric] for seed in (0, 1)])


def reached_by_blind(study, run, floor_of, metric):
    """Whether a blind map, measured with the network ``floor_of``, is as good as the gradient of ``run``."""
    sign = {"higher": 1, "lower": -1}[METRICS[metric][1]]
    floors = [sign * own_mean(study, floor_of, blind, metric) for blind in ("random", "centre_gaussian")]
    return max(floors) >= sign * own_mean(study, run, "gradient", metric)


def test_a_value_that_a_blind_map_reaches_with_the_same_network_is_marked(study, page):
    judged = [metric for metric in METRICS if METRICS[metric][1] != "none"]
    for row, run in zip(page.rows("maps gradient", "run"), RUNS, strict=True):
        marked = [metric for metric, cell in zip(METRICS, row[2], strict=True) if "blind" in cell]
        assert marked == [metric for metric in judged if reached_by_blind(study, run, run, metric)]
        assert ("deletion_auc" in marked) == (run == "standard")
    assert reached_by_blind(study, "l2", "standard", "deletion_auc")
    read = load.read_study(study)
    for each in answer.answers(read, compare(read), class_comparisons(read)):
        names = [METRICS[metric][0] for metric in judged if reached_by_blind(study, each.run, each.run, metric)]
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        assert each.remarks[0].startswith(
            f"A map that has not seen the network, or not the image, scores as well or better on {listed}:"
        )
        assert each.remarks[1].startswith("On Deletion AUC a map that never looks at the network scores differently")


@pytest.mark.parametrize("method", ["gradient", "input_x_gradient"])
def test_the_excess_is_over_the_best_floor_of_the_same_run_image_by_image(study, page, method):
    floors = ["random", "centre_gaussian", *(["average of input_x_gradient"] if method == "input_x_gradient" else [])]
    judged = [metric for metric in METRICS if METRICS[metric][1] != "none"]
    chosen = set()
    for row, run in zip(page.rows(f"floors {method}", "run"), RUNS, strict=True):
        for cell, metric in zip(row[2], judged, strict=True):
            sign = {"higher": 1, "lower": -1}[METRICS[metric][1]]
            best = max(floors, key=lambda floor: sign * own_mean(study, run, floor, metric))
            values = [maps(study, seed, run, method)[metric] - maps(study, seed, run, best)[metric] for seed in (0, 1)]
            assert cell["effect"] == f"over {best}"
            assert float(cell["number"]) == pytest.approx(sign * np.nanmean(values), abs=6e-4)
            chosen.add(best)
    assert ("average of input_x_gradient" in chosen) == (method == "input_x_gradient")


def test_floors_and_ceilings_are_in_every_method_table_with_each_runs_own_where_they_differ(study, page):
    for method in ("gradient", "input_x_gradient"):
        blind, oracle = page.rows(f"maps {method}", "blind"), page.rows(f"maps {method}", "oracle")
        own = ["average of input_x_gradientfloor"] if method == "input_x_gradient" else []
        assert [row[1][0] for row in blind] == ["randomfloor", "centre_gaussianfloor", *own]
        assert [row[1][0] for row in oracle] == ["evidence_masktrue mask"]
        bounds = [bound for bound in BOUNDS if own or not bound.startswith("average")]
        for row, bound in zip(blind + oracle, bounds, strict=True):
            for cell, metric in zip(row[2], METRICS, strict=True):
                texts = {run: f"{own_mean(study, run, bound, metric):.3f}" for run in RUNS}
                if metric == "deletion_auc":
                    assert cell == {"td": "", "by-run": "".join(run + text for run, text in texts.items())}
                else:
                    assert cell == {"td": "", "value": texts["standard"]} and len(set(texts.values())) == 1
    line = next(line for line in markdown(study).splitlines() if line.startswith("| random (blind)"))
    texts = [f"{run} {own_mean(study, run, 'random', 'deletion_auc'):.3f}" for run in RUNS]
    assert line.split(" | ")[1 + list(METRICS).index("deletion_auc")] == "<br>".join(texts)


def accuracy_rows(study, page):
    """(row of the page, the run's examples) for each run and seed."""
    rows = page.rows("accuracy", "seed")
    assert len(rows) == 6
    for index, row in enumerate(rows):
        yield row, table(study, "examples.csv", index % 2, ("standard", "linf", "l2")[index // 2])


OUTCOMES = ["correct", "robust:linf 4/255", "robust:L2 0.5"]


def test_accuracies_and_their_means_over_classes(study, page):
    for row, examples in accuracy_rows(study, page):
        balanced = np.mean([part.correct.mean() for _, part in examples.groupby("label")])
        shares = [examples[column].mean() for column in OUTCOMES]
        assert [cell["value"] for cell in row[2]] == [f"{x:.3f}" for x in [shares[0], balanced, *shares[1:]]]


def test_an_accuracy_of_grouped_images_has_an_interval_that_resamples_groups(study, page):
    """Groups of two images each: BCa of their means, as scipy has it; both count ties of draw and mean half."""
    rng = np.random.default_rng(5)
    for row, examples in accuracy_rows(study, page):
        pairs = examples.groupby("group")[OUTCOMES].mean().to_numpy()
        found = scipy.stats.bootstrap((pairs,), np.mean, axis=0, n_resamples=4000, method="BCa", rng=rng)
        limits = np.transpose(found.confidence_interval)
        for cell, expected in zip([row[2][0], *row[2][2:]], limits, strict=True):
            np.testing.assert_allclose(json.loads(cell["limits"]), expected, atol=0.015)


def test_an_accuracy_of_ungrouped_images_has_wilsons_interval(study, tmp_path):
    ungrouped = shutil.copytree(study, tmp_path / "ungrouped")
    for path in ungrouped.rglob("examples.csv"):
        pd.read_csv(path).drop(columns="group").to_csv(path, index=False)
    for row, examples in accuracy_rows(ungrouped, Page(report(ungrouped).read_text())):
        for cell, column in zip([row[2][0], *row[2][2:]], OUTCOMES, strict=True):
            successes = int(examples[column].sum())
            expected = scipy.stats.binomtest(successes, len(examples)).proportion_ci(method="wilson")
            assert cell["limits"] == f"[{expected.low:.3f}, {expected.high:.3f}]"


def test_where_all_images_agree_the_interval_still_has_a_width(study, tmp_path):
    agreed = shutil.copytree(study, tmp_path / "agreed")
    for path in agreed.rglob("examples.csv"):
        pd.read_csv(path).assign(correct=1).to_csv(path, index=False)
    low = scipy.stats.binomtest(45, 45).proportion_ci(method="wilson").low
    for row, _ in accuracy_rows(agreed, Page(report(agreed).read_text())):
        assert row[2][0]["limits"] == f"[{low:.3f}, 1.000]"


def test_an_accuracy_within_a_class_has_wilsons_interval_where_no_images_belong_together(study, tmp_path):
    ungrouped = write_study(tmp_path / "one_seed", seeds=(0,), num_examples=40)
    for path in ungrouped.rglob("examples.csv"):
        pd.read_csv(path).drop(columns="group").to_csv(path, index=False)
    rows = Page(report(ungrouped).read_text()).rows("classes accuracy", "run")
    examples = [table(ungrouped, "examples.csv", 0, run) for run in RUNS]
    classes = [rows[rows.label == label] for label in range(3) for rows in examples]
    for row, part in zip(rows, classes, strict=True):
        for cell, column in zip(row[2], OUTCOMES, strict=True):
            expected = scipy.stats.binomtest(int(part[column].sum()), len(part)).proportion_ci(method="wilson")
            assert cell["limits"] == f"[{expected.low:.3f}, {expected.high:.3f}]"


def test_class_tables_hold_the_images_of_the_class_alone(study, page):
    rows = page.rows("classes gradient")
    melanoma = next(i for i, row in enumerate(rows) if row[1][0].startswith("melanoma"))
    own = [maps(study, seed, "standard", "gradient") for seed in (0, 1)]
    own = pd.concat([rows[rows.label == 1] for rows in own])
    assert rows[melanoma][1][0] == f"melanoma ({len(own) // 2} images)"
    assert [cell["value"] for cell in rows[melanoma + 1][2]] == [f"{own[m].mean():.3f}" for m in METRICS]


def test_undefined_values_are_counted(page):
    rows = page.rows("undefined", "run")
    assert [row[1][0] for row in rows][:2] == ["standard: gradient", "standard: input_x_gradient"]
    assert [cell["value"] for cell in rows[0][2]] == ["\u2013", "\u2013", "2", "\u2013", "\u2013", "\u2013"]


def test_settings_that_differ_are_listed_and_equal_ones_are_not(page):
    rows = {row[1][0]: [cell["value"] for cell in row[2]] for row in page.rows("config", "plain")}
    assert rows["objective.name"] == ["standard", "adversarial", "adversarial"]
    assert rows["train.epochs"] == ["30", "12", "12"]
    assert "model.width" not in rows and "seed" not in rows


def test_the_settings_of_one_run_are_those_of_its_last_evaluation(study, tmp_path):
    run = shutil.copytree(study / "seed0" / "linf", tmp_path / "linf")
    config, summary = json.loads((run / "config.json").read_text()), run / "evaluation" / "summary.json"
    evaluation = {"batch_size": 32, "step": None, "attacks": {"l2": {"name": "pgd", "epsilon": 0.5}}}
    config |= {
        "evaluation": {"batch_size": 128, "attacks": {"linf": {"name": "pgd"}}, "split": "test"},
        "study": {"seeds": 3, "runs": [{"label": "standard"}, {"label": "linf"}]},
        "init_from": {"workdir": "", "step": None},
    }
    (run / "config.json").write_text(json.dumps(config))
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"evaluation": evaluation}))
    rows = Page(report(run).read_text()).rows("config", "plain")
    assert {row[1][0]: row[2][0]["value"] for row in rows} == {
        "evaluation.attacks.l2.epsilon": "0.5",
        "evaluation.attacks.l2.name": "pgd",
        "evaluation.batch_size": "32",
        "model.name": "small_cnn",
        "model.width": "16",
        "objective.name": "adversarial",
        "objective.threat.epsilon": "0.0157",
        "objective.threat.norm": "linf",
        "train.epochs": "12",
        "train.learning_rate": "0.003",
    }


def test_what_a_network_was_trained_for_is_said(study, tmp_path):
    copy = shutil.copytree(study, tmp_path / "copy")
    path = copy / "seed0" / "l2" / "evaluation" / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"objective": "A control that USES THE MASK."}))
    assert "- l2, objective: A control that USES THE MASK." in markdown(copy).splitlines()
    assert not any(line.startswith("- linf, objective") for line in markdown(copy).splitlines())


@pytest.mark.parametrize(
    ("methods", "leading"),
    [
        (["active", "gradient", "original"], "gradient"),
        (["active", "original"], "original"),
        (["a", "b"], "a"),
        ([], None),
    ],
)
def test_the_gradient_leads_by_either_of_its_names(methods, leading):
    assert answer.leading_method(types.SimpleNamespace(explaining_methods=methods)) == leading


def test_markdown_holds_the_same_numbers(study, page):
    lines = markdown(study).splitlines()
    start = lines.index("### Maps: gradient")
    linf = next(line for line in lines[start:] if line.startswith("| linf, 2 seeds"))
    cell = page.rows("maps gradient", "run")[1][2][0]
    assert linf.split(" | ")[1] == f"{cell['value']}<br>{cell['number']} {cell['difference_limits']} **better**"
    assert "| Gini \u2191 |" in lines[start + 4]


def test_a_network_that_guesses_is_named(study, tmp_path):
    copy = shutil.copytree(study, tmp_path / "copy")
    for seed in (0, 1):
        path = copy / f"seed{seed}" / "l2" / "evaluation" / "examples.csv"
        examples = pd.read_csv(path)
        examples["correct"] = (examples["label"] == examples["label"].mode()[0]).astype(int)
        examples.to_csv(path, index=False)
    notices = [answer.not_learnt(found, compare(found)) for found in map(load.read_study, (study, copy))]
    share = pd.read_csv(path)["correct"].mean()
    assert notices[0] == []
    assert len(notices[1]) == 1 and notices[1][0].startswith("l2 has not learnt")
    assert f"its clean accuracy {share:.3f} is not clearly above {share:.3f}" in notices[1][0]
    assert "balanced accuracy 0.333 above 0.333" in notices[1][0]
    assert notices[1][0] in report(copy).read_text()


def test_a_balanced_network_on_unbalanced_images_is_not_taken_for_one_that_guesses(study, tmp_path):
    copy = shutil.copytree(study, tmp_path / "copy")
    for path in copy.rglob("examples.csv"):
        examples = pd.read_csv(path)
        examples["label"] = np.where(examples["id"] < 72, 0, 1 + examples["id"] % 2)
        examples["correct"] = np.where(examples["label"] == 0, examples["id"] % 10 < 7, 1).astype(int)
        examples.to_csv(path, index=False)
    found = load.read_study(copy)
    assert found.first.scores.values[:, 0].mean() < 0.8, "naming class 0 always is right in 0.8"
    assert answer.not_learnt(found, compare(found)) == []


def test_classes_that_a_mean_hides_are_named(study, tmp_path):
    copy = shutil.copytree(study, tmp_path / "copy")
    shift = np.array([0.5, -0.5, 0.0])
    for seed in (0, 1):
        base = pd.read_csv(copy / f"seed{seed}" / "standard" / "evaluation" / "maps.csv")
        path = copy / f"seed{seed}" / "linf" / "evaluation" / "maps.csv"
        maps = pd.read_csv(path)
        maps["gini"] = base["gini"] + shift[maps["label"]] + 0.01 * (maps["id"] % 7 - 3)
        maps.assign(group=[f"alone_{i}" for i in maps["id"]]).to_csv(path, index=False)
    for path in copy.rglob("examples.csv"):
        pd.read_csv(path).drop(columns="group").to_csv(path, index=False)
    read = load.read_study(copy)
    found = {each.run: each for each in answer.answers(read, compare(read), class_comparisons(read))}
    (remark,) = [text for text in found["linf"].remarks if "classes disagree" in text]
    assert "Gini (better: nevus; worse: melanoma)" in remark
    assert remark in report(copy).read_text()
