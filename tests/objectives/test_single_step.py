"""The regimes of one step: FGSM-RS and N-FGSM. What they make, and what validation reports of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from robust_saliency import attacks, randomness, threat
from robust_saliency.objectives import FGSMRS, NFGSM, OBJECTIVES, Adversarial, adversarial, fgsm_rs, n_fgsm
from robust_saliency.threat import Threat
from tests import tiny
from tests.objectives import smooth_net
from tests.objectives.linear_net import CLASSES, EPSILON, LABELS, MODEL, SHAPE, batch_of, variables


def judge(**fields):
    return attacks.PGD(threat=Threat(epsilon=EPSILON, **fields))


def step_by_hand(start, w, length):
    """FGSM by hand: the gradient of cross-entropy at x is ``w (softmax - one_hot)``."""
    wrong = special.softmax(start.reshape(len(start), -1) @ w, -1) - np.eye(CLASSES)[LABELS]
    return start + length * np.sign(wrong @ w.T).reshape(SHAPE).astype(np.float32)


def perturbed(objective, spec, w, batch, key):
    return jax.jit(lambda v: objective.perturb(MODEL, v, key, batch, spec))(variables(w))["adversarial"]


def test_fgsm_rs_is_a_step_from_a_random_start_and_the_way_back(images, w, key):
    batch = batch_of(images)
    found = perturbed(fgsm_rs, FGSMRS(attack=judge(), relative_step=1.5), w, batch, key)
    start = threat.start(key, batch["image"], Threat(epsilon=EPSILON), "uniform")
    expected = np.clip(step_by_hand(np.asarray(start), w, 0.15), images - EPSILON, images + EPSILON)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_fgsm_rs_trains_as_adversarial_training_does(images, w, key):
    batch = batch_of(images)
    attack = attacks.FGSMRS(threat=Threat(epsilon=EPSILON))
    fields = {"include_clean": True, "clean_weight": 0.3, "label_smoothing": 0.1}
    found, expected = (
        objective.loss(MODEL, variables(w), (), key, objective.perturb(MODEL, variables(w), key, batch, spec), spec)
        for objective, spec in (
            (fgsm_rs, FGSMRS(attack=judge(), **fields)),
            (adversarial, Adversarial(attack=attack, **fields)),
        )
    )
    assert found[0] == expected[0] and found[1][1] == expected[1][1]


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_n_fgsm_is_a_step_from_noise_and_no_way_back(images, w, key, noise):
    batch = batch_of(images)
    spec = NFGSM(attack=judge(), relative_noise=noise, relative_step=0.8)
    found = perturbed(n_fgsm, spec, w, batch, key)
    unit = randomness.draw(jax.random.uniform, key, SHAPE, minval=-1.0, maxval=1.0)
    noisy = np.clip(images + noise * EPSILON * np.asarray(unit), 0, 1)
    np.testing.assert_allclose(found, np.clip(step_by_hand(noisy, w, 0.08), 0, 1), atol=1e-6)
    farthest = np.abs(found - images).max()
    assert farthest > 2 * EPSILON if noise else farthest < EPSILON


def test_n_fgsm_stays_in_box_and_mask(w, key, rng):
    images = rng.choice([0.0, 0.05, 0.95, 1.0], SHAPE).astype(np.float32)
    mask = rng.integers(0, 2, (6, 2, 2, 1)).astype(np.float32)
    found = np.asarray(perturbed(n_fgsm, NFGSM(attack=judge(mask=jnp.asarray(mask))), w, batch_of(images), key))
    assert found.min() == 0 and found.max() == 1
    fixed = np.broadcast_to(mask == 0, SHAPE)
    np.testing.assert_array_equal(found[fixed], images[fixed])
    assert (found != images)[~fixed].mean() > 0.5


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_n_fgsm_in_other_norms_stays_within_noise_and_step(norm, w, key, images):
    attack = attacks.PGD(threat=Threat(norm=norm, epsilon=EPSILON))
    found = perturbed(n_fgsm, NFGSM(attack=attack), w, batch_of(images), key)
    size = threat.distance(found, jnp.asarray(images), attack.threat)
    assert (size <= 3 * EPSILON * (1 + 1e-5)).all() and size.max() > EPSILON


@pytest.mark.parametrize(("sparsity", "count"), [(0.01, 1), (0.75, 3)])
@pytest.mark.parametrize("name", ["fgsm_rs", "grad_align", "n_fgsm"])
def test_in_l1_the_step_is_as_sparse_as_those_of_the_attack(name, sparsity, count, w, key, images):
    """A step changes ``count`` of the 4 values of an image, by epsilon / count each."""
    Spec, objective = OBJECTIVES[name]
    model, batch = Threat(norm="l1", epsilon=EPSILON, bounds=(-9.0, 9.0)), batch_of(images)
    fields = {} if name == "grad_align" else {"relative_step": 1.0}
    spec = Spec(attack=attacks.PGD(threat=model, sparsity=sparsity), **fields)
    found = jax.jit(lambda v: objective.perturb(MODEL, v, key, batch, spec))(variables(w))["adversarial"]
    radius = {"fgsm_rs": EPSILON, "grad_align": 0.0, "n_fgsm": 2 * EPSILON}[name]
    start = threat.start(key, batch["image"], dataclasses.replace(model, epsilon=radius), "uniform")
    slope = (special.softmax(start.reshape(6, -1) @ w, -1) - np.eye(CLASSES)[LABELS]) @ w.T
    chosen = np.argsort(np.argsort(-np.abs(slope))) < count
    expected = start + EPSILON / count * np.reshape(chosen * np.sign(slope), SHAPE).astype(np.float32)
    if name == "fgsm_rs":
        expected = threat.project(expected, batch["image"], model)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_epsilon_of_each_example(images, w, key):
    epsilon = jnp.array([0.0, 0.01, 0.02, 0.03, 0.04, 0.05])
    attack = attacks.PGD(threat=Threat(epsilon=epsilon))
    for objective, spec, most in ((fgsm_rs, FGSMRS(attack=attack), 1), (n_fgsm, NFGSM(attack=attack), 3)):
        far = np.abs(perturbed(objective, spec, w, batch_of(images), key) - images).max((1, 2, 3))
        share = far[1:] / np.asarray(epsilon)[1:]
        assert far[0] == 0 and share.min() > 0.5 and most - 0.5 < share.max() < most + 1e-3


@pytest.mark.parametrize(("objective", "Spec"), [(fgsm_rs, FGSMRS), (n_fgsm, NFGSM)])
def test_gradient_of_the_loss(objective, Spec):
    attack = attacks.PGD(threat=Threat(norm="l2", epsilon=0.3))
    smooth_net.check_gradient(objective, Spec(attack=attack, include_clean=True, label_smoothing=0.1))


@pytest.mark.parametrize("name", ["fgsm_rs", "n_fgsm", "grad_align"])
def test_validation_attacks_with_several_steps_inside_the_same_threat_model(name):
    """Accuracy against the one step of training would hide catastrophic overfitting."""
    ramp = {"epsilon": {"until": 0.4}}
    experiment = tiny.experiment(objective={"name": name, "attack": {"epsilon": 0.05}}, schedules=ramp)
    attack = experiment.attack
    assert isinstance(attack, attacks.PGD) and attack.num_steps == 7
    assert attack.threat.epsilon == 0.05 and attack.step_size == pytest.approx(2.5 / 7 * 0.05)
    trained = tiny.experiment(objective={"name": name, "attack": {"name": "fgsm", "epsilon": 0.05}}).objective.spec
    assert trained.attack == attacks.FGSM(threat=dataclasses.replace(attack.threat))


def test_lengths_are_data_and_ranges_are_checked():
    assert 0.125 in jax.tree.leaves(FGSMRS(relative_step=0.125))
    assert {0.125, 0.375} <= set(jax.tree.leaves(NFGSM(relative_step=0.125, relative_noise=0.375)))
    with pytest.raises(ValueError, match=r"config.objective.relative_noise must be at least 0, got -1"):
        tiny.experiment(objective={"name": "n_fgsm", "relative_noise": -1.0})
    with pytest.raises(ValueError, match=r"Unknown attack_mode 'train'"):
        NFGSM(attack_mode="train")
