"""Intervals against scipy and closed forms, their coverage by simulation, and the rule for a difference that counts."""

import itertools
import types

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_saliency import statistics


def clustered(rng, num_groups):
    """Rows of one group share most of their value; the true mean is 0. Group sizes are unequal."""
    sizes = rng.integers(1, 9, num_groups)
    groups = np.repeat(np.arange(num_groups), sizes)
    return rng.normal(size=num_groups)[groups] + 0.3 * rng.normal(size=len(groups)), groups


def test_the_grouped_interval_covers_where_the_ungrouped_one_fails():
    rng = np.random.default_rng(7)
    covered = {"grouped": [], "ungrouped": []}
    for draw in range(1200):
        values, groups = clustered(rng, 60)
        for name, by in (("grouped", groups), ("ungrouped", None)):
            estimate = statistics.bootstrap_mean(values, by, num_draws=400, seed=draw)
            covered[name].append(estimate.low <= 0.0 <= estimate.high)
    assert 0.91 <= np.mean(covered["grouped"]) <= 0.98
    assert np.mean(covered["ungrouped"]) < 0.75


@pytest.mark.parametrize(("interval", "method"), [("bca", "BCa"), ("percentile", "percentile")])
def test_an_interval_without_groups_is_that_of_scipy_from_the_same_draws(interval, method):
    values = np.sort(np.random.default_rng(1).gamma(2.0, size=200))
    ours = statistics.bootstrap_mean(values, num_draws=20_000, seed=0, interval=interval)
    picks = np.random.default_rng(0).integers(200, size=(20_000, 200), dtype=np.int32)
    same_draws = types.SimpleNamespace(bootstrap_distribution=values[picks].mean(1))
    for level in (0.95, 0.8):
        ours = statistics.bootstrap_mean(values, num_draws=20_000, seed=0, interval=interval, level=level)
        theirs = scipy.stats.bootstrap(
            (values,), np.mean, n_resamples=0, bootstrap_result=same_draws, method=method, confidence_level=level
        ).confidence_interval
        np.testing.assert_allclose([ours.low, ours.high], theirs, rtol=1e-9)
    assert ours.mean == pytest.approx(values.mean(), abs=1e-12)


def test_bca_agrees_with_scipy_from_other_draws():
    values = np.random.default_rng(1).gamma(2.0, size=50)
    ours = statistics.bootstrap_mean(values, num_draws=50_000, seed=0)
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=50_000, rng=np.random.default_rng(5))
    np.testing.assert_allclose([ours.low, ours.high], theirs.confidence_interval, atol=0.01)


def test_bca_of_unequal_groups_by_hand():
    """Bias, acceleration and quantiles written out for three groups of 1, 2 and 3 rows."""
    values, groups = np.array([1.0, 2.0, 4.0, 9.0, 11.0, 13.0]), np.array([0, 1, 1, 2, 2, 2])
    by_group = [values[groups == g] for g in range(3)]
    generator = np.random.default_rng(5)
    draws = np.array(
        [
            np.concatenate([by_group[g] for g in picks]).mean()
            for picks in generator.integers(3, size=(999, 3), dtype=np.int32)
        ]
    )
    mean = values.mean()
    z = scipy.stats.norm.ppf(np.mean(draws < mean - 1e-9) + 0.5 * np.mean(np.abs(draws - mean) < 1e-9))
    left_out = np.array([values[groups != g].mean() for g in range(3)])
    d = left_out.mean() - left_out
    a = (d**3).sum() / (6 * (d**2).sum() ** 1.5)
    at = [scipy.stats.norm.cdf(z + (z + t) / (1 - a * (z + t))) for t in scipy.stats.norm.ppf([0.05, 0.95])]
    ours = statistics.bootstrap_mean(values, groups, num_draws=999, level=0.9, seed=5)
    np.testing.assert_allclose([ours.low, ours.high], np.quantile(draws, at), rtol=1e-9)
    assert (
        abs(z) > 0.02
        and a > 0.01
        and ours[1:3]
        != statistics.bootstrap_mean(values, groups, num_draws=999, level=0.9, seed=5, interval="percentile")[1:3]
    )


