"""Splits: groups stay whole, classes keep their shares, and permutations are uniform and never change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_saliency.data.splits import equal_subset, hold_out, permutation, subset


@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=60),
    group_size=st.integers(1, 4),
    fraction=st.floats(0.05, 0.5),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_hold_out_keeps_groups_whole_and_both_sides_of_every_class(labels, group_size, fraction, seed):
    labels = np.sort(np.array(labels))
    groups = np.array([f"{label}/{k // group_size}" for k, label in enumerate(labels)])
    held = hold_out(labels, groups, fraction, seed)
    np.testing.assert_array_equal(held, hold_out(labels, groups, fraction, seed))
    assert not set(groups[held]) & set(groups[~held])
    for label in np.unique(labels):
        own = labels == label
        num_groups = len(np.unique(groups[own]))
        assert held[own].any() == (num_groups > 1) and not held[own].all()
        if num_groups > 1:
            assert abs(held[own].sum() - fraction * own.sum()) <= group_size


@given(counts=st.lists(st.integers(1, 20), min_size=1, max_size=5), share=st.floats(0, 1), seed=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_subset_has_the_asked_number_and_each_class_its_share(counts, share, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    num = max(1, round(share * len(labels)))
    chosen = subset(labels, num, seed)
    assert len(chosen) == len(set(chosen)) == num
    got = np.bincount(labels[chosen], minlength=len(counts))
    assert np.all(np.abs(got - num * np.array(counts) / len(labels)) < 1)


def test_permutations_are_the_ones_that_older_runs_saw():
    np.testing.assert_array_equal(permutation(8, 0, 0), [7, 3, 6, 0, 1, 4, 5, 2])


def test_seeds_that_end_in_zero_are_seeds_of_their_own():
    orders = [tuple(permutation(20, *seeds)) for seeds in ((1,), (1, 0), (1, 0, 0), (0, 1))]
    assert len(set(orders)) == 4


def test_every_permutation_is_equally_likely():
    drawn = [tuple(permutation(3, seed)) for seed in range(3000)]
    counts = [drawn.count(order) for order in set(drawn)]
    assert len(counts) == 6
    assert max(abs(count - 500) for count in counts) < 5 * np.sqrt(500 * 5 / 6)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.integers(0, 9))
def test_an_equal_subset_has_each_class_as_often_as_the_rarest(counts, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    chosen = equal_subset(labels, 0, seed)
    assert (np.diff(chosen) > 0).all()
    assert np.bincount(labels[chosen]).tolist() == [min(counts)] * len(counts)
    np.testing.assert_array_equal(chosen, equal_subset(labels, 0, seed))
    assert np.bincount(labels[equal_subset(labels, len(counts), seed)]).tolist() == [1] * len(counts)


@pytest.mark.parametrize("num", [4, 12])
def test_an_equal_subset_that_is_not_there_is_told(num):
    with pytest.raises(ValueError, match=f"{num} examples of 3 classes, each equally often, .* the rarest has 3"):
        equal_subset(np.repeat([0, 1, 2], (5, 3, 9)), num, 0)
