"""Claims of what other modes measured of a study: ROAR by image, neurons by unit; and where a mode was not run."""

import math

import numpy as np
import pytest

from robust_saliency import records
from robust_saliency.report import load, measures, retrained, stated, stated_plain, stated_table
from tests.report import fabricated_study

NUM, UNITS = 90, 24
FRACTIONS = (0.25, 0.5)
SEEDS = (0, 1, 2)


def claims_of(*expected):
    return [{"label": f"claim{i}", "sentence": "", "expected": [each]} for i, each in enumerate(expected)]


def roar_of(run, **changes):
    return {"metric": "roar", "run": run, "direction": "higher", "map": "gradient", **changes}


@pytest.fixture
def directory(tmp_path):
    path = fabricated_study.write_study(tmp_path / "study", seeds=SEEDS, runs=("standard", "linf"), num_examples=NUM)
    about = records.read_json(path / "study.json")
    listed = claims_of(
        roar_of("linf", than_run="standard"),
        roar_of("linf", than_map="random"),
        {"metric": "neurons:cs1:conv4", "run": "linf", "than_run": "standard"},
        {"metric": "neurons:r2:conv4", "run": "linf", "direction": "lower", "than_run": "standard"},
    )
    records.write_json(path / "study.json", about | {"claims": listed})
    return path


def write_roar(directory, accuracies):
    """accuracies: (run, map) -> the share of images that are right after retraining; of whole images all are."""
    rows, folder = [], directory / "roar"
    whole = {(run, "whole image"): 1.0 for run in ("standard", "linf")}
    for (run, label), share in (whole | accuracies).items():
        for seed in SEEDS:
            for fraction in FRACTIONS if (run, label) in accuracies else (0.0,):
                correct = np.random.default_rng([seed, round(1000 * share)]).uniform(size=NUM) < share
                name = f"retrainings/{run}_{label}_{fraction}_{seed}.npz"
                held = {"correct": correct, "id": np.arange(NUM)[::-1], "empty_maps": np.zeros(3), "seconds": 1.0}
                records.write_npz(folder / name, held)
                row = {"run": f"{run}, seed {seed}", "map": label, "mode": "remove", "fraction": fraction, "file": name}
                rows.append(row)
    maps = {label: {"kind": "blind" if label == "random" else "method"} for _, label in accuracies}
    runs = [{"name": f"{run}, seed {seed}", "maps": maps} for run in ("standard", "linf") for seed in SEEDS]
    records.write_json(folder / "roar.json", {"runs": runs})
    records.write_csv(folder / "roar.csv", {name: [row[name] for row in rows] for name in rows[0]})


