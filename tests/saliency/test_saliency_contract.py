"""What holds for every saliency method; a new one is one more row of ROWS."""

import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import models, saliency
from robust_saliency.randomness import per_example_keys
from robust_saliency.saliency import (
    RISE,
    SALIENCY,
    Active,
    BlurIG,
    Contrast,
    ExpectedGradients,
    GradCAM,
    GradCAMPlusPlus,
    Gradient,
    GuidedBackprop,
    GuidedIG,
    Inactive,
    InputXGradient,
    IntegratedGradients,
    Negative,
    Occlusion,
    Original,
    Positive,
    SmoothGrad,
)
from robust_saliency.saliency._reduce import reduce_entries

ROWS = {
    "active": Active(),
    "blur_ig": BlurIG(num_steps=2, max_sigma=1.0),
    "contrast": Contrast(),
    "expected_gradients": ExpectedGradients(num_samples=2),
    "grad_cam": GradCAM(sign="abs"),
    "grad_cam_plus_plus": GradCAMPlusPlus(sign="abs"),
    "gradient": Gradient(),
    "guided_backprop": GuidedBackprop(),
    "guided_ig": GuidedIG(num_steps=2),
    "inactive": Inactive(),
    "input_x_gradient": InputXGradient(),
    "integrated_gradients": IntegratedGradients(num_steps=4),
    "negative": Negative(),
    "occlusion": Occlusion(window=1, stride=1, sign="abs"),
    "original": Original(),
    "positive": Positive(),
    "rise": RISE(num_samples=4, cells=2, score="logit", sign="abs"),
    "smoothgrad": SmoothGrad(num_samples=4),
}
# Methods whose map of a class depends on the gradients of the others.
COMPARE_CLASSES = ("active", "contrast", "inactive")
# Methods that show more than the pixels that matter, or only those that do so in one direction.
SPREAD = ("blur_ig", "grad_cam", "grad_cam_plus_plus", "negative", "rise")
WITHOUT_COLOURS = ("grad_cam", "grad_cam_plus_plus", "occlusion", "rise")
BATCH, SHAPE, CLASSES = 5, (4, 3, 2), 3
generator = np.random.default_rng(13)
WEIGHTS = generator.normal(size=(*SHAPE, 6)).astype(np.float32)
HEAD = generator.normal(size=(6, CLASSES)).astype(np.float32)
IMAGES = generator.uniform(size=(BATCH, *SHAPE)).astype(np.float32)
LABELS = np.array([0, 1, 2, 1, 0], np.int32)
KEYS = per_example_keys(jax.random.key(3), jnp.arange(BATCH))


def network(function):
    """The logits_fn of a classifier whose one layer is its input, and which has no activation function to replace."""

    def apply(variables, images, *, mode="eval", key=None, capture=(), edit=None):
        images = (edit or {}).get("input", lambda a: a)(images)
        return models.Output(function(images), {}, {"input": images} if "input" in capture else {})

    classifier = models.Classifier(init=None, apply=apply, layers=("input",), num_classes=CLASSES)
    return classifier._replace(with_activation=lambda activation: classifier).logits_fn({})


def smooth(images):
    hidden = jnp.einsum("bhwc,hwck->bk", images, jnp.asarray(WEIGHTS, images.dtype))
    return jnp.tanh(hidden) @ jnp.asarray(HEAD, images.dtype)


net = network(smooth)


@network
def constant(images):
    return jnp.zeros((len(images), CLASSES), images.dtype)


def test_every_method_has_a_row():
    assert set(ROWS) == set(SALIENCY)
    for name, row in ROWS.items():
        assert type(row) is SALIENCY[name][0]


@functools.cache
def compiled(logits_fn):
    return jax.jit(lambda keys, images, labels, spec: saliency.run(logits_fn, keys, images, labels, spec))


@pytest.fixture(params=ROWS)
def method(request):
    def maps(logits_fn, keys, images, labels):
        return np.asarray(compiled(logits_fn)(keys, images, labels, ROWS[request.param]))

    return maps


def test_maps_are_finite_single_precision_non_negative_and_one_an_image(method):
    maps = method(net, KEYS, IMAGES, LABELS)
    assert maps.shape == (BATCH, *SHAPE[:2]) and maps.dtype == np.float32
    assert np.isfinite(maps).all() and (maps >= 0).all() and (maps.max((1, 2)) > 0).all()


def test_double_precision_stays_double(method):
    with jax.enable_x64(True):
        double = method(net, KEYS, IMAGES.astype(np.float64), LABELS)
    assert double.dtype == np.float64 and double.shape == (BATCH, *SHAPE[:2])


def test_a_constant_model_has_a_zero_map(method):
    np.testing.assert_array_equal(method(constant, KEYS, IMAGES, LABELS), np.zeros((BATCH, *SHAPE[:2])))


def test_the_map_of_an_example_does_not_depend_on_its_batch(method):
    """In numbers of 64 bits: XLA rounds a product of so many rows in a way of its own."""
    with jax.enable_x64(True):
        images, order = IMAGES.astype(float), np.array([3, 0])
        everyone = method(net, KEYS, images, LABELS)
        few = method(net, KEYS[order], images[order], LABELS[order])
    np.testing.assert_allclose(few, everyone[order], atol=1e-12)


