"""Alignment of linear networks, where it is the distance to the decision boundary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency.metrics import Alignment, alignment

weights = np.random.default_rng(0).normal(size=(4, 4, 2, 3)).astype(np.float32)


def logits_fn(images):
    return jnp.tensordot(images, weights, 3)


@pytest.fixture
def images(rng):
    return rng.uniform(size=(5, 4, 4, 2)).astype(np.float32)


def aligned(images, spec, logits_fn=logits_fn):
    return np.asarray(jax.jit(lambda images, spec: alignment(logits_fn, images, spec))(images, spec))


def test_the_raw_alignment_of_a_margin_is_the_distance_to_the_decision_boundary(images):
    found = aligned(images, Alignment(gradient="margin", cosine=False))
    for image, value in zip(images, found, strict=True):
        logits = np.tensordot(image, weights, 3)
        first, second = np.argsort(logits)[[-1, -2]]
        across = weights[..., first] - weights[..., second]
        step = value * across / np.linalg.norm(across)
        after = np.tensordot(image - step, weights, 3)
        np.testing.assert_allclose(after[first], after[second], rtol=1e-4)


def test_the_cosine_is_between_the_image_and_the_weights_of_the_greatest_logit(images):
    flat = images.reshape(5, -1)
    chosen = weights.reshape(-1, 3).T[np.argmax(logits_fn(images), -1)]
    cosine = np.abs(np.sum(flat * chosen, -1)) / np.linalg.norm(flat, axis=1) / np.linalg.norm(chosen, axis=1)
    np.testing.assert_allclose(aligned(images, Alignment()), cosine, rtol=1e-5)
    raw = aligned(images, Alignment(cosine=False))
    np.testing.assert_allclose(raw, cosine * np.linalg.norm(flat, axis=1), rtol=1e-5)


def test_a_network_whose_gradient_is_the_image_is_aligned_whatever_its_scale(images):
    for scale in (1e-12, 1.0, 1e12):
        own = lambda x, scale=scale: jnp.stack([scale * jnp.sum(x**2, (1, 2, 3)), jnp.full(len(x), -1.0)], -1)  # noqa: E731
        np.testing.assert_allclose(aligned(images, Alignment(), own), 1, rtol=1e-5)


def test_the_centre_is_what_counts_as_nothing(images):
    grey = np.full_like(images, 0.5)
    assert np.isnan(aligned(grey, Alignment(centre=0.5))).all()
    np.testing.assert_allclose(
        aligned(images, Alignment(centre=0.5)),
        aligned(images - 0.5, Alignment(), lambda x: logits_fn(x + 0.5)),
        rtol=1e-4,
    )


def test_without_a_gradient_there_is_no_alignment(images):
    assert np.isnan(aligned(images, Alignment(), lambda x: 0 * logits_fn(x))).all()


def test_an_unknown_gradient_is_named():
    with pytest.raises(ValueError, match=r"Unknown gradient 'loss'. Choices: logit, margin"):
        Alignment(gradient="loss")
