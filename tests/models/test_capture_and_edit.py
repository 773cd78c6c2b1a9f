"""Layers can be captured and edited by name, in users' networks and in a bundled one."""

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency.models import PlainCNN, make
from tests.models.equal_nets import LAYERS, every_net, run, setup


@every_net
def test_capture_and_edit(name, weights, images):
    classifier, variables = setup(name, 0.5, weights)
    plain = run(classifier, variables, images, "eval", capture=LAYERS)
    np.testing.assert_allclose(plain.logits, run(classifier, variables, images, "eval").logits, rtol=1e-5, atol=1e-6)
    expected = np.maximum(plain.features["norm"], 0).mean((1, 2)) @ weights[0]["head"]["kernel"]
    np.testing.assert_allclose(plain.logits, expected + weights[0]["head"]["bias"].reshape(1, -1), rtol=1e-4, atol=1e-5)

    @jax.jit
    def edits(variables, images, features):
        edited = {}
        for layer in LAYERS:
            for what, fn in (
                ("captured", lambda a, layer=layer: features[layer]),
                ("zero", jnp.zeros_like),
            ):
                output = classifier.apply(variables, images, edit={layer: fn}, capture=(layer,))
                edited[layer, what] = output.logits, output.features[layer]
        return edited

    edited = edits(variables, images, plain.features)
    for layer in LAYERS:
        identity, nothing = ({"edit": {layer: lambda a: a}}, {})
        programs = [
            jax.make_jaxpr(lambda x, k=k: classifier.apply(variables, x, **k))(images) for k in (identity, nothing)
        ]
        assert str(programs[0]) == str(programs[1])
        np.testing.assert_allclose(edited[layer, "captured"][0], plain.logits, rtol=1e-5, atol=1e-5)
        assert np.abs(edited[layer, "zero"][0] - plain.logits).max() > 1e-2
        assert not edited[layer, "zero"][1].any()


@every_net
def test_gradient_of_a_layer_through_edit_is_that_of_grad_cam(name, weights, images):
    classifier, variables = setup(name, 0.5, weights)
    activation = run(classifier, variables, images, "eval", capture=("drop",)).features["drop"]
    score = lambda a: classifier.logits_fn(variables, edit={"drop": lambda _: a})(images)[:, 1].sum()  # noqa: E731
    gradient = jax.jit(jax.grad(score))(activation)
    expected = np.broadcast_to(weights[0]["head"]["kernel"][:, 1] / 36, gradient.shape)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


@every_net
def test_a_consistency_loss_reaches_the_layers_before_the_captured_one(name, weights, images):
    classifier, variables = setup(name, 0.5, weights)

    def loss(params):
        feature = lambda x: classifier.apply({**variables, "params": params}, x, capture=("norm",)).features["norm"]  # noqa: E731
        return ((feature(images) - feature(0.9 * images)) ** 2).mean()

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    assert np.abs(gradients["conv"]["kernel"]).max() > 1e-3
    assert np.abs(gradients["norm"]["scale"]).max() > 1e-3
    assert not gradients["head"]["kernel"].any()


def test_every_layer_of_a_bundled_net_can_be_captured_and_edited(key):
    layers = ("conv2", "bn", "max3s2", "dropout0.5", "flatten", "dense4", "bn")
    classifier = make(PlainCNN(layers=layers), (9, 9, 1), 2)
    variables = jax.jit(classifier.init)(key)
    images = jax.random.uniform(key, (2, 9, 9, 1))
    plain = run(classifier, variables, images, "eval", capture=classifier.layers)
    assert set(plain.features) == set(classifier.layers)
    assert classifier.layers == (
        *("conv1/conv", "conv1/norm", "conv1", "max1", "dropout1"),
        *("dense1/dense", "dense1/norm", "dense1", "logits"),
    )
    edited = jax.jit(
        lambda: {
            layer: classifier.apply(variables, images, edit={layer: lambda a: a + 1}) for layer in classifier.layers
        }
    )()
    for layer in classifier.layers:
        assert np.abs(edited[layer].logits - plain.logits).max() > 1e-3, layer
