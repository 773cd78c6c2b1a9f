import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency.attacks import FGSM, PGD, fgsm, pgd
from robust_saliency.threat import Threat

SHAPE = (3, 2, 4, 2)


@pytest.fixture
def weights(rng):
    return rng.normal(size=SHAPE[1:]).astype(np.float32)


@pytest.fixture
def images(rng):
    return rng.choice([0.0, 0.4, 0.5, 1.0], SHAPE).astype(np.float32)


def attack(weights, images, spec):
    """On the loss ``<w, x>^3``, whose gradient points along w where ``<w, x>`` is not 0."""
    run = jax.jit(lambda k, x, s: fgsm(lambda z: jnp.tensordot(z, weights, 3) ** 3, k, x, s))
    return np.asarray(run(jax.random.key(0), images, spec))


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.7])
def test_linf_is_one_signed_step_and_the_box(weights, images, epsilon):
    result = attack(weights, images, FGSM(threat=Threat(epsilon=epsilon)))
    np.testing.assert_allclose(result, np.clip(images + epsilon * np.sign(weights), 0, 1), atol=1e-7)


def test_l2_is_one_step_of_length_epsilon(weights, images):
    middle = 0.4 + 0.2 * images
    result = attack(weights, middle, FGSM(threat=Threat(norm="l2", epsilon=0.3)))
    np.testing.assert_allclose(result, middle + 0.3 * weights / np.linalg.norm(weights), atol=1e-6)


def test_an_epsilon_an_example_and_a_pixel(weights, images, rng):
    for epsilon in (rng.uniform(0, 0.2, 3), rng.uniform(0, 0.2, (3, 2, 4, 1))):
        result = attack(weights, images, FGSM(threat=Threat(epsilon=jnp.asarray(epsilon, jnp.float32))))
        room = epsilon if epsilon.ndim == 4 else epsilon[:, None, None, None]
        np.testing.assert_allclose(result, np.clip(images + room * np.sign(weights), 0, 1), atol=1e-6)


def test_pixels_outside_the_mask_keep_their_bits(weights, images):
    mask = np.zeros((1, 2, 4, 1), np.float32)
    mask[0, 0] = 1
    result = attack(weights, images, FGSM(threat=Threat(epsilon=0.1, mask=jnp.asarray(mask))))
    np.testing.assert_array_equal(result[:, 1], images[:, 1])
    np.testing.assert_allclose(result[:, 0], np.clip(images + 0.1 * np.sign(weights), 0, 1)[:, 0], atol=1e-7)


def test_it_is_pgd_with_one_step_of_epsilon_from_the_image(weights, images):
    model = Threat(norm="l2", epsilon=0.4)
    spec = PGD(threat=model, step_size=0.4, num_steps=1, start="none")
    expected = pgd(lambda z: jnp.tensordot(z, weights, 3) ** 3, jax.random.key(1), jnp.asarray(images), spec)
    np.testing.assert_allclose(attack(weights, images, FGSM(threat=model)), expected, atol=1e-6)


def test_the_step_for_bfloat16_images_is_epsilon_in_float32(weights, images):
    """8/255 rounded to bfloat16 is 0.2 % off."""
    narrow = jnp.asarray(images, jnp.bfloat16)
    result = attack(weights, narrow, FGSM())
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, attack(weights, narrow.astype(jnp.float32), FGSM()))
