"""Trained weights under another activation function: bundled nets, users' Linen and NNX modules, and those without."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from robust_saliency import models
from robust_saliency.models import PlainCNN, ResNet18, SmallCNN, from_linen, from_nnx, with_activation

SHAPE = (9, 9, 2)
BUNDLED = {
    "small_cnn": SmallCNN(width=2),
    "plain_cnn": PlainCNN(layers=("conv2", "bn", "flatten", "dense4")),
    "resnet18": ResNet18(width=2),
}


class LinenNet(nn.Module):
    activation: Callable = nn.relu

    @nn.compact
    def __call__(self, x):
        x = self.activation(nn.Dense(5, name="hidden")(x.reshape(x.shape[0], -1)))
        return nn.Dense(3, name="head")(x)


class Hidden(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(162, 5, rngs=rngs)
        self.activation = nnx.relu

    def __call__(self, x):
        return self.activation(self.linear(x))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.head = Hidden(rngs), nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.hidden(x.reshape(x.shape[0], -1)))


class Unsaid(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(5)(x.reshape(x.shape[0], -1))))


@pytest.fixture
def images():
    return jax.random.uniform(jax.random.key(1), (3, *SHAPE))


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_net_is_the_one_made_with_that_activation(name, images):
    spec = BUNDLED[name]
    classifier = models.make(spec, SHAPE, 3)
    changed = with_activation(classifier, "softplus7")
    made = models.make(dataclasses.replace(spec, activation="softplus7"), SHAPE, 3)
    abstract = jax.eval_shape(classifier.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, abstract) == jax.tree.map(jnp.shape, jax.eval_shape(changed.init, jax.random.key(0)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(-0.3, 0.6, leaf.shape) ** 2, leaf.dtype), abstract)
    logits = [jax.jit(c.logits_fn(variables))(images) for c in (classifier, changed, made)]
    np.testing.assert_allclose(logits[1], logits[2], rtol=1e-5, atol=1e-6)
    assert not np.allclose(logits[0], logits[1], rtol=1e-3)
    assert (changed.layers, changed.num_classes, changed.image_shape) == (classifier.layers, 3, SHAPE)


@pytest.mark.parametrize("make", [lambda: from_linen(LinenNet(), SHAPE), lambda: from_nnx(NnxNet, SHAPE)])
def test_a_module_with_an_activation_field_has_it_replaced(make, images, key):
    classifier = make()
    variables = classifier.init(key)
    hidden, head = variables["params"]["hidden"], variables["params"]["head"]
    hidden = hidden.get("linear", hidden)
    flat = images.reshape(3, -1)
    for given, function in (("softplus5", models.softplus(5.0)), (jnp.tanh, jnp.tanh), ("relu", jax.nn.relu)):
        units = function(flat @ hidden["kernel"] + hidden["bias"][None])
        expected = units @ head["kernel"] + head["bias"][None]
        found = jax.jit(with_activation(classifier, given).logits_fn(variables))(images)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    twice = with_activation(with_activation(classifier, "gelu"), "relu").logits_fn(variables)(images)
    np.testing.assert_allclose(twice, classifier.logits_fn(variables)(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("classifier", [from_linen(Unsaid(), SHAPE), models.Classifier(init=None, apply=None)])
def test_a_network_that_does_not_say_is_answered_with_what_to_do(classifier):
    with pytest.raises(
        ValueError, match="does not say where its activation function is: keep it in a field `activation`"
    ):
        with_activation(classifier, "softplus10")


def test_as_the_sharpness_grows_the_surrogate_tends_to_the_network_and_keeps_a_curvature(images, key):
    classifier = from_linen(LinenNet(), SHAPE)
    variables = classifier.init(key)

    def logits_fn(activation):
        return with_activation(classifier, activation).logits_fn(variables)

    def curvature(activation):
        second = jax.hessian(lambda x: logits_fn(activation)(x[None])[0, 0])(images[0])
        return float(jnp.max(jnp.abs(second)))

    relu = logits_fn("relu")(images)
    errors = [float(jnp.max(jnp.abs(logits_fn(f"softplus{beta}")(images) - relu))) for beta in (3, 30, 300)]
    bound = np.abs(variables["params"]["head"]["kernel"]).sum(0).max() * np.log(2)
    assert errors[0] > errors[1] > errors[2] and all(
        e <= bound / b + 1e-6 for e, b in zip(errors, (3, 30, 300), strict=True)
    )
    assert curvature("relu") == 0 and curvature("softplus10") > 1e-4
