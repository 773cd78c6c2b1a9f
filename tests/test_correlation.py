"""How the means of networks go with a number: closed forms, SciPy, and what permutations and draws can say at most."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robust_saliency.statistics import correlation_of_means

STRENGTHS = np.array([0.0, 1.0, 2.0, 3.0, 4.0])


def scores(generator, means, num_images=60, noise=0.0):
    return np.asarray(means) + noise * generator.normal(size=(num_images, len(means)))


def correlated(values, numbers=STRENGTHS, groups=None, **changes):
    groups = [np.arange(len(table)) for table in values] if groups is None else groups
    return correlation_of_means(values, groups, numbers, seed=0, **changes)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 9))
def test_by_seed_it_is_scipys_of_the_means(seed, num_networks):
    generator = np.random.default_rng(seed)
    numbers = generator.normal(size=num_networks)
    values = [scores(generator, generator.normal(size=num_networks), noise=0.3) for _ in range(2)]
    found = correlated(values, numbers, num_permutations=10)
    expected = [stats.pearsonr(numbers, table.mean(0)).statistic for table in values]
    np.testing.assert_allclose(found.by_seed, expected, atol=1e-12)
    np.testing.assert_allclose(found.mean, np.mean(expected))
    assert -1 <= found.low <= found.high <= 1


def test_a_straight_line_is_one_and_its_interval_a_point():
    found = correlated([0.5 + 0.1 * STRENGTHS + np.zeros((30, 1))] * 3)
    np.testing.assert_allclose([*found.by_seed, found.mean, found.low, found.high], 1.0)
    assert found.num_groups == 30
    falling = correlated([0.5 - 0.1 * STRENGTHS + np.zeros((30, 1))])
    assert falling.mean == pytest.approx(-1.0)


def test_p_of_one_seed_is_the_share_of_orders_that_do_as_well():
    """Of a straight line over five networks 2 of 5! orders are as good, forth and back: p = 1/60."""
    found = correlated([0.1 * STRENGTHS + np.zeros((30, 1))], num_permutations=60_000)
    assert found.p_value == pytest.approx(1 / 60, rel=0.1)
    three = correlated([0.1 * STRENGTHS + np.zeros((30, 1))] * 3, num_permutations=20_000)
    assert three.p_value < 1e-3  # the same order in three seeds: 2 of 120 ** 3


def test_without_a_relation_p_is_uniform():
    generator = np.random.default_rng(3)
    found = [
        correlated(
            [generator.normal(size=(1, 6)).repeat(3, 0)], np.arange(6), num_draws=2, num_permutations=200
        ).p_value
        for _ in range(300)
    ]
    assert stats.kstest(found, "uniform").pvalue > 0.01


@pytest.mark.parametrize("noise", [0.1, 0.3, 1.0])
def test_the_interval_is_hardly_ever_too_far_from_zero(noise):
    """It may be too near: noise of images takes from r."""
    generator = np.random.default_rng(1)
    truth = np.corrcoef(STRENGTHS, means := [0.1, 0.15, 0.3, 0.28, 0.4])[0, 1]
    found = [correlated([scores(generator, means, 200, noise)], num_draws=300, num_permutations=1) for _ in range(100)]
    assert np.mean([each.low > truth for each in found]) < 0.05
    inside = np.mean([each.low <= truth <= each.high for each in found])
    assert inside > 0.9 if noise < 0.3 else inside > 0.6


def test_what_rests_on_three_images_has_an_interval_down_to_no_relation():
    """Of five networks the last gets one image right, in each seed another: most draws lack one of them."""
    tables = np.zeros((3, 500, 5))
    tables[range(3), range(3), 4] = 1.0
    found = correlated(list(tables))
    assert found.mean == pytest.approx(0.7071, abs=1e-4)
    assert found.low < 0.3 and found.high == found.mean


@pytest.mark.parametrize(("shared", "limits"), [(0.0, (0.0, 0.1)), (10.0, (0.2, 0.5))])
def test_p_is_right_where_networks_differ_in_nothing_else(shared, limits):
    """Else what the seeds share, whatever it has to do with the numbers, is taken for more proof with each of them."""
    generator = np.random.default_rng(5)
    p_values = []
    for _ in range(150):
        kind = shared * generator.normal(size=5)
        means = [kind + generator.normal(size=5) for _ in range(3)]
        found = correlated([np.tile(each, (2, 1)) for each in means], num_draws=2, num_permutations=200)
        p_values.append(found.p_value)
    assert limits[0] <= np.mean(np.array(p_values) < 0.05) <= limits[1]


def test_of_one_group_there_is_no_interval():
    table = scores(np.random.default_rng(0), 0.1 * STRENGTHS, 30, 0.2)
    found = correlated([table], groups=[np.zeros(30)])
    assert np.isnan([found.low, found.high]).all() and found.num_groups == 1 and found.mean > 0.5


def test_groups_are_drawn_whole():
    """Images in pairs of twins say half as much as as many images that stand alone."""
    generator = np.random.default_rng(2)
    half = scores(generator, 0.1 * STRENGTHS, 50, 1.0)
    twins = np.repeat(half, 2, axis=0)
    grouped = correlated([twins], groups=[np.repeat(np.arange(50), 2)])
    alone = correlated([half])
    assert (grouped.low, grouped.high, grouped.num_groups) == pytest.approx((alone.low, alone.high, 50))
    assert grouped.high - grouped.low > 1.2 * np.subtract(*correlated([twins])[3:1:-1])


def test_an_image_that_one_network_has_no_value_of_is_left_out():
    table = scores(np.random.default_rng(0), 0.1 * STRENGTHS, 30, 0.2)
    damaged = np.concatenate([table, [[np.nan, 5.0, -5.0, 5.0, -5.0]]])
    assert correlated([damaged])[1:] == correlated([table])[1:]


@pytest.mark.parametrize(
    "values",
    [
        [np.full((30, 5), np.nan)],
        [np.ones((30, 5))],
        [np.zeros((0, 5))],
        [STRENGTHS + np.zeros((9, 1)), np.zeros((0, 5))],
    ],
)
def test_where_nothing_varies_or_nothing_was_measured_there_is_none(values):
    found = correlated(values)
    assert np.isnan([found.mean, found.low, found.high, found.p_value]).all()


def test_of_two_networks_there_is_none():
    with pytest.raises(ValueError, match="three networks or more"):
        correlated([np.zeros((30, 2))], [0.0, 1.0])
