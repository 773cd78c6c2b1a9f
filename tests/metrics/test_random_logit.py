"""The random logit test: which classes are drawn, and known answers of linear networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from robust_saliency import metrics, randomness
from robust_saliency.metrics import RandomLogit
from robust_saliency.metrics.random_logit import other_labels

BATCH, SIDE, CLASSES = 5, 12, 4


@pytest.fixture
def weights(rng):
    return rng.normal(size=(SIDE, SIDE, CLASSES)).astype(np.float32)


def keys(seed=0, batch=BATCH):
    return randomness.per_example_keys(jax.random.key(seed), jnp.arange(batch))


def score(weights, saliency_fn, spec=None, labels=None, key=None):
    labels = np.arange(BATCH, dtype=np.int32) % CLASSES if labels is None else labels
    images = np.full((BATCH, SIDE, SIDE, 1), 0.5, np.float32)

    @jax.jit
    def run(key):
        def logits_fn(images):
            return jnp.einsum("bhwc,hwk->bk", images, weights)

        maps = saliency_fn(key, images, labels)
        own = {"key": key, "images": images, "labels": labels, "maps": maps}
        return metrics.run(spec or RandomLogit(), logits_fn=logits_fn, saliency_fn=saliency_fn, **own)

    return np.asarray(run(keys() if key is None else key))


def gradient_of(weights):
    return lambda key, images, labels: jnp.moveaxis(jnp.asarray(weights), -1, 0)[labels]


@pytest.mark.parametrize("similarity", ["kendall", "spearman", "ssim", "top_k_intersection"])
def test_a_method_that_ignores_its_class_has_one(similarity, weights):
    def ignoring(key, images, labels):
        return jnp.broadcast_to(weights[None, ..., 0], (BATCH, SIDE, SIDE))

    np.testing.assert_allclose(score(weights, ignoring, RandomLogit(similarity=similarity)), 1, atol=1e-6)


@pytest.mark.parametrize("sign", ["abs", "raw"])
def test_the_gradient_of_a_linear_network_has_the_correlation_of_two_rows_of_weights(sign, weights):
    policy = np.abs if sign == "abs" else lambda m: m
    labels = np.arange(BATCH, dtype=np.int32) % CLASSES
    others = other_labels(randomness.split(keys())[0], labels, CLASSES)
    rows = policy(weights.reshape(-1, CLASSES).T)
    expected = [stats.spearmanr(rows[own], rows[other])[0] for own, other in zip(labels, others, strict=True)]
    found = score(weights, gradient_of(weights), RandomLogit(sign=sign))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found).max() < 0.3


def test_two_classes_with_opposite_weights_are_told_apart_by_the_sign_alone(weights):
    opposite = np.stack([weights[..., 0], -weights[..., 0]], axis=-1)
    labels = np.arange(BATCH, dtype=np.int32) % 2
    for sign, value in (("abs", 1), ("raw", -1)):
        found = score(opposite, gradient_of(opposite), RandomLogit(sign=sign), labels)
        np.testing.assert_allclose(found, value, rtol=1e-6)


def test_a_random_map_is_low_too(weights):
    found = score(weights, lambda key, images, labels: metrics.blind.random_map(key, images.shape[:3]))
    assert np.abs(found).max() < 0.3


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_a_meaningless_map_of_the_other_class_is_nan_and_a_constant_one_too(bad, weights):
    broken = weights.copy()
    broken[..., 1:] = bad
    labels = np.zeros(BATCH, np.int32)
    assert np.isnan(score(broken, gradient_of(broken), labels=labels)).all()
    broken[..., 1:] = 1
    assert np.isnan(score(broken, gradient_of(broken), labels=labels)).all()


def test_every_other_class_is_drawn_as_often_and_the_label_never():
    labels = np.repeat(np.arange(CLASSES, dtype=np.int32), 300)
    drawn = np.asarray(jax.jit(lambda key: other_labels(key, labels, CLASSES))(keys(1, len(labels))))
    assert drawn.dtype == np.int32 and (drawn != labels).all()
    table = np.array([np.bincount(drawn[labels == k], minlength=CLASSES)[np.arange(CLASSES) != k] for k in range(4)])
    assert stats.chisquare(table.ravel()).pvalue > 0.01


def test_the_class_of_an_example_is_its_own_and_one_key_for_all_is_allowed(weights):
    labels = np.zeros(BATCH, np.int32)
    whole = other_labels(keys(), labels, CLASSES)
    np.testing.assert_array_equal(other_labels(keys()[2:3], labels[2:3], CLASSES), whole[2:3])
    assert (other_labels(jax.random.key(1), labels, CLASSES) > 0).all()


def test_a_network_of_one_class_is_refused_and_the_title_says_the_similarity():
    with pytest.raises(ValueError, match="at least two are needed, got 1"):
        other_labels(keys(), np.zeros(BATCH, np.int32), 1)
    assert RandomLogit.title == "Random logit, Spearman rank correlation"
    assert RandomLogit(similarity="top_k_intersection").range == (0, 1)
