"""Dissection of planted units: the thresholds, counts and IoUs can be computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import neurons
from robust_saliency.neurons import Dissection
from tests.neurons.planted import LOGITS_FN, images_and_masks

IMAGES, MASKS = images_and_masks()
SPEC = Dissection(quantile=0.2)
thresholds, overlaps, accumulate, iou_of = map(
    jax.jit, (neurons.thresholds, neurons.overlaps, neurons.accumulate, neurons.iou)
)


def maps_of(images):
    return np.asarray(neurons.activations(LOGITS_FN, images, "units"))


def test_thresholds_are_the_quantiles_of_numpy(rng):
    activations = rng.normal(size=(7, 5, 6, 4)).astype(np.float32)
    found = thresholds(activations)
    np.testing.assert_allclose(found.values, np.quantile(activations, 0.995, axis=(0, 1, 2)), rtol=1e-6)
    assert (found.not_finite == 0).all()
    share = (activations > np.asarray(found.values)).mean((0, 1, 2))
    np.testing.assert_array_equal(share, np.full(4, 2 / 210))


def test_what_is_not_finite_is_left_out_and_counted_and_dead_units_have_no_threshold(rng):
    activations = rng.normal(size=(6, 4, 4, 4)).astype(np.float32)
    activations[..., 1] = 0.3
    activations[2, 1:3, 1, 2], activations[0, 0, 0, 2] = np.nan, np.inf
    activations[..., 3] = np.nan
    found = thresholds(activations, SPEC)
    left = activations[..., 2][np.isfinite(activations[..., 2])]
    np.testing.assert_allclose(found.values[2], np.quantile(left, 0.8), rtol=1e-6)
    np.testing.assert_array_equal(found.not_finite, [0, 0, 3, 96])
    assert np.isnan(found.values[1]) and np.isnan(found.values[3])


def test_a_unit_that_is_mostly_silent_is_not_active_everywhere():
    """Its quantile is 0, and with >= for > every place would be active (an IoU with the whole image)."""
    activations = np.zeros((10, 10, 10, 1), np.float32)
    activations[3, 4, 5] = 2.0
    threshold = thresholds(activations).values
    assert threshold[0] == 0
    counts = overlaps(activations, threshold, np.ones((10, 10, 10, 1)))
    assert counts.active.sum() == 1


def test_iou_of_planted_units_by_hand():
    """Red squares fill 8 of the 64 places, and 32 of the 256 pixels; the quantile of 0.2 lies in the background."""
    maps = maps_of(IMAGES)
    found = thresholds(maps, SPEC)
    np.testing.assert_allclose(found.values[:2], [0.0, 0.0])
    assert np.isnan(found.values[2])
    # Cut at half its height a square keeps its size: bilinear, its corner pixels are 9/16 of it, the next 3/16 at most.
    totals = accumulate(None, maps, jnp.array([0.5, 0.25, jnp.nan]), MASKS)
    np.testing.assert_array_equal(totals.active[:, 0], [32, 48, 0])
    np.testing.assert_array_equal(totals.shown[0], [32, 16])
    iou = np.asarray(iou_of(totals))
    np.testing.assert_allclose(iou[:2], [[1.0, 0.0], [32 / 48, 16 / 48]], rtol=1e-6)
    assert np.isnan(iou[2]).all()


def test_detectors_pure_mixed_and_dead():
    iou = jnp.array([[1.0, 0.0], [0.5, 0.5], [jnp.nan, jnp.nan], [0.03, jnp.nan], [0.01, 0.04]])
    found = jax.jit(neurons.detectors)(iou)
    np.testing.assert_array_equal(found.concepts, [0, 0, -1, 0, 1])
    np.testing.assert_array_equal(found.detects, [True, True, False, False, False])
    np.testing.assert_array_equal(found.unique, [True, False])
    np.testing.assert_allclose(found.iou, [1.0, 0.5, np.nan, 0.03, 0.04], rtol=1e-6)
    assert neurons.detectors(iou, Dissection(least_iou=0.035)).unique.all()


def test_batches_add_up_and_the_images_of_a_batch_are_counted_alone(rng):
    activations = rng.normal(size=(6, 4, 5, 3)).astype(np.float32)
    masks = rng.integers(0, 2, (6, 8, 10, 2)).astype(np.uint8)
    values = jnp.array([0.2, jnp.nan, -0.5])
    whole = accumulate(None, activations, values, masks)
    parts = accumulate(None, activations[:3], values, masks[:3])
    parts = accumulate(parts, activations[3:], values, masks[3:])
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    each = overlaps(activations, values, masks)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.sum(0), b), each, whole)
    others = activations.copy()
    others[:3], others[4:] = 9.0, np.nan
    beside = overlaps(others, values, masks)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[3], b[3]), each, beside)

    active = np.asarray(jax.image.resize(activations, (6, 8, 10, 3), "bilinear")) > np.asarray(values)
    np.testing.assert_array_equal(whole.intersection, np.einsum("nhwu,nhwk->uk", active * 1, masks * 1))
    union = (active[..., None] | (masks > 0)[..., None, :]).sum((0, 1, 2))
    expected = np.where(active.any((0, 1, 2))[:, None], np.asarray(whole.intersection) / union, np.nan)
    np.testing.assert_allclose(iou_of(whole), expected, rtol=1e-6)


def test_an_image_that_is_not_labelled_for_a_concept_does_not_count_for_it(rng):
    activations = rng.normal(size=(4, 4, 4, 3)).astype(np.float32)
    masks = rng.integers(0, 2, (4, 4, 4, 2))
    labelled = np.array([[1, 1], [1, 0], [0, 0], [1, 1]], bool)
    values = np.zeros(3, np.float32)
    found = accumulate(None, activations, values, masks, labelled)
    each = overlaps(activations, values, masks)
    first, second = (
        jax.tree.map(lambda a, rows=rows: np.asarray(a)[rows].sum(0), each) for rows in ([0, 1, 3], [0, 3])
    )
    for got, of_first, of_second in zip(found, first, second, strict=True):
        np.testing.assert_array_equal(got[:, :1], of_first[:, :1])
        np.testing.assert_array_equal(got[:, 1:], np.broadcast_to(of_second, got.shape)[:, 1:])
    padding = accumulate(None, activations, values, masks, np.array([True, True, False, True]))
    jax.tree.map(np.testing.assert_array_equal, padding, first)


def test_upsampling_keeps_constants_and_spreads_nan_no_further_than_it_reaches():
    maps = np.ones((1, 4, 4, 2), np.float32)
    maps[0, 0, 0, 0] = np.nan
    large = np.asarray(neurons.upsample(maps, (8, 8)))
    lost = np.isnan(large[0, ..., 0])
    assert lost[:3, :3].all() and lost.sum() == 9
    np.testing.assert_array_equal(large[..., 1], 1)
    np.testing.assert_array_equal(neurons.upsample(maps[..., 1:], (4, 4)), maps[..., 1:])


def test_float64_stays_float64():
    with jax.enable_x64(True):
        activations = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4, 2)))
        assert neurons.thresholds(activations).values.dtype == jnp.float64
        assert neurons.upsample(activations, (8, 8)).dtype == jnp.float64


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (MASKS[:3], r"Batch sizes differ: activations 4, masks 3"),
        (MASKS[..., 0], r"masks must have 4 axes, got shape \(4, 8, 8\)"),
        (MASKS[:, :3], r"masks must be of the size of the images, \[N, H, W, K\], got shape \(4, 3, 8, 2\)"),
        (MASKS * 0.5, r"masks must be 0 or 1 everywhere, found 0\.5 among 48 other values"),
    ],
)
def test_masks_that_will_not_do_are_one_sentence(masks, message):
    with pytest.raises(ValueError, match=message):
        neurons.overlaps(maps_of(IMAGES), np.zeros(3, np.float32), masks)


def test_layers_that_will_not_do_are_one_sentence():
    with pytest.raises(ValueError, match=r"Unknown layer of the network 'unit'\. Did you mean 'units'\?"):
        neurons.activations(LOGITS_FN, IMAGES, "unit")
    with pytest.raises(ValueError, match=r"^What reads the units of a layer looks inside the network: give it"):
        neurons.activations(lambda x: LOGITS_FN(x), IMAGES, "units")
    with pytest.raises(ValueError, match=r"Dissection\.quantile must be in \[0, 1\], got 5"):
        Dissection(quantile=5)


def test_the_layers_of_a_bundled_network(small_cnn, rng):
    layers = ("conv2/conv", "conv4", "gap")
    images = rng.uniform(size=(5, 16, 16, 3)).astype(np.float32)
    found = jax.jit(lambda x: {layer: neurons.activations(small_cnn, x, layer) for layer in layers})(images)
    shapes = {layer: maps.shape for layer, maps in found.items()}
    assert shapes == {"conv2/conv": (5, 8, 8, 4), "conv4": (5, 2, 2, 8), "gap": (5, 1, 1, 8)}
    np.testing.assert_allclose(np.mean(found["conv4"], (1, 2)), found["gap"][:, 0, 0], rtol=1e-5)


@pytest.mark.parametrize("quantile", [0.0, 0.03, 0.2, 1.0])
def test_thresholds_of_batches_are_those_of_all_images_at_once(rng, quantile):
    """With padding, with what is not finite, with ties and with a unit that is dead."""
    activations = rng.normal(size=(11, 5, 3, 5)).astype(np.float32)
    activations[..., 1] = np.maximum(activations[..., 1], 0)
    activations[..., 2] = 0.3
    activations[4:6, 1, 1, 3], activations[10, 4, 2, 3], activations[..., 4] = np.nan, np.inf, np.nan
    spec = Dissection(quantile=quantile)
    most = neurons.tail_size(11 * 5 * 3, spec)
    expected = thresholds(activations, spec)
    for size in (3, 11, 16):
        padded = np.concatenate([activations, np.repeat(activations[-1:] + 9, -11 % size, axis=0)])
        valid, found = np.arange(len(padded)) < 11, None
        for first in range(0, len(padded), size):
            tail = neurons.tail(padded[first : first + size], most, valid[first : first + size])
            found = tail if found is None else neurons.merge_tails(found, tail)
        assert found.highest.shape == (5, most)
        for values, wanted in zip(neurons.tail_thresholds(found, spec), expected, strict=True):
            np.testing.assert_array_equal(values, wanted)
    assert most == {0.0: 3, 0.03: 7, 0.2: 36, 1.0: 165}[quantile]
