"""Occlusion and RISE against loops in numpy, and what is known of their masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency.baselines import Baseline
from robust_saliency.randomness import fold_in, per_example_keys, split
from robust_saliency.saliency import RISE, Occlusion, occlusion, rise
from robust_saliency.saliency.occlusion import windows
from robust_saliency.saliency.rise import masks
from tests.saliency.linear_model import IMAGES, LABELS, OWN, linear, smooth


def occlusion_by_hand(images, baseline, window, stride):
    """Of the linear model: a covered window loses the weighted difference from the baseline inside it."""
    lost = ((images - baseline) * OWN).sum(-1)
    height, width = images.shape[1:3]
    total, count = np.zeros(lost.shape), np.zeros(lost.shape)
    for top in range(0, height - window + stride, stride):
        for left in range(0, width - window + stride, stride):
            place = (slice(None), slice(top, top + window), slice(left, left + window))
            total[place] += lost[place].sum((1, 2), keepdims=True)
            count[place] += 1
    return total / count


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (2, 2), (3, 2), (4, 1), (5, 5)])
@pytest.mark.parametrize("chunk_size", [0, 2])
def test_occlusion_of_a_linear_model(key, window, stride, chunk_size):
    spec = Occlusion(window=window, stride=stride, baseline=Baseline(kind="white"), chunk_size=chunk_size)
    found = jax.jit(lambda x, spec: occlusion(linear, key, x, LABELS, spec))(IMAGES, spec)
    np.testing.assert_allclose(found, occlusion_by_hand(IMAGES, 1.0, window, stride), atol=1e-4)


def test_windows_cover_every_pixel_and_reach_the_border():
    covered = windows((6, 5), 4, 3)
    assert covered.shape == (4, 6, 5, 1) and covered.any(0).all()
    assert [int(each.sum()) for each in covered] == [16, 8, 12, 6]
    assert windows((4, 4), 4, 1).shape == (1, 4, 4, 1)


def test_what_raises_the_score_when_covered_is_negative(key):
    found = occlusion(linear, key, IMAGES, LABELS, Occlusion(window=1, stride=1, baseline=Baseline()))
    np.testing.assert_allclose(found, (IMAGES * OWN).sum(-1), atol=1e-5)
    assert found.min() < 0 < found.max()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window": 2, "stride": 3}, "Occlusion.stride is 3, above the window of 2"),
        ({"window": 0}, "Occlusion.window must be at least 1, got 0"),
    ],
)
def test_windows_that_cannot_be_are_one_sentence(fields, message):
    with pytest.raises(ValueError, match=message):
        Occlusion(**fields)


def test_a_window_larger_than_the_image_is_one_sentence(key):
    with pytest.raises(ValueError, match=r"^Occlusion\.window is 6, but the images are 6 x 5 pixels\.$"):
        occlusion(linear, key, IMAGES, LABELS, Occlusion(window=6))


@pytest.mark.parametrize("centred", [False, True])
def test_rise_is_the_sum_over_its_own_masks(key, centred):
    keys = per_example_keys(key, jnp.arange(3))
    spec = RISE(num_samples=6, cells=3, score="logit", centred=centred, chunk_size=4)
    found = jax.jit(lambda x, spec: rise(smooth, keys, x, LABELS, spec))(IMAGES, spec)
    _, key_masks = split(keys)
    drawn = np.stack([np.asarray(masks(fold_in(key_masks, i), jnp.asarray(IMAGES), spec)) for i in range(6)])
    values = np.stack([np.asarray(smooth(jnp.asarray(m * IMAGES)))[np.arange(3), LABELS] for m in drawn])
    weights = values - values.mean(0) if centred else values
    expected = (weights[:, :, None, None, None] * drawn).sum(0)[..., 0] / (6 * 0.5)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_masks_are_smooth_in_range_and_as_visible_as_asked(key):
    images = jnp.zeros((400, 14, 21, 3))
    spec = RISE(cells=7, visible=0.3)
    drawn = np.asarray(masks(per_example_keys(key, jnp.arange(400)), images, spec))
    assert drawn.shape == (400, 14, 21, 1) and drawn.min() >= 0 and drawn.max() <= 1
    assert abs(drawn.mean() - 0.3) < 0.01
    assert np.abs(drawn.mean(0) - 0.3).max() < 0.1
    assert np.abs(np.diff(drawn, axis=1)).max() <= 0.51, "cells of two pixels: half a step a pixel"
    assert np.corrcoef(drawn[0].ravel(), drawn[1].ravel())[0, 1] < 0.9


def test_centred_rise_of_a_network_that_sees_nothing_is_zero_and_as_published_is_its_score(key):
    def blind(images):
        return jnp.tile(jnp.array([[3.0, 1.0, 2.0]]), (len(images), 1))

    spec = RISE(num_samples=300, score="logit")
    as_published = rise(blind, per_example_keys(key, jnp.arange(3)), IMAGES, LABELS, spec)
    np.testing.assert_allclose(as_published.mean((1, 2)), [2, 3, 1], rtol=0.1)
    centred = rise(blind, key, IMAGES, LABELS, RISE(num_samples=8, score="logit", centred=True))
    np.testing.assert_allclose(centred, 0, atol=1e-5)


def test_rise_finds_the_pixels_that_matter(key):
    def corner(images):
        value = images[:, :2, :2].mean((1, 2, 3))
        return jnp.stack([value, 1 - value], 1)

    spec = RISE(num_samples=500, cells=3, score="logit", centred=True)
    found = rise(corner, key, np.ones((2, 8, 8, 1), np.float32), np.array([0, 1]), spec)
    for at in (found[0].argmax(), found[1].argmin()):  # class 1 has its score where the corner is covered
        assert np.unravel_index(at, (8, 8)) < (3, 3)
    assert found[0, :2, :2].mean() > 5 * np.abs(found[0, 4:, 4:]).mean()
