"""The page of a study's robustness on made-up results: one seed, several seeds, many networks, and a failed check."""

import re

import numpy as np
import pytest

from robust_saliency import records, report, statistics
from robust_saliency.report import numbers, transfer_table
from robust_saliency.report import robustness as robustness_page

NUM = 40
ADVERSARIES = {"clean": 38, "noise": 37, "pgd-10": 20, "apgd-ce": 16, "all": 14}

BUDGET = {"version": "fast", "steps": 33, "num_queries": 444, "num_targets": 3, "wrong_classes": 6, "curve_steps": 11,
          "num_searches": 12}  # fmt: skip


def write_study(folder, labels, seeds, *, transfer=True, failed=(), grouped=False):
    """Run k (in order) withstands one image less than run k - 1."""
    runs = [{"label": label, "seed": seed, "dir": f"seed{seed}/{label}"} for seed in seeds for label in labels]
    for k, run in enumerate(runs):
        own = folder / run["dir"] / "robustness"
        columns = {"id": np.arange(NUM), "label": np.zeros(NUM, int), "smallest_epsilon": np.linspace(0, 0.1, NUM)}
        columns |= {"epsilon_width": np.full(NUM, 0.001)} | ({"group": np.arange(NUM) // 4} if grouped else {})
        columns |= {name: (np.arange(NUM) < count - k).astype(int) for name, count in ADVERSARIES.items()}
        records.write_csv(own / "examples.csv", columns)
        checks = [{"name": "gradients beat noise", "passed": run["dir"] not in failed, "sentence": "Found this."}]
        records.write_json(
            own / "robustness.json",
            {"checks": checks, "checkpoint_step": 144, "seconds": 60.0, "data": "drawn lesions",
             "hardware": {"machine": f"machine {k // 3}"}, "versions": {"jax": "0.10.2"}},
        )  # fmt: skip
    counts = np.full((len(runs), len(runs)), 30) - 14 * np.eye(len(runs), dtype=int)
    records.write_json(
        folder / "robustness" / "robustness.json",
        {"title": "Lesions", "budget": BUDGET, "norm": "linf", "epsilon": 4 / 255, "attack": "apgd-ce", "runs": runs,
         "transfer": counts if transfer else None, "no_transfer": "" if transfer else "Only one run.",
         "checks": [{"name": "white box beats transfer", "passed": True, "sentence": "Nothing added."}] * transfer,
         "transfer_seconds": 2.0, "command": "python launch.py --mode=robustness"},
    )  # fmt: skip
    return words(report.study_robustness_page(folder).read_text())


def words(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)).replace(numbers.DASH, "-").replace(" :", ":")


def test_one_seed_says_who_withstands_most_and_that_it_is_no_claim(tmp_path):
    text = write_study(tmp_path, ["standard", "linf"], [0], failed=["seed0/linf"])
    assert "Whatever the adversary tried within linf 4/255, standard classifies 0.350 [0.221, 0.505] of the 40" in text
    assert "and linf 0.325 [" in text and "One seed a run is no claim" in text
    assert "Checks failed for linf: see below" in text and "gradients beat noise: Found this." in text
    assert "right on 0.750 of the images on average; under an attack on themselves on 0.400, on unch" in text
    assert "standard 0.400 0.750 linf 0.750 0.400" in text
    assert "2 min 0 s in all" in text and "hardware" not in text


def test_the_images_of_a_group_are_not_independent(tmp_path):
    text = write_study(tmp_path, ["standard"], [0], transfer=False, grouped=True)
    groups = (np.arange(NUM) < ADVERSARIES["all"]).reshape(-1, 4)
    estimate = statistics.bootstrap_mean(groups.ravel().astype(float), np.arange(NUM) // 4, seed=0)
    assert f"standard classifies 0.350 {numbers.interval(estimate.low, estimate.high)} of the 40" in text
    assert estimate.high - estimate.low > 0.505 - 0.221, "wider than Wilson's"
    assert "bootstrap over the groups" in text and "Wilson" not in text


def test_the_budget_is_on_the_page_and_square_only_where_it_ran(tmp_path):
    text = write_study(tmp_path, ["standard", "linf"], [0])
    assert "fast version; 33 steps; 444 queries; 3 of 6 wrong classes as targets; 11 steps at each epsilon" in text
    assert "all its 33 steps on every image" in text
    told = robustness_page.words("autoattack", BUDGET)
    assert "FAB" not in told and "Square" not in told and "3 of 6 wrong classes, 33 steps" in told
    told = robustness_page.words("autoattack", BUDGET | {"version": "standard"})
    assert "FAB-T" in told and "Square, 444 queries" in told


def test_several_seeds_are_each_shown_and_summed_up(tmp_path):
    text = write_study(tmp_path, ["standard", "linf"], [0, 1])
    assert "standard, 2 seeds 0.925 0.900-0.950 0.325 0.300-0.350" in text
    assert "seed 0 0.950 [0.835, 0.986] 0.350 [0.221, 0.505]" in text
    assert "One seed a run" not in text
    assert "standard, seed 1 0.750 0.400 0.750 0.750" in text, "four networks one by one, by label"
    assert "linf, seed 1: machine machine 1; jax 0.10.2" in text, "what differs between the runs is told of each"


def test_many_networks_are_averaged_over_pairs_of_seeds(tmp_path):
    text = write_study(tmp_path, ["standard", "linf", "l2"], [0, 1, 2])
    mean = text[text.index("Made on") : text.index("Every network")]
    assert "standard 0.400 0.400-0.400; other seeds 0.750 0.750 0.750-0.750 0.750 0.750-0.750" in mean
    assert "seed" not in mean.split("Each number")[0].replace("other seeds", "")
    assert "l2, seed 2 0.750" in text[text.index("Every network") :]


def test_without_a_matrix_the_page_says_why(tmp_path):
    text = write_study(tmp_path, ["standard"], [0], transfer=False)
    assert "No adversaries were shown to other networks. Only one run." in text
    assert "no claim" not in text


def test_the_mean_leaves_a_network_s_own_attack_out():
    names = [(label, seed) for seed in (0, 1, 2, 3) for label in "ab"]
    accuracy = np.where(np.eye(8, dtype=bool), 0.2, 0.0)
    accuracy[0::2, 1::2] = np.arange(16).reshape(4, 4) / 16  # from a to b
    accuracy[0, 2] = 0.6  # from a to another seed of a
    mean, every = transfer_table.tables(names, accuracy, np.ones(8))
    assert [cell.text for cell in mean.rows[0][1]] == ["0.200", "0.469"]
    small = [cell.small.replace(numbers.DASH, "-") for cell in mean.rows[0][1]]
    assert small == ["0.200-0.200; other seeds 0.050", "0.000-0.938"]
    assert [cell.own for cell in mean.rows[0][1]] == [True, False]
    assert every.rows[0][1][2].text == "0.600" and every.heads[:2] == ["a, seed 0", "b, seed 0"]


@pytest.mark.parametrize(("share", "colour"), [(1.0, "rgb(255, 255, 255)"), (0.0, "rgb(198, 128, 116)")])
def test_the_more_are_fooled_the_darker(share, colour):
    (heat,) = transfer_table.tables([("a", 0)], np.full((1, 1), share), np.ones(1))
    assert heat.rows[0][1][0].colour == colour
