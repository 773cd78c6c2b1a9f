"""Which pixels ROAR and KAR take: counted by hand, with ties, and free of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import metrics, randomness
from robust_saliency.baselines import Baseline
from robust_saliency.metrics import Removal

removed = jax.jit(metrics.removed_pixels)
changed = jax.jit(metrics.remove_pixels)
FRACTIONS = (0.0, 0.1, 0.25, 0.5, 0.9, 1.0)


@pytest.fixture
def keys():
    return randomness.per_example_keys(jax.random.key(0), jnp.arange(4))


@pytest.fixture
def images(rng):
    return rng.uniform(size=(4, 5, 6, 3)).astype(np.float32)


def test_the_highest_go_and_by_hand_they_are_these(key):
    maps = np.array([[[3.0, -9.0, 1.0], [0.0, 2.0, 4.0]]], np.float32)
    half = removed(key, maps, Removal(fraction=0.5))
    np.testing.assert_array_equal(half[0], [[True, True, False], [False, False, True]])
    signed = removed(key, maps, Removal(fraction=0.5, sign="raw"))
    np.testing.assert_array_equal(signed[0], [[True, False, False], [False, True, True]])
    kept = removed(key, maps, Removal(fraction=1 / 3, mode="keep"))
    np.testing.assert_array_equal(kept[0], [[True, False, True], [True, True, False]])


def test_the_count_is_exact_whatever_ties_and_keep_is_the_complement(keys, rng):
    maps = {
        "distinct": rng.permutation(120).reshape(4, 5, 6),
        "mask": rng.integers(0, 2, (4, 5, 6)),
        "constant": np.ones((4, 5, 6)),
        "zero": np.zeros((4, 5, 6)),
        "nan": np.full((4, 5, 6), np.nan),
    }
    for name, values in maps.items():
        values = values.astype(np.float32)
        for fraction in FRACTIONS:
            gone = np.asarray(removed(keys, values, Removal(fraction=fraction)))
            assert (gone.sum((1, 2)) == np.round(fraction * 30)).all(), (name, fraction)
            np.testing.assert_array_equal(removed(keys, values, Removal(fraction=fraction, mode="keep")), ~gone)
            if name in ("distinct", "mask"):
                lowest_gone = np.where(gone, values, np.inf).min((1, 2))
                highest_left = np.where(gone, -np.inf, values).max((1, 2))
                assert (lowest_gone >= highest_left).all()


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan, np.inf])
def test_a_map_that_tells_no_pixel_from_another_removes_at_random(value):
    count = 2000
    keys = randomness.per_example_keys(jax.random.key(1), jnp.arange(count))
    share = np.asarray(removed(keys, jnp.full((count, 3, 4), value), Removal(fraction=0.25))).mean(0)
    assert np.abs(share - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / count), "some places go more often than others"


def test_removed_pixels_become_the_baseline_in_all_channels_and_the_others_stay(keys, images, rng):
    maps = rng.normal(size=images.shape[:3]).astype(np.float32)
    mean = np.array([0.2, 0.4, 0.6], np.float32)
    spec = Removal(fraction=0.4, baseline=Baseline(kind="constant", value=mean))
    found, gone = np.asarray(changed(keys, images, maps, spec)), np.asarray(removed(keys, maps, spec))
    np.testing.assert_array_equal(found[gone], np.broadcast_to(mean, (gone.sum(), 3)))
    np.testing.assert_array_equal(found[~gone], images[~gone])
    kept = np.asarray(changed(keys, images, maps, Removal(fraction=0.4, mode="keep", baseline=spec.baseline)))
    np.testing.assert_array_equal(np.where(gone[..., None], kept, found), images)


@pytest.mark.parametrize("kind", ["uniform", "blur"])
def test_an_example_does_not_depend_on_its_neighbours(kind, keys, images):
    maps = np.zeros(images.shape[:3], np.float32)
    spec = Removal(baseline=Baseline(kind=kind))
    whole = changed(keys, images, maps, spec)
    part = changed(keys[2:], images[2:], maps[2:], spec)
    np.testing.assert_allclose(whole[2:], part, atol=1e-6)


def test_the_share_is_data_and_float64_stays(keys, images):
    maps = np.arange(images[..., 0].size, dtype=np.float32).reshape(images.shape[:3])
    before = removed._cache_size()
    for fraction in (0.11, 0.37, 0.73):
        removed(keys, maps, Removal(fraction=fraction))
    assert removed._cache_size() <= before + 1
    with jax.enable_x64(True):
        assert metrics.remove_pixels(keys, jnp.asarray(images, jnp.float64), maps).dtype == jnp.float64


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"mode": "retain"}, r"Unknown mode 'retain'.*Choices: keep, remove"),
        ({"fraction": 1.2}, r"fraction must be in \[0, 1\], got 1.2"),
        ({"sign": "ab"}, "Unknown sign 'ab'"),
    ],
)
def test_bad_settings_are_one_sentence(spec, message):
    with pytest.raises(ValueError, match=message):
        Removal(**spec)


def test_maps_of_another_shape_and_images_that_are_no_floats_are_refused(keys, images):
    with pytest.raises(ValueError, match=r"Maps must be \(4, 5, 6\)"):
        metrics.remove_pixels(keys, images, np.zeros((4, 6, 5), np.float32))
    with pytest.raises(ValueError, match="divide 8-bit images by 255"):
        metrics.remove_pixels(keys, (255 * images).astype(np.uint8), np.zeros((4, 5, 6), np.float32))
