"""MART on a smooth net, and by hand in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import attacks
from robust_saliency.objectives import MART, mart
from robust_saliency.threat import Threat
from tests.objectives import smooth_net

SHORT = attacks.PGD(threat=Threat(norm="l2", epsilon=0.3), step_size=0.1, num_steps=3, start="gaussian", unroll=False)


def test_gradient_of_the_loss_and_none_through_the_adversary():
    fixed = smooth_net.check_gradient(mart, MART(attack=SHORT))
    assert np.abs(fixed["adversarial"] - fixed["image"]).max() > 0.01


def test_loss_state_and_metrics_by_hand():
    with jax.enable_x64(True):
        params, batch = smooth_net.params_and_batch()
        fixed = {**batch, "adversarial": jnp.clip(batch["image"] - 0.15, 0, 1)}
        found = jax.jit(lambda p: smooth_net.loss(mart, MART(attack=SHORT, beta=5.0), p, fixed))(params)
        params, fixed, (value, (state, metrics)) = jax.device_get((params, fixed, found))
    clean, worst = fixed["image"], fixed["adversarial"]
    total = 0.0
    for image, other, label in zip(clean[:4], worst[:4], fixed["label"], strict=False):
        p, q = (np.exp(smooth_net.log_probabilities(params, x[None]))[0] for x in (image, other))
        boosted = -np.log(q[label]) - np.log(1.0001 - max(np.delete(q, label)) + 1e-12)
        total += boosted + 5.0 * np.sum(p * np.log(p / q)) * (1.0000001 - p[label])
    np.testing.assert_allclose(value, total / 4, rtol=1e-10)
    assert metrics["loss"] == value
    np.testing.assert_allclose(state["mean"], 0.9 * 0.1 * clean.mean() + 0.1 * worst.mean(), rtol=1e-10)


def test_the_adversary_is_that_of_adversarial_training():
    """It raises cross-entropy: one step goes along ``J^T (p - one_hot)``."""
    with jax.enable_x64(True):
        params, batch = smooth_net.params_and_batch()
        attack = attacks.PGD(threat=Threat(norm="l2", epsilon=0.3), step_size=0.05, num_steps=1, start="none")
        found = jax.jit(lambda p: smooth_net.perturbed(mart, MART(attack=attack), p, batch))(params)
        params, found = jax.device_get((params, found))
    images = found["image"]
    wrong = np.exp(smooth_net.log_probabilities(params, images)) - np.eye(4)[found["label"]]
    step = 0.05 * smooth_net.unit(smooth_net.gradient_in_the_pixels(params, images, wrong))
    np.testing.assert_allclose(found["adversarial"], images + step.reshape(images.shape), atol=1e-9)


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_saturated_logits_give_finite_loss_and_gradient(scale):
    params, batch = smooth_net.params_and_batch()
    params = {**params, "second": params["second"] * scale}
    fixed = {**batch, "adversarial": 1 - batch["image"]}
    value, gradient = jax.jit(jax.value_and_grad(lambda p: smooth_net.loss(mart, MART(), p, fixed)[0]))(params)
    assert value > scale
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_errors_and_data():
    with pytest.raises(ValueError, match=r"Unknown attack_mode 'train'"):
        MART(attack_mode="train")
    assert 6.0 in jax.tree.leaves(MART())
