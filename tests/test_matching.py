"""Images that all networks get right, pairs of equal confidence, and the bias that matching takes away."""

import numpy as np
import pytest

from robust_saliency import statistics


def test_all_correct_is_the_intersection_by_id():
    ids = [[3, 1, 2, 7], [1, 2, 3], [2, 3, 9, 1]]
    correct = [[1, 1, 0, 1], [1.0, 1.0, 1.0], [True, True, True, False]]
    assert statistics.all_correct(ids, correct).tolist() == [3]
    assert statistics.all_correct(ids[:1], correct[:1]).tolist() == [1, 3, 7]
    assert statistics.all_correct([[1], [2]], [[1], [1]]).size == 0


def test_pairs_within_the_caliper_by_hand():
    found = statistics.confidence_matched([0.9, 0.8, np.nan, 0.5, 1.0], [0.95, 0.6, 0.9, 0.5, np.nan])
    assert found.keep.tolist() == [True, False, False, True, False]
    assert (found.gap_before, found.gap_after) == (pytest.approx(0.05), pytest.approx(-0.025))
    none = statistics.confidence_matched([0.9, 0.8], [0.5, 0.4], caliper=0.1)
    assert not none.keep.any() and np.isnan(none.gap_after)
    assert statistics.confidence_matched([0.9, 0.8], [0.5, 0.8], caliper=0.0).keep.tolist() == [False, True]
    with pytest.raises(ValueError, match="caliper must lie between 0 and 1, got 5"):
        statistics.confidence_matched([0.9], [0.9], caliper=5)
    with pytest.raises(ValueError, match=r"Pairs need equal shapes, got \(1,\) and \(2,\)"):
        statistics.confidence_matched([0.9], [0.9, 1.0])


def test_the_confidences_agree_at_every_quantile():
    rng = np.random.default_rng(0)
    a, b = rng.beta(3, 1, 500), rng.beta(6, 1, 500)
    keep = statistics.confidence_matched(a, b, caliper=0.05).keep
    assert 20 < keep.sum() < 200
    assert np.abs(np.sort(a[keep]) - np.sort(b[keep])).max() <= 0.05 + 1e-9


def test_a_difference_of_deletion_that_is_one_of_confidence_alone_goes_away():
    """Two networks with equally good maps: the area under deletion is 0.4 of the height at which its curve starts."""
    rng = np.random.default_rng(0)
    standard = rng.beta(20, 1, 600)
    robust = standard - rng.choice([0.0, 0.4], 600) * rng.random(600)
    areas = [0.4 * confidence + 0.01 * rng.normal(size=600) for confidence in (robust, standard)]
    on_all = statistics.paired_difference(*areas, seed=0)
    matched = statistics.confidence_matched(robust, standard, caliper=0.02)
    left = statistics.paired_difference(*(area[matched.keep] for area in areas), seed=0)
    assert on_all.high < -0.03 and matched.gap_before < -0.08
    assert left.n > 300 and abs(left.mean) < 0.003 and abs(matched.gap_after) < 0.003
