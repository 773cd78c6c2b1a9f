"""Reliance on a masked part: linear networks, where it is the weight of what the filling-in changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency.metrics import MaskReliance, imputation, mask_reliance

weights = np.random.default_rng(0).normal(size=(8, 8, 3)).astype(np.float32)


def logits_fn(images):
    score = jnp.tensordot(images, weights, 3)
    return jnp.stack([-score, score], -1)


@pytest.fixture
def images(rng):
    return rng.uniform(size=(3, 8, 8, 3)).astype(np.float32)


@pytest.fixture
def mask():
    mask = np.zeros((3, 8, 8), np.float32)
    mask[0, 2:4, 3:6], mask[1, :, 4] = 1, 1
    return mask


def reliance(images, masks, **fields):
    labels = jnp.array([1, 0, 1])
    spec = MaskReliance(**fields)
    return np.asarray(jax.jit(lambda x, m: mask_reliance(logits_fn, x, labels, m, spec))(images, masks))


def test_the_logit_that_a_linear_network_loses(images, mask):
    change = np.sum(weights * (images - np.asarray(imputation.linear(images, mask > 0))), (1, 2, 3))
    found = reliance(images, mask, score="logit")
    np.testing.assert_allclose(found[:2], [change[0], -change[1]], rtol=1e-4)
    assert np.isnan(found[2]), "an empty mask"
    np.testing.assert_array_equal(
        reliance(images, {"ruler": mask, "lesion": 1 - mask}, score="logit", mask="ruler"), found
    )


def test_a_part_that_is_as_its_surroundings_is_not_relied_on(images, mask):
    flat = np.broadcast_to(images[:, :1, :1], images.shape)
    np.testing.assert_allclose(reliance(flat, mask)[:2], 0, atol=1e-6)


def test_a_planted_line_is_relied_on_and_another_is_not(mask):
    """The class is a dark line: without it the probability of the class falls from near 1 to near 0."""
    images = np.full((3, 8, 8, 3), 0.8, np.float32)
    images[1, :, 4] = 0.1

    def dark(x):
        score = 40 * (0.5 - x[:, :, 4].mean((1, 2)))
        return jnp.stack([score, -score], -1)

    labels, spec = jnp.zeros(3, int), MaskReliance()
    both = (
        mask_reliance(dark, images, labels, mask, spec),
        mask_reliance(dark, images, labels, np.roll(mask, 2, 2), spec),
    )
    assert both[0][1] > 0.99 and abs(both[1][1]) < 1e-3


def test_an_unknown_score_is_named():
    with pytest.raises(ValueError, match=r"Unknown score 'accuracy'. Choices: logit, probability"):
        MaskReliance(score="accuracy")
