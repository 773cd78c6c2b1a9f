"""Noisy images and their maps: what is drawn, and that scores of one collection are the scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from robust_saliency import metrics, randomness
from robust_saliency.metrics import Noise, noisy_maps

BATCH, SIDE = 4, 16
collect = jax.jit(lambda key, images, noise: noisy_maps(explain, key, images, labels(len(images)), noise))


def explain(key, images, labels):
    return jnp.mean(images, axis=-1) + 10 * labels[:, None, None]


def labels(count):
    return jnp.arange(count)


def keys(count=BATCH):
    return randomness.per_example_keys(jax.random.key(0), jnp.arange(count))


def grey(value=0.5):
    return jnp.full((BATCH, SIDE, SIDE, 3), value, jnp.float32)


DISTRIBUTIONS = {"gaussian": stats.norm(0.5, 0.02), "uniform": stats.uniform(0.48, 0.04)}


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_noise_has_the_distribution_that_it_says_and_both_signs(kind):
    """Quantus draws relative stability's noise from U(0.02, 0.2), xplique from U(0, 0.1): upwards only."""
    noisy = np.asarray(collect(keys(), grey(), Noise(kind=kind)).images)
    assert noisy.shape == (BATCH, 10, SIDE, SIDE, 3)
    assert stats.kstest(noisy.ravel(), DISTRIBUTIONS[kind].cdf).pvalue > 0.01
    assert abs(np.mean(noisy > 0.5) - 0.5) < 0.01
    assert len(np.unique(noisy)) > 0.9 * noisy.size / 2


def test_a_scale_that_is_a_whole_number_is_that_number():
    """captum's NoiseTunnel refuses an integer."""
    np.testing.assert_array_equal(
        collect(keys(), grey(), Noise(scale=1)).images, collect(keys(), grey(), Noise(scale=1.0)).images
    )


def test_noisy_images_stay_in_the_box_and_the_samples_of_an_example_follow_each_other():
    images = jnp.round(jax.random.uniform(jax.random.key(1), (BATCH, SIDE, SIDE, 3)))
    noisy = collect(keys(), images, Noise(scale=1.0, num_samples=3))
    assert noisy.images.min() == 0 and noisy.images.max() == 1
    np.testing.assert_array_equal(jnp.mean(noisy.maps, axis=(1, 2, 3)) // 10, np.arange(BATCH))
    np.testing.assert_allclose(noisy.maps % 10, jnp.mean(noisy.images, axis=-1), atol=1e-5)


def test_the_scale_is_data_the_draws_of_an_example_are_its_own_and_float64_stays():
    small, large = (collect(keys(), grey(), Noise(scale=scale)).images - 0.5 for scale in (0.01, 0.04))
    np.testing.assert_allclose(large, 4 * small, atol=1e-6)
    alone = collect(keys()[2:3], grey()[2:3], Noise(scale=0.01)).images - 0.5
    np.testing.assert_array_equal(alone[0], small[2])
    with jax.enable_x64(True):
        assert collect(keys(), np.asarray(grey(), np.float64), Noise(scale=0.01)).images.dtype == np.float64


def test_every_sample_has_a_key_of_its_own():
    def random(key, images, labels):
        return metrics.blind.random_map(key, images.shape[:3])

    for key in (keys(), jax.random.key(3)):
        maps = jax.jit(lambda key: noisy_maps(random, key, grey(), labels(BATCH), Noise(num_samples=3)).maps)(key)
        assert len(np.unique(maps)) > 0.99 * maps.size


def test_a_score_is_that_of_the_collection_made_once():
    images = jax.random.uniform(jax.random.key(1), (BATCH, SIDE, SIDE, 3))
    calls = []

    def counted(key, images, labels):
        calls.append(len(images))
        return explain(key, images, labels)

    def logits_fn(images):
        return jnp.mean(images, axis=(1, 2))

    @jax.jit
    def both(key, images):
        maps, noise = explain(key, images, labels(BATCH)), Noise(num_samples=3)
        own = {"maps": maps, "images": images, "key": key, "labels": labels(BATCH), "logits_fn": logits_fn}
        specs = [Spec(noise=noise) for Spec in SCORES]
        noisy = noisy_maps(counted, key, images, labels(BATCH), noise)
        logits, logits_of_noisy = logits_fn(images), metrics.noisy_logits(logits_fn, noisy)
        return [metrics.run(spec, saliency_fn=explain, **own) for spec in specs], [
            metrics.max_sensitivity_of(maps, noisy, specs[0]),
            metrics.average_sensitivity_of(maps, noisy, specs[1]),
            metrics.relative_input_stability_of(maps, images, noisy, logits, logits_of_noisy, specs[2]),
            metrics.relative_output_stability_of(maps, noisy, logits, logits_of_noisy, specs[3]),
        ]

    whole, of = both(keys(), images)
    assert calls == [BATCH]  # traced once, in a loop over the draws
    np.testing.assert_array_equal(np.stack(of), np.stack(whole))
    assert np.isfinite(of).all() and (np.stack(of) > 0).all()


SCORES = (
    metrics.MaxSensitivity,
    metrics.AverageSensitivity,
    metrics.RelativeInputStability,
    metrics.RelativeOutputStability,
)


def test_noise_stability_collects_gaussian_noise_by_its_own_fields():
    spec = metrics.NoiseStability(sigma=0.03, num_samples=2)
    assert spec.noise == Noise(kind="gaussian", scale=0.03, num_samples=2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "normal"}, r"Unknown noise 'normal'.*Choices: gaussian, uniform"),
        ({"num_samples": 0}, r"Noise.num_samples must be at least 1, got 0"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        Noise(**fields)
