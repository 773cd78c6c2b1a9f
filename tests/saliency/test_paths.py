"""Blur-IG, guided IG and expected gradients: closed forms of a linear model, completeness, and what makes each path."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency.baselines import Baseline
from robust_saliency.blur import gaussian_blur
from robust_saliency.randomness import per_example_keys
from robust_saliency.saliency import (
    RISE,
    BlurIG,
    ClassMaps,
    ExpectedGradients,
    GuidedIG,
    IntegratedGradients,
    blur_ig,
    class_maps,
    expected_gradients,
    guided_ig,
    integrated_gradients,
)
from robust_saliency.saliency.guided_ig import _moved
from tests.saliency.linear_model import IMAGES, LABELS, OWN, linear, smooth

SIGNED = {"sign": "signed", "channels": "none"}
REFERENCES = np.random.default_rng(2).uniform(size=(4, *IMAGES.shape[1:])).astype(np.float32)


def scores(function, images):
    return np.asarray(function(jnp.asarray(images)))[np.arange(3), LABELS]


@pytest.mark.parametrize("spacing", ["linear", "quadratic"])
def test_blur_ig_of_a_linear_model_is_what_the_blur_took_times_the_weights(key, spacing):
    spec = BlurIG(num_steps=5, max_sigma=2.0, spacing=spacing, **SIGNED)
    found = jax.jit(lambda x, spec: blur_ig(linear, key, x, LABELS, spec))(IMAGES, spec)
    np.testing.assert_allclose(found, (IMAGES - gaussian_blur(jnp.asarray(IMAGES), 2.0)) * OWN, atol=1e-5)


def test_blur_ig_is_complete_and_a_constant_image_has_none(key):
    found = blur_ig(smooth, key, IMAGES, LABELS, BlurIG(num_steps=64, max_sigma=3.0, **SIGNED))
    blurred = gaussian_blur(jnp.asarray(IMAGES), 3.0)
    np.testing.assert_allclose(found.sum((1, 2, 3)), scores(smooth, IMAGES) - scores(smooth, blurred), atol=1e-3)
    grey = blur_ig(smooth, key, np.full_like(IMAGES, 0.3), LABELS, BlurIG(num_steps=4))
    np.testing.assert_allclose(grey, 0, atol=1e-6)


@pytest.mark.parametrize("unroll", [True, False])
def test_guided_ig_that_may_not_leave_the_line_is_the_left_riemann_sum(key, unroll):
    spec = GuidedIG(num_steps=7, max_distance=0.0, unroll=unroll, **SIGNED)
    found = jax.jit(lambda x, spec: guided_ig(smooth, key, x, LABELS, spec))(IMAGES, spec)
    line = IntegratedGradients(num_steps=7, rule="riemann_left", **SIGNED)
    np.testing.assert_allclose(found, integrated_gradients(smooth, key, IMAGES, LABELS, line), atol=1e-5)


@pytest.mark.parametrize("max_distance", [0.02, 0.3, 1.0])
def test_guided_ig_is_complete_whatever_its_path(key, max_distance):
    spec = GuidedIG(num_steps=100, max_distance=max_distance, baseline=Baseline(kind="white"), unroll=False, **SIGNED)
    found = jax.jit(lambda x, spec: guided_ig(linear, key, x, LABELS, spec))(IMAGES, spec)
    np.testing.assert_allclose(found, (IMAGES - 1) * OWN, atol=1e-5)
    change = scores(smooth, IMAGES) - scores(smooth, np.ones_like(IMAGES))
    errors = []
    for num_steps in (50, 200):
        longer = dataclasses.replace(spec, num_steps=num_steps)
        found = jax.jit(lambda x, spec: guided_ig(smooth, key, x, LABELS, spec))(IMAGES, longer)
        errors.append(np.abs(found.sum((1, 2, 3)) - change).max() / np.abs(change).max())
    assert errors[1] < 0.35 * errors[0] < 0.05, "the error of steps that begin at their left end falls as their length"


@pytest.mark.parametrize(
    ("max_distance", "share", "expected"),
    [
        (1.0, 0.25, [1.0, 0.0, 0.0, 0.0]),  # the smallest gradient goes all its way first
        (1.0, 0.625, [1.0, 0.0, 1.0, 0.5]),
        (0.1, 0.5, [0.6, 0.4, 0.6, 0.4]),  # nobody runs ahead of, or stays behind, the line by more than a tenth
        (0.0, 0.5, [0.5, 0.5, 0.5, 0.5]),
        (1.0, 1.0, [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_a_step_moves_first_what_the_score_feels_least(max_distance, share, expected):
    shape = (1, 1, 4, 1)
    gradient = jnp.array([0.1, -9.0, 0.2, 1.0]).reshape(shape)
    spec = GuidedIG(fraction=0.01, max_distance=max_distance)
    found = jax.jit(_moved)(jnp.zeros(shape), gradient, jnp.ones(shape), jnp.zeros(shape), jnp.array(share), spec)
    np.testing.assert_allclose(found.reshape(-1), expected, atol=1e-6)


def moved_by_the_published_loop(point, gradient, image, baseline, share, fraction, distance):
    """Algorithm 1 with its loop: again and again the entries of smallest gradient that can still move."""
    way, sizes = image - baseline, np.abs(gradient)
    behind, ahead = max(share - distance, 0), min(share + distance, 1)
    point = np.where((point - baseline) / way < behind, baseline + way * behind, point)
    furthest = baseline + way * ahead
    target = np.abs(way).sum() * (1 - share)
    while (left := np.abs(image - point).sum() - target) > 1e-9:
        sizes = np.where(point == furthest, np.inf, sizes)
        chosen = (sizes <= np.quantile(sizes, fraction, method="lower")) & np.isfinite(sizes)
        part = left / np.abs((furthest - point) * chosen).sum()
        point = np.where(chosen, furthest if part > 1 else point + part * (furthest - point), point)
    return point


@pytest.mark.parametrize("fraction", [0.05, 0.25, 0.6, 1.0])
@pytest.mark.parametrize("distance", [0.05, 0.3, 1.0])
def test_the_path_is_that_of_the_published_loop(rng, fraction, distance):
    shape = (1, 3, 5, 2)
    image, baseline = rng.uniform(size=shape), rng.uniform(size=shape)
    spec = GuidedIG(fraction=fraction, max_distance=distance)
    with jax.enable_x64(True):
        point = expected = baseline
        for share in (0.2, 0.4, 0.6, 0.8, 1.0):
            gradient = rng.normal(size=shape)
            expected = moved_by_the_published_loop(expected, gradient, image, baseline, share, fraction, distance)
            point = jax.jit(_moved)(point, gradient, image, baseline, share, spec)
            np.testing.assert_allclose(point, expected, atol=1e-9)


def test_guided_ig_where_image_and_baseline_agree_is_zero(key):
    spec = GuidedIG(num_steps=3, baseline=Baseline(kind="array", images=jnp.asarray(IMAGES[0])))
    found = guided_ig(smooth, key, IMAGES, LABELS, spec)
    assert not found[0].any() and np.isfinite(found).all() and found[1].any()


def test_expected_gradients_of_a_linear_model_are_the_mean_difference_times_the_weights(key):
    spec = ExpectedGradients(num_samples=40, references=jnp.asarray(REFERENCES[:1]), **SIGNED)
    found = jax.jit(lambda x, spec: expected_gradients(linear, key, x, LABELS, spec))(IMAGES, spec)
    np.testing.assert_allclose(found, (IMAGES - REFERENCES[:1]) * OWN, atol=1e-5)
    many = ExpectedGradients(num_samples=4000, references=jnp.asarray(REFERENCES), max_images=1500, **SIGNED)
    found = jax.jit(lambda x, spec: expected_gradients(linear, key, x, LABELS, spec))(IMAGES, many)
    np.testing.assert_allclose(found, (IMAGES - REFERENCES.mean(0)) * OWN, atol=0.1)


def test_expected_gradients_from_black_are_integrated_gradients_by_chance(key):
    spec = ExpectedGradients(num_samples=3000, baseline=Baseline(), max_images=3000, **SIGNED)
    found = jax.jit(lambda x, spec: expected_gradients(smooth, key, x, LABELS, spec))(IMAGES, spec)
    exact = integrated_gradients(smooth, key, IMAGES, LABELS, IntegratedGradients(**SIGNED))
    np.testing.assert_allclose(found, exact, atol=0.1 * np.abs(exact).max())


def test_samples_of_expected_gradients_are_drawn_anew_and_more_extend_fewer(key):
    keys = per_example_keys(key, jnp.arange(3))

    def found(num_samples, **more):
        spec = ExpectedGradients(num_samples=num_samples, references=jnp.asarray(REFERENCES), **SIGNED, **more)
        return np.asarray(expected_gradients(smooth, keys, IMAGES, LABELS, spec))

    first, both = found(1), found(2)
    second = 2 * both - first
    assert np.abs(second - first).max() > 0.01
    np.testing.assert_allclose(found(2, chunk_size=1), both, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BlurIG(spacing="log"), "Unknown spacing 'log'"),
        (lambda: GuidedIG(num_steps=0), "GuidedIG.num_steps must be at least 1, got 0"),
        (lambda: GuidedIG(max_distance=-1.0), r"GuidedIG.max_distance must be in \[0, 1\], got -1.0"),
        (lambda: BlurIG(max_sigma=0.0), "BlurIG.max_sigma must be above 0, got 0.0"),
        (lambda: RISE(visible=3.0), r"RISE.visible must be in \[0, 1\], got 3.0"),
        (lambda: RISE(cells=1), "RISE.cells must be at least 2, got 1"),
        (lambda: GuidedIG(fraction=0.0), "GuidedIG.fraction must be above 0, got 0.0"),
        (lambda: ExpectedGradients(num_samples=0), "ExpectedGradients.num_samples must be at least 1, got 0"),
    ],
)
def test_bad_fields_are_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_references_of_another_size_are_one_sentence(key):
    spec = ExpectedGradients(references=jnp.zeros((4, 5, 5, 2)))
    message = r"^ExpectedGradients\.references must be images \[N, 6, 5, 2\], N at least 1, got shape \(4, 5, 5, 2\)\.$"
    with pytest.raises(ValueError, match=message):
        expected_gradients(linear, key, IMAGES, LABELS, spec)
    with pytest.raises(ValueError, match=r"references must be floating point in \[0, 1\], got dtype uint8"):
        eight_bit = ExpectedGradients(references=jnp.zeros((4, 6, 5, 2), jnp.uint8))
        expected_gradients(linear, key, IMAGES, LABELS, eight_bit)


@pytest.mark.parametrize(("spacing", "sigmas"), [("linear", (2.0, 1.0, 0.0)), ("quadratic", (2.0, 0.5, 0.0))])
def test_blur_ig_in_two_steps_by_hand(key, spacing, sigmas):
    images = jnp.asarray(IMAGES)
    path = [gaussian_blur(images, sigma) for sigma in sigmas]
    expected = sum(
        (to - start) * jax.grad(lambda x: smooth(x)[jnp.arange(3), LABELS].sum())((start + to) / 2)
        for start, to in itertools.pairwise(path)
    )
    found = blur_ig(smooth, key, IMAGES, LABELS, BlurIG(num_steps=2, max_sigma=2.0, spacing=spacing, **SIGNED))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_entry_that_overflows_takes_nothing_else_with_it(key):
    """The passes wait for one another by a condition on one entry: infinity there must not stop the next."""

    def overflowing(images):
        pixels = images.reshape(len(images), -1)
        return jnp.stack([jnp.sqrt(pixels).sum(1), pixels @ jnp.arange(60.0), pixels[:, 1]], 1)

    black_corner = IMAGES * (np.arange(60) > 0).reshape(6, 5, 2)
    maps = class_maps(overflowing, black_corner, ClassMaps(**SIGNED))
    found = np.asarray(maps[:, 1]).reshape(3, -1)[:, 1:]
    np.testing.assert_allclose(found, np.broadcast_to(np.arange(1.0, 60.0), found.shape), rtol=1e-6)
    at_once, one_by_one = (
        np.asarray(blur_ig(overflowing, key, black_corner, np.zeros(3, np.int32), BlurIG(chunk_size=size, **SIGNED)))
        for size in (32, 1)
    )
    np.testing.assert_allclose(at_once.reshape(3, -1)[:, 1:], one_by_one.reshape(3, -1)[:, 1:], rtol=1e-4, atol=1e-5)
