import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from robust_saliency.baselines import KINDS, Baseline, fill
from robust_saliency.blur import gaussian_blur
from robust_saliency.randomness import per_example_keys

SHAPE = (3, 6, 5, 2)


def images_of(shape=SHAPE, seed=1):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        (Baseline(), 0.0),
        (Baseline(kind="white"), 1.0),
        (Baseline(kind="constant", value=0.25), 0.25),
        (Baseline(kind="constant", value=jnp.array([0.1, 0.9])), np.array([0.1, 0.9], np.float32)),
        (Baseline(kind="array", images=images_of(SHAPE[1:], 5)), images_of(SHAPE[1:], 5)[None]),
        (Baseline(kind="array", images=images_of(SHAPE, 6)), images_of(SHAPE, 6)),
    ],
)
def test_fixed_kinds_are_what_they_say(key, baseline, expected):
    filled = jax.jit(fill)(key, images_of(), baseline)
    np.testing.assert_array_equal(filled, np.broadcast_to(expected, SHAPE))


def test_mean_is_the_mean_colour_of_each_image(key):
    images = images_of()
    filled = jax.jit(fill)(key, images, Baseline(kind="mean"))
    for image, baseline in zip(np.asarray(images), np.asarray(filled), strict=True):
        for channel in range(SHAPE[-1]):
            np.testing.assert_allclose(baseline[..., channel], image[..., channel].mean(), rtol=1e-6)


def test_uniform_noise_has_the_moments_of_the_uniform_distribution(key):
    noise = np.asarray(jax.jit(fill)(key, images_of((40, 16, 16, 2)), Baseline(kind="uniform")))
    assert noise.min() >= 0 and noise.max() < 1
    assert abs(noise.mean() - 0.5) < 5 / np.sqrt(12 * noise.size)
    assert abs(noise.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / noise.size)


def test_uniform_noise_of_an_example_depends_on_its_key_alone(key):
    images, order = images_of(), jnp.array([2, 0])
    keys = per_example_keys(key, jnp.arange(3))
    everyone = jax.jit(fill)(keys, images, Baseline(kind="uniform"))
    some = jax.jit(fill)(keys[order], images[order], Baseline(kind="uniform"))
    np.testing.assert_array_equal(some, everyone[order])


@settings(max_examples=12, deadline=None)
@given(st.floats(0.3, 4.0), st.sampled_from([(6, 5), (9, 9), (1, 7)]), st.integers(0, 99))
def test_blur_is_scipys_gaussian_filter(sigma, size, seed):
    images = images_of((2, *size, 3), seed)
    expected = ndimage.gaussian_filter(np.asarray(images, np.float64), (0, sigma, sigma, 0), mode="reflect", truncate=8)
    np.testing.assert_allclose(jax.jit(gaussian_blur)(images, sigma), expected, atol=2e-6)


def test_blur_keeps_the_mean_and_ends_at_it():
    images = images_of()
    mean = np.broadcast_to(images.mean((1, 2), keepdims=True), SHAPE)
    blur = jax.jit(gaussian_blur)
    np.testing.assert_allclose(blur(images, 1.5).mean((1, 2)), images.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(blur(images, 1e4), mean, atol=1e-5)


def test_blur_of_zero_pixels_is_the_image():
    np.testing.assert_array_equal(jax.jit(gaussian_blur)(images_of(), 0.0), images_of())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_shape_and_dtype(key, kind):
    baseline = Baseline(kind=kind, images=images_of())
    assert jax.eval_shape(fill, key, images_of(), baseline).dtype == jnp.float32
    with jax.enable_x64(True):
        images = jnp.asarray(np.asarray(images_of(), np.float64))
        filled = jax.jit(fill)(jax.random.key(0), images, baseline)
        assert filled.dtype == jnp.float64 and filled.shape == images.shape


def test_numpy_images_of_double_precision_are_taken(key):
    filled = fill(key, np.full(SHAPE, 0.5), Baseline(kind="mean"))
    np.testing.assert_array_equal(filled, np.full(SHAPE, 0.5, np.float32))


def test_changing_the_value_does_not_recompile(key):
    traces = []

    @jax.jit
    def filled(spec):
        traces.append(1)
        return fill(key, images_of(), spec)

    assert float(filled(Baseline(kind="constant", value=0.2))[0, 0, 0, 0]) == pytest.approx(0.2)
    assert float(filled(Baseline(kind="constant", value=0.7))[0, 0, 0, 0]) == pytest.approx(0.7)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("images", "kwargs", "message"),
    [
        (images_of(), {"kind": "blak"}, r"Unknown baseline .blak.\. Did you mean .black."),
        (images_of(), {"kind": "array"}, "needs images"),
        (images_of(), {"kind": "array", "images": jnp.zeros((3, 6, 5))}, r"got \(3, 6, 5\)"),
        (images_of(), {"kind": "constant", "value": jnp.zeros(3)}, r"shape \(\) or \(2,\), got \(3,\)"),
        (images_of()[0], {}, "images must have 4 axes"),
        (jnp.zeros(SHAPE, jnp.uint8), {}, "got dtype uint8"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(key, images, kwargs, message):
    with pytest.raises(ValueError, match=message):
        fill(key, images, Baseline(**kwargs))
