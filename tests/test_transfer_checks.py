"""The check of a transfer matrix on made-up facts."""

import numpy as np
import pytest

from robust_saliency.transfer_checks import white_box_beats_transfer

NUM = 100


def matrix(**right):
    """bool ``[2, 2, 100]`` from which examples network t is right on, as s<source>t<target>."""
    correct = np.ones((2, 2, NUM), bool)
    for name, wrong in right.items():
        correct[int(name[1]), int(name[3]), wrong] = False
    return correct


def test_a_white_box_that_finds_more_passes():
    check = white_box_beats_transfer(matrix(s0t0=slice(60), s1t0=slice(20), s1t1=slice(90), s0t1=slice(40)), "ab")
    assert check.passed
    assert check.sentence.startswith("Where adversaries of another network add most, ")
    assert check.sentence.endswith("and 0.000 of the examples fall to these alone.")


def test_a_network_that_falls_to_another_s_adversaries_fails_and_is_named():
    check = white_box_beats_transfer(matrix(s0t0=slice(60), s1t1=slice(5), s0t1=slice(30)), ["a", "b"])
    assert not check.passed
    assert check.sentence == (
        "b is right on 0.950 of its own adversaries and on 0.700 of those made on a, and 0.250 of the examples fall to "
        "these alone: its own gradients do not find what those of another network find, so they are hidden."
    )


def test_it_is_the_examples_that_count_not_the_accuracy():
    """Both attacks fool half of the examples, but not the same."""
    check = white_box_beats_transfer(matrix(s1t1=slice(50), s0t1=slice(50, 100)), ["a", "b"])
    assert not check.passed and "0.500 of the examples fall" in check.sentence


@pytest.mark.parametrize(("extra", "passed"), [(2, True), (3, False)])
def test_chance_is_allowed_for(extra, passed):
    check = white_box_beats_transfer(matrix(s0t0=slice(50), s1t0=slice(50 - 10, 50 + extra)), ["a", "b"])
    assert check.passed == passed
