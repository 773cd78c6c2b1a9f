"""Stability and sensitivity under noise: known answers for maps that ignore the image, follow it, or are random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import metrics, randomness
from robust_saliency.metrics import (
    AverageSensitivity,
    MaxSensitivity,
    Noise,
    NoiseStability,
    NoisyMaps,
    average_sensitivity_of,
    max_sensitivity_of,
    noise_stability,
    noisy_maps,
)

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


@pytest.mark.parametrize("similarity", ["kendall", "spearman", "ssim", "top_k_intersection"])
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


# Sensitivity

jit_max, jit_average = jax.jit(max_sensitivity_of), jax.jit(average_sensitivity_of)
both = pytest.mark.parametrize(
    ("Spec", "of", "over_draws"), [(MaxSensitivity, jit_max, np.max), (AverageSensitivity, jit_average, np.mean)]
)


def given(maps, others):
    """Maps ``[B, H, W]`` and their noisy ones ``[B, n, H, W]``; the images do not count."""
    return np.float32(maps), NoisyMaps(None, np.float32(others))


@both
def test_sensitivity_of_a_map_that_does_not_look_is_zero(Spec, of, over_draws, images):
    score = jax.jit(lambda key, images: metrics.run(
        Spec(), saliency_fn=blind, key=key, images=images, labels=jnp.arange(BATCH), maps=blind(key, images, None)
    ))  # fmt: skip
    np.testing.assert_array_equal(score(keys(), images), np.zeros(BATCH))


@both
def test_sensitivity_of_a_linear_map_is_the_length_of_the_mapped_noise(Spec, of, over_draws, images, rng):
    """m(x) = A x: |A (x_j - x)| / |A x|; here of one kept channel, so that sign='raw' has negative pixels."""
    weights = rng.normal(size=(SIDE, SIDE)).astype(np.float32)
    linear = lambda key, images, labels: weights[None] * images[..., 0]  # noqa: E731
    maps = linear(None, images, None)
    noisy = jax.jit(lambda x: noisy_maps(linear, keys(), x, jnp.arange(BATCH), Noise()))(images)
    drawn = np.asarray(noisy.images, np.float64)[..., 0] - np.asarray(images, np.float64)[:, None, ..., 0]
    lengths = np.linalg.norm((weights * drawn).reshape(BATCH, 10, -1), axis=-1)
    expected = lengths / np.linalg.norm(np.asarray(maps).reshape(BATCH, -1), axis=-1)[:, None]
    for sign in ("abs", "raw"):  # the image is positive: no sign turns
        np.testing.assert_allclose(of(maps, noisy, Spec(sign=sign)), over_draws(expected, axis=1), rtol=1e-4)
    assert expected.min() > 0.01 and expected.max() < 0.04


@both
def test_sensitivity_by_hand_and_by_sign(Spec, of, over_draws):
    maps, noisy = given([[[3, -4]]], [[[[3, -4]], [[3, 4]], [[0, 0]]]])  # |m| = 5
    for sign, distances in {"raw": [0, 8 / 5, 1], "abs": [0, 0, 1], "positive": [0, 4 / 3, 1]}.items():
        np.testing.assert_allclose(of(maps, noisy, Spec(sign=sign)), [over_draws(distances)], rtol=1e-6)


@both
def test_sensitivity_has_no_scale_of_its_own_and_a_batch_of_one_is_the_same(Spec, of, over_draws, rng):
    """Other libraries compare maps that are not divided by their length, so the network of larger logits loses."""
    maps, noisy = given(rng.normal(size=(3, 4, 5)), rng.normal(size=(3, 2, 4, 5)))
    values = of(maps, noisy, Spec())
    for factor in np.float32([1e-30, 1e-8, 1e8, 1e30]):
        np.testing.assert_allclose(of(factor * maps, NoisyMaps(None, factor * noisy.maps), Spec()), values, rtol=1e-5)
    np.testing.assert_allclose(of(maps[1:2], NoisyMaps(None, noisy.maps[1:2]), Spec()), values[1:2], rtol=1e-6)


@both
def test_sensitivity_of_meaningless_maps_is_nan_and_of_a_noisy_zero_it_is_one(Spec, of, over_draws):
    maps, others = np.ones((6, 2, 2), np.float32), np.ones((6, 1, 2, 2), np.float32)
    maps[0], maps[1, 0, 0], maps[2, 0, 0] = 0, np.nan, np.inf
    others[3, 0, 0, 0], others[4, 0, 0, 0], others[5] = np.nan, np.inf, 0
    np.testing.assert_array_equal(of(maps, NoisyMaps(None, others), Spec()), [np.nan] * 5 + [1])


def test_the_largest_grows_with_the_draws_and_the_mean_has_the_value_of_theory(rng):
    """A change of two normal pixels has a length of Rayleigh's distribution, of mean sqrt(pi / 2)."""
    maps, others = np.ones((1, 1, 2), np.float32), 1 + 0.1 * rng.normal(size=(1, 2000, 1, 2)).astype(np.float32)
    few, many = NoisyMaps(None, others[:, :100]), NoisyMaps(None, others)
    assert jit_max(maps, many, MaxSensitivity()) > 1.1 * jit_max(maps, few, MaxSensitivity())
    theory = 0.1 * np.sqrt(np.pi / 2) / np.sqrt(2)
    np.testing.assert_allclose(jit_average(maps, many, AverageSensitivity()), [theory], rtol=0.05)


@both
def test_sensitivity_of_random_maps_is_that_of_two_draws(Spec, of, over_draws, rng):
    """|a - b|^2 of two of U(0, 1) is 1/6 a pixel, |a|^2 is 1/3; over 64 x 64 pixels and ten draws hardly anything is
    left of chance."""
    maps, others = rng.uniform(size=(3, 64, 64)), rng.uniform(size=(3, 10, 64, 64))
    np.testing.assert_allclose(of(*given(maps, others), Spec()), np.sqrt(1 / 2), atol=0.03)


def test_scores_of_equal_noise_share_their_maps_and_each_is_what_it_is_alone(images):
    noise = metrics.Noise(scale=0.05, num_samples=3)
    specs = {
        "max": metrics.MaxSensitivity(noise=noise),
        "average": metrics.AverageSensitivity(noise=noise),
        "input": metrics.RelativeInputStability(noise=noise),
        "output": metrics.RelativeOutputStability(noise=noise),
        "other noise": metrics.AverageSensitivity(noise=metrics.Noise(scale=0.01, num_samples=3)),
    }
    assert metrics.count_runs(specs.values()) == (5, 2)
    calls = []

    def counted(key, images, labels):
        calls.append(len(images))
        return mean(key, images, labels)

    def logits_fn(images):
        return jnp.stack([jnp.mean(images, (1, 2, 3)), jnp.full(len(images), 0.1)], -1)

    given = {"key": keys(), "images": images, "labels": jnp.zeros(BATCH, int), "maps": mean(None, images, None)}
    values, curves = jax.jit(lambda g: metrics.measure(specs, logits_fn=logits_fn, saliency_fn=counted, **g))(given)
    assert calls == [BATCH] * 2 and not curves  # traced once each, in a loop over the draws
    alone = jax.jit(lambda g: {k: metrics.run(s, logits_fn=logits_fn, saliency_fn=mean, **g) for k, s in specs.items()})
    for label, expected in alone(given).items():
        np.testing.assert_allclose(values[label], expected, rtol=1e-4, err_msg=label)