def test_bca_misses_the_mean_of_skewed_values_less_often_and_more_evenly():
    rng = np.random.default_rng(0)
    missed = {}
    for seed in range(10):
        columns = rng.lognormal(size=(20, 300))
        for interval in ("bca", "percentile"):
            found = statistics.bootstrap_mean(columns, num_draws=1000, seed=seed, interval=interval)
            sides = [np.mean(found.high < np.exp(0.5)), np.mean(found.low > np.exp(0.5))]
            missed.setdefault(interval, []).append(sides)
    below, above = np.mean(missed["bca"], 0)
    percentile_below, percentile_above = np.mean(missed["percentile"], 0)
    assert below + above < percentile_below + percentile_above - 0.008
    assert below < percentile_below - 0.02 and above > percentile_above + 0.01


def test_an_interval_where_nothing_can_be_corrected():
    """All equal; all draws on one side of the mean (one draw); hardly any draw on one side, at an extreme level."""
    for equal in ([2.0, 2.0, 2.0], [0.1] * 30):
        found = statistics.bootstrap_mean(equal, seed=0)
        np.testing.assert_allclose(found[:3], [equal[0]] * 3, rtol=1e-12)
    for seed in range(5):
        one_draw = statistics.bootstrap_mean([0.0, 1.0, 5.0], num_draws=1, seed=seed)
        assert one_draw.low == one_draw.high and np.isfinite(one_draw.low)
    values = np.r_[np.zeros(40), 1000.0]
    for level in (0.5, 0.999999):
        found = statistics.bootstrap_mean(values, level=level, seed=0)
        assert 0.0 <= found.low < found.mean < found.high <= 1000.0
    with pytest.raises(ValueError, match="interval must be one of bca, percentile, got 'BCa'"):
        statistics.bootstrap_mean([1.0, 2.0], seed=0, interval="BCa")


def test_grouped_bootstrap_agrees_with_a_plain_loop_that_copies_rows():
    rng = np.random.default_rng(3)
    values, groups = clustered(rng, 25)
    by_group = [values[groups == g] for g in range(25)]
    loop = [np.concatenate([by_group[g] for g in rng.integers(25, size=25)]).mean() for _ in range(8000)]
    ours = statistics.bootstrap_mean(values, groups, num_draws=8000, seed=0, interval="percentile")
    np.testing.assert_allclose([ours.low, ours.high], np.quantile(loop, [0.025, 0.975]), atol=0.02)


def test_a_ratio_of_sums_weighs_rows_equally_not_groups():
    estimate = statistics.bootstrap_mean([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"], seed=0)
    assert estimate.mean == 0.75
    assert (estimate.low, estimate.high) == (0.0, 1.0)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.one_of(st.just(np.nan), st.floats(-3, 3)), st.sampled_from("abcdef")), min_size=1, max_size=25
    ),
    order_seed=st.integers(0, 10),
)
def test_nothing_depends_on_the_order_of_the_rows(rows, order_seed):
    values, groups = np.array([v for v, _ in rows]), np.array([g for _, g in rows])
    order = np.random.default_rng(order_seed).permutation(len(rows))
    for by in (groups, None):
        shuffled_by = None if by is None else by[order]
        before = statistics.bootstrap_mean(values, by, num_draws=50, seed=1)
        after = statistics.bootstrap_mean(values[order], shuffled_by, num_draws=50, seed=1)
        np.testing.assert_array_equal(before, after)
        np.testing.assert_array_equal(
            statistics.sign_flip_test(values, by, num_draws=50, seed=1),
            statistics.sign_flip_test(values[order], shuffled_by, num_draws=50, seed=1),
        )


def test_columns_get_the_result_they_would_get_alone():
    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=(60, 3)), np.arange(60) % 20
    values[groups == 4, 1] = np.nan
    together = statistics.bootstrap_mean(values, groups, num_draws=300, seed=9)
    for column in range(3):
        alone = statistics.bootstrap_mean(values[:, column], groups, num_draws=300, seed=9)
        np.testing.assert_allclose(together.column(column), alone, atol=1e-12)
    assert list(together.num_groups) == [20, 19, 20]


def test_nan_is_dropped_and_counted_and_a_pair_needs_both():
    estimate = statistics.bootstrap_mean([1.0, np.nan, 3.0, np.inf], seed=0)
    assert (estimate.mean, estimate.n, estimate.n_nan) == (2.0, 2, 2)
    pair = statistics.paired_difference([1.0, np.nan, 3.0, 9.0], [0.5, 1.0, np.nan, 9.5], seed=0)
    assert (pair.mean, pair.n, pair.n_nan) == (0.0, 2, 2)


