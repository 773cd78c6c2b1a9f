"""A Gaussian filter inside a network: what it does to an activation, and that nothing can lose it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from robust_saliency import initialise, models, train
from robust_saliency.models import Classifier, Output, PlainCNN, ResNet18, SmallCNN
from tests import tiny

NETS = {
    "small_cnn": (SmallCNN(width=2), "conv2"),
    "plain_cnn": (PlainCNN(layers=("conv4", "bn", "max2", "conv4", "gap")), "max1"),
    "resnet18": (ResNet18(width=2), "block2_1"),
}
SHAPE = (12, 14, 3)


def image_of_itself(sigma):
    """A network whose one layer is the image: its feature shows the bare filter."""

    def apply(variables, images, *, mode="eval", key=None, capture=(), edit=None):
        activation = (edit or {}).get("map", lambda a: a)(images)
        return Output(activation.mean((1, 2)), variables["state"], dict.fromkeys(capture, activation))

    classifier = Classifier(lambda key: {"params": {}, "state": {}}, apply, ("map",), 3, SHAPE)
    return models.with_smoothing(classifier, "map", sigma)


def filtered(images, sigma):
    apply = image_of_itself(sigma).apply
    return jax.jit(lambda x: apply({"state": {}}, x, capture=("map",)).features["map"])(jnp.asarray(images))


def smooth_of(spec, layer, sigma=1.2):
    fields = {name: getattr(spec, name) for name in type(spec).__dataclass_fields__}
    return models.make(type(spec)(**{**fields, "smoothing": layer, "smoothing_sigma": sigma}), SHAPE, 3)


def by_scipy(activation, sigma):
    activation = np.asarray(activation, np.float64)
    return ndimage.gaussian_filter(activation, (0, sigma, sigma, 0), mode="reflect", truncate=8)


def test_a_constant_map_stays_and_every_map_keeps_its_mean(rng):
    np.testing.assert_allclose(filtered(np.full((1, *SHAPE), 0.7, np.float32), 2.0), 0.7, rtol=1e-6)
    images = rng.random((2, *SHAPE)).astype(np.float32)
    np.testing.assert_allclose(filtered(images, 2.0).mean((1, 2)), images.mean((1, 2)), rtol=1e-5)


def test_an_impulse_becomes_the_gaussian_of_its_own_channel():
    sigma, images = 0.8, np.zeros((1, *SHAPE), np.float32)
    images[0, 6, 7, 1] = 1.0
    offsets = [np.arange(side) - at for side, at in ((12, 6), (14, 7))]
    profiles = [np.exp(-(offset**2) / (2 * sigma**2)) for offset in offsets]
    expected = np.outer(*[profile / profile.sum() for profile in profiles])
    result = filtered(images, sigma)
    np.testing.assert_allclose(result[0, :, :, 1], expected, atol=1e-7)
    np.testing.assert_array_equal(result[0, :, :, [0, 2]], 0.0)


def test_a_small_sigma_changes_nothing(rng):
    images = rng.random((2, *SHAPE)).astype(np.float32)
    np.testing.assert_array_equal(filtered(images, 0.0), images)
    np.testing.assert_array_equal(filtered(images, 0.01), images)


@pytest.mark.parametrize("name", NETS)
def test_every_bundled_network_goes_on_from_the_smoothed_activation(name, rng, key):
    spec, layer = NETS[name]
    plain, smooth = models.make(spec, SHAPE, 3), smooth_of(spec, layer)
    assert smooth.layers == plain.layers
    abstract = jax.eval_shape(plain.init, key)
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.01, 0.2, leaf.shape), leaf.dtype), abstract)
    images = jnp.asarray(rng.random((2, *SHAPE)), jnp.float32)

    @jax.jit
    def programs(variables, images):
        raw = plain.apply(variables, images, capture=(layer,)).features[layer]
        seen = smooth.apply(variables, images, capture=(layer,))
        replaced = smooth.apply(variables, images, edit={layer: lambda _: raw}).logits
        doubled = smooth.apply(variables, images, edit={layer: lambda a: 2 * a}, capture=(layer,)).features[layer]
        continued = plain.apply(variables, images, edit={layer: lambda _: seen.features[layer]}).logits
        trained = smooth.apply(variables, images, mode="train", key=key, capture=(layer,)).features[layer]
        raw_trained = plain.apply(variables, images, mode="train", key=key, capture=(layer,)).features[layer]
        return raw, seen, replaced, doubled, continued, trained, raw_trained, plain.apply(variables, images).logits

    raw, seen, replaced, doubled, continued, trained, raw_trained, unsmoothed = programs(variables, images)
    expected = by_scipy(raw, 1.2)
    assert np.abs(expected - raw).max() > 0.01
    np.testing.assert_allclose(seen.features[layer], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trained, by_scipy(raw_trained, 1.2), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(continued, seen.logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(doubled, 2 * seen.features[layer], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(replaced, unsmoothed, rtol=1e-5, atol=1e-6)


def test_another_activation_function_keeps_the_smoothing(key, rng):
    images = jnp.asarray(rng.random((2, *SHAPE)), jnp.float32)
    smooth = smooth_of(SmallCNN(width=2), "conv1")
    soft = smooth_of(SmallCNN(width=2, activation="softplus5"), "conv1")
    variables, swapped = jax.jit(smooth.init)(key), models.with_activation(smooth, "softplus5")
    logits = jax.jit(lambda v: [net.logits_fn(v)(images) for net in (swapped, soft, smooth)])(variables)
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-5, atol=1e-6)
    assert np.abs(logits[0] - logits[2]).max() > 1e-3
    own = Classifier(smooth.init, smooth.apply, ("conv1",))
    with pytest.raises(ValueError, match="does not say where its activation"):
        models.with_activation(models.with_smoothing(own, "conv1", 1.0), "gelu")


def test_the_gradient_is_the_filter_turned_round(rng):
    """``d/dx <w, G x> = G^T w``, by finite differences in float64."""
    with jax.enable_x64(True):
        x, w, direction = (jnp.asarray(rng.normal(size=(1, *SHAPE)), jnp.float64) for _ in range(3))
        apply = image_of_itself(1.5).apply
        score = jax.jit(lambda x: jnp.sum(w * apply({"state": {}}, x, capture=("map",)).features["map"]))
        slope = float(jnp.sum(jax.grad(score)(x) * direction))
        measured = float(score(x + 1e-3 * direction) - score(x - 1e-3 * direction)) / 2e-3
    np.testing.assert_allclose(slope, measured, rtol=1e-9)


def test_a_trained_run_is_loaded_with_its_smoothing(tmp_path, rng):
    experiment = tiny.experiment(
        model={"smoothing": "conv2", "smoothing_sigma": 1.5}, train={"epochs": 1}, data={"num_train": 16}
    )
    train.train(experiment, str(tmp_path))
    classifier, variables, _ = initialise.load(str(tmp_path), step="last")
    images = jnp.asarray(rng.random((2, *classifier.image_shape)), jnp.float32)
    plain = models.make(SmallCNN(width=4), classifier.image_shape, classifier.num_classes)
    raw, seen = (net.apply(variables, images, capture=("conv2",)).features["conv2"] for net in (plain, classifier))
    np.testing.assert_allclose(seen, by_scipy(raw, 1.5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"smoothing": "conv22"}, r"Unknown layer to smooth 'conv22'\. Did you mean 'conv2'\? Choices: conv1"),
        ({"smoothing": "gap"}, r"here of layer 'gap', must have 4 axes, got shape \(1, 8\)"),
        ({"smoothing": "conv1", "smoothing_sigma": -1.0}, r"finite and at least 0, got -1.0"),
        ({"smoothing": "conv1", "smoothing_sigma": float("nan")}, r"finite and at least 0, got nan"),
    ],
)
def test_a_smoothing_that_cannot_be_is_told_when_the_network_is_made(fields, message):
    with pytest.raises(ValueError, match=message):
        models.make(SmallCNN(width=2, **fields), SHAPE, 3)
