"""A mean against a margin: exact where outcomes are so or not, and right about as often as it says elsewhere."""

import numpy as np
import pytest
from scipy import stats

from robust_saliency import statistics


@pytest.mark.parametrize(("count", "happened", "margin"), [(24, 0, 0.1), (256, 1, 0.02), (30, 10, 0.1), (50, 5, 0.05)])
def test_of_outcomes_that_happen_or_not_it_is_the_binomial_test(count, happened, margin):
    outcomes = np.repeat([1.0, 0.0], [happened, count - happened])
    p = statistics.margin_test(outcomes - margin, limits=(-margin, 1 - margin), num_draws=200_000, seed=0)
    null = stats.binom(count, margin)
    tail = null.cdf(happened) if happened / count < margin else null.sf(happened - 1)
    assert p == pytest.approx(min(1.0, 2 * tail), rel=0.15)


def losses(rng, count, margin=0.02):
    """A network that loses ``margin`` of its accuracy, and wins nothing: at the margin itself."""
    return margin - (rng.uniform(size=count) < margin)


def test_a_loss_as_large_as_the_margin_is_seldom_called_smaller(rng):
    """A sign flip of the same differences calls it so with p < 0.001 in 4 of 100 cases."""
    drawn = [losses(rng, 256) for _ in range(400)]
    ours = np.array([statistics.margin_test(each, limits=(-0.98, 1.02), num_draws=3_000, seed=1) for each in drawn])
    flips = np.array([statistics.sign_flip_test(each, num_draws=3_000, seed=1) for each in drawn])
    assert np.mean(ours < 0.05) < 0.05 and np.mean(ours < 0.01) < 0.01
    assert np.mean((flips < 0.001) & (np.mean(drawn, axis=1) > 0)) > 0.01


def test_groups_count_once(rng):
    """Three networks that are right of the same images know no more than one of them."""
    one = losses(np.random.default_rng(5), 256)
    settings = {"limits": (-0.98, 1.02), "num_draws": 20_000, "seed": 1}
    alone = statistics.margin_test(one, **settings)
    together = statistics.margin_test(np.tile(one, 3), np.tile(np.arange(256), 3), **settings)
    assert together == pytest.approx(alone, rel=0.1)
    assert statistics.margin_test(np.tile(one, 3), **settings) < alone / 2


def test_of_measurements_it_is_about_students_test(rng):
    values = rng.normal(size=200)
    values = (values - values.mean()) / values.std(ddof=1) + 2.3 / np.sqrt(200)
    p = statistics.margin_test(values, num_draws=20_000, seed=1)
    assert p == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue, rel=0.2)
    assert statistics.margin_test(-values, num_draws=20_000, seed=1) == p


def test_no_row_could_bring_it_back_nothing_is_known_and_nothing_differs():
    assert statistics.margin_test([1.5, 1.4], limits=(0.5, 2.5), seed=0) == 0.0
    assert np.isnan(statistics.margin_test([np.nan], seed=0))
    assert statistics.margin_test([0.25, -0.25, np.nan], seed=0) == 1.0


def test_no_loss_of_many_is_no_loss_and_of_few_is_not_known():
    enough = statistics.margin_test(np.full(1024, 0.02), limits=(-0.98, 1.02), num_draws=20_000, seed=0)
    few = statistics.margin_test(np.full(64, 0.02), limits=(-0.98, 1.02), num_draws=20_000, seed=0)
    assert enough < 2e-4 and few == pytest.approx(2 * 0.98**64, rel=0.1)
