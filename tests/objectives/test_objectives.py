"""The objectives on a hand-written linear classifier, against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from robust_saliency import attacks, randomness
from robust_saliency.objectives import OBJECTIVES, Adversarial, Standard, adversarial, standard
from robust_saliency.threat import Threat
from tests.objectives.linear_net import (
    CLASSES,
    EPSILON,
    LABELS,
    MODEL,
    SHAPE,
    batch_of,
    cross_entropy,
    gradient,
    variables,
    worst,
)


def losses_and_gradient(objective, spec, w, batch, key):
    """Loss, (state, metrics) and gradient by the parameters, perturb inside what is differentiated."""

    def total(params, batch):
        given = {"params": params, "state": variables(w)["state"]}
        perturbed = objective.perturb(MODEL, given, key, batch, spec)
        return objective.loss(MODEL, given, {}, key, perturbed, spec)

    return jax.jit(jax.value_and_grad(total, has_aux=True))(variables(w)["params"], batch)


FGSM = attacks.FGSM(threat=Threat(epsilon=EPSILON))


def test_standard_by_hand(images, w, key):
    (value, (state, metrics)), slope = losses_and_gradient(standard, Standard(), w, batch_of(images), key)
    np.testing.assert_allclose(value, cross_entropy(images, w).mean(), rtol=1e-5)
    np.testing.assert_allclose(slope["w"], gradient(images, w), atol=1e-6)
    np.testing.assert_allclose(state["seen"], images.mean(), rtol=1e-6)
    predicted = (images.reshape(6, -1) @ w).argmax(-1)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(predicted == LABELS), rtol=1e-6)
    assert metrics["loss"] == value


def test_standard_leaves_the_batch_alone(images, w, key):
    batch = batch_of(images)
    assert standard.perturb(MODEL, variables(w), key, batch, Standard()) is batch


def test_adversarial_is_cross_entropy_at_the_worst_images(images, w, key):
    spec = Adversarial(attack=FGSM)
    (value, (state, metrics)), slope = losses_and_gradient(adversarial, spec, w, batch_of(images), key)
    adversary = worst(images, w)
    np.testing.assert_allclose(value, cross_entropy(adversary, w).mean(), rtol=1e-5)
    assert value > cross_entropy(images, w).mean() + 0.05
    np.testing.assert_allclose(state["seen"], adversary.mean(), rtol=1e-5)
    predicted = (adversary.reshape(6, -1) @ w).argmax(-1)
    np.testing.assert_allclose(metrics["robust_accuracy"], np.mean(predicted == LABELS), rtol=1e-6)
    # The images are a function of w here, so a gradient that leaked through them would show.
    np.testing.assert_allclose(slope["w"], gradient(adversary, w), atol=1e-6)


def test_two_classes_pgd_and_the_closed_form(images, key):
    """With two classes the worst image does not depend on the images: ``x + eps sign(w_other - w_label)``."""
    w = np.array([[1.0, -1.0], [-0.5, 0.5], [0.2, 0.4], [0.3, 0.1]], np.float32)
    labels = LABELS % 2
    attack = attacks.PGD(threat=Threat(epsilon=EPSILON), step_size=EPSILON / 2, num_steps=4, unroll=False)
    other = (w[:, 1 - labels] - w[:, labels]).T.reshape(SHAPE)
    batch = batch_of(images, labels=labels)
    perturbed = jax.jit(adversarial.perturb, static_argnums=0)(
        MODEL, variables(w), key, batch, Adversarial(attack=attack)
    )
    np.testing.assert_allclose(perturbed["adversarial"], images + EPSILON * np.sign(other), atol=1e-6)
    np.testing.assert_array_equal(perturbed["image"], images)


def test_include_clean_mixes(images, w, key):
    spec = Adversarial(attack=FGSM, include_clean=True, clean_weight=0.3)
    (value, (state, metrics)), slope = losses_and_gradient(adversarial, spec, w, batch_of(images), key)
    adversary = worst(images, w)
    expected = 0.7 * cross_entropy(adversary, w).mean() + 0.3 * cross_entropy(images, w).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(slope["w"], 0.7 * gradient(adversary, w) + 0.3 * gradient(images, w), atol=1e-6)
    np.testing.assert_allclose(state["seen"], adversary.mean(), rtol=1e-5)
    for name, x in (("accuracy", images), ("robust_accuracy", adversary)):
        np.testing.assert_allclose(metrics[name], np.mean((x.reshape(6, -1) @ w).argmax(-1) == LABELS), rtol=1e-6)


# Objectives that ask no more of a network than logits.
SIMPLE = {
    "adversarial": {"attack": FGSM, "include_clean": True, "label_smoothing": 0.1},
    "fgsm_rs": {"attack": FGSM},
    "grad_align": {"attack": FGSM, "through_clean": True},
    "gradient_penalty": {},
    "mart": {},
    "n_fgsm": {"attack": FGSM},
    "saliency_guided": {"map": "smoothgrad"},
    "standard": {"label_smoothing": 0.1},
    "trades": {},
}


@pytest.mark.parametrize("name", SIMPLE)
def test_padded_examples_change_nothing(images, w, key, name):
    spec = OBJECTIVES[name][0](**SIMPLE[name])
    keys = randomness.per_example_keys(key, jnp.arange(6))
    valid, labels = np.array([True] * 4 + [False] * 2), np.array([*LABELS[:4], 99, -1])
    padded = batch_of(images, valid, labels)
    objective = OBJECTIVES[name][1]
    (value, (_, metrics)), slope = losses_and_gradient(objective, spec, w, padded, keys)
    few = batch_of(images[:4], labels=LABELS[:4])
    (expected, (_, expected_metrics)), expected_slope = losses_and_gradient(objective, spec, w, few, keys[:4])
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(slope["w"], expected_slope["w"], atol=1e-6)
    for metric in metrics:  # a KL of 1e-3 is a difference of numbers of about 1
        np.testing.assert_allclose(metrics[metric], expected_metrics[metric], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("mode", "sign"), [("eval", 1.0), ("batch", -1.0)])
def test_attack_mode_reaches_the_model(images, w, key, mode, sign):
    spec = Adversarial(attack=FGSM, attack_mode=mode)
    perturbed = adversarial.perturb(MODEL, variables(w), key, batch_of(images), spec)
    np.testing.assert_allclose(perturbed["adversarial"], worst(images, w, sign), atol=1e-6)


def test_weight_and_epsilon_are_data():
    spec = Adversarial(attack=FGSM, clean_weight=0.25)
    assert sorted(jax.tree.leaves(spec)) == [0.0, EPSILON, 0.25]


@pytest.mark.parametrize("name", [name for name, (Spec, _) in OBJECTIVES.items() if hasattr(Spec(), "attack")])
def test_an_attack_of_no_steps_trains_against_nothing_and_is_refused(name):
    Spec, _ = OBJECTIVES[name]
    with pytest.raises(ValueError, match=rf"{Spec.__name__}\.attack\.num_steps must be at least 1, got 0"):
        Spec(attack=attacks.PGD(num_steps=0, start="gaussian"))


def test_an_attack_of_a_negative_length_is_refused_where_it_is_a_plain_number():
    with pytest.raises(ValueError, match=r"PGD\.start_scale must be at least 0, got -1\.0"):
        attacks.PGD(start="gaussian", start_scale=-1.0)
    with pytest.raises(ValueError, match=r"FGSMRS\.relative_step must be at least 0, got -1\.25"):
        attacks.FGSMRS(relative_step=-1.25)
    jax.jit(lambda n: (attacks.PGD(start_scale=n), attacks.FGSMRS(relative_step=n)))(-1.0)


def test_errors_of_the_spec():
    with pytest.raises(
        ValueError, match=r"Unknown attack_mode 'evaluate'\. Did you mean 'eval'\? Choices: batch, eval"
    ):
        Adversarial(attack_mode="evaluate")


def test_label_smoothing_is_a_share_of_the_target(images, w, key):
    """Of what is minimised; the adversary raises plain cross-entropy."""
    target = 0.7 * np.eye(CLASSES)[LABELS] + 0.1

    def smoothed(images):
        flat = images.reshape(6, -1).astype(np.float64)
        value = -np.mean(np.sum(target * special.log_softmax(flat @ w, -1), -1))
        return value, flat.T @ (special.softmax(flat @ w, -1) - target) / 6

    for objective, spec, seen in (
        (standard, Standard(label_smoothing=0.3), images),
        (adversarial, Adversarial(attack=FGSM, label_smoothing=0.3), worst(images, w)),
    ):
        (value, _), slope = losses_and_gradient(objective, spec, w, batch_of(images), key)
        expected, expected_slope = smoothed(seen)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        np.testing.assert_allclose(slope["w"], expected_slope, atol=1e-6)
