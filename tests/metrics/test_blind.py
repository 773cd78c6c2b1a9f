import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import metrics, randomness
from robust_saliency.metrics import blind

jit_gini, jit_total_variation = jax.jit(metrics.gini), jax.jit(metrics.total_variation)
jit_entropy = jax.jit(metrics.entropy)


def test_random_maps_have_the_numbers_of_uniform_noise(key):
    maps = jax.jit(blind.random_map, static_argnums=1)(key, (64, 32, 32))
    np.testing.assert_allclose(np.mean(jit_gini(maps)), 1 / 3, atol=0.003)
    np.testing.assert_allclose(np.mean(jit_total_variation(maps)), 2 / 3, atol=0.005)
    # -sum p ln p with p = u / (n/2): ln(n/2) - 2 E[u ln u], and E[u ln u] = -1/4.
    entropy = (np.log(32 * 32 / 2) + 1 / 2) / np.log(32 * 32)
    np.testing.assert_allclose(np.mean(jit_entropy(maps)), entropy, atol=0.0005)


def test_a_random_map_with_one_key_an_example_is_free_of_the_batch(key):
    keys = randomness.per_example_keys(key, jnp.array([7, 3, 5]))
    whole = blind.random_map(keys, (3, 4, 4))
    np.testing.assert_array_equal(blind.random_map(keys[1:2], (1, 4, 4)), whole[1:2])


def test_centre_gaussian_by_hand():
    maps = np.asarray(blind.centre_gaussian((2, 3, 5), sigma=0.5))
    v, u = 1 / 3, 2 / 5
    np.testing.assert_allclose(maps[0, 0, 4], np.exp(-2 * (v**2 + u**2)), rtol=1e-6)
    np.testing.assert_allclose(maps[1, 1, 2], 1.0)
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_allclose(maps[0], maps[0, ::-1, ::-1], rtol=1e-6)


@pytest.mark.parametrize(("sigma", "gini"), [(0.125, 0.804), (0.175, 0.631), (0.25, 0.399)])
def test_the_narrow_gaussian_is_sparser_than_any_network(sigma, gini):
    """Standard nets had Gini .55 and robust ones .70 in a sketch whose sigma .25 was of *half* the side (.804)."""
    maps = blind.centre_gaussian((1, 32, 32), sigma)
    np.testing.assert_allclose(jit_gini(maps), [gini], atol=5e-4)
    assert jit_total_variation(maps)[0] < 0.25


def test_the_centre_gaussian_finds_a_central_lesion_and_loses_it_in_the_corner():
    central, corner = np.zeros((1, 32, 32), np.float32), np.zeros((1, 32, 32), np.float32)
    central[0, 8:24, 8:24], corner[0, :16, :16] = 1.0, 1.0
    maps = blind.centre_gaussian((1, 32, 32), 0.125)
    side = 0.9545**2  # a square of two sigmas each way
    np.testing.assert_allclose(metrics.relevance_mass(maps, central), [side], atol=0.005)
    np.testing.assert_allclose(metrics.relevance_mass(maps, corner), [0.25], rtol=1e-5)
    np.testing.assert_allclose(metrics.pointing_game(maps, corner), [0.25])


def test_the_mask_as_a_map_is_the_ceiling_and_nan_where_empty():
    masks = np.zeros((2, 4, 4), bool)
    masks[0, 1, 1:3] = True
    maps = blind.mask_map(jnp.asarray(masks))
    assert maps.dtype == jnp.float32
    np.testing.assert_array_equal(metrics.relevance_mass(maps, masks), [1.0, np.nan])
    np.testing.assert_array_equal(jit_gini(maps), [1 - 2 / 16, np.nan])


def test_sobel_of_ramps_and_steps():
    rows, columns = np.indices((6, 7)).astype(np.float32)
    images = np.stack([0.1 * columns, 0.05 * rows, 0.03 * rows + 0.04 * columns, 0.0 * rows + 0.3])[..., None]
    edges = np.asarray(jax.jit(blind.sobel)(images))
    np.testing.assert_allclose(
        edges[:3, 1:-1, 1:-1], np.array([0.1, 0.05, 0.05])[:, None, None].repeat(4, 1).repeat(5, 2), rtol=1e-5
    )
    np.testing.assert_allclose(edges[3], 0.0, atol=1e-7)


def test_sobel_equals_the_kernel_applied_pixel_by_pixel(rng):
    image = rng.uniform(size=(5, 6, 3))
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    padded = np.pad(image.mean(-1), 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    expected = np.hypot((windows * kernel).sum((-2, -1)), (windows * kernel.T).sum((-2, -1)))
    np.testing.assert_allclose(blind.sobel(jnp.asarray(image[None], jnp.float32))[0], expected, rtol=1e-4, atol=1e-6)
