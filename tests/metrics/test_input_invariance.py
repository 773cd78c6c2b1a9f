"""Input invariance: the gradient has it, input x gradient does not, and by how much is known for a linear network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import models, saliency
from robust_saliency.baselines import Baseline
from robust_saliency.metrics import InputInvariance, input_invariance
from robust_saliency.metrics.input_invariance import Shifted, input_invariance_of

BATCH, SIDE, CHANNELS, CLASSES = 3, 4, 2, 3
LABELS = np.arange(BATCH, dtype=np.int32)


@pytest.fixture
def images(rng):
    return rng.integers(1, 16, (BATCH, SIDE, SIDE, CHANNELS)).astype(np.float32) / 16  # exact when shifted


@pytest.fixture
def weights(rng):
    return rng.normal(size=(SIDE, SIDE, CHANNELS, CLASSES)).astype(np.float32)


def score(logits_fn, images, method, shift, sign="abs"):
    explain = lambda *given: saliency.run(*given, method)  # noqa: E731
    run = jax.jit(lambda shift: input_invariance(
        explain, logits_fn, jax.random.key(0), images, LABELS, InputInvariance(shift=shift, sign=sign)
    ))  # fmt: skip
    return np.asarray(run(shift))


def tanh_of(weights):
    return lambda images: jnp.tanh(jnp.einsum("bhwc,hwck->bk", images, weights / 8))  # not so far that it is flat


SHIFTS = {
    "scalar": -1.0,
    "by channel": np.float32([0.25, -0.5]),
    "image": np.float32(np.arange(SIDE * SIDE * CHANNELS).reshape(SIDE, SIDE, CHANNELS) / 32 - 0.5),
}


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_gradient_is_invariant(shift, images, weights):
    found = score(tanh_of(weights), images, saliency.Gradient(), SHIFTS[shift])
    np.testing.assert_allclose(found, np.zeros(BATCH), atol=1e-6)


@pytest.mark.parametrize("shift", SHIFTS)
def test_input_x_gradient_of_a_linear_network_has_the_closed_form(shift, images, weights):
    """m_f(x) = sum_c x w, m_g(x + s) = sum_c (x + s) w: |sum_c s w| / |sum_c x w|, so that nothing cancels signed."""
    linear = lambda images: jnp.einsum("bhwc,hwck->bk", images, weights)  # noqa: E731
    own = np.moveaxis(weights, -1, 0)[LABELS]
    moved = np.linalg.norm((SHIFTS[shift] * own).sum(-1).reshape(BATCH, -1), axis=-1)
    expected = moved / np.linalg.norm((images * own).sum(-1).reshape(BATCH, -1), axis=-1)
    method = saliency.InputXGradient(sign="signed", channels="sum")
    np.testing.assert_allclose(score(linear, images, method, SHIFTS[shift], sign="raw"), expected, rtol=1e-5)
    assert (expected > 0.3).all()


def test_a_baseline_that_is_shifted_too_makes_it_invariant_and_a_fixed_one_does_not(images, weights):
    """Kindermans et al.: integrated gradients from black fail, from the darkest value there is they hold."""
    fixed = saliency.IntegratedGradients(num_steps=4)
    of_image = saliency.IntegratedGradients(num_steps=4, baseline=Baseline(kind="mean"))
    network = tanh_of(weights)
    np.testing.assert_allclose(score(network, images, of_image, -1.0), np.zeros(BATCH), atol=1e-5)
    assert (score(network, images, fixed, -1.0) > 0.3).all()


def test_random_numbers_of_the_method_are_the_same_for_both_networks(images, weights):
    method = saliency.SmoothGrad(num_samples=3, clip=False)
    np.testing.assert_allclose(score(tanh_of(weights), images, method, -1.0), np.zeros(BATCH), atol=1e-5)


def test_networks_that_can_be_looked_into_still_can(images, rng):
    classifier = models.make(models.SmallCNN(width=2), (SIDE * 3, SIDE * 3, CHANNELS), CLASSES)
    shapes = jax.eval_shape(classifier.init, jax.random.key(0))
    variables = jax.tree.map(lambda leaf: rng.normal(scale=0.3, size=leaf.shape).astype(np.float32), shapes)
    large = np.kron(images, np.ones((1, 3, 3, 1), np.float32))
    logits_fn = classifier.logits_fn(variables)
    for method in (saliency.GradCAM(layer="conv1", sign="abs"), saliency.GuidedBackprop()):
        np.testing.assert_allclose(score(logits_fn, large, method, -1.0), np.zeros(BATCH), atol=1e-4)
    plain = Shifted(lambda images: images, 1.0)
    assert not any(hasattr(plain, name) for name in ("output", "layers", "with_activation"))
    with pytest.raises(ValueError, match="looks inside the network"):
        score(tanh_of(np.ones((SIDE, SIDE, CHANNELS, CLASSES), np.float32)), images, saliency.GradCAM(), -1.0)


def test_by_hand_and_meaningless_maps():
    jitted = jax.jit(functools.partial(input_invariance_of, spec=InputInvariance(sign="raw")))
    maps = np.float32([[[3, -4]], [[0, 0]], [[1, 1]], [[1, 1]], [[np.inf, 1]]])
    others = np.float32([[[3, 4]], [[1, 1]], [[np.nan, 1]], [[0, 0]], [[1, 1]]])
    np.testing.assert_allclose(jitted(maps, others), [8 / 5, np.nan, np.nan, 1, np.nan], rtol=1e-6)
    np.testing.assert_allclose(jitted(maps[:1], others[:1]), [8 / 5], rtol=1e-6)
    # Elsewhere two maps are equal that differ by less than 1e-4, so that every map of small gradients is invariant.
    for scale in np.float32([1e-8, 1e8]):
        np.testing.assert_allclose(jitted(scale * maps[:1], scale * others[:1]), [8 / 5], rtol=1e-6)


def test_a_shift_of_another_shape_is_refused(images, weights):
    with pytest.raises(ValueError, match=r"shift must have the shape \(\) or \(2,\) or \(4, 4, 2\), got \(3,\)"):
        score(tanh_of(weights), images, saliency.Gradient(), np.ones(3, np.float32))
