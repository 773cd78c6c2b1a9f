"""The rules of patience, plateau and guard on sequences worked out by hand."""

import math

import pytest

from robust_saliency import stopping

NAN = math.nan


@pytest.mark.parametrize(
    ("values", "mode", "expected"),
    [
        ([], "max", 0),
        ([0.5], "max", 0),
        ([0.5, 0.5], "max", 1),
        ([0.5, 0.6, 0.55, 0.6], "max", 2),
        ([0.5, 0.6, 0.55, 0.61], "max", 0),
        ([2.0, 1.0, 1.5, 1.0], "min", 2),
        ([NAN, 0.1], "max", 0),
        ([0.1, NAN, NAN], "max", 2),
        ([NAN], "min", 1),
    ],
)
def test_values_that_are_no_better(values, mode, expected):
    assert stopping.without_improvement(values, mode) == expected


@pytest.mark.parametrize(
    ("values", "patience", "expected"),
    [
        ([3.0, 2.0, 1.0], 1, 1.0),
        ([3.0, 3.0], 1, 0.1),
        ([3.0, 3.0, 3.0], 1, 0.01),
        ([3.0, 3.0, 3.0], 2, 0.1),
        ([3.0, 3.0, 3.0, 3.0], 2, 0.1),  # the count begins anew
        ([3.0, 3.0, 3.0, 3.0, 3.0], 2, 0.01),
        ([3.0, 3.0, 2.0, 2.5], 2, 1.0),
        ([3.0, 3.0, 3.0, 2.0, 2.5], 2, 0.1),
        ([3.0, 3.0, 3.0], 0, 1.0),
        ([], 1, 1.0),
    ],
)
def test_the_learning_rate_falls_on_a_plateau(values, patience, expected):
    assert stopping.plateau_scale(values, "min", patience, 0.1) == pytest.approx(expected)
    assert stopping.plateau_scale([-v for v in values], "max", patience, 0.1) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], False),
        ([0.1], False),
        ([0.6, 0.41], False),
        ([0.6, 0.39], True),
        ([0.6, 0.5, 0.39], True),
        ([0.1, 0.9], False),
    ],
)
def test_a_collapse_is_a_fall_below_the_best_epoch(values, expected):
    assert stopping.has_collapsed(values, 0.2) is expected
