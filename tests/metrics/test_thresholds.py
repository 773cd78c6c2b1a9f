"""A map as a detector at every threshold, against scikit-free references in NumPy and SciPy."""

import jax
import numpy as np
import pytest
import scipy.stats

from robust_saliency.metrics import BestIoU, MaskAUC, best_iou, mask_auc

SHAPE = (6, 7, 5)


@pytest.fixture
def maps(rng):
    return rng.normal(size=SHAPE).round(0).astype(np.float32)  # many ties


@pytest.fixture
def mask(rng):
    return (rng.random(SHAPE) < 0.3).astype(np.float32)


def auc(maps, masks, **fields):
    return np.asarray(jax.jit(lambda maps, masks: mask_auc(maps, masks, MaskAUC(**fields)))(maps, masks))


def iou(maps, masks, **fields):
    return np.asarray(jax.jit(lambda maps, masks: best_iou(maps, masks, BestIoU(**fields)))(maps, masks))


def test_auc_is_the_mann_whitney_statistic(maps, mask):
    for value, values, inside in zip(auc(maps, mask), np.abs(maps), mask > 0, strict=True):
        statistic = scipy.stats.mannwhitneyu(values[inside], values[~inside]).statistic
        np.testing.assert_allclose(value, statistic / (inside.sum() * (~inside).sum()), rtol=1e-5)


def test_best_iou_is_the_best_of_all_thresholds(maps, mask):
    for value, values, inside in zip(iou(maps, mask), np.abs(maps), mask > 0, strict=True):
        thresholds = [values >= t for t in np.unique(values)]
        assert value == pytest.approx(max((over & inside).sum() / (over | inside).sum() for over in thresholds))


def test_the_mask_as_a_map_is_perfect_and_its_opposite_finds_it_last(mask):
    opposite = 2 - mask
    np.testing.assert_allclose(auc(mask, mask), 1)
    np.testing.assert_allclose(iou(mask, mask), 1)
    np.testing.assert_allclose(auc(opposite, mask), 0, atol=1e-6)
    np.testing.assert_allclose(iou(opposite, mask), mask.mean((1, 2)), rtol=1e-6)


def test_a_constant_map_knows_nothing(mask):
    flat = np.full(SHAPE, 0.2, np.float32)
    np.testing.assert_allclose(auc(flat, mask), 0.5)
    np.testing.assert_allclose(iou(flat, mask), mask.mean((1, 2)), rtol=1e-6)


def test_a_random_map_has_one_half(rng):
    mask = np.zeros((300, 12, 12), np.float32)
    mask[:, 2:6, 3:9] = 1
    values = auc(rng.random(mask.shape).astype(np.float32), mask)
    deviation = np.sqrt((144 + 1) / (12 * 24 * 120))  # of the Mann-Whitney statistic under no difference
    assert abs(values.mean() - 0.5) < 4 * deviation / np.sqrt(300)
    np.testing.assert_allclose(values.std(), deviation, rtol=0.15)


def test_one_pixel_alone_by_hand():
    """Of 35 pixels 10 in the mask: it beats 25, is tied with all other pairs, or loses to 10 of them."""
    maps = np.eye(35, dtype=np.float32).reshape(35, 7, 5)
    mask = np.zeros_like(maps)
    mask[:, :2] = 1
    inside = np.arange(35) < 10
    np.testing.assert_allclose(auc(maps, mask), np.where(inside, 1 / 2 + 1 / 20, 1 / 2 - 1 / 50), rtol=1e-5)
    np.testing.assert_allclose(iou(maps, mask), 10 / 35, rtol=1e-6)
    mask[:, :2], mask[:, 0, 0], mask[:, 3, 3] = 0, 1, 1
    np.testing.assert_allclose(iou(maps, mask)[0], 1 / 2, rtol=1e-6)


def test_the_best_iou_of_one_pixel_in_a_random_map_is_one_over_its_rank(rng):
    """The rank is any of 1 .. n alike often, so the mean is the n-th harmonic number over n."""
    maps = rng.random((2000, 4, 5)).astype(np.float32)
    mask = np.zeros_like(maps)
    mask[:, 1, 2] = 1
    expected, squares = np.sum(1 / np.arange(1, 21)) / 20, np.sum(1 / np.arange(1, 21) ** 2) / 20
    deviation = np.sqrt((squares - expected**2) / len(maps))
    assert abs(iou(maps, mask).mean() - expected) < 4 * deviation


def test_nothing_inside_nothing_beside_and_meaningless_maps(maps, mask):
    mask[0], mask[1], maps[2], maps[3, 0, 0] = 0, 1, 0, np.nan
    np.testing.assert_array_equal(np.isnan(auc(maps, mask)), [True, True, True, True, False, False])
    np.testing.assert_array_equal(np.isnan(iou(maps, mask)), [True, False, True, True, False, False])
    np.testing.assert_allclose(iou(maps, mask)[1], 1)


def test_signs_and_masks_by_name(maps, mask):
    both = {"lesion": mask, "evidence": 1 - mask}
    np.testing.assert_allclose(auc(maps, both, mask="evidence"), 1 - auc(maps, mask), rtol=1e-5)
    np.testing.assert_array_equal(auc(maps, mask, sign="negative"), auc(-maps, mask, sign="positive"))
    with pytest.raises(ValueError, match=r"Unknown mask 'lesions'. Did you mean 'lesion'"):
        auc(maps, both, mask="lesions")


def test_the_rank_sum_of_a_large_image_is_exact_to_rounding(side=500):
    values = np.arange(side * side, dtype=np.float32).reshape(1, side, side)
    mask = np.zeros_like(values)
    mask[0, -side // 2 :] = 1
    np.testing.assert_allclose(auc(values + 1, mask), 1, rtol=1e-5)
