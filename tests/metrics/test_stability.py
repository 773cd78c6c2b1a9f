"""Stability under noise: known answers for maps that ignore the image, follow it, or are random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import metrics, randomness
from robust_saliency.metrics import NoiseStability, noise_stability

BATCH, SIDE = 4, 16


@pytest.fixture
def images():
    return jnp.asarray(np.random.default_rng(0).uniform(0.3, 0.7, (BATCH, SIDE, SIDE, 3)), jnp.float32)


def keys(seed=0):
    return randomness.per_example_keys(jax.random.key(seed), jnp.arange(BATCH))


def stability(saliency_fn, images, spec=None, key=None):
    labels = jnp.arange(BATCH) % 3

    @jax.jit
    def run(key, images):
        maps = saliency_fn(key, images, labels)
        return noise_stability(saliency_fn, key, images, labels, maps, spec)

    return np.asarray(run(keys() if key is None else key, images))


def mean(key, images, labels):
    return jnp.mean(images, axis=-1)


def blind(key, images, labels):
    return metrics.blind.centre_gaussian(images.shape[:3]) + 0 * images[..., 0]


def random(key, images, labels):
    return metrics.blind.random_map(key, images.shape[:3])


@pytest.mark.parametrize("similarity", ["spearman", "ssim", "top_k_intersection"])
def test_a_map_that_does_not_look_is_perfectly_stable(similarity, images):
    np.testing.assert_allclose(stability(blind, images, NoiseStability(similarity=similarity)), 1, atol=1e-6)


def test_without_noise_every_map_that_is_not_random_is_perfectly_stable(images):
    np.testing.assert_allclose(stability(mean, images, NoiseStability(sigma=0.0)), 1, atol=1e-6)


def test_a_random_map_is_not_stable_even_without_noise(images):
    """Two draws of 256 pixels: a correlation of deviation 1/16, of four samples 1/32."""
    assert np.abs(stability(random, images, NoiseStability(sigma=0.0))).max() < 5 / 32


def test_a_map_that_is_the_image_has_the_correlation_of_signal_and_signal_with_noise(images):
    """Mean of three channels, uniform of deviation d: Pearson's d / sqrt(d^2 + sigma^2), Spearman's a little less."""
    sigma, deviation = 0.1, 0.4 / np.sqrt(12)
    expected = deviation / np.hypot(deviation, sigma)
    values = stability(mean, images, NoiseStability(sigma=sigma, num_samples=16))
    np.testing.assert_allclose(values, expected, atol=0.05)


def test_more_noise_less_alike_and_one_program(images):
    labels = jnp.zeros(BATCH, int)
    traces = []

    @jax.jit
    def run(spec):
        traces.append(1)
        return noise_stability(mean, keys(), images, labels, mean(None, images, labels), spec)

    values = [np.asarray(run(NoiseStability(sigma=sigma))) for sigma in (0.01, 0.05, 0.2)]
    assert len(traces) == 1
    assert (values[0] > values[1]).all() and (values[1] > values[2]).all()


def test_the_noisy_images_stay_in_the_box_and_keep_their_class(images):
    seen = {}

    def watched(key, images, labels):
        seen.update(images=images, labels=labels)
        return mean(key, images, labels)

    labels = jnp.arange(BATCH)
    extreme = jnp.round(images)
    spec = NoiseStability(sigma=1.0, num_samples=3)
    noise_stability(watched, keys(), extreme, labels, mean(None, extreme + 0.1, labels), spec)
    assert seen["images"].min() == 0 and seen["images"].max() == 1
    np.testing.assert_array_equal(seen["labels"], np.repeat(np.arange(BATCH), 3))


def test_one_key_for_all_is_allowed(images):
    values = stability(mean, images, key=jax.random.key(0))
    assert values.shape == (BATCH,) and (values > 0.5).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"similarity": "centre_shift"}, "similarity"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"sign": "both"}, "sign"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        NoiseStability(**fields)
