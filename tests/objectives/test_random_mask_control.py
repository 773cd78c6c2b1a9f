"""The control that chooses pixels by lot: how many, which, and what the adversary makes of them, by hand."""

import jax
import numpy as np
from scipy import special

from robust_saliency import attacks
from robust_saliency.objectives import RandomMaskControl, random_mask_control
from robust_saliency.threat import Threat
from tests.keys import fast_key
from tests.objectives import nets
from tests.objectives.nets import LINEAR, batch_of

SHAPE, LABELS = (64, 3, 4, 2), np.arange(64) % 3
PERTURB = jax.jit(random_mask_control.perturb, static_argnums=0)


def made(rng, quantile=0.5, key=0):
    return of_images(rng, rng.uniform(0.3, 0.7, SHAPE).astype(np.float32), quantile, key)


def of_images(rng, images, quantile=0.5, key=0):
    w = rng.normal(size=(24, 3)).astype(np.float32)
    attack = attacks.FGSM(threat=Threat(epsilon=0.1))
    spec = RandomMaskControl(attack=attack, raises="cross_entropy", quantile=quantile)
    variables = nets.variables(w=w, b=np.zeros(3, np.float32))
    return w, images, PERTURB(LINEAR, variables, fast_key(key), batch_of(images, LABELS), spec)


def test_the_adversary_is_the_worst_image_of_the_pixels_that_were_drawn(rng):
    w, images, batch = made(rng)
    free = np.asarray(batch["changeable"])
    assert (free.sum((1, 2)) == 6).all(), "half of twelve, of every image"
    slope = (special.softmax(images.reshape(64, -1) @ w, -1) - np.eye(3)[LABELS]) @ w.T
    expected = images + 0.1 * np.sign(slope).reshape(SHAPE) * free[..., None]
    np.testing.assert_allclose(batch["adversarial"], expected, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(batch["adversarial"])[~free], images[~free])


def test_every_pixel_is_as_likely_and_other_keys_draw_others(rng):
    images = rng.uniform(0.3, 0.7, SHAPE).astype(np.float32)
    drawn = np.stack([np.asarray(of_images(rng, images, key=key)[2]["changeable"]) for key in range(20)])
    assert np.abs(drawn.mean(axis=(0, 1)) - 0.5).max() < 4 * 0.5 / np.sqrt(20 * 64)
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 4.5 * 0.5 / np.sqrt(20), "of no image the same pixels again"
    np.testing.assert_array_equal(np.asarray(made(rng)[2]["changeable"]), drawn[0], "whatever image and weights are")


def test_a_share_of_one_is_every_pixel_and_none_leaves_the_image(rng):
    assert np.asarray(made(rng, 1.0)[2]["changeable"]).all()
    _, images, batch = made(rng, 0.0)
    np.testing.assert_array_equal(batch["adversarial"], images)
