"""What the page of ROAR says, from correctness that is written down: gains, areas, DiffROAR and what counts."""

import numpy as np
import pytest

from robust_saliency.report import roar_scores

NUM = 40


def first(*counts):
    """``[S, N]``: of each seed so many of the images, from the first on, are classified."""
    return np.array([np.arange(NUM) < count for count in counts], float)


def retrained(correct, groups=None, name="run"):
    maps = {"own": {"kind": "method"}, "random": {"kind": "blind"}, "sobel": {"kind": "blind"}}
    groups = np.arange(NUM) if groups is None else groups
    return roar_scores.Retrained({"name": name, "maps": maps}, correct, groups, {}, {}, np.arange(len(groups)))


BOTH = {
    ("whole image", "remove", 0.0): first(40, 40),
    ("own", "remove", 0.25): first(20, 16),
    ("random", "remove", 0.25): first(36, 36),
    ("sobel", "remove", 0.25): first(36, 36),
    ("own", "remove", 0.5): first(8, 8),
    ("random", "remove", 0.5): first(32, 28),
    ("sobel", "remove", 0.5): first(34, 30),
    ("own", "keep", 0.5): first(38, 40),
    ("random", "keep", 0.5): first(30, 30),
    ("sobel", "keep", 0.5): first(30, 30),
}


def test_a_gain_is_above_zero_where_the_map_is_better_in_either_protocol():
    run = retrained(BOTH)
    assert run.modes == ["remove", "keep"] and run.fractions("remove") == [0.25, 0.5]
    assert run.gain("own", "remove", 0.25).mean() == pytest.approx((16 + 20) / 2 / NUM)
    assert run.gain("own", "keep", 0.5).mean() == pytest.approx((8 + 10) / 2 / NUM)
    assert run.gain("sobel", "remove", 0.5).mean() == pytest.approx(-2 / NUM)
    assert not run.gain("random", "remove", 0.5).any()
    assert run.whole.mean() == 1.0 and run.seeds == 2


def test_the_score_is_the_area_of_the_gain_with_both_ends_at_zero():
    run = retrained(BOTH)
    for label in ("own", "sobel"):
        gains = [0.0, run.gain(label, "remove", 0.25).mean(), run.gain(label, "remove", 0.5).mean(), 0.0]
        assert run.score(label, "remove").mean() == pytest.approx(np.trapezoid(gains, [0, 0.25, 0.5, 1]))


def test_attribution_quality_pairs_what_was_kept_with_the_rest():
    run = retrained(BOTH)
    assert list(run.attribution_quality("own")) == [0.5]
    assert run.attribution_quality("own")[0.5].mean() == pytest.approx((30 + 32) / 2 / NUM)
    thirds = {("own", "keep", 0.1 + 0.2): first(30), ("own", "remove", 0.7): first(10)}
    assert list(retrained(thirds).attribution_quality("own")) == [0.1 + 0.2], "0.3 and 0.7 make 1 but for rounding"


def test_a_claim_needs_two_seeds_and_holm_is_over_all_runs_and_methods():
    verdicts = roar_scores.claims([retrained(BOTH)])
    assert list(verdicts) == [("run", "own", "remove"), ("run", "own", "keep")], "floors claim nothing"
    assert verdicts["run", "own", "remove"].counts and verdicts["run", "own", "remove"].word("higher") == "better"
    one = {key: values[:1] for key, values in BOTH.items()}
    assert not roar_scores.claims([retrained(one)])["run", "own", "remove"].counts
    as_random = BOTH | {("own", "remove", share): BOTH["random", "remove", share] for share in (0.25, 0.5)}
    same = roar_scores.claims([retrained(BOTH), retrained(as_random, name="other")])
    assert same["other", "own", "remove"].finding == "unclear" and same["run", "own", "remove"].counts


def test_images_of_a_group_are_not_independent_and_an_image_is_one_in_all_seeds():
    alone, grouped = retrained(BOTH), retrained(BOTH, np.arange(NUM) // 4)
    values = BOTH["own", "remove", 0.25]
    narrow, wide = (run.interval(values) for run in (alone, grouped))
    assert wide[1] - wide[0] > 1.3 * (narrow[1] - narrow[0])
    assert alone.estimate(values).num_groups == NUM
