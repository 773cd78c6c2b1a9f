import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency.baselines import Baseline
from robust_saliency.saliency import Gradient, InputXGradient, gradient, input_x_gradient
from robust_saliency.saliency.gradient import score_gradient

SHAPE = (4, 3, 3, 2)
CLASSES = 3
WEIGHTS = np.random.default_rng(2).normal(size=(*SHAPE[1:], CLASSES)).astype(np.float32)
IMAGES = np.random.default_rng(3).uniform(size=SHAPE).astype(np.float32)
LABELS = np.array([0, 2, 1, 2], np.int32)
LABEL_WEIGHTS = np.moveaxis(WEIGHTS, -1, 0)[LABELS]


def linear(images):
    return jnp.einsum("bhwc,hwck->bk", images, WEIGHTS)


def smooth(images):
    hidden = jax.nn.softplus(jnp.einsum("bhwc,hwck->bk", images, WEIGHTS))
    return hidden @ jnp.asarray([[1.0, -1.0, 0.5], [0.3, 0.8, -0.7], [-0.5, 0.2, 1.1]], images.dtype)


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"sign": "signed", "channels": "none"}, LABEL_WEIGHTS),
        ({"sign": "signed", "channels": "sum"}, LABEL_WEIGHTS.sum(-1)),
        ({}, np.abs(LABEL_WEIGHTS).sum(-1)),
        ({"channels": "max_abs"}, np.abs(LABEL_WEIGHTS).max(-1)),
        ({"channels": "l2"}, np.linalg.norm(LABEL_WEIGHTS, axis=-1)),
        ({"sign": "squared"}, np.square(LABEL_WEIGHTS).sum(-1)),
    ],
)
def test_gradient_of_a_linear_model_is_the_weight(key, kwargs, expected):
    maps = jax.jit(lambda spec: gradient(linear, key, IMAGES, LABELS, spec))(Gradient(**kwargs))
    np.testing.assert_allclose(maps, expected, rtol=1e-6)


def test_input_x_gradient_of_a_linear_model(key):
    spec = InputXGradient(sign="signed", channels="none")
    np.testing.assert_allclose(input_x_gradient(linear, key, IMAGES, LABELS, spec), IMAGES * LABEL_WEIGHTS, rtol=1e-6)
    white = InputXGradient(sign="signed", channels="none", baseline=Baseline(kind="white"))
    maps = input_x_gradient(linear, key, IMAGES, LABELS, white)
    np.testing.assert_allclose(maps, (IMAGES - 1) * LABEL_WEIGHTS, rtol=1e-6)


def test_probability_and_loss_gradients_of_a_linear_model(key):
    """By hand: d p_y / d x = p_y (w_y - sum_k p_k w_k), and d loss / d x = sum_k p_k w_k - w_y."""
    logits = np.asarray(linear(IMAGES), np.float64)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    contrast = LABEL_WEIGHTS - np.einsum("bk,hwck->bhwc", p, WEIGHTS)
    p_label = p[np.arange(4), LABELS][:, None, None, None]
    for score, expected in {
        "probability": p_label * contrast,
        "log_probability": contrast,
        "loss": -contrast,
    }.items():
        spec = Gradient(score=score, sign="signed", channels="none")
        np.testing.assert_allclose(gradient(linear, key, IMAGES, LABELS, spec), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("score", ["logit", "log_probability", "probability", "loss"])
def test_gradient_against_central_differences(score):
    def value(image, label):
        z = smooth(image[None])[0]
        log_p = z - jax.nn.logsumexp(z)
        return {"logit": z, "log_probability": log_p, "probability": jnp.exp(log_p), "loss": -log_p}[score][label]

    with jax.enable_x64(True):
        images = jnp.asarray(IMAGES, jnp.float64)
        spec = Gradient(score=score, sign="signed", channels="none")
        maps = gradient(smooth, jax.random.key(0), images, LABELS, spec)
        assert maps.dtype == jnp.float64
        step = 1e-5
        offsets = step * jnp.eye(maps[0].size).reshape(-1, *SHAPE[1:])
        along = jax.jit(jax.vmap(value, (0, None)))
        for image, label, entries in zip(images, LABELS, maps, strict=True):
            differences = (along(image[None] + offsets, label) - along(image[None] - offsets, label)) / (2 * step)
            np.testing.assert_allclose(entries.reshape(-1), differences, atol=1e-9)


def test_a_model_in_half_precision_still_gives_single_precision_maps(key):
    def half(images):
        return linear(images.astype(jnp.bfloat16)).astype(jnp.bfloat16)

    maps = gradient(half, key, IMAGES, LABELS, Gradient(sign="signed", channels="none", score="loss"))
    exact = gradient(linear, key, IMAGES, LABELS, Gradient(sign="signed", channels="none", score="loss"))
    assert maps.dtype == jnp.float32
    np.testing.assert_allclose(maps, exact, atol=0.05)


def test_half_precision_images_are_widened_before_the_model(key):
    images = jnp.asarray(IMAGES, jnp.bfloat16)
    maps = gradient(smooth, key, images, LABELS, Gradient())
    assert maps.dtype == jnp.float32
    np.testing.assert_array_equal(maps, gradient(smooth, key, images.astype(jnp.float32), LABELS, Gradient()))


def test_a_map_can_be_differentiated_again():
    """d/dx of the gradient of sum x^2 / 2 is one."""

    def quadratic(images):
        energy = jnp.square(images).sum((1, 2, 3)) / 2
        return jnp.stack([energy, -energy], 1)

    slope = jax.grad(lambda x: score_gradient(quadratic, x, jnp.zeros(4, jnp.int32), "logit").sum())(IMAGES)
    np.testing.assert_allclose(slope, np.ones(SHAPE))


@pytest.mark.parametrize(
    ("logits_fn", "images", "labels", "message"),
    [
        (linear, IMAGES[0], LABELS, r"images must have 4 axes, got shape \(3, 3, 2\)"),
        (linear, (IMAGES * 255).astype(np.uint8), LABELS, "got dtype uint8; divide"),
        (linear, IMAGES, LABELS[:3], "Batch sizes differ: images 4, labels 3"),
        (linear, IMAGES, LABELS[:, None], r"labels must have 1 axes, got shape \(4, 1\)"),
        (linear, IMAGES, LABELS.astype(np.float32), r"labels must be integers \[B\], got dtype float32"),
        (linear, IMAGES, np.where(np.arange(4) == 2, 9, LABELS), r"labels must lie in 0\.\.2, found 0\.\.9"),
        (linear, IMAGES, np.where(np.arange(4) == 2, -1, 2), r"labels must lie in 0\.\.2, found -1\.\.2"),
        (lambda x: linear(x)[:, :1], IMAGES, LABELS, r"at least two classes, got shape \(4, 1\)"),
        (lambda x: linear(x)[:, 0], IMAGES, LABELS, r"at least two classes, got shape \(4,\)"),
        (lambda x: linear(x).sum(0, keepdims=True), IMAGES, LABELS, r"B = 4 images .* got shape \(1, 3\)"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(key, logits_fn, images, labels, message):
    with pytest.raises(ValueError, match=message):
        gradient(logits_fn, key, images, labels, Gradient())
