"""Ensembles by hand: two linear models, what they give together, and the gradients of that."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import losses
from robust_saliency.ensembles import ensemble_logits, ensemble_loss

WEIGHTS = np.random.default_rng(0).normal(size=(3, 2, 3, 1, 4)).astype(np.float32)
MODELS = [lambda x, w=w: jnp.tensordot(x - 0.5, w, 3) for w in WEIGHTS]


@pytest.fixture
def images(rng):
    return rng.random((5, 2, 3, 1)).astype(np.float32)


def by_hand(images):
    """Logits and probabilities of the models in float64, ``[models, B, K]``."""
    logits = np.einsum("bhwc,mhwck->mbk", images.astype(np.float64) - 0.5, WEIGHTS)
    odds = np.exp(logits)
    return logits, odds / odds.sum(-1, keepdims=True)


@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.0]])
def test_the_average_is_that_of_the_hand(weights, images):
    logits, probabilities = by_hand(images)
    shares = np.full(3, 1 / 3) if weights is None else np.array([0.25, 0.75, 0.0])
    of_logits, of_probabilities = (
        jax.jit(ensemble_logits(MODELS, weights, combine))(images) for combine in ("logits", "probabilities")
    )
    np.testing.assert_allclose(of_logits, np.einsum("m,mbk->bk", shares, logits), atol=1e-5)
    np.testing.assert_allclose(np.exp(of_probabilities), np.einsum("m,mbk->bk", shares, probabilities), atol=1e-6)
    np.testing.assert_allclose(np.exp(of_probabilities).sum(-1), 1, atol=1e-6)


def test_numbers_small_enough_to_check_by_eye():
    one, other = (lambda x, z=z: jnp.log(jnp.broadcast_to(jnp.array(z), (len(x), 2))) for z in ([0.9, 0.1], [0.4, 0.6]))
    image = jnp.zeros((1, 1, 1, 1))
    np.testing.assert_allclose(
        np.exp(ensemble_logits([one, other], combine="probabilities")(image)), [[0.65, 0.35]], rtol=1e-6
    )
    odds = np.exp(ensemble_logits([one, other])(image))
    np.testing.assert_allclose(odds, [[np.sqrt(0.36), np.sqrt(0.06)]], rtol=1e-6)
    np.testing.assert_allclose(
        np.exp(ensemble_logits([one, other], [4.0, 1.0], "probabilities")(image)), [[0.8, 0.2]], rtol=1e-6
    )


@pytest.mark.parametrize("combine", ["logits", "probabilities"])
def test_only_the_ratio_of_weights_counts_and_one_model_is_itself(combine, images):
    once, tenfold = (ensemble_logits(MODELS, w, combine)(images) for w in ([1, 2, 3], jnp.array([10.0, 20.0, 30.0])))
    np.testing.assert_allclose(once, tenfold, atol=1e-6)
    alone = ensemble_logits(MODELS[:1], combine=combine)(images)
    np.testing.assert_allclose(jax.nn.softmax(alone), jax.nn.softmax(MODELS[0](images)), atol=1e-6)


def test_probabilities_that_underflow_leave_finite_logits_and_gradients():
    """Both models give class 1 a probability of exp(-500), which float32 has not."""
    sure = [lambda x, s=s: jnp.stack([s * x[:, 0, 0, 0], 0 * x[:, 0, 0, 0]], -1) for s in (500.0, 600.0)]
    together = ensemble_logits(sure, combine="probabilities")
    image, label = jnp.ones((1, 1, 1, 1)), jnp.ones(1, jnp.int32)
    np.testing.assert_allclose(together(image), [[0, -500 + np.log(0.5)]], rtol=1e-6)
    slope = jax.jit(jax.grad(lambda x: losses.cross_entropy(together(x), label).sum()))(image)
    np.testing.assert_allclose(slope, [[[[500]]]], rtol=1e-5)


def test_losses_are_averaged_for_each_example(images):
    logits, _ = by_hand(images)
    labels = jnp.array([0, 1, 2, 3, 0])
    loss_fns = [lambda x, m=m: losses.margin(m(x), labels) for m in MODELS]
    found = jax.jit(ensemble_loss(loss_fns, [2, 1, 1]))(images)
    each = np.array([losses.margin(jnp.asarray(z, jnp.float32), labels) for z in logits])
    assert found.shape == (5,)
    np.testing.assert_allclose(found, 0.5 * each[0] + 0.25 * each[1] + 0.25 * each[2], atol=1e-5)
    np.testing.assert_allclose(ensemble_loss(loss_fns)(images), each.mean(0), atol=1e-5)


def test_weights_are_data(images):
    traces = []

    @jax.jit
    def together(weights):
        traces.append(weights)
        return ensemble_logits(MODELS, weights)(images)

    for row in np.eye(3, dtype=np.float32):
        np.testing.assert_allclose(together(row), MODELS[int(row.argmax())](images), atol=1e-5)
    assert len(traces) == 1


def test_known_weights_are_looked_at_inside_a_traced_program(images):
    weights = jnp.array([1.0, 0.0, -1.0])
    with pytest.raises(ValueError, match=r"must be at least 0 and not all 0, got \[1.0, 0.0, -1.0\]\."):
        jax.jit(lambda x: ensemble_logits(MODELS, weights)(x))(images)


def test_half_precision_is_averaged_in_float32():
    half = [lambda x, z=z: jnp.full((len(x), 2), z, jnp.bfloat16) for z in (1.0, 1.0078125)]
    np.testing.assert_array_equal(ensemble_logits(half)(jnp.zeros((1, 1, 1, 1))), [[1.00390625] * 2])


def test_mistakes_are_one_sentence(images):
    with pytest.raises(ValueError, match=r"Unknown combine 'probability'\. Did you mean 'probabilities'"):
        ensemble_logits(MODELS, combine="probability")
    with pytest.raises(ValueError, match=r"needs at least one model, got none\.$"):
        ensemble_logits([])
    with pytest.raises(ValueError, match=r"An ensemble of 3 models needs as many weights, got shape \(2,\)\.$"):
        ensemble_loss(MODELS, [1, 2])
    for weights in ([0, 0, 0], [1, 1, -1], [1, 1, np.nan]):
        with pytest.raises(ValueError, match=r"must be at least 0 and not all 0"):
            ensemble_logits(MODELS, weights)
    with pytest.raises(ValueError, match=r"give logits of different shapes: \[\(5, 3\), \(5, 4\)\]\.$"):
        ensemble_logits([MODELS[0], lambda x: MODELS[0](x)[:, :3]])(images)
