"""TRADES on a smooth net, by hand in NumPy, and beside standard training."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import attacks, models
from robust_saliency.objectives import TRADES, Standard, standard, trades
from robust_saliency.threat import Threat
from tests.keys import fast_key
from tests.objectives import smooth_net

L2 = Threat(norm="l2", epsilon=0.3)
SHORT = attacks.PGD(threat=L2, step_size=0.1, num_steps=3, start="gaussian", unroll=False)


def test_gradient_of_the_loss_and_none_through_the_adversary():
    fixed = smooth_net.check_gradient(trades, TRADES(attack=SHORT))
    assert np.abs(fixed["adversarial"] - fixed["image"]).max() > 0.01


def test_loss_state_and_metrics_by_hand():
    with jax.enable_x64(True):
        params, batch = smooth_net.params_and_batch()
        fixed = {**batch, "adversarial": jnp.clip(batch["image"] + 0.1, 0, 1)}
        spec = TRADES(attack=SHORT, beta=2.5)
        found = jax.jit(lambda p: smooth_net.loss(trades, spec, p, fixed))(params)
        params, fixed, (value, (state, metrics)) = jax.device_get((params, fixed, found))
    clean, worst, labels = fixed["image"], fixed["adversarial"], fixed["label"][:4]
    log_p, log_q = (smooth_net.log_probabilities(params, x)[:4] for x in (clean, worst))
    divergence = np.sum(np.exp(log_p) * (log_p - log_q), -1)
    np.testing.assert_allclose(value, np.mean(-log_p[np.arange(4), labels] + 2.5 * divergence), rtol=1e-10)
    np.testing.assert_allclose(metrics["kl"], divergence.mean(), rtol=1e-10)
    assert metrics["loss"] == value
    assert metrics["accuracy"] == np.mean(log_p.argmax(-1) == labels)
    assert metrics["robust_accuracy"] == np.mean(log_q.argmax(-1) == labels)
    # The clean images first, then the adversarial ones.
    np.testing.assert_allclose(state["mean"], 0.9 * 0.1 * clean.mean() + 0.1 * worst.mean(), rtol=1e-10)


def test_the_adversary_raises_the_divergence_by_the_formula():
    """One step from a given start: along the gradient ``J^T (q - p)`` of KL(p || q), p held fixed."""
    with jax.enable_x64(True):
        params, batch = smooth_net.params_and_batch()
        start = np.asarray(batch["image"]) + 0.02 * np.random.default_rng(5).normal(size=smooth_net.SHAPE)
        attack = attacks.PGD(threat=L2, step_size=0.05, num_steps=1, init=jnp.asarray(start))
        found = jax.jit(lambda p: smooth_net.perturbed(trades, TRADES(attack=attack), p, batch))(params)
        params, found = jax.device_get((params, found))
    p, q = (np.exp(smooth_net.log_probabilities(params, x)) for x in (found["image"], start))
    step = 0.05 * smooth_net.unit(smooth_net.gradient_in_the_pixels(params, start, q - p))
    np.testing.assert_allclose(found["adversarial"], start + step.reshape(start.shape), atol=1e-9)


def test_beta_zero_has_exactly_the_gradient_of_standard_training(rng):
    key = fast_key(0)
    classifier = models.make(models.PlainCNN(layers=("conv4", "bn", "dropout0.5", "gap")), (8, 8, 3), 3)
    variables = classifier.init(key)
    batch = {
        "image": jnp.asarray(rng.random((4, 8, 8, 3)), jnp.float32),
        "adversarial": jnp.asarray(rng.random((4, 8, 8, 3)), jnp.float32),
        "label": jnp.array([0, 1, 2, 0], jnp.int32),
        "valid": jnp.ones(4, bool),
    }

    def gradient(objective, spec):
        def loss(params):
            return objective.loss(classifier, {**variables, "params": params}, (), key, batch, spec)[0]

        return jax.jit(jax.grad(loss))(variables["params"])

    plain = gradient(standard, Standard())
    chex.assert_trees_all_equal(gradient(trades, TRADES(beta=0.0)), plain)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(gradient(trades, TRADES(beta=1e-3)), plain)


def test_batch_norm_counts_clean_images_then_adversarial_ones(rng):
    key = fast_key(0)
    classifier = models.make(models.PlainCNN(layers=("bn", "conv2", "gap")), (8, 8, 3), 3)
    variables = classifier.init(key)
    batch = {
        "image": jnp.asarray(rng.random((4, 8, 8, 3)), jnp.float32),
        "adversarial": jnp.asarray(rng.random((4, 8, 8, 3)) / 2, jnp.float32),
        "label": jnp.array([0, 1, 2, 0], jnp.int32),
        "valid": jnp.ones(4, bool),
    }
    _, (state, _) = trades.loss(classifier, variables, (), key, batch, TRADES())
    one = classifier.apply(variables, batch["image"], mode="train").state
    both = classifier.apply({**variables, "state": one}, batch["adversarial"], mode="train").state
    chex.assert_trees_all_equal(state, both)


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_saturated_logits_give_finite_loss_and_gradient(scale):
    params, batch = smooth_net.params_and_batch()
    params = {**params, "second": params["second"] * scale}
    fixed = {**batch, "adversarial": 1 - batch["image"]}
    value, gradient = jax.jit(jax.value_and_grad(lambda p: smooth_net.loss(trades, TRADES(), p, fixed)[0]))(params)
    assert value > scale
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    "attack",
    [
        attacks.FGSM(),
        attacks.PGD(start="none"),
        attacks.APGD(start="none"),
        attacks.PGD(start="gaussian", start_scale=0.0),
        attacks.APGD(start="gaussian", start_scale=0),
    ],
)
def test_an_attack_without_a_gradient_to_follow_is_refused(attack):
    message = (
        r"TRADES.attack \w+ starts at the clean image, and kl has no gradient there to follow; expected start='gau"
    )
    with pytest.raises(ValueError, match=message):
        TRADES(attack=attack)


def test_a_start_of_ones_own_is_a_start_and_its_scale_may_be_data():
    TRADES(attack=attacks.PGD(start="none", init=jnp.zeros((1, 2, 2, 1))))
    TRADES(attack=attacks.PGD(start="uniform", start_scale=0.0))
    jax.jit(lambda scale: TRADES(attack=attacks.PGD(start="gaussian", start_scale=scale)))(0.0)


def test_errors_and_data():
    with pytest.raises(ValueError, match=r"Unknown attack_mode 'train'"):
        TRADES(attack_mode="train")
    assert 6.0 in jax.tree.leaves(TRADES())
