"""Feature visualisation and inversion of linear units, where the best image is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import models, neurons, randomness
from robust_saliency.neurons import Ascent
from robust_saliency.neurons import ascent as pieces
from robust_saliency.threat import Threat
from tests.neurons.planted import HEAD, LOGITS_FN

SHAPE = (4, 3, 2)
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(*SHAPE, 5)).astype(np.float32)
MIX = np.linalg.qr(RNG.normal(size=(24, 24)))[0].astype(np.float32)
IMAGES = RNG.uniform(0.4, 0.6, (3, *SHAPE)).astype(np.float32)


def apply(variables, images, *, mode="eval", key=None, capture=(), edit=None):
    """'units' are linear in the pixels, 'relu' is their ReLU, 'turned' an invertible turn of the pixels."""
    units = jnp.einsum("bhwc,hwcu->bu", images, WEIGHTS)
    features = {"units": units, "relu": jax.nn.relu(units - 100), "turned": images.reshape(len(images), -1) @ MIX}
    return models.Output(units, {}, {name: features[name] for name in capture})


LINEAR = models.Classifier(init=None, apply=apply, layers=("units", "relu", "turned")).logits_fn({})


@pytest.mark.parametrize(
    "score",
    [neurons.unit_score(LINEAR, "units", jnp.array([4, 0, 2])), neurons.class_score(LINEAR, jnp.array([4, 0, 2]))],
)
def test_a_linear_unit_in_a_ball_goes_to_the_end_of_its_weights(key, score):
    spec = Ascent(threat=Threat(norm="l2", epsilon=0.3), step_size=0.1, num_steps=8)
    found = jax.jit(lambda x, spec: neurons.ascend(score, key, x, spec))(IMAGES, spec)
    weights = np.moveaxis(WEIGHTS, -1, 0)[[4, 0, 2]]
    expected = IMAGES + 0.3 * weights / np.linalg.norm(weights.reshape(3, -1), axis=1)[:, None, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_without_a_ball_it_goes_to_a_corner_of_the_box_from_image_or_noise(key):
    score = neurons.unit_score(LINEAR, "units", 1)
    for start in ("none", "gaussian"):
        spec = Ascent(num_steps=100, start=start)
        found = jax.jit(lambda x, spec: neurons.ascend(score, key, x, spec))(IMAGES, spec)
        np.testing.assert_array_equal(found, np.broadcast_to(WEIGHTS[..., 1] > 0, IMAGES.shape))


def test_noise_belongs_to_the_example_and_pieces_make_the_whole():
    score = neurons.unit_score(LINEAR, "units", 1)
    keys = randomness.per_example_keys(jax.random.key(0), jnp.array([5, 8, 2]))
    spec = Ascent(num_steps=6, step_size=0.05, decay=0.5, start="gaussian", start_scale=0.1)
    ascend = jax.jit(lambda keys, x, spec: neurons.ascend(score, keys, x, spec))
    whole = ascend(keys, IMAGES, spec)
    assert np.abs(whole - IMAGES).min((1, 2, 3)).max() > 0
    np.testing.assert_allclose(ascend(keys[1:2], IMAGES[1:2], spec)[0], whole[1], atol=1e-6)
    each = jax.jit(jax.vmap(lambda k, x: neurons.ascend(score, k[None], x[None], spec)[0]))(keys, IMAGES)
    np.testing.assert_allclose(each, whole, atol=1e-6)
    unrolled = Ascent(num_steps=6, step_size=0.05, decay=0.5, unroll=True)
    advance = jax.jit(lambda state: pieces.advance(score, state, unrolled, 2))
    state = jax.jit(lambda keys, x: pieces.start(keys, x, spec))(keys, IMAGES)
    for _ in range(3):
        state = advance(state)
    np.testing.assert_allclose(state.images, whole, atol=1e-6)


def test_steps_get_shorter_and_their_size_is_data(key):
    """Far from the box the way is the sum of the steps: 0.02 (1 + 3/4 + 1/2 + 1/4)."""
    score, traced = neurons.unit_score(LINEAR, "units", 3), []

    def run(x, spec):
        traced.append(1)
        return neurons.ascend(score, key, x, spec)

    compiled = jax.jit(run)
    for step_size in (0.02, 0.04):
        found = compiled(IMAGES, Ascent(num_steps=4, step_size=step_size, decay=1.0))
        way = np.linalg.norm((found - IMAGES).reshape(3, -1), axis=1)
        np.testing.assert_allclose(way, 2.5 * step_size, rtol=1e-4)
    assert len(traced) == 1


def test_a_place_and_the_mean_of_a_map(key):
    """Of one place only its four pixels become red and lose nothing else; of the mean all do."""
    images = np.full((1, 8, 8, 3), 0.5, np.float32)

    def raised(score):
        return np.asarray(jax.jit(lambda x: neurons.ascend(score, key, x, Ascent(num_steps=30)))(images))[0]

    one = raised(neurons.unit_score(LOGITS_FN, "units", 0, (1, 2)))
    expected = images[0].copy()
    expected[2:4, 4:6, 0] = 1
    np.testing.assert_array_equal(one, expected)
    every = raised(neurons.unit_score(LOGITS_FN, "units", 0))
    np.testing.assert_array_equal(every[..., 0], 1)
    np.testing.assert_array_equal(every[..., 1:], 0.5)
    wanted = raised(neurons.class_score(LOGITS_FN, 0))
    assert HEAD[0, 0] + HEAD[1, 0] / 2 > 0 > HEAD[1, 0]
    np.testing.assert_array_equal(wanted, np.broadcast_to([1, 0, 0.5], (8, 8, 3)))


def test_a_silent_unit_leaves_the_image_as_it_is(key):
    found = neurons.ascend(neurons.unit_score(LINEAR, "relu", 0), key, IMAGES, Ascent(num_steps=3))
    np.testing.assert_array_equal(found, IMAGES)


def test_inversion_of_an_invertible_representation_recovers_the_image(key):
    targets = RNG.uniform(size=(3, *SHAPE)).astype(np.float32)
    spec = Ascent(num_steps=200, step_size=0.05, decay=1.0)
    invert = jax.jit(lambda x, t, spec: neurons.invert(LINEAR, key, x, t, "turned", spec))
    found = invert(IMAGES, targets, spec)
    np.testing.assert_allclose(found, targets, atol=2e-3)
    before, after = (np.asarray(neurons.inversion_error(LINEAR, x, targets, "turned")) for x in (IMAGES, found))
    flat = [array.reshape(3, -1) for array in (IMAGES, targets)]
    expected = np.linalg.norm(flat[0] - flat[1], axis=1) / np.linalg.norm(flat[1], axis=1)
    np.testing.assert_allclose(before, expected, rtol=1e-4)
    assert (after < 1e-3).all()
    np.testing.assert_array_equal(invert(targets, targets, spec), targets)


def test_the_error_of_a_representation_that_is_zero_has_no_meaning(key):
    assert np.isnan(neurons.inversion_error(LINEAR, IMAGES, IMAGES, "relu")).all()
    found = neurons.invert(LINEAR, key, IMAGES, 0.9 * IMAGES, "relu", Ascent(num_steps=2))
    np.testing.assert_array_equal(found, IMAGES)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda key: Ascent(start="uniform"), r"Unknown start 'uniform'\. Choices: gaussian, none"),
        (lambda key: Ascent(decay=2.0), r"Ascent\.decay must be in \[0, 1\], got 2"),
        (
            lambda key: neurons.unit_score(LOGITS_FN, "units", 3)(np.ones((1, 8, 8, 3), np.float32)),
            r"units of layer 'units' must lie in 0\.\.2, found 3\.\.3",
        ),
        (
            lambda key: neurons.unit_score(LOGITS_FN, "units", 0, (4, 0))(np.ones((1, 8, 8, 3), np.float32)),
            r"Layer 'units' has 4 x 4 places, got place \(4, 0\)",
        ),
        (
            lambda key: neurons.ascend(
                lambda x: x.sum((1, 2, 3)), key, 2 * np.ones((1, 2, 2, 1), np.float32), Ascent()
            ),
            r"images must lie in \[0, 1\]",
        ),
        (
            lambda key: neurons.invert(LINEAR, key, IMAGES, IMAGES[:1], "turned", Ascent()),
            r"Images and targets must have one shape, got \(3, 4, 3, 2\) and \(1, 4, 3, 2\)",
        ),
    ],
)
def test_what_will_not_do_is_one_sentence(key, call, message):
    with pytest.raises(ValueError, match=message):
        call(key)
