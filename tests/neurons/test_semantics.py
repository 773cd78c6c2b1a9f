"""CS and r where they are known: units that follow what is shown, what is meant, both, or nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import neurons
from robust_saliency.neurons import Ratios
from tests.neurons.planted import LOGITS_FN, images_and_masks

ratios = jax.jit(neurons.representation_ratios)


def test_class_similarities_of_units_that_are_pure_fooled_mixed_and_dead():
    """Real images of class 0. Adversarial ones: shown 0, meant 1; shown 1, meant 0; half each way; none at all."""
    real = np.array([[1, 0, 0]] * 3 + [[np.nan] * 3], np.float32)
    by_label = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [np.nan] * 3], np.float32)
    by_target = np.array([[0, 1, 0], [1, 0, 0], [0.5, 0, 0.5], [np.nan] * 3], np.float32)
    found = jax.jit(neurons.class_similarities)(real, by_label, by_target)
    np.testing.assert_allclose(found.cs1, [1, 0, np.sqrt(0.5), np.nan], rtol=1e-6)
    np.testing.assert_allclose(found.cs2, [0, 1, np.sqrt(0.5), np.nan], rtol=1e-6)


def test_class_similarities_of_planted_units_from_images():
    """Red is class 0, green class 1; adversarial images show the same, and are meant as the other.

    The unit 'pure' answers to the same images as before, 'mixed' to both kinds.
    """
    images, _ = images_and_masks()
    shown, meant = np.array([0, 0, 1, 2]), np.array([1, 1, 0, 0])
    top = jax.jit(lambda x: neurons.top(neurons.activations(LOGITS_FN, x, "units"), jnp.arange(4), 3))
    real, adversarial = top(images), top(0.9 * images)
    shares = jax.jit(neurons.class_distribution, static_argnums=2)
    by = [
        shares(classes[found.ids], found.activated, 3)
        for found, classes in ((real, shown), (adversarial, shown), (adversarial, meant))
    ]
    np.testing.assert_allclose(by[0], [[1, 0, 0], [2 / 3, 1 / 3, 0], [np.nan] * 3], rtol=1e-6)
    found = neurons.class_similarities(*by)
    np.testing.assert_allclose(found.cs1, [1, 1, np.nan], rtol=1e-6)
    np.testing.assert_allclose(found.cs2, [0, 4 / 5, np.nan], rtol=1e-6)


def test_ratios_on_a_line():
    """Means at 0 and 4; adversarial images at 1, 3, 4 and 2, made from real ones at -1, 0, 0 and 2."""
    means = np.array([[0.0], [4.0]], np.float32)
    adversarial, real = (np.array(values, np.float32)[:, None] for values in ([1, 3, 4, 2], [-1, 0, 0, 2]))
    labels, targets = np.zeros(4, np.int32), np.ones(4, np.int32)
    found = ratios(adversarial, real, labels, targets, means)
    np.testing.assert_allclose(found.r1, [1 / 3, 3, np.nan, 1], rtol=1e-6)
    np.testing.assert_allclose(found.r2, [2 / 3, 3, np.nan, 0], rtol=1e-6)


def test_ratios_of_planted_units_by_hand():
    """A red image a tenth darker, meant as green: the unit of red is near red, that of both is near neither, one dead.

    Means over places: red images 1/4, 1/8 and 0 in the three units, the green one 0, 1/8 and 0; the adversarial one
    nine tenths of red.
    """
    images, _ = images_and_masks()
    units = jax.jit(lambda x: LOGITS_FN.output(x, capture=("mean",)).features["mean"])
    real, adversarial = np.asarray(units(images[:3])), np.asarray(units(0.9 * images[:1]))
    means = jax.jit(neurons.class_means, static_argnums=2)(real, np.array([0, 0, 1]), 2)
    np.testing.assert_allclose(means, [[1 / 4, 1 / 8, 0], [0, 1 / 8, 0]], rtol=1e-6)
    for unit, expected in (("pure", 1 / 9), ("mixed", 1), ("dead", np.nan)):
        one = slice(*{"pure": (0, 1), "mixed": (1, 2), "dead": (2, 3)}[unit])
        found = ratios(adversarial[:, one], real[:1, one], np.array([0]), np.array([1]), means[:, one])
        np.testing.assert_allclose([found.r1, found.r2], [[expected]] * 2, rtol=1e-5, err_msg=unit)


def test_ratios_against_numpy_and_alone(rng):
    values = rng.normal(size=(30, 2, 3, 4)).astype(np.float32)
    labels = rng.integers(0, 3, 30)
    means = jax.jit(neurons.class_means, static_argnums=2)(values, labels, 4)
    expected = [values[labels == c].reshape(-1, 24).mean(0) for c in range(3)]
    np.testing.assert_allclose(means[:3], expected, rtol=1e-4, atol=1e-6)
    assert np.isnan(means[3]).all()

    adversarial = values[:5] + rng.normal(size=(5, 2, 3, 4)).astype(np.float32)
    goals = (labels[:5] + 1) % 3
    a, b, m = adversarial.reshape(5, -1), values[:5].reshape(5, -1), np.asarray(means)
    found = ratios(adversarial, values[:5], labels[:5], goals, means)
    below = np.linalg.norm(a - m[goals], axis=1)
    np.testing.assert_allclose(found.r1, np.linalg.norm(a - m[labels[:5]], axis=1) / below, rtol=1e-5)
    np.testing.assert_allclose(found.r2, np.linalg.norm(a - b, axis=1) / below, rtol=1e-5)

    def angle(first, second):
        return 1 - (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)

    cosine = ratios(adversarial, values[:5], labels[:5], goals, means, Ratios(distance="cosine"))
    np.testing.assert_allclose(cosine.r1, angle(a, m[labels[:5]]) / angle(a, m[goals]), rtol=1e-4)
    scaled = ratios(10 * adversarial, values[:5], labels[:5], goals, means, Ratios(distance="cosine"))
    np.testing.assert_allclose(scaled.r2, cosine.r2, rtol=1e-4)
    missing = ratios(adversarial, values[:5], labels[:5], np.full(5, 3), means)
    assert np.isnan(missing.r1).all()


def test_what_will_not_do_is_one_sentence():
    ones = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"Unknown distance 'l3'\. Choices: cosine, l2"):
        Ratios(distance="l3")
    with pytest.raises(ValueError, match=r"must have one shape, got \(2, 3\) and by_target \(2, 2\)"):
        neurons.class_similarities(ones, ones, ones[:, :2])
    with pytest.raises(ValueError, match=r"must be of one layer, got 3 and 3 values an image, and means of 4"):
        neurons.representation_ratios(ones, ones, np.zeros(2, int), np.ones(2, int), np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"^labels must lie in 0\.\.1, found 0\.\.2\.$"):
        neurons.class_means(ones, np.array([0, 2]), 2)
    with pytest.raises(ValueError, match=r"Batch sizes differ: representations 2, labels 1"):
        neurons.class_means(ones, np.array([0]), 2)
    for labels, targets, name in (([0, 2], [1, 1], "labels"), ([0, 0], [1, 2], "targets")):
        with pytest.raises(ValueError, match=rf"^{name} must lie in 0\.\.1, found"):
            neurons.representation_ratios(ones, ones, np.array(labels), np.array(targets), ones)