def test_the_paired_interval_is_narrower_than_the_unpaired_spread():
    rng = np.random.default_rng(0)
    base = rng.normal(size=400) * 5
    pair = statistics.paired_difference(base + 0.1 + 0.01 * rng.normal(size=400), base, seed=0)
    assert 0.09 < pair.low < pair.high < 0.11


def test_one_group_has_a_mean_but_no_interval_and_says_so():
    estimate = statistics.bootstrap_mean([1.0, 2.0], ["a", "a"], seed=0)
    assert estimate.mean == 1.5 and np.isnan(estimate.low) and np.isnan(estimate.high)
    assert estimate.note == "one group only, so no interval"
    assert statistics.bootstrap_mean([np.nan], seed=0).note == "no values"
    assert statistics.bootstrap_mean([1.0, 2.0], seed=0).note == ""


def test_same_seed_same_interval_and_a_generator_moves_on():
    values = np.arange(20.0)
    assert statistics.bootstrap_mean(values, seed=3) == statistics.bootstrap_mean(values, seed=3)
    generator = np.random.default_rng(3)
    first = statistics.bootstrap_mean(values, num_draws=100, seed=generator)
    assert first != statistics.bootstrap_mean(values, num_draws=100, seed=generator)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (7, 20), (1, 1), (940, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_interval_solves_its_equation_and_agrees_with_scipy(successes, n, level):
    low, high = statistics.wilson_interval(successes, n, level)
    expected = scipy.stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    np.testing.assert_allclose([low, high], [expected.low, expected.high], atol=1e-12)
    z = scipy.stats.norm.ppf((1 + level) / 2)
    for limit in (low, high):
        assert (successes / n - limit) ** 2 == pytest.approx(z**2 * limit * (1 - limit) / n, abs=1e-12)


def test_wilson_interval_of_nothing_is_nan():
    assert np.isnan(statistics.wilson_interval(0, 0)).all()


def test_a_difference_counts_only_when_seeds_agree_and_zero_is_outside():
    def counts(differences, interval, num_groups=20):
        return statistics.difference_counts(differences, interval, num_groups)

    assert counts([0.1, 0.2, 0.05], (0.05, 0.2)).counts
    assert counts([-0.1, -0.2], (-0.2, -0.05)).counts
    assert counts([0.1, -0.01, 0.2], (0.05, 0.2)) == (False, "mixed", "not all seeds lie on one side of zero")
    assert counts([0.1, 0.0], (0.05, 0.2))[:2] == counts([-0.1, 0.0], (-0.2, -0.05))[:2] == (False, "mixed")
    assert counts([0.1, 0.2], (-0.01, 0.2)) == (False, "unclear", "the interval includes zero")
    assert counts([0.1], (0.05, 0.2)) == (False, "higher", "the interval excludes zero, but one seed is no claim")
    assert counts([0.1, 0.1], (np.nan, np.nan)) == (False, "not measured", "not measured")
    assert counts([], (np.nan, np.nan)) == (False, "not measured", "not measured")
    assert counts([0.1, np.nan], (0.05, 0.2)) == (False, "not measured", "not measured with every seed")
    assert counts([0.0, 0.0], (0.0, 0.0)) == (False, "unclear", "the interval includes zero")
    assert counts([0.1, 0.2], (0.05, 0.2), num_groups=19)[:2] == (False, "too few")
    assert counts([0.1, np.nan], (0.05, 0.2), num_groups=19).finding == "not measured"


def test_in_a_family_a_difference_counts_only_after_the_correction():
    def counts(corrected_p, differences=(0.1, 0.2), interval=(0.05, 0.2)):
        return statistics.difference_counts(differences, interval, 20, corrected_p)

    assert counts(0.049).counts and counts(None).counts
    for p in (0.05, 0.3, np.nan):
        assert counts(p)[:2] == (False, "higher") and "Holm" in counts(p).reason
    assert counts(0.9, differences=(0.1, -0.1)).finding == "mixed"
    assert counts(0.9, differences=(0.1,)).reason == "the interval excludes zero, but one seed is no claim"
    assert counts(0.001, interval=(-0.1, 0.2)).finding == "unclear"


def test_a_finding_is_better_or_worse_by_the_direction_alone():
    higher = statistics.difference_counts([0.1, 0.2], (0.05, 0.2), 20)
    lower = statistics.difference_counts([-0.1], (-0.2, -0.05), 20)
    words = {way: (higher.word(way), lower.word(way)) for way in ("higher", "lower", "none")}
    assert words == {"higher": ("better", "worse"), "lower": ("worse", "better"), "none": ("higher", "lower")}
    for undecided in ("mixed", "unclear", "too few", "not measured"):
        assert {statistics.Verdict(False, undecided, "").word(way) for way in words} == {undecided}


def test_holm_by_hand():
    adjusted = statistics.holm([0.01, 0.04, np.nan, 0.03, 0.005])
    np.testing.assert_allclose(adjusted, [0.03, 0.06, np.nan, 0.06, 0.02])
    np.testing.assert_allclose(statistics.holm([0.6, 0.7]), [1.0, 1.0])


def test_sign_flip_test_is_exact_for_few_groups():
    groups = ["a", "a", "b", "c", "d"]
    differences = [1.0, 3.0, -0.5, 1.5, 0.7]
    sums = np.array([4.0, -0.5, 1.5, 0.7])
    flipped = [abs(np.dot(signs, sums)) for signs in itertools.product([-1, 1], repeat=4)]
    expected = np.mean(np.array(flipped) >= abs(sums.sum()) - 1e-12)
    assert statistics.sign_flip_test(differences, groups, seed=0) == expected


def test_interval_and_p_value_are_of_the_same_mean_where_groups_differ_in_size():
    """Once p was of the mean of the groups' means: it saw the many single images, the interval the few large groups."""
    rng = np.random.default_rng(5)
    groups = np.concatenate([np.arange(60), np.repeat(np.arange(60, 80), 12)])
    differences = np.where(groups < 60, 1.0, -0.25) + 0.1 * rng.normal(size=300)
    found = statistics.bootstrap_mean(differences, groups, seed=0)
    assert found.low < 0.0 < found.high
    assert statistics.sign_flip_test(differences, groups, seed=0) > 0.5


def test_sign_flip_test_agrees_with_scipy_and_is_uniform_without_an_effect():
    rng = np.random.default_rng(2)
    differences = rng.normal(0.2, 1.0, 60)
    ours = statistics.sign_flip_test(differences, seed=0)
    theirs = scipy.stats.permutation_test(
        (differences, np.zeros(60)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        rng=np.random.default_rng(1),
    ).pvalue
    assert ours == pytest.approx(theirs, abs=0.02)
    null = statistics.sign_flip_test(rng.normal(size=(40, 400)), num_draws=999, seed=1)
    assert 0.02 <= np.mean(null <= 0.05) <= 0.08
    assert np.isnan(statistics.sign_flip_test([np.nan], seed=0))


def test_a_sign_flip_test_ends_early_where_p_is_known_and_goes_on_where_it_is_small():
    rng = np.random.default_rng(4)
    columns = rng.normal([0.02, 0.25, 3.0], 1.0, size=(64, 3))
    found = statistics.sign_flip_test(columns, num_draws=300_000, seed=1)
    signs = np.random.default_rng(9).integers(2, size=(200_000, 64), dtype=np.int8) * 2.0 - 1.0
    plain = np.mean(np.abs(signs @ columns[:, :2]) >= np.abs(columns[:, :2].sum(0)), axis=0)
    np.testing.assert_allclose(found[:2], plain, rtol=0.1)
    assert found[2] == 1 / 300_001
    assert found.tolist() == [statistics.sign_flip_test(c, num_draws=300_000, seed=1) for c in columns.T]


def test_mistakes_are_answered_in_one_sentence():
    with pytest.raises(ValueError, match=r"groups must be \[2\], one a row, got shape \(3,\)"):
        statistics.bootstrap_mean([1.0, 2.0], [0, 0, 1], seed=0)
    with pytest.raises(ValueError, match=r"Pairs need equal shapes, got \(1,\) and \(2,\)"):
        statistics.paired_difference([1.0], [1.0, 2.0], seed=0)
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 95"):
        statistics.bootstrap_mean([1.0], level=95, seed=0)
    with pytest.raises(ValueError, match=r"successes must lie in 0\.\.n, got 3 of 2"):
        statistics.wilson_interval(3, 2)


def test_a_bootstrap_of_few_groups_excludes_a_true_zero_far_too_often_and_of_twenty_hardly():
    """Why fewer than 20 groups get no verdict; BCa does not mend it."""
    rng = np.random.default_rng(0)
    rates = {}
    for size in (4, 20):
        columns = rng.normal(size=(size, 1500))
        interval = statistics.bootstrap_mean(columns, seed=0)
        rates[size] = np.mean((interval.low > 0) | (interval.high < 0))
    assert rates[4] > 0.15 and rates[20] < 0.09
