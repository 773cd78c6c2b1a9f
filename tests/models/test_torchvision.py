"""Weights of torchvision: the logits that PyTorch computed of them, and what is said of a file that does not fit."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import models
from tests.models import torchvision_weights as weights

EXPECTED = json.loads(Path(__file__).with_name("torchvision_logits.json").read_text())["logits"]

state_dict = functools.cache(weights.state_dict)


def made(tensors, shape=(48, 48, 3)):
    spec, classes = models.torchvision_spec(tensors)
    return models.make(spec, shape, classes)


@pytest.mark.parametrize("name", weights.CASES)
def test_logits_are_those_of_pytorch(name):
    depth, sides = weights.CASES[name]
    classifier = made(state_dict(depth), (*sides, 3))
    variables = models.from_torchvision(state_dict(depth), classifier)
    logits = jax.jit(lambda v, x: classifier.logits_fn(v)(x))(variables, weights.images(sides))
    expected = np.array(EXPECTED[name])
    assert 1 < np.abs(expected).max() < 10 and np.abs(expected[0] - expected[1]).max() > 0.3
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", [18, 50])
def test_variables_are_those_of_init_and_every_number_is_taken_once(depth):
    tensors = state_dict(depth)
    classifier = made(tensors)
    variables = models.from_torchvision(tensors, classifier)
    like = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
    assert like(variables) == like(jax.eval_shape(classifier.init, jax.random.key(0)))
    found = sorted(float(np.asarray(leaf, np.float64).sum()) for leaf in jax.tree.leaves(variables))
    kept = [array for name, array in tensors.items() if not name.endswith("num_batches_tracked")]
    np.testing.assert_allclose(found, sorted(float(a.astype(np.float64).sum()) for a in kept), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("depth", "Spec"), [(18, models.ResNet18), (50, models.ResNet50)])
def test_the_network_is_known_by_its_tensors(depth, Spec):
    spec, classes = models.torchvision_spec(state_dict(depth))
    assert (type(spec), spec.stem, spec.width, classes) == (Spec, "imagenet", 64, 10)
    assert (spec.mean, spec.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_half_precision_becomes_float32():
    tensors = {name: np.asarray(array, np.float16) for name, array in state_dict(18).items()}
    variables = models.from_torchvision(tensors, made(tensors))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(variables["params"]["logits"]["bias"], tensors["fc.bias"].astype(np.float32))


def renamed(old, new):
    return {name.replace(old, new): array for name, array in state_dict(18).items()}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lambda: renamed("layer3.1.bn2.bias", "x"), r"has no tensor 'layer3.1.bn2.bias'\. Did you mean 'layer\d.\d.bn"),
        (lambda: state_dict(18) | {"conv1.bias": np.zeros(64)}, "Tensor 'conv1.bias' belongs to no layer"),
        (
            lambda: state_dict(18) | {"layer2.0.downsample.0.weight": np.zeros((128, 64, 3, 3))},
            r"'layer2.0.downsample.0.weight' has shape \(128, 64, 3, 3\), the classifier needs \(128, 64, 1, 1\)\.",
        ),
        (lambda: state_dict(18) | {"fc.bias": np.zeros((10, 1))}, r"'fc.bias' has shape \(10, 1\), .* needs \(10,\)\."),
        (lambda: state_dict(18) | {"fc.weight": np.zeros((512, 10))}, r"\(512, 10\), the classifier needs \(10, 512\)"),
        (lambda: state_dict(50), r"'layer1.0.conv1.weight' has shape \(64, 64, 1, 1\), .* needs \(64, 64, 3, 3\)"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tensors, message):
    with pytest.raises(ValueError, match=message):
        models.from_torchvision(tensors(), made(state_dict(18)))


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match=r"fills ResNet18 and ResNet50; this classifier has 'conv1/conv/bias'\."):
        models.from_torchvision(state_dict(18), models.make(models.SmallCNN(), (48, 48, 3), 10))
    with pytest.raises(
        ValueError, match=r"'conv1.weight' has shape \(64, 3, 7, 7\), the classifier needs \(64, 3, 3, 3"
    ):
        models.from_torchvision(state_dict(18), models.make(models.ResNet18(), (48, 48, 3), 10))
    with pytest.raises(ValueError, match=r"has no tensor 'conv1.weight'\. Did you mean 'module.conv1.weight'\?"):
        models.torchvision_spec({f"module.{name}": array for name, array in state_dict(18).items()})
    with pytest.raises(ValueError, match=r"has no tensor 'fc.weight'\."):
        models.torchvision_spec({"conv1.weight": np.zeros((64, 3, 7, 7))})
