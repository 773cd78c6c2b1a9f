import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency.randomness import per_example_keys
from robust_saliency.saliency import Gradient, SmoothGrad, gradient, smoothgrad
from tests.keys import fast_key

SHAPE = (3, 4, 4, 2)
generator = np.random.default_rng(11)
IMAGES = generator.uniform(size=SHAPE).astype(np.float32)
LABELS = np.array([0, 1, 0], np.int32)
ZEROS = np.zeros(3, np.int32)
WEIGHTS = generator.normal(size=(*SHAPE[1:], 8)).astype(np.float32)
HEAD = generator.normal(size=(8, 2)).astype(np.float32)
SIGNED = {"sign": "signed", "channels": "none"}


def smooth(images):
    return jax.nn.softplus(jnp.einsum("bhwc,hwck->bk", images, WEIGHTS)) @ jnp.asarray(HEAD)


def quadratic(images, slope=0.0):
    """Logit of class 0: sum of x^2 / 2 + slope x, whose gradient x + slope is as noisy as the image."""
    energy = (jnp.square(images) / 2 + slope * images).sum((1, 2, 3))
    return jnp.stack([energy, -energy], 1)


def entries_of(key, images, labels=ZEROS, logits_fn=quadratic, **fields):
    """The kept, signed entries of a SmoothGrad map, compiled."""
    spec = SmoothGrad(**SIGNED, **fields)
    return np.asarray(jax.jit(lambda k, x, y, spec: smoothgrad(logits_fn, k, x, y, spec))(key, images, labels, spec))


def noise_of(key, count, shape=SHAPE):
    """The noise of the first ``count`` samples, as documented: sample i draws from fold_in(key, i)."""
    return np.stack([jax.random.normal(jax.random.fold_in(key, i), shape) for i in range(count)])


@pytest.mark.parametrize("chunk_size", [2, 5])
def test_without_noise_it_is_the_gradient(chunk_size):
    """To the bit: the mean of equal samples is their value."""
    fields = {"sigma": 0.0, "num_samples": 5, "chunk_size": chunk_size}
    np.testing.assert_array_equal(entries_of(fast_key(0), IMAGES, **fields), IMAGES)
    spec = SmoothGrad(channels="max_abs", score="loss", **fields)
    maps = jax.jit(lambda x: smoothgrad(smooth, fast_key(0), x, LABELS, spec))(IMAGES)
    plain = gradient(smooth, fast_key(0), IMAGES, LABELS, Gradient(channels="max_abs", score="loss"))
    np.testing.assert_allclose(maps, plain, rtol=1e-5, atol=1e-6)


def test_moments_of_the_noise_on_a_quadratic():
    """g = x + n, n ~ N(0, sigma^2): E[g] = x with spread sigma / sqrt(n), Var[g] = sigma^2."""
    sigma, count = 0.3, 400
    entries = {
        statistic: entries_of(
            fast_key(0), IMAGES, num_samples=count, sigma=sigma, statistic=statistic, chunk_size=100, unroll=False
        )
        for statistic in ("mean", "variance", "squared")
    }
    z = (entries["mean"] - IMAGES) / (sigma / np.sqrt(count))
    assert np.abs(z).max() < 5
    assert 0.7 < z.std() < 1.3
    spread = sigma**2 * np.sqrt(2 / count)
    assert np.abs(entries["variance"] - sigma**2).max() < 5 * spread
    assert abs(entries["variance"].mean() - sigma**2 * (1 - 1 / count)) < 5 * spread / np.sqrt(IMAGES.size)
    np.testing.assert_allclose(entries["squared"], entries["mean"] ** 2 + entries["variance"], rtol=1e-4)


def test_a_sigma_that_is_a_whole_number_is_that_number(key):
    """captum's NoiseTunnel refuses an integer."""
    whole, real = (entries_of(key, IMAGES, sigma=sigma, num_samples=2) for sigma in (1, 1.0))
    np.testing.assert_array_equal(whole, real)


@pytest.mark.parametrize("chunk_size", [4, 10])
def test_a_tiny_variance_beside_a_large_mean_does_not_cancel(key, chunk_size):
    """Gradients of 0 +- 0.01 in the first channel, 1000 +- 0.01 in the second; the variance of both is about 1e-4.

    E[g^2] - E[g]^2 in float32 is off by more than 0.01 in the second.
    """
    offset = np.array([0, 1000], np.float32)
    fields = {"num_samples": 10, "sigma": 0.01, "statistic": "variance", "chunk_size": chunk_size}
    images = np.zeros(SHAPE, np.float32)
    entries = entries_of(key, images, logits_fn=lambda x: quadratic(x, jnp.broadcast_to(offset, x.shape)), **fields)

    noise = np.float32(0.01) * noise_of(key, 10)
    representable = (offset + noise).astype(np.float64)
    np.testing.assert_allclose(entries[..., 0], noise[..., 0].astype(np.float64).var(0), rtol=1e-4)
    np.testing.assert_allclose(entries[..., 1], representable[..., 1].var(0), rtol=0.02)
    cancelled = np.square(offset + noise).mean(0) - np.square((offset + noise).mean(0))
    assert np.abs(cancelled - representable.var(0))[..., 1].max() > 0.01


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, lambda g: np.abs(g.mean(0)).sum(-1)),
        ({"statistic": "squared", "channels": "max_abs"}, lambda g: np.square(g).mean(0).max(-1)),
        ({"statistic": "variance", "sign": "squared"}, lambda g: np.square(g.var(0)).sum(-1)),
    ],
)
def test_the_order_is_statistic_then_sign_then_channels(key, fields, expected):
    spec = SmoothGrad(num_samples=6, sigma=0.5, **fields)
    maps = jax.jit(lambda x: smoothgrad(quadratic, key, x, ZEROS, spec))(np.zeros(SHAPE, np.float32))
    np.testing.assert_allclose(maps, expected(np.float32(0.5) * noise_of(key, 6)), rtol=1e-4, atol=1e-6)


