"""The bundled networks: arithmetic, sizes, fields."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from robust_saliency import models
from robust_saliency.models import KIM, LLORENTE, VGG11ISH, PlainCNN, ResNet18, ResNet50, SmallCNN

SMALL_VGG = PlainCNN(layers=("conv4", "bn", "max3s2", "conv8k5s2", "avg2", "dropout0.3", "flatten", "dense16", "bn"))
NETS = {
    "max": SmallCNN(width=2),
    "average": SmallCNN(width=2, pool="average", activation="softplus"),
    "stride": SmallCNN(width=2, pool="stride", activation="gelu"),
    "plain": SMALL_VGG,
    "cifar": ResNet18(width=2),
    "imagenet": ResNet18(width=2, stem="imagenet", activation="guided"),
    "bottleneck": ResNet50(width=2, stem="imagenet"),
}


CASES = [
    *[("max", shape) for shape in ((28, 28, 1), (32, 32, 3), (33, 47, 3), (64, 64, 3))],
    *[(name, (33, 47, 3)) for name in ("average", "stride", "plain", "cifar", "imagenet", "bottleneck")],
]


def random_variables(classifier):
    """Random weights that need no compilation of ``init``; variances stay positive."""
    rng = np.random.default_rng(0)
    abstract = jax.eval_shape(classifier.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.01, 0.1, leaf.shape), leaf.dtype), abstract)


def count(spec, image_shape, num_classes):
    classifier = models.make(spec, image_shape, num_classes)
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(classifier.init, jax.random.key(0))["params"]))


def convolve(x, params, stride=1, padding=1):
    pads = ((padding, padding), (padding, padding))
    layout = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, params["kernel"], (stride, stride), pads, dimension_numbers=layout)
    return y + params["bias"].reshape(1, 1, 1, -1)


@pytest.mark.parametrize(
    ("spec", "shape", "classes", "expected"),
    [
        (ResNet18(stem="imagenet"), (64, 64, 3), 1000, 11_689_512),
        (ResNet50(stem="imagenet"), (64, 64, 3), 1000, 25_557_032),
        (LLORENTE, (32, 32, 3), 10, 4736 + 3 * 9248 + (18496 + 2 * 36928) + (73856 + 2 * 147584) + 1290),
        (KIM, (32, 32, 3), 10, 896 + 9248 + 18496 + 36928 + (4096 * 512 + 512) + 5130),
        (SmallCNN(), (28, 28, 1), 3, (25 * 16 + 16) + (144 * 32 + 32) + (288 * 64 + 64) + (576 * 64 + 64) + 195),
        (VGG11ISH, (32, 32, 3), 10, 9 * (192 + 8192 + 32768 + 65536 + 131072 + 3 * 262144) + 2 * 2752 + 5130),
    ],
)
def test_parameter_counts(spec, shape, classes, expected):
    assert count(spec, shape, classes) == expected


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_logits_of_every_size_and_independence_of_neighbours(name, shape, key):
    classifier = models.make(NETS[name], shape, 5)
    jitted = jax.jit(lambda variables, images: classifier.logits_fn(variables)(images))
    logits_fn = functools.partial(jitted, random_variables(classifier))
    images = np.asarray(jax.random.uniform(key, (3, *shape)))
    logits = logits_fn(images)
    assert logits.shape == (3, 5) and logits.dtype == jnp.float32 and np.isfinite(logits).all()
    assert np.ptp(logits, axis=0).max() > 1e-5
    others = np.stack([images[0], np.zeros(shape, np.float32), np.ones(shape, np.float32)])
    np.testing.assert_array_equal(logits_fn(others)[0], logits[0])
    np.testing.assert_allclose(logits_fn(images[:1])[0], logits[0], rtol=1e-5)


def small_cnn_by_hand(params, images):
    x = (images - jnp.asarray([0.1, 0.2, 0.3]).reshape(1, 1, 1, 3)) / jnp.asarray([0.5, 0.6, 0.7]).reshape(1, 1, 1, 3)
    x = jax.nn.relu(convolve(x, params["conv1"]["conv"], stride=2, padding=2))
    for name, pooled in (("conv2", True), ("conv3", True), ("conv4", False)):
        x = jax.nn.relu(convolve(x, params[name]["conv"]))
        x = nn.max_pool(x, (2, 2), (2, 2), "VALID") if pooled else x
    return x.mean((1, 2)) @ params["logits"]["kernel"] + params["logits"]["bias"].reshape(1, -1)


def test_small_cnn_equals_the_same_arithmetic_in_lax(key):
    classifier = models.make(SmallCNN(width=4, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)), (33, 47, 3), 5)
    variables = random_variables(classifier)
    images = jax.random.uniform(key, (2, 33, 47, 3))
    expected = jax.jit(small_cnn_by_hand)(variables["params"], images)
    np.testing.assert_allclose(jax.jit(classifier.logits_fn(variables))(images), expected, rtol=1e-5)


@pytest.mark.parametrize(("pool", "sides"), [("max", (9, 4, 2)), ("average", (9, 4, 2)), ("stride", (9, 3, 3))])
def test_small_cnn_sides(pool, sides, key):
    classifier = models.make(SmallCNN(width=1, pool=pool), (17, 17, 1), 2)
    names = ("conv1", "conv3", "conv4")
    output = jax.eval_shape(lambda v, x: classifier.apply(v, x, capture=names), *abstract(classifier, (17, 17, 1)))
    assert [output.features[name].shape[1] for name in names] == list(sides)


def abstract(classifier, shape):
    return jax.eval_shape(classifier.init, jax.random.key(0)), jax.ShapeDtypeStruct((1, *shape), jnp.float32)


def test_llorente_and_kim_have_the_published_maps():
    for spec, expected in (
        (LLORENTE, {"conv1": (16, 32), "max1": (8, 32), "conv4": (4, 32), "conv7": (2, 64), "conv10": (1, 128)}),
        (KIM, {"conv2": (32, 32), "max1": (16, 32), "conv4": (16, 64), "max2": (8, 64)}),
    ):
        classifier = models.make(spec, (32, 32, 3), 10)
        call = lambda v, x, c=classifier, n=tuple(expected): c.apply(v, x, capture=n)  # noqa: E731
        features = jax.eval_shape(call, *abstract(classifier, (32, 32, 3))).features
        assert {name: (value.shape[1], value.shape[-1]) for name, value in features.items()} == expected


def features_of(spec, key, names):
    classifier = models.make(spec, (16, 16, 3), 2)
    variables = random_variables(classifier)
    run = jax.jit(lambda v, x: classifier.apply(v, x, capture=names).features)
    return run(variables, jax.random.normal(key, (2, 16, 16, 3))), variables


def test_batch_norm_after_a_convolution_stands_before_its_activation(key):
    names = ("conv1/conv", "conv1/norm", "conv1")
    features, variables = features_of(PlainCNN(layers=("conv4", "bn", "gap")), key, names)
    assert set(variables["params"]["conv1"]["conv"]) == {"kernel"}
    affine, running = variables["params"]["conv1"]["norm"], variables["state"]["batch_stats"]["conv1"]["norm"]
    expected = (features["conv1/conv"] - running["mean"].reshape(1, 1, 1, -1)) / np.sqrt(running["var"] + 1e-5).reshape(
        1, 1, 1, -1
    )
    expected = expected * affine["scale"].reshape(1, 1, 1, -1) + affine["bias"].reshape(1, 1, 1, -1)
    np.testing.assert_allclose(features["conv1/norm"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(features["conv1"], np.maximum(features["conv1/norm"], 0))
    assert (features["conv1/norm"] < 0).any()


def test_batch_norm_alone_is_a_layer_of_its_own():
    assert models.make(PlainCNN(layers=("bn", "gap", "bn")), (8, 8, 3), 2).layers == ("bn1", "gap", "bn2", "logits")


def test_resnet_block_is_the_activation_of_a_sum(key):
    names = ("block1_2", "block2_1/conv2", "block2_1/shortcut", "block2_1", "block2_2/conv2", "block2_2")
    features, _ = features_of(ResNet18(width=2), key, names)
    first, branch, shortcut, second, last_branch, last = (features[name] for name in names)
    assert (first.shape, second.shape) == ((2, 16, 16, 2), (2, 8, 8, 4))
    np.testing.assert_allclose(second, np.maximum(branch + shortcut, 0), atol=1e-6)
    np.testing.assert_allclose(last, np.maximum(last_branch + second, 0), atol=1e-6)


def test_a_bottleneck_halves_the_sides_in_its_middle_and_ends_four_times_as_wide():
    classifier = models.make(ResNet50(width=2), (16, 16, 3), 2)
    names = [f"block2_1{part}" for part in ("/conv1", "/conv2", "/conv3", "/shortcut", "")]
    call = lambda v, x: classifier.apply(v, x, capture=("block1_3", *names)).features  # noqa: E731
    features = jax.eval_shape(call, *abstract(classifier, (16, 16, 3)))
    assert features["block1_3"].shape == (1, 16, 16, 8)
    assert [features[name].shape[1:] for name in names] == [(16, 16, 4), (8, 8, 4), *[(8, 8, 16)] * 3]
    blocks = [name for name in classifier.layers if name.startswith("block") and "/" not in name]
    assert [sum(name[5] == stage for name in blocks) for stage in "1234"] == [3, 4, 6, 3]
    shortcuts = [name for name in classifier.layers if name.endswith("shortcut")]
    assert shortcuts == [f"block{stage}_1/shortcut" for stage in (1, 2, 3, 4)]


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize(("Spec", "last"), [(ResNet18, "conv2"), (ResNet50, "conv3")])
def test_resnet_zero_init_is_of_the_last_scale_of_each_block(zero, Spec, last, key):
    classifier = models.make(Spec(width=2, zero_init_residual=zero), (16, 16, 3), 2)

    def scales(key):
        leaves = jax.tree_util.tree_leaves_with_path(classifier.init(key)["params"])
        return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if path[-1].key == "scale"}

    for name, scale in jax.jit(scales)(key).items():
        assert (scale == (0.0 if zero and last in name else 1.0)).all(), name


@pytest.mark.parametrize("name", ["max", "plain"])
def test_bfloat16_computes_narrow_and_keeps_weights_and_logits_wide(name, key):
    images = jax.random.uniform(key, (4, 32, 32, 3))
    wide = models.make(NETS[name], (32, 32, 3), 5)
    narrow = models.make(dataclasses.replace(NETS[name], dtype="bfloat16"), (32, 32, 3), 5)
    variables = random_variables(wide)
    train = lambda v, x: narrow.apply(v, x, mode="train", key=key, capture=("conv1",))  # noqa: E731
    output = jax.eval_shape(train, variables, images)
    leaves = jax.tree.leaves((jax.eval_shape(narrow.init, key), output.state, output.logits))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    assert output.features["conv1"].dtype == jnp.bfloat16
    expected = jax.jit(wide.logits_fn(variables))(images)
    error = np.abs(jax.jit(narrow.logits_fn(variables))(images) - expected).max()
    assert 0 < error < 0.02 * np.abs(expected).max()


def test_float64_images_are_computed_in_float64(rng):
    classifier = models.make(SmallCNN(width=2), (16, 16, 1), 2)
    variables = random_variables(classifier)
    with jax.enable_x64(True):
        images = jnp.asarray(rng.uniform(size=(1, 16, 16, 1)))  # not a constant, whose pools tie: a kink
        score = jax.jit(lambda x: classifier.apply(variables, x).logits[0, 0])
        gradient = jax.jit(jax.grad(score))(images)
        step = 1e-6 * gradient / jnp.linalg.norm(gradient)
        difference = score(images + step) - score(images - step)
        assert gradient.dtype == difference.dtype == jnp.float64
        np.testing.assert_allclose(difference, 2e-6 * jnp.linalg.norm(gradient), rtol=1e-6)


def test_he_initialisation_keeps_the_scale(key):
    classifier = models.make(SmallCNN(width=16), (16, 16, 3), 10)
    kernel = jax.jit(lambda key: classifier.init(key)["params"]["conv3"]["conv"]["kernel"])(key)
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 32)), rtol=0.03)


def test_a_trained_net_runs_with_another_activation(key):
    images = jax.random.normal(key, (2, 16, 16, 1))
    make = lambda name: models.make(SmallCNN(width=2, activation=name), (16, 16, 1), 3)  # noqa: E731
    variables = random_variables(make("relu"))

    def score(images, name):
        return -make(name).logits_fn(variables)(images).sum()

    relu, guided = (jax.jit(jax.value_and_grad(score), static_argnums=1)(images, name) for name in ("relu", "guided"))
    np.testing.assert_array_equal(relu[0], guided[0])
    # All weights are positive, so that the gradient of minus the logits is negative at every unit.
    assert relu[1].min() < -1e-3 and not guided[1].any()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (("conv32", "pool2", "gap"), r"Unknown layer PlainCNN.layers\[1\] = 'pool2'. Layers are: conv32 "),
        (("conv0", "gap"), "Unknown layer"),
        (("conv8s2k3", "gap"), "Unknown layer"),
        (("dropout1.5", "gap"), "Unknown layer"),
        (("conv8", "dense4"), r"layers\[1\] = 'dense4' needs a vector"),
        (("gap", "conv8"), r"layers\[1\] = 'conv8' needs a map"),
        (("conv8", "max2"), "must come down to a vector"),
        ("conv8", "must be a tuple of layers, got the string 'conv8'"),
        (("max2",) * 4 + ("gap",), "pool of 2x2 does not fit its input of 1x1"),
    ],
)
def test_plain_cnn_grammar_errors(layers, message):
    with pytest.raises(ValueError, match=message):
        models.make(PlainCNN(layers=layers), (8, 8, 3), 2)


@pytest.mark.parametrize(
    ("spec", "classes", "message"),
    [
        (SmallCNN(activation="rellu"), 2, "Unknown SmallCNN.activation 'rellu'. Did you mean 'relu'"),
        (SmallCNN(pool="min"), 2, "Unknown SmallCNN.pool 'min'"),
        (ResNet18(dtype="float16"), 2, "Unknown ResNet18.dtype 'float16'. Did you mean 'bfloat16'"),
        (ResNet18(stem="cifar10"), 2, "Unknown ResNet18.stem 'cifar10'. Did you mean 'cifar'"),
        (ResNet50(stem="cifar10"), 2, "Unknown ResNet50.stem 'cifar10'. Did you mean 'cifar'"),
        (SmallCNN(mean=(0.5, 0.5)), 2, "SmallCNN.mean must hold 1 or 3 numbers"),
        (SmallCNN(std=(0.0,)), 2, "SmallCNN.std must be positive"),
        (SmallCNN(), 1, "at least two classes, got 1"),
        ("small_cnn", 2, "takes a spec of type SmallCNN, PlainCNN, ResNet18, ResNet50, got str"),
    ],
)
def test_bad_specs(spec, classes, message):
    with pytest.raises(ValueError, match=message):
        models.make(spec, (32, 32, 3), classes)


def test_registry_makes_each_default_spec():
    for name, (spec, make) in models.MODELS.items():
        classifier = make(spec(), (32, 32, 3), 4)
        assert classifier.layers[-2:] == ("gap", "logits"), name
        assert (classifier.num_classes, classifier.image_shape) == (4, (32, 32, 3))
