"""Mistakes in what an attack is given, wherever its values can be seen: one sentence each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import attacks, losses
from robust_saliency.threat import Threat

SHAPE = (3, 2, 2, 1)
LABELS = jnp.array([0, 1, 2], jnp.int32)
SPECS = {
    "autoattack": attacks.AutoAttack(steps=1, num_queries=1),
    "carlini_wagner": attacks.CarliniWagner(num_steps=1, num_searches=1),
    "deepfool": attacks.DeepFool(num_steps=1),
    "fab": attacks.FAB(num_steps=1),
    "square": attacks.Square(num_steps=1),
    "targeted": attacks.Targeted(attack=attacks.PGD(num_steps=1)),
    "untargeted": attacks.Untargeted(attack=attacks.PGD(num_steps=1)),
}
WEIGHTS = np.random.default_rng(0).normal(size=(*SHAPE[1:], 3)).astype(np.float32)


def logits_fn(images):
    return jnp.tensordot(images, WEIGHTS, 3)


def decide(name, images, labels):
    return attacks.DECISIONS[name][1](logits_fn, jax.random.key(0), jnp.asarray(images), labels, SPECS[name])


def test_every_decision_is_here():
    assert set(SPECS) == set(attacks.DECISIONS)


@pytest.mark.parametrize("name", SPECS)
def test_images_out_of_the_box(name):
    """What a user gets who normalises outside the model, and would otherwise attack other images than he thinks."""
    images = np.full(SHAPE, 0.5, np.float32)
    images[0, 0, 0, 0], images[2, 1, 1, 0] = -1.98, 2.13
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], found the range \[-1\.98, 2\.13\]; normal"):
        decide(name, images, LABELS)
    # Rounding is no mistake: 1 + 1e-7 is clipped.
    images = np.full(SHAPE, 1 + 1e-7, np.float32)
    assert float(jnp.max(decide(name, images, LABELS).images)) <= 1


@pytest.mark.parametrize("name", SPECS)
def test_labels_that_are_no_class(name):
    images = np.full(SHAPE, 0.5, np.float32)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2, found 0\.\.3\."):
        decide(name, images, jnp.array([0, 3, 1], jnp.int32))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2, found -1\.\.1\."):
        decide(name, images, jnp.array([0, -1, 1], jnp.int32))


def test_labels_that_are_no_integers():
    with pytest.raises(ValueError, match=r"labels must be integers, got dtype float32\."):
        losses.cross_entropy(jnp.zeros((3, 3)), jnp.zeros(3))


@pytest.mark.parametrize("loss", [losses.targeted_margin, losses.targeted_dlr])
def test_targets_that_are_the_label(loss):
    logits = jnp.zeros((3, 4))
    with pytest.raises(ValueError, match=r"targets must differ from labels: 2 of 3 are the label\."):
        loss(logits, LABELS, jnp.array([0, 2, 2], jnp.int32))
    with pytest.raises(ValueError, match=r"targets must lie in 0\.\.3, found 1\.\.7\."):
        loss(logits, LABELS, jnp.array([1, 2, 7], jnp.int32))


def test_targets_of_the_ensemble_attack():
    images, spec = jnp.full(SHAPE, 0.5), attacks.EnsembleOptimisation(num_adversaries=2, num_steps=1)
    with pytest.raises(ValueError, match=r"targets must differ from labels: 1 of 6 are the label\."):
        targets = jnp.array([[1, 2], [0, 2], [0, 2]], jnp.int32)
        attacks.ensemble_optimisation(logits_fn, jax.random.key(0), images, LABELS, spec, targets)


def test_too_few_classes_an_epsilon_and_a_mask_of_a_wrong_shape():
    with pytest.raises(ValueError, match="targeted_dlr needs at least 4 classes, got 3; margin needs two"):
        losses.targeted_dlr(jnp.zeros((3, 3)), LABELS, (LABELS + 1) % 3)
    images = jnp.full(SHAPE, 0.5)
    for fields, message in [
        ({"epsilon": jnp.ones(2)}, r"Threat\.epsilon has 2 entries for a batch of 3 images"),
        ({"epsilon": jnp.ones((3, 4, 4, 1))}, r"Threat\.epsilon of shape \(3, 4, 4, 1\) does not fit images of shape"),
        ({"mask": jnp.ones((3, 4, 4, 1))}, r"Threat\.mask of shape \(3, 4, 4, 1\) does not fit images of shape"),
        ({"mask": jnp.ones((2, 2))}, r"Threat\.mask must have 4 axes, got shape \(2, 2\)"),
    ]:
        spec = attacks.Untargeted(attack=attacks.PGD(threat=Threat(**fields), num_steps=1))
        with pytest.raises(ValueError, match=message):
            attacks.untargeted(logits_fn, jax.random.key(0), images, LABELS, spec)


def test_inside_a_compiled_program_images_are_clipped_and_nothing_is_said():
    images = jnp.full(SHAPE, 1.5)
    found = jax.jit(lambda x: decide("untargeted", x, LABELS).images)(images)
    assert float(jnp.max(found)) <= 1
