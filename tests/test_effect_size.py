"""Effect sizes against closed forms, hand-computed numbers and their known bias."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from robust_saliency import statistics


def test_hedges_g_by_hand_weighs_groups_alike():
    """Groups a (mean 2), b (mean 1), c (mean 6): mean 3, deviation sqrt(7), J(2) = 1 / Gamma(1/2)."""
    found = statistics.standardised_difference([1.0, 3.0, 1.0, 6.0], ["a", "a", "b", "c"])
    assert found == pytest.approx(3.0 / np.sqrt(7.0) / np.sqrt(np.pi), rel=1e-12)
    assert statistics.standardised_difference([-1.0, -3.0, -1.0, -6.0], ["a", "a", "b", "c"]) == -found


def test_hedges_correction_is_near_its_usual_approximation_and_takes_the_bias_away():
    for n in (10, 40, 300):
        values = scipy.stats.norm.ppf((np.arange(n) + 0.5) / n) + 1.0
        raw = values.mean() / values.std(ddof=1)
        assert statistics.standardised_difference(values) / raw == pytest.approx(1 - 3 / (4 * (n - 1) - 1), abs=3e-3)
    columns = np.random.default_rng(0).normal(0.8, 1.0, size=(6, 20_000))
    raw = columns.mean(0) / columns.std(0, ddof=1)
    assert raw.mean() > 0.93 and statistics.standardised_difference(columns).mean() == pytest.approx(0.8, abs=0.015)


def test_an_effect_size_does_not_depend_on_unit_order_or_other_columns():
    rng = np.random.default_rng(1)
    columns, groups = rng.normal(0.3, 1.0, size=(40, 2)), rng.integers(12, size=40)
    columns[groups == 3, 1] = np.nan
    together, order = statistics.standardised_difference(columns, groups), rng.permutation(40)
    np.testing.assert_allclose(statistics.standardised_difference(1e6 * columns[order], groups[order]), together)
    assert together[1] == statistics.standardised_difference(columns[groups != 3, 1], groups[groups != 3])


def test_no_effect_size_where_there_is_no_spread():
    for differences in ([], [1.0], [1.0, 2.0], [0.1, 0.1, 0.1], [0.0, 0.0, 0.0], [0.3 - 0.2, 0.1, 0.2 - 0.1]):
        assert np.isnan(statistics.standardised_difference(differences))
    assert np.isnan(statistics.standardised_difference([1.0, 2.0, 3.0, 4.0], ["a", "a", "b", "b"]))


def test_the_probability_of_superiority_counts_ties_half_and_is_an_estimate():
    found = statistics.probability_of_superiority([2.0, -1.0, 0.0, 5.0, np.nan], seed=0)
    assert (found.mean, found.n, found.n_nan) == (0.625, 4, 1)
    assert 0.0 <= found.low <= found.mean <= found.high <= 1.0
    grouped = statistics.probability_of_superiority([2.0, -1.0, 0.0, 5.0], ["a", "a", "b", "b"], seed=0)
    assert (grouped.mean, grouped.num_groups) == (0.625, 2)


def test_superiority_of_normal_differences_is_phi_of_the_standardised_mean_and_keeps_under_growing_functions():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1.0, size=(2, 4000)) * [[1.0], [1.0]] + [[0.4], [0.0]]
    found = statistics.probability_of_superiority(a - b, num_draws=200, seed=0)
    assert found.mean == pytest.approx(scipy.stats.norm.cdf(0.4 / np.sqrt(2)), abs=0.02)
    assert found.mean == statistics.probability_of_superiority(np.exp(a) - np.exp(b), num_draws=200, seed=0).mean
    assert found.mean + statistics.probability_of_superiority(b - a, num_draws=200, seed=0).mean == pytest.approx(1.0)
