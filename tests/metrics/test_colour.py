import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from robust_saliency.metrics.colour import ColourAgreement, colour_agreement, colour_variation

jit_agreement = jax.jit(colour_agreement, static_argnums=3)


def variation_by_hand(image, window):
    """Of every pixel the deviation of what lies in the window and in the image, all channels."""
    height, width, channels = image.shape
    reach, found = window // 2, np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            patch = image[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
            found[row, column] = np.sqrt(patch.reshape(-1, channels).var(axis=0).sum())
    return found


@pytest.fixture
def drawn(rng):
    images = rng.uniform(size=(3, 9, 8, 3))
    masks = np.zeros((3, 9, 8))
    masks[:, 2:7, 1:6] = 1
    return images, rng.normal(size=(3, 9, 8)), masks


@pytest.mark.parametrize("window", [3, 5, 11])
def test_variation_is_that_of_a_window_cut_at_the_border(drawn, window):
    with jax.enable_x64(True):
        found = np.asarray(jax.jit(colour_variation, static_argnums=1)(drawn[0], window))
    np.testing.assert_allclose(found, [variation_by_hand(image, window) for image in drawn[0]], rtol=1e-9)


def test_one_colour_does_not_vary_at_all_and_an_edge_does_only_near_it():
    images = np.full((1, 6, 8, 3), 0.1, np.float32)
    images[0, :, 5:] = (0.3, 0.1, 0.7)
    found = np.asarray(colour_variation(images, 3))[0]
    assert (found[:, :4] == 0).all() and (found[:, 6:] == 0).all() and (found[:, 4:6] > 0.1).all()


@pytest.mark.parametrize("sign", ["abs", "positive", "raw"])
def test_agreement_is_scipys_rank_correlation_of_the_pixels_in_the_mask(drawn, sign):
    images, maps, masks = drawn
    relevance = {"abs": np.abs(maps), "positive": np.maximum(maps, 0), "raw": maps}[sign]
    with jax.enable_x64(True):
        found = jit_agreement(images, maps, {"lesion": masks}, ColourAgreement(sign=sign))
    expected = [
        stats.spearmanr(of[mask > 0], variation_by_hand(image, 5)[mask > 0]).statistic
        for image, of, mask in zip(images, relevance, masks, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_what_lies_outside_the_mask_does_not_count(drawn, rng):
    images, maps, masks = (np.asarray(each, np.float32) for each in drawn)
    changed = np.where(masks > 0, maps, 100 * rng.normal(size=maps.shape)).astype(np.float32)
    np.testing.assert_array_equal(jit_agreement(images, maps, masks, None), jit_agreement(images, changed, masks, None))


def test_the_variation_itself_agrees_wholly_and_what_is_opposite_not_at_all(drawn):
    images, _, masks = (np.asarray(each, np.float32) for each in drawn)
    variation = colour_variation(images, 5)
    np.testing.assert_allclose(jit_agreement(images, variation, masks, None), 1, rtol=1e-6)
    np.testing.assert_allclose(jit_agreement(images, jnp.exp(variation), masks, None), 1, rtol=1e-6)
    np.testing.assert_allclose(jit_agreement(images, 2 - variation, masks, None), -1, rtol=1e-6)


def test_random_maps_agree_with_nothing_on_average(rng):
    images = rng.uniform(size=(400, 8, 8, 3)).astype(np.float32)
    maps = rng.uniform(size=(400, 8, 8)).astype(np.float32)
    found = jit_agreement(images, maps, np.ones_like(maps), None)
    assert abs(float(np.mean(found))) < 3 / np.sqrt(64 * 400)


def test_one_pixel_one_colour_and_one_value_say_nothing(drawn):
    images, maps, masks = (np.asarray(each, np.float32) for each in drawn)
    alone, flat = np.zeros_like(masks), np.array(maps)
    alone[:, 3, 3] = 1
    flat[masks > 0] = 0.3
    assert np.isnan(jit_agreement(images, maps, alone, None)).all()
    assert np.isnan(jit_agreement(np.full_like(images, 0.4), maps, masks, None)).all()
    assert np.isnan(jit_agreement(images, flat, masks, None)).all()


@pytest.mark.parametrize("window", [1, 4])
def test_a_window_has_a_middle_and_more(window):
    with pytest.raises(ValueError, match=f"window must be odd and at least 3 pixels, got {window}"):
        ColourAgreement(window=window)