def test_noise_relative_to_the_range_of_each_image(key):
    spans = np.array([0.2, 0.5, 1.0], np.float32).reshape(3, 1, 1, 1)
    images = IMAGES - IMAGES.min((1, 2, 3), keepdims=True)
    images = images / images.max((1, 2, 3), keepdims=True) * spans
    entries = entries_of(key, images, sigma=0.1, num_samples=2, relative_to="image_range")
    np.testing.assert_allclose(entries, images + spans * np.float32(0.1) * noise_of(key, 2).mean(0), atol=1e-6)


def test_clipping_keeps_noisy_images_in_range(key):
    """The gradient of the quadratic is the noisy image itself."""
    noisy = IMAGES + noise_of(key, 1)[0]
    assert noisy.min() < -1 and noisy.max() > 2
    entries = entries_of(key, IMAGES, sigma=1.0, num_samples=1, clip=True)
    np.testing.assert_allclose(entries, np.clip(noisy, 0, 1), atol=1e-6)


def test_the_noise_of_an_example_depends_on_its_key_alone(key):
    keys, order = per_example_keys(key, jnp.arange(3)), np.array([2, 0])
    everyone = entries_of(keys, IMAGES, num_samples=4)
    some = entries_of(keys[order], IMAGES[order], ZEROS[:2], num_samples=4)
    np.testing.assert_array_equal(some, everyone[order])
    noise = np.stack([noise_of(k, 4, SHAPE[1:]) for k in keys], 1)
    np.testing.assert_allclose(everyone, IMAGES + np.float32(0.15) * noise.mean(0), atol=1e-6)


@pytest.mark.parametrize(("statistic", "unroll"), [("variance", True), ("mean", False)])
def test_chunks_change_nothing(key, statistic, unroll):
    keys = per_example_keys(key, jnp.arange(3))
    fields = {"logits_fn": smooth, "num_samples": 5, "statistic": statistic}
    whole = entries_of(keys, IMAGES, LABELS, chunk_size=5, **fields)
    chunked = entries_of(keys, IMAGES, LABELS, chunk_size=2, unroll=unroll, **fields)
    np.testing.assert_allclose(chunked, whole, rtol=1e-5, atol=1e-6)


def test_eight_devices_give_the_maps_of_one(key):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    images = np.random.default_rng(4).uniform(size=(16, *SHAPE[1:])).astype(np.float32)
    labels, keys = np.arange(16, dtype=np.int32) % 2, per_example_keys(key, jnp.arange(16))
    program = jax.jit(lambda k, x, y: smoothgrad(quadratic, k, x, y, SmoothGrad(num_samples=4, chunk_size=2, **SIGNED)))
    sharded = jax.device_put((keys, images, labels), jax.NamedSharding(mesh, jax.P("batch")))
    compiled = program.lower(*sharded).compile()
    assert not any(name in compiled.as_text() for name in ("all-gather", "all-reduce", "all-to-all", "permute"))
    np.testing.assert_allclose(np.asarray(compiled(*sharded)), program(keys, images, labels), rtol=1e-6, atol=1e-7)


def test_a_new_sigma_does_not_recompile(key):
    @jax.jit
    @chex.assert_max_traces(n=1)
    def maps(spec):
        return smoothgrad(quadratic, key, IMAGES, ZEROS, spec)

    chex.clear_trace_counter()
    small, large = (maps(SmoothGrad(sigma=sigma, num_samples=3, **SIGNED)) - IMAGES for sigma in (0.1, 0.2))
    np.testing.assert_allclose(large, 2 * small, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"statistic": "var"}, "Unknown statistic 'var'"),
        ({"relative_to": "range"}, "Unknown relative_to 'range'"),
        ({"num_samples": 0}, "SmoothGrad.num_samples must be at least 1, got 0"),
        ({"sigma": jnp.zeros(3)}, r"SmoothGrad.sigma must have 0 axes, got shape \(3,\)"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(key, fields, message):
    with pytest.raises(ValueError, match=message):
        smoothgrad(quadratic, key, IMAGES, ZEROS, SmoothGrad(**fields))
