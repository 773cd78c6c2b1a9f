"""Grad-CAM, Grad-CAM++ and guided backpropagation on networks small enough to compute by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import models
from robust_saliency.saliency import (
    GradCAM,
    GradCAMPlusPlus,
    Gradient,
    GuidedBackprop,
    grad_cam,
    grad_cam_plus_plus,
    gradient,
    guided_backprop,
)
from robust_saliency.saliency._network import layer_of

RNG = np.random.default_rng(0)
MIX = RNG.normal(size=(2, 3)).astype(np.float32)  # colours to three channels, at half the size
HEAD = RNG.normal(size=(3, 4)).astype(np.float32)
IMAGES = RNG.uniform(size=(3, 6, 4, 2)).astype(np.float32)
LABELS = np.array([3, 0, 2], np.int32)


def apply(variables, images, *, mode="eval", key=None, capture=(), edit=None):
    """Mean of 2 x 2 pixels, mixed colours, mean over places, linear head."""
    halves = images.reshape(len(images), images.shape[1] // 2, 2, images.shape[2] // 2, 2, -1).mean((2, 4))
    layers, edit = {}, edit or {}
    layers["mixed"] = edit.get("mixed", lambda a: a)(halves @ variables["mix"])
    layers["mean"] = edit.get("mean", lambda a: a)(layers["mixed"].mean((1, 2)))
    return models.Output(layers["mean"] @ variables["head"], {}, {name: layers[name] for name in capture})


NETWORK = models.Classifier(init=None, apply=apply, layers=("mixed", "mean"), num_classes=4)
LOGITS_FN = NETWORK.logits_fn({"mix": MIX, "head": HEAD})
MIXED = IMAGES.reshape(3, 3, 2, 2, 2, 2).mean((2, 4)) @ MIX
PLACES = 3 * 2


def enlarged(small):
    return np.repeat(np.repeat(small, 2, 1), 2, 2)


@pytest.mark.parametrize("layer", ["", "mixed"])
def test_grad_cam_behind_a_mean_over_places_is_the_class_activation_map(key, layer):
    spec = GradCAM(layer=layer, upsampling="nearest")
    found = jax.jit(lambda x: grad_cam(LOGITS_FN, key, x, LABELS, spec))(IMAGES)
    expected = np.einsum("bhwk,bk->bhw", MIXED, HEAD[:, LABELS].T) / PLACES
    np.testing.assert_allclose(found, enlarged(np.maximum(expected, 0)), atol=1e-6)
    assert (found == 0).any() and (found > 0).any()
    signed = GradCAM(sign="signed", channels="sum", upsampling="nearest")
    np.testing.assert_allclose(grad_cam(LOGITS_FN, key, IMAGES, LABELS, signed), enlarged(expected), atol=1e-6)


def test_grad_cam_plus_plus_by_hand(key):
    slopes = HEAD[:, LABELS].T / PLACES  # of each channel, the same at all places
    shares = 1 / (2 + MIXED.sum((1, 2)) * slopes)
    weights = PLACES * shares * np.maximum(slopes, 0)
    expected = np.maximum(np.einsum("bhwk,bk->bhw", MIXED, weights), 0)
    found = grad_cam_plus_plus(LOGITS_FN, key, IMAGES, LABELS, GradCAMPlusPlus(upsampling="nearest"))
    np.testing.assert_allclose(found, enlarged(expected), rtol=1e-4, atol=1e-6)
    assert found.max() > 0


def test_grad_cam_of_slopes_that_differ_from_place_to_place(key):
    """The score is a weighted sum of squares, so each place of each channel has a slope of its own, of either sign."""
    weights = RNG.normal(size=(3, 2, 3, 4)).astype(np.float32)

    def apply(variables, images, *, mode="eval", key=None, capture=(), edit=None):
        layer = (edit or {}).get("first", lambda a: a)(images)
        logits = jnp.einsum("bhwc,hwck->bk", layer**2, variables["weights"])
        return models.Output(logits, {}, dict.fromkeys(capture, layer))

    network = models.Classifier(init=None, apply=apply, layers=("first",), num_classes=4)
    logits_fn = network.logits_fn({"weights": weights})
    images = RNG.normal(size=(3, 3, 2, 3)).astype(np.float32)
    slopes = 2 * images * np.moveaxis(weights[..., LABELS], -1, 0)
    plain = np.maximum((slopes.mean((1, 2), keepdims=True) * images).sum(-1), 0)
    found = jax.jit(lambda x: grad_cam(logits_fn, key, x, LABELS, GradCAM(upsampling="nearest")))(images)
    np.testing.assert_allclose(found, plain, atol=1e-5)
    shares = slopes**2 / (2 * slopes**2 + images.sum((1, 2), keepdims=True) * slopes**3)
    favoured = np.maximum(((shares * np.maximum(slopes, 0)).sum((1, 2), keepdims=True) * images).sum(-1), 0)
    spec = GradCAMPlusPlus(upsampling="nearest")
    found = jax.jit(lambda x: grad_cam_plus_plus(logits_fn, key, x, LABELS, spec))(images)
    np.testing.assert_allclose(found, favoured, rtol=2e-3, atol=1e-4)
    assert np.abs(plain - favoured).max() > 0.1


def test_a_class_that_a_layer_does_not_reach_has_an_empty_map_and_no_nan(key):
    deaf = NETWORK.logits_fn({"mix": MIX, "head": 0 * HEAD})
    for method, spec in ((grad_cam, GradCAM()), (grad_cam_plus_plus, GradCAMPlusPlus())):
        np.testing.assert_array_equal(method(deaf, key, IMAGES, LABELS, spec), np.zeros((3, 6, 4)))


def test_bilinear_keeps_the_range_and_the_size_of_the_image(key):
    small = grad_cam(LOGITS_FN, key, IMAGES, LABELS, GradCAM(upsampling="nearest"))
    large = grad_cam(LOGITS_FN, key, IMAGES, LABELS, GradCAM())
    assert large.shape == (3, 6, 4) and large.max() <= small.max() + 1e-6 and large.min() >= 0


LAST_BLOCKS = {
    "small_cnn": ("conv4", 4),
    "plain_cnn": ("conv8", 2),
    "resnet18": ("block4_2", 4),
    "resnet50": ("block4_3", 4),
}


@pytest.mark.parametrize("name", models.MODELS)
def test_grad_cam_looks_at_the_last_block_of_every_bundled_network(key, name):
    """Found without computing anything: that of ResNet-18 takes half a minute to compile."""
    images = jnp.zeros((2, 32, 32, 3))
    network = models.make(models.MODELS[name][0](), (32, 32, 3), 5)

    def look(variables):
        logits_fn = network.logits_fn(variables)
        layer = layer_of(logits_fn, images, "")
        side = logits_fn.output(images, capture=(layer,)).features[layer].shape[1]
        assert (layer, side) == LAST_BLOCKS[name]
        return grad_cam(logits_fn, key, images, np.array([1, 4]), GradCAM(sign="abs"))

    assert jax.eval_shape(look, jax.eval_shape(network.init, key)).shape == (2, 32, 32)


def test_guided_backprop_by_hand(key):
    """d score / d x with every ReLU passing back only what is positive and was positive."""
    first, second = RNG.normal(size=(12, 8)).astype(np.float32), RNG.normal(size=(8, 3)).astype(np.float32)

    def made(activation):
        def apply(variables, images, *, mode="eval", key=None, capture=(), edit=None):
            hidden = activation(images.reshape(len(images), -1) @ first)
            return models.Output(hidden @ second, {}, {})

        return models.Classifier(init=None, apply=apply, with_activation=made)

    images, labels = RNG.normal(size=(4, 3, 2, 2)).astype(np.float32), np.array([0, 1, 2, 0])
    logits_fn = made(jax.nn.relu).logits_fn({})
    spec = GuidedBackprop(sign="signed", channels="none")
    found = jax.jit(lambda x: guided_backprop(logits_fn, key, x, labels, spec))(images)
    hidden = images.reshape(4, -1) @ first
    back = np.where(hidden > 0, np.maximum(second[:, labels].T, 0), 0) @ first.T
    np.testing.assert_allclose(found, back.reshape(images.shape), atol=1e-5)
    plain = gradient(logits_fn, key, images, labels, Gradient(sign="signed", channels="none"))
    assert np.abs(found - plain).max() > 0.1


def test_an_activation_that_is_used_twice_is_guided_both_times(key):
    """captum's hooks sit on modules: of a ReLU that is called twice, or is a function, one call or none is guided."""
    first, second, third = (RNG.normal(size=size).astype(np.float32) for size in ((12, 8), (8, 7), (7, 3)))

    def made(activation):
        def apply(variables, images, *, mode="eval", key=None, capture=(), edit=None):
            hidden = activation(activation(images.reshape(len(images), -1) @ first) @ second)
            return models.Output(hidden @ third, {}, {})

        return models.Classifier(init=None, apply=apply, with_activation=made)

    images, labels = RNG.normal(size=(4, 3, 2, 2)).astype(np.float32), np.array([0, 1, 2, 0])
    spec = GuidedBackprop(sign="signed", channels="none")
    logits_fn = made(jax.nn.relu).logits_fn({})
    found = jax.jit(lambda x: guided_backprop(logits_fn, key, x, labels, spec))(images)
    below = images.reshape(4, -1) @ first
    above = np.maximum(below, 0) @ second
    back = np.where(above > 0, np.maximum(third[:, labels].T, 0), 0) @ second.T
    back = np.where(below > 0, np.maximum(back, 0), 0) @ first.T
    np.testing.assert_allclose(found, back.reshape(images.shape), atol=1e-5)
    assert np.abs(found).max((1, 2, 3)).min() > 0.1


@pytest.mark.parametrize(
    ("method", "spec"),
    [(grad_cam, GradCAM()), (grad_cam_plus_plus, GradCAMPlusPlus()), (guided_backprop, GuidedBackprop())],
)
def test_a_plain_function_cannot_be_looked_into(key, method, spec):
    message = rf"^{type(spec).__name__} looks inside the network: give it Classifier\.logits_fn\(variables\) itself"
    with pytest.raises(ValueError, match=message):
        method(lambda x: LOGITS_FN(x), key, IMAGES, LABELS, spec)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer": "mixd"}, r"Unknown layer of the network 'mixd'\. Did you mean 'mixed'\? Choices: mean, mixed"),
        ({"layer": "mean"}, r"Grad-CAM needs a layer whose activation is a map \[B, h, w, c\]; mean is none"),
    ],
)
def test_layers_that_will_not_do_are_one_sentence(key, fields, message):
    with pytest.raises(ValueError, match=message):
        grad_cam(LOGITS_FN, key, IMAGES, LABELS, GradCAM(**fields))