@pytest.mark.parametrize("name", ROWS)
def test_an_example_on_each_of_five_devices_has_the_map_that_it_has_on_one(name):
    """A batch of one each, and the devices do not talk. 64 bits as above."""
    mesh = jax.make_mesh((BATCH,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.enable_x64(True):
        together = KEYS, IMAGES.astype(float), LABELS
        placed = jax.device_put(together, jax.NamedSharding(mesh, jax.P("batch")))
        program = compiled(net).lower(*placed, ROWS[name]).compile({"xla_backend_optimization_level": 0})
        assert not re.search(r"all-(gather|reduce|to-all)|collective-permute", program.as_text())
        maps = program(*placed, ROWS[name])
        assert len(maps.sharding.device_set) == BATCH
        np.testing.assert_allclose(maps, compiled(net)(*together, ROWS[name]), atol=1e-12)


@jax.jit
def of_scaled_logits(scale, spec):
    scaled = network(lambda images: scale * smooth(images))
    return saliency.run(scaled, KEYS, IMAGES, LABELS, spec)


@pytest.mark.parametrize("name", [name for name in ROWS if name != "grad_cam_plus_plus"])
def test_logits_of_any_scale_have_a_map_of_that_scale(name):
    """No floor such as 1e-7 in it. The shares of Grad-CAM++ are no more of one degree in the slopes, as published."""
    unscaled = np.asarray(of_scaled_logits(np.float32(1), ROWS[name]))
    for scale in np.float32([1e-8, 1e8]):
        maps = np.asarray(of_scaled_logits(scale, ROWS[name]))
        np.testing.assert_allclose(maps / scale, unscaled, rtol=1e-4, atol=1e-5 * unscaled.max())


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if hasattr(row, "max_images")])
def test_no_pass_holds_more_images_than_allowed(name):
    """Elsewhere all points of all images go at once, until the memory is full."""
    seen = []

    @network
    def counting(images):
        seen.append(len(images))
        return smooth(images)

    most = dataclasses.replace(ROWS[name], max_images=2 * BATCH)
    jax.eval_shape(lambda keys: saliency.run(counting, keys, IMAGES, LABELS, most), KEYS)
    assert max(seen) == 2 * BATCH


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES[0], LABELS, r"images must have 4 axes, got shape \(4, 3, 2\)"),
        ((255 * IMAGES).astype(np.uint8), LABELS, "got dtype uint8; divide 8-bit images by 255"),
        (IMAGES, LABELS[:1], "Batch sizes differ: images 5, labels 1"),
        (IMAGES, LABELS.astype(np.float32), r"labels must be integers \[B\], got dtype float32"),
        (IMAGES, LABELS + 1, r"labels must lie in 0\.\.2, found 1\.\.3"),
        (IMAGES, LABELS - 1, r"labels must lie in 0\.\.2, found -1\.\.1"),
    ],
    ids=["one image", "8 bits", "one label for all", "float labels", "above", "below"],
)
@pytest.mark.parametrize("name", ROWS)
def test_images_and_labels_that_will_not_do_are_one_sentence(name, images, labels, message):
    """pytorch-grad-cam answers one target for a batch with empty maps of all images but the first."""
    with pytest.raises(ValueError, match=message) as caught:
        jax.eval_shape(lambda keys: saliency.run(net, keys, images, labels, ROWS[name]), KEYS)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("method", [name for name in ROWS if name not in (*COMPARE_CLASSES, *SPREAD)], indirect=True)
def test_the_map_explains_the_label_it_is_asked_for(method):
    @network
    def only_the_corner_matters_to_class_0(images):
        corner = images[:, 0, 0, 0]
        rest = images.sum((1, 2, 3)) - corner
        return jnp.stack([corner, rest, rest], 1)

    maps = method(only_the_corner_matters_to_class_0, KEYS, IMAGES, np.zeros(BATCH, np.int32))
    assert (maps[:, 0, 0] > 0).all()
    assert np.count_nonzero(maps) == BATCH


@pytest.mark.parametrize("method", (*COMPARE_CLASSES, *SPREAD), indirect=True)
def test_the_map_is_another_for_another_label(method):
    maps = [method(net, KEYS, IMAGES, np.full(BATCH, label, np.int32)) for label in range(CLASSES)]
    # Any two, not all: what tells the two likeliest classes apart is one map with two signs.
    assert any(np.abs(one - other).max() > 0.1 for one, other in itertools.pairwise(maps))


@pytest.mark.parametrize("name", ROWS)
def test_kept_channels_with_their_sign(name):
    signed = dataclasses.replace(ROWS[name], sign="signed", channels="none")
    entries = compiled(net)(KEYS, IMAGES, LABELS, signed)
    colours = () if name in WITHOUT_COLOURS else SHAPE[2:]
    assert entries.shape == (*IMAGES.shape[:3], *(colours or (1,)))
    # Grad-CAM++ weighs activations, here the pixels, by what is never negative.
    assert entries.min() < 0 or name == "grad_cam_plus_plus"
    reduced = compiled(net)(KEYS, IMAGES, LABELS, ROWS[name])
    np.testing.assert_allclose(reduce_entries(entries, ROWS[name]), reduced, rtol=1e-5, atol=1e-7)


def test_an_unknown_spec_is_answered_with_the_choices(key):
    with pytest.raises(ValueError, match=r"No saliency method has the spec dict\. Choices: active, blur_ig"):
        saliency.run(net, key, IMAGES, LABELS, {})