def write_neurons(directory, cs1, r2):
    """By run the level of each column; r2 is defined for the first half of the images alone."""
    for run in ("standard", "linf"):
        for seed in SEEDS:
            rng, folder = np.random.default_rng([seed, run == "linf"]), directory / f"seed{seed}" / run / "neurons"
            units = {"layer": ["conv3"] * 2 + ["conv4"] * UNITS, "unit": [0, 1, *range(UNITS)]}
            units["cs1"] = np.concatenate([[9.0, 9.0], cs1[run] + 0.01 * rng.normal(size=UNITS)])
            records.write_csv(folder / "units.csv", units)
            values = np.where(np.arange(NUM) < NUM // 2, r2[run] + 0.01 * rng.normal(size=NUM), np.nan)
            records.write_csv(folder / "examples.csv", {"id": np.arange(NUM), "r2:conv4": values})


def differences(directory):
    found = stated.judged(load.read_study(directory))
    return [each.differences[0] for each in found], [each.verdict for each in found]


def test_what_no_mode_has_measured_yet_is_not_measured(directory):
    found, verdicts = differences(directory)
    assert {each.finding for each in found} == {"not measured"} and set(verdicts) == {"not measured"}
    assert all(math.isnan(each.mean) and math.isnan(each.p_value) for each in found)
    described = stated_plain.described(load.read_study(directory))
    assert described["claims"][0]["differences"][0]["difference"] is None


def test_roar_is_the_area_of_what_a_map_costs_more_than_random_pixels(directory):
    right = {("standard", "random"): 0.9, ("standard", "gradient"): 0.8}
    write_roar(directory, right | {("linf", "random"): 0.9, ("linf", "gradient"): 0.4})
    found, verdicts = differences(directory)
    assert verdicts[:2] == ["holds", "holds"]
    read = measures.reader(load.read_study(directory))
    run = load.read_study(directory).of("linf")[0]
    values = read(run, "roar", "gradient")
    assert values.ids.tolist() == list(range(NUM)), "in the order of the ids, whatever that of the file"
    lost = [
        np.random.default_rng([0, 900]).uniform(size=NUM) < 0.9,
        np.random.default_rng([0, 400]).uniform(size=NUM) < 0.4,
    ]
    lost = (lost[0].astype(float) - lost[1])[::-1]
    # Over shares 0, 1/4, 1/2, 1 the trapezoids weigh the two points by 1/4 and 3/8.
    np.testing.assert_allclose(values.values, lost * (0.25 + 0.375))
    assert math.isclose(found[1].other_mean, 0, abs_tol=1e-12), "random pixels cost what random pixels cost"


def test_accuracies_of_retrainings_stand_by_map_and_run_and_what_sees_no_network_stands_once(directory):
    assert retrained.described(load.read_study(directory)) == {}
    random = {("standard", "random"): 0.9, ("linf", "random"): 0.9}
    write_roar(directory, random | {("standard", "gradient"): 0.8, ("linf", "gradient"): 0.4})
    described = retrained.described(load.read_study(directory))
    assert described["whole"] == {"0": 1.0, "1": 1.0, "2": 1.0}
    by_seed = {seed: float((np.random.default_rng([seed, 400]).uniform(size=NUM) < 0.4).mean()) for seed in SEEDS}
    [row] = [row for row in described["rows"] if (row["run"], row["fraction"]) == ("linf", 0.25)]
    assert row["accuracy"] == {str(seed): pytest.approx(share) for seed, share in by_seed.items()}
    lines = [line.strip("| ").split(" | ") for line in retrained.markdown(described).splitlines()]
    assert lines[0] == ["Pixels chosen by", "without 25 %", "without 50 %"]
    assert [line[0] for line in lines[2:]] == ["(whole images)", "gradient of standard", "gradient of linf", "random"]
    assert lines[4][1:] == [f"{np.mean(list(by_seed.values())):.3f}"] * 2


def test_neurons_are_paired_by_unit_and_by_image(directory):
    write_neurons(directory, {"standard": 0.4, "linf": 0.6}, {"standard": 1.1, "linf": 0.8})
    found, verdicts = differences(directory)
    assert verdicts[2:] == ["holds", "holds"]
    units, images = found[2:]
    assert units.difference.num_groups == UNITS and abs(units.difference.mean - 0.2) < 0.01
    # Half of the images were fooled, and two of them are of one lesion.
    assert images.difference.num_groups == -(-NUM // 4) and abs(images.difference.mean + 0.3) < 0.01


def test_predictions_without_their_units_are_paired_with_themselves_without_random_ones(directory):
    path = directory / "study.json"
    ablation = {"metric": "neurons:lost:conv4", "run": "linf", "map": "traced", "than_map": "random"}
    records.write_json(path, records.read_json(path) | {"claims": claims_of(ablation, ablation | {"run": "standard"})})
    for run, gain in (("standard", 0.0), ("linf", 1.0)):
        for seed in SEEDS:
            noise = np.random.default_rng(seed).normal(size=40) * 0.1
            table = {"id": np.arange(40), "layer": ["conv4"] * 40, "lost_random": np.arange(40.0)}
            table["lost_traced"] = table["lost_random"] + gain + noise
            records.write_csv(directory / f"seed{seed}" / run / "neurons" / "ablation.csv", table)
    found, verdicts = differences(directory)
    assert verdicts == ["holds", "does not hold"]
    assert abs(found[0].difference.mean - 1) < 0.05 and found[0].difference.num_groups == 20


def test_right_and_wrong_predictions_can_be_asked_apart(directory):
    path = directory / "study.json"
    claims = claims_of(
        *(
            {"metric": f"neurons:flipped{role}:conv4", "run": "linf", "map": "traced", "than_map": "random"}
            for role in ("", "_right", "_wrong")
        )
    )
    records.write_json(path, records.read_json(path) | {"claims": claims})
    is_wrong = np.arange(40) % 2 == 1
    table = {"id": 3 * np.arange(40), "layer": ["conv4"] * 40, "role": np.where(is_wrong, "wrong", "right")}
    table |= {"flipped_traced": is_wrong.astype(float), "flipped_random": np.zeros(40)}
    for seed in SEEDS:
        records.write_csv(directory / f"seed{seed}" / "linf" / "neurons" / "ablation.csv", table)
    found, verdicts = differences(directory)
    assert verdicts == ["holds", "does not hold", "holds"]
    assert [each.mean for each in found] == [0.5, 0.0, 1.0]
    text = stated_table.markdown(stated_plain.described(load.read_study(directory)))
    assert "Share of wrong predictions that change without units of conv4 of traced: linf above that of random" in text


def test_two_metrics_of_the_same_units_can_be_compared(directory):
    path = directory / "study.json"
    claim = {"metric": "neurons:cs1:conv4", "run": "linf", "than_metric": "neurons:cs2:conv4"}
    records.write_json(path, records.read_json(path) | {"claims": claims_of(claim)})
    write_neurons(directory, {"standard": 0.4, "linf": 0.6}, {"standard": 1.1, "linf": 0.8})
    for seed in SEEDS:
        units = directory / f"seed{seed}" / "linf" / "neurons" / "units.csv"
        table = records.read_csv(units)
        records.write_csv(units, table | {"cs2": table["cs1"] - 0.25})
    [found], verdicts = differences(directory)
    assert verdicts == ["holds"] and found.difference.mean == pytest.approx(0.25)
    text = stated_table.markdown(stated_plain.described(load.read_study(directory)))
    assert "CS1 (classes shown) of conv4's units: linf above CS2 (classes taken for) of conv4's units" in text


def test_titles_are_words(directory):
    study = load.read_study(directory)
    names = ("gini", "roar", "neurons:cs1:conv4", "neurons:r2:conv4", "robust:l2", "accuracy")
    assert [measures.title(study, name) for name in names] == [
        "Gini", "ROAR score", "CS1 (classes shown) of conv4's units", "r2 of conv4", "Accuracy under l2", "Accuracy",
    ]  # fmt: skip
