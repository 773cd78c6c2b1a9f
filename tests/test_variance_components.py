"""Variance components of known origin, by hand, and the coverage of the interval over new images and new seeds."""

import numpy as np
import pytest
import scipy.stats

from robust_saliency import statistics


def simulated(rng, num_images, num_seeds, images, seeds, rest, draws=1):
    """Rows ``[I * S, draws]`` with their image and seed; the true mean is 0."""
    values = images * rng.normal(size=(num_images, 1, draws)) + seeds * rng.normal(size=(1, num_seeds, draws))
    values = values + rest * rng.normal(size=(num_images, num_seeds, draws))
    return (
        values.reshape(-1, draws),
        np.repeat(np.arange(num_images), num_seeds),
        np.tile(np.arange(num_seeds), num_images),
    )


def test_components_of_a_table_by_hand():
    """[[1, 2], [3, 6]]: mean squares 9, 4, 1, so images (9-1)/2, seeds (4-1)/2... worked out below."""
    table = np.array([[1.0, 2.0], [3.0, 6.0]])
    found = statistics.variance_components(table.ravel(), [0, 0, 1, 1], [0, 1, 0, 1])
    of_images = 2 * ((1.5 - 3) ** 2 + (4.5 - 3) ** 2)
    of_seeds = 2 * ((2 - 3) ** 2 + (4 - 3) ** 2)
    of_rest = (1 - 1.5 - 2 + 3) ** 2 * 4
    assert (of_images, of_seeds, of_rest) == (9.0, 4.0, 1.0)
    assert found[:4] == (3.0, 4.0, 1.5, 1.0)
    assert found.standard_error == pytest.approx(np.sqrt(4 / 2 + 1.5 / 2 + 1 / 4))
    assert found.shares == pytest.approx((4 / 6.5, 1.5 / 6.5, 1 / 6.5))
    freedom = 12.0**2 / (9.0**2 + 4.0**2 + (-1.0) ** 2)
    half = scipy.stats.t.ppf(0.975, freedom) * found.standard_error
    assert (found.low, found.high) == pytest.approx((3.0 - half, 3.0 + half))
    assert found[-3:] == (2, 2, 0)


def test_components_have_no_bias_and_negative_ones_stay():
    rng = np.random.default_rng(0)
    found = statistics.variance_components(*simulated(rng, 60, 4, 1.0, 0.2, 0.5, draws=2000))
    assert found.images.mean() == pytest.approx(1.0, abs=0.02)
    assert found.seeds.mean() == pytest.approx(0.04, abs=0.003)
    assert found.rest.mean() == pytest.approx(0.25, abs=0.003)
    none = statistics.variance_components(*simulated(rng, 60, 4, 1.0, 0.0, 0.5, draws=2000))
    assert none.seeds.mean() == pytest.approx(0.0, abs=2e-4), "truncation would push it up"
    assert 0.4 < np.mean(none.seeds < 0) < 0.8
    one = none.column(int(np.argmin(none.seeds)))
    assert one.seeds < 0 and one.shares[1] == 0.0
    truth = np.sqrt(1.0 / 60 + 0.25 / 240)
    assert np.sqrt(np.mean(none.standard_error**2)) == pytest.approx(truth, rel=0.03)


@pytest.mark.parametrize("seeds", [0.02, 0.3, 1.0])
def test_the_interval_covers_new_seeds_where_that_of_the_images_fails(seeds):
    rng = np.random.default_rng(1)
    values, images, codes = simulated(rng, 100, 3, 1.0, seeds, 0.5, draws=1000)
    found = statistics.variance_components(values, images, codes)
    covered = np.mean((found.low <= 0) & (found.high >= 0))
    assert 0.91 <= covered <= 0.98
    if seeds == 1.0:
        fixed = statistics.bootstrap_mean(values, images, num_draws=200, seed=0)
        assert np.mean((fixed.low <= 0) & (fixed.high >= 0)) < 0.5


def test_groups_are_averaged_and_incomplete_ones_dropped_in_any_order():
    values = np.array([1.0, 3.0, 2.0, 5.0, 7.0, 9.0, np.nan, 4.0])
    images, seeds = np.array(list("aaabbbcc")), np.array([0, 0, 1, 0, 1, 1, 0, 1])
    found = statistics.variance_components(values, images, seeds)
    plain = statistics.variance_components([2.0, 2.0, 5.0, 8.0], [0, 0, 1, 1], [0, 1, 0, 1])
    assert found[:-1] == plain[:-1] and found.num_dropped == 1
    order = np.random.default_rng(0).permutation(8)
    np.testing.assert_allclose(statistics.variance_components(values[order], images[order], seeds[order]), found)


def test_where_there_is_one_seed_or_no_variance():
    one = statistics.variance_components([1.0, 2.0], [0, 1], [0, 0])
    assert one.mean == 1.5 and np.isnan(one.seeds) and np.isnan(one.standard_error) and np.isnan(one.shares).all()
    flat = statistics.variance_components([2.0] * 4, [0, 0, 1, 1], [0, 1, 0, 1])
    assert (flat.mean, flat.standard_error, flat.low, flat.high) == (2.0, 0.0, 2.0, 2.0)
    assert np.isnan(flat.shares).all()
    assert np.isnan(statistics.variance_components([np.nan] * 4, [0, 0, 1, 1], [0, 1, 0, 1]).mean)
    rounded = np.array([0.1 + 0.2, 0.3, 0.3, 0.1 + 0.2])  # of one number, computed in two ways
    assert np.isnan(statistics.variance_components(rounded, [0, 0, 1, 1], [0, 1, 0, 1]).shares).all()
    small = statistics.variance_components([1.0, 1.0 + 1e-9, 1.0, 1.0 + 1e-9], [0, 0, 1, 1], [0, 1, 0, 1])
    assert small.shares == (0.0, 1.0, 0.0)
