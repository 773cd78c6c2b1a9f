"""What is wrong with a map is told by one word."""

import numpy as np

from robust_saliency import flaws


def test_each_map_has_the_word_for_what_is_wrong_with_it():
    maps = np.random.default_rng(0).normal(size=(7, 3, 4)).astype(np.float32)
    maps[1], maps[2], maps[3] = 0, -0.0, 2.5
    maps[4, 1, 2], maps[5, 0, 0] = np.nan, -np.inf
    maps[6] = np.nan
    expected = ["", "zero", "zero", "constant", "not finite", "not finite", "not finite"]
    assert flaws.of_maps(maps).tolist() == expected
    assert flaws.of_maps(maps[:, :1, :1])[0] == "constant"


def test_no_map_has_no_word():
    assert flaws.of_maps(np.zeros((0, 3, 4))).shape == (0,)
