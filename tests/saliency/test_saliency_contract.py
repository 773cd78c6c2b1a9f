"""What holds for every saliency method; a new one is one more row of ROWS."""

import dataclasses
import functools
import itertools

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


@network
def net(images):
    hidden = jnp.einsum("bhwc,hwck->bk", images, jnp.asarray(WEIGHTS, images.dtype))
    return jnp.tanh(hidden) @ jnp.asarray(HEAD, images.dtype)


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
    everyone = method(net, KEYS, IMAGES, LABELS)
    order = np.array([3, 0])
    np.testing.assert_allclose(method(net, KEYS[order], IMAGES[order], LABELS[order]), everyone[order], atol=1e-6)


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
