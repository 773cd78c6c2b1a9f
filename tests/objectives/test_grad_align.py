"""GradAlign: the cosine by hand, zero where the gradient is constant, finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import attacks
from robust_saliency.objectives import Adversarial, GradAlign, adversarial, grad_align
from robust_saliency.threat import Threat
from tests.objectives import smooth_net
from tests.objectives.smooth_net import Output, Smooth

JUDGE = attacks.PGD(threat=Threat(norm="l2", epsilon=0.3))


@pytest.mark.parametrize("through_clean", [True, False])
def test_gradient_of_the_loss(through_clean):
    """With the clean gradient held fixed the loss differs from what is differentiated, so only its own part is held."""
    spec = GradAlign(attack=JUDGE, weight=0.7, through_clean=True)
    if through_clean:
        smooth_net.check_gradient(grad_align, spec)
        return
    with jax.enable_x64(True):
        params, batch = smooth_net.params_and_batch()
        fixed = smooth_net.perturbed(grad_align, spec, params, batch)
        swapped = {**fixed, "image": fixed["noisy"], "noisy": fixed["image"]}

        def penalty(params, batch, through_clean):
            held = GradAlign(attack=JUDGE, through_clean=through_clean)
            return -smooth_net.loss(grad_align, held, params, batch)[1][1]["alignment"]

        gradient = jax.jit(jax.grad(penalty), static_argnums=2)
        both = gradient(params, fixed, True)
        parts = [gradient(params, b, False) for b in (fixed, swapped)]
        both, parts = jax.device_get((both, parts))
    for leaf, *halves in zip(*map(jax.tree.leaves, (both, *parts)), strict=True):
        assert np.abs(halves[0]).max() > 1e-3
        np.testing.assert_allclose(leaf, sum(halves), rtol=1e-9, atol=1e-12)


def test_penalty_and_state_by_hand():
    with jax.enable_x64(True):
        params, batch = smooth_net.params_and_batch()
        spec = GradAlign(attack=JUDGE, weight=0.7)
        fixed = jax.jit(lambda p: smooth_net.perturbed(grad_align, spec, p, batch))(params)
        value, (state, metrics) = jax.jit(lambda p: smooth_net.loss(grad_align, spec, p, fixed))(params)
        plain, (plain_state, _) = smooth_net.loss(adversarial, Adversarial(attack=JUDGE), params, fixed)
        found = jax.device_get((params, fixed, metrics, value, plain, state, plain_state))
    params, fixed, metrics, value, plain, state, plain_state = found
    cosine = cosines(params, fixed)
    assert 0.3 < cosine.mean() < 0.999
    np.testing.assert_allclose(metrics["alignment"], cosine.mean(), rtol=1e-10)
    np.testing.assert_allclose(value, plain + 0.7 * (1 - cosine.mean()), rtol=1e-10)
    assert metrics["loss"] == value
    np.testing.assert_allclose(state["mean"], plain_state["mean"], rtol=1e-12)


def input_gradient(params, images, labels):
    wrong = np.exp(smooth_net.log_probabilities(params, images)) - np.eye(smooth_net.CLASSES)[labels]
    return smooth_net.gradient_in_the_pixels(params, images, wrong)


def cosines(params, fixed):
    """Of the valid examples, in NumPy."""
    one, other = (smooth_net.unit(input_gradient(params, fixed[name], fixed["label"])) for name in ("image", "noisy"))
    return np.sum(one * other, 1)[fixed["valid"]]


def test_the_adversary_is_fgsm_and_the_noise_is_uniform_in_the_ball_without_the_box():
    params, batch = smooth_net.params_and_batch()
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    batch = {**batch, "image": jnp.full(smooth_net.SHAPE, 0.98, jnp.float32).at[0].set(0.5)}
    model = Threat(epsilon=0.1)
    found = jax.jit(lambda p: smooth_net.perturbed(grad_align, GradAlign(attack=attacks.PGD(threat=model)), p, batch))(
        params
    )
    steps = np.sign(input_gradient(params, batch["image"], batch["label"])).reshape(smooth_net.SHAPE)
    np.testing.assert_allclose(found["adversarial"], np.clip(batch["image"] + 0.1 * steps, 0, 1), atol=1e-6)
    eta = np.asarray(found["noisy"] - batch["image"])
    assert np.abs(eta).max() <= 0.1 + 1e-6 and found["noisy"].max() > 1.03
    assert np.abs(eta.mean()) < 0.03 and np.abs(eta.std() - 0.1 / np.sqrt(3)) < 0.012


class OfOneSign(Smooth):
    """Two classes whose logits differ by a linear score: the gradient of CE has one direction for a label."""

    def apply(self, variables, images, *, mode="eval", key=None, capture=(), edit=None):
        score = images.reshape(images.shape[0], -1) @ variables["params"]["w"]
        return Output(jnp.stack([score, -score], -1), variables["state"], {})


def test_nothing_is_added_where_the_gradient_has_a_constant_direction(key, rng):
    _, batch = smooth_net.params_and_batch()
    batch = {**batch, "label": batch["label"] % 2, "image": batch["image"].astype(jnp.float32)}
    variables = {"params": {"w": jnp.asarray(rng.normal(size=12), jnp.float32)}, "state": {}}
    spec = GradAlign(attack=attacks.PGD(threat=Threat(epsilon=0.2)))
    model = OfOneSign()

    def loss(params, objective, spec):
        given = {**variables, "params": params}
        return objective.loss(model, given, (), key, fixed, spec)

    fixed = jax.jit(lambda v: grad_align.perturb(model, v, key, batch, spec))(variables)
    value, (_, metrics) = jax.jit(loss, static_argnums=1)(variables["params"], grad_align, spec)
    plain, _ = jax.jit(loss, static_argnums=1)(variables["params"], adversarial, Adversarial())
    np.testing.assert_allclose(metrics["alignment"], 1, atol=1e-6)
    np.testing.assert_allclose(value, plain, atol=1e-6)


def test_examples_without_a_gradient_do_not_count_and_tiny_gradients_do():
    """float32: squares of 1e-25 vanish, and a quite certain network has no gradient at all."""
    params, batch = smooth_net.params_and_batch()
    params, batch = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype.kind == "f" else x, (params, batch))
    spec = GradAlign(attack=JUDGE)

    fixed = jax.jit(lambda: smooth_net.perturbed(grad_align, spec, params, batch))()
    run = jax.jit(jax.value_and_grad(lambda p: smooth_net.loss(grad_align, spec, p, fixed), has_aux=True))

    def alignment_at(scale):
        (_, (_, metrics)), gradient = run({**params, "second": params["second"] * scale})
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
        return metrics["alignment"]

    alignment, fixed = jax.device_get((alignment_at(jnp.float32(1e-25)), fixed))
    wide = {name: np.float64(leaf) for name, leaf in params.items()}
    cosine = cosines({**wide, "second": 1e-25 * wide["second"]}, fixed)
    np.testing.assert_allclose(alignment, cosine.mean(), rtol=1e-4)
    assert alignment_at(jnp.float32(0.0)) == 1, "no example is left to count"


def test_fields_are_data_or_static():
    assert 0.375 in jax.tree.leaves(GradAlign(weight=0.375))
    with pytest.raises(ValueError, match=r"Unknown attack_mode 'train'"):
        GradAlign(attack_mode="train")
