"""Contrast on linear models, where the gradient of each logit is its weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency.saliency import Contrast, Gradient, contrast, gradient

SHAPE = (3, 2, 3, 2)
RNG = np.random.default_rng(5)
WEIGHTS = RNG.normal(size=(*SHAPE[1:], 4)).astype(np.float32)
IMAGES = RNG.uniform(size=SHAPE).astype(np.float32)
LABELS = np.array([1, 3, 0], np.int32)


def linear(images):
    return jnp.einsum("bhwc,hwck->bk", images, WEIGHTS)


def weights_of_the_others(against):
    """``[B, K]``: how each logit enters what the label is compared with."""
    logits = np.asarray(linear(IMAGES), np.float64)
    others = np.where(np.eye(4, dtype=bool)[LABELS], -np.inf, logits)
    if against == "runner_up":
        return np.eye(4)[others.argmax(1)]
    likelihood = np.exp(others) if against == "log_sum_exp" else np.isfinite(others).astype(float)
    return likelihood / likelihood.sum(1, keepdims=True)


@pytest.mark.parametrize("against", ["runner_up", "mean", "log_sum_exp"])
def test_of_a_linear_model_it_is_the_difference_of_weights(key, against):
    spec = Contrast(against=against, sign="signed", channels="none")
    found = jax.jit(lambda x, spec: contrast(linear, key, x, LABELS, spec))(IMAGES, spec)
    own = np.moveaxis(WEIGHTS, -1, 0)[LABELS]
    expected = own - np.einsum("bk,hwck->bhwc", weights_of_the_others(against), WEIGHTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_all_classes_share_is_left_out(key):
    def shared(images):
        return linear(images) + 100 * images[:, 0, 0, 0, None]

    corner = [
        m(f, key, IMAGES, LABELS, s)[:, 0, 0]
        for f in (linear, shared)
        for m, s in ((contrast, Contrast()), (gradient, Gradient()))
    ]
    np.testing.assert_allclose(corner[0], corner[2], atol=1e-3)
    assert (corner[3] > 50 + corner[1]).all()


def test_with_two_classes_all_are_one_map(key):
    def two(images):
        return jnp.tanh(linear(images)[:, :2])

    maps = [
        contrast(two, key, IMAGES, LABELS % 2, Contrast(against=name)) for name in ("runner_up", "mean", "log_sum_exp")
    ]
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-6)
    np.testing.assert_allclose(maps[0], maps[2], atol=1e-6)


def test_log_odds_are_the_log_probability_without_its_saturation(key):
    """d log(p / (1 - p)) = d log p / (1 - p): the same direction, of a size that a sure network does not lose."""
    odds = contrast(linear, key, IMAGES, LABELS, Contrast(against="log_sum_exp"))
    log_p = gradient(linear, key, IMAGES, LABELS, Gradient(score="log_probability"))
    p = jax.nn.softmax(linear(IMAGES))[np.arange(3), LABELS][:, None, None]
    np.testing.assert_allclose(odds * (1 - p), log_p, atol=1e-5)


def test_mistakes_are_one_sentence():
    with pytest.raises(ValueError, match="Contrast is a difference of logits, got score='probability'"):
        Contrast(score="probability")
    with pytest.raises(ValueError, match=r"Unknown against 'runner'\. Did you mean 'runner_up'"):
        Contrast(against="runner")
