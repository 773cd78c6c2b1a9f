"""The gradient penalty: closed form on a linear model, finite differences on a smooth one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from robust_saliency.objectives import GradientPenalty, gradient_penalty
from tests.objectives import smooth_net
from tests.objectives.linear_net import LABELS, MODEL, batch_of, cross_entropy, variables

SIZES = {
    "squared_l2": lambda g: (g**2).sum(1),
    "l2": lambda g: np.linalg.norm(g, axis=1),
    "l1": lambda g: np.abs(g).sum(1),
}


@pytest.mark.parametrize("size", SIZES)
def test_closed_form_on_a_linear_model(images, w, key, size):
    """There the gradient of cross-entropy in the pixels is ``w (softmax - one_hot)``."""
    spec = GradientPenalty(weight=0.3, gradient_size=size)
    batch = batch_of(images, valid=[True] * 5 + [False])
    value, (state, metrics) = jax.jit(lambda v: gradient_penalty.loss(MODEL, v, (), key, batch, spec))(variables(w))
    wrong = special.softmax(images.reshape(6, -1) @ w, -1) - np.eye(3)[LABELS]
    penalty = SIZES[size](wrong @ w.T)[:5].mean()
    np.testing.assert_allclose(metrics["penalty"], penalty, rtol=1e-5)
    np.testing.assert_allclose(value, cross_entropy(images, w)[:5].mean() + 0.3 * penalty, rtol=1e-5)
    np.testing.assert_allclose(state["seen"], images.mean(), rtol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_gradient_of_the_loss(size):
    smooth_net.check_gradient(gradient_penalty, GradientPenalty(gradient_size=size))


def test_the_batch_is_left_alone(images, w, key):
    batch = batch_of(images)
    assert gradient_penalty.perturb(MODEL, variables(w), key, batch, GradientPenalty()) is batch


def test_the_penalty_does_not_depend_on_how_many_images_there_are(images, w, key):
    """The gradient is that of each example's own loss, not of the mean."""
    spec, batch = GradientPenalty(), batch_of(images)
    twice = {name: jnp.concatenate([field, field]) for name, field in batch.items()}
    penalties = [gradient_penalty.loss(MODEL, variables(w), (), key, b, spec)[1][1]["penalty"] for b in (batch, twice)]
    np.testing.assert_allclose(*penalties, rtol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_where_the_gradient_vanishes_nothing_is_nan(images, key, size):
    spec = GradientPenalty(gradient_size=size)
    zero = variables(np.zeros((4, 3), np.float32))

    def loss(params):
        return gradient_penalty.loss(MODEL, {**zero, "params": params}, (), key, batch_of(images), spec)

    (value, (_, metrics)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(zero["params"])
    assert metrics["penalty"] == 0 and value == pytest.approx(np.log(3), rel=1e-6)
    assert np.isfinite(gradient["w"]).all()


def test_errors_and_data():
    with pytest.raises(ValueError, match=r"Unknown gradient_size 'linf'.*Choices: l1, l2, squared_l2"):
        GradientPenalty(gradient_size="linf")
    assert jax.tree.leaves(GradientPenalty(weight=0.25)) == [0.25]
