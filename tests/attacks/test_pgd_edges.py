"""PGD at its edges: nothing to do, NaN, the best iterate, no gradient through it, dtypes, errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import attacks, threat
from robust_saliency.attacks import PGD, pgd
from robust_saliency.threat import Threat
from tests.attacks.linear import EPSILON, SHAPE, attack, linear_loss
from tests.keys import fast_key


@pytest.mark.parametrize("norm", threat.NORMS)
@pytest.mark.parametrize("start", ["none", "uniform"])
def test_epsilon_zero_gives_the_images_bitwise(images, weights, norm, start):
    spec = PGD(threat=Threat(norm=norm, epsilon=0.0), start=start, unroll=False, keep_best=True)
    np.testing.assert_array_equal(attack(linear_loss(weights), images, spec), images)


def test_no_steps_gives_the_start(images, weights):
    none = PGD(num_steps=0, start="none")
    np.testing.assert_array_equal(attack(linear_loss(weights), images, none), images)
    for keep_best in (False, True):
        spec = PGD(num_steps=0, keep_best=keep_best)
        expected = threat.start(fast_key(0), jnp.asarray(images), spec.threat, "uniform")
        np.testing.assert_allclose(attack(linear_loss(weights), images, spec), expected, atol=1e-7)


@pytest.mark.parametrize("norm", threat.NORMS)
def test_without_a_gradient_the_images_stay_and_nothing_is_nan(images, norm):
    spec = PGD(threat=Threat(norm=norm), start="none")
    np.testing.assert_allclose(attack(lambda x: jnp.zeros(x.shape[0]), images, spec), images, atol=1e-7)


@pytest.mark.parametrize("norm", threat.NORMS)
def test_a_nan_gradient_stops_its_example_and_leaves_the_neighbours_bitwise_alone(images, weights, norm):
    linear = linear_loss(weights)

    def run(flag):
        # The square root of 0 has an infinite derivative, and 0 times infinity is NaN.
        return attack(lambda x: linear(x) + jnp.sqrt(flag * jnp.sum(x, (1, 2, 3))), images, spec)

    spec = PGD(threat=Threat(norm=norm, epsilon=0.1), step_size=0.03, num_steps=3, start="none")
    healthy, spoilt = run(jnp.ones(4)), run(jnp.array([1.0, 0.0, 1.0, 1.0]))
    np.testing.assert_array_equal(spoilt[[0, 2, 3]], healthy[[0, 2, 3]])
    np.testing.assert_allclose(spoilt[1], images[1], atol=1e-7)
    assert np.abs(healthy[1] - images[1]).max() > 0.01


def hill(top):
    """A loss that overshoots: highest where every pixel is ``top``."""
    return lambda images: -jnp.sum((images - top) ** 2, (1, 2, 3))


@pytest.mark.parametrize("unroll", [True, False])
def test_keep_best_returns_the_best_iterate(unroll):
    """The iterates are 0.5, 0.75, 0.5: the last is no better than the start, the middle one is best."""
    images = jnp.full((2, 1, 1, 1), 0.5)
    spec = PGD(threat=Threat(epsilon=0.4), step_size=0.25, num_steps=2, start="none", unroll=unroll)
    np.testing.assert_allclose(np.ravel(attack(hill(0.7), images, spec)), [0.5, 0.5])
    best = attack(hill(0.7), images, dataclasses.replace(spec, keep_best=True))
    np.testing.assert_allclose(np.ravel(best), [0.75, 0.75])


def test_keep_best_judges_the_last_iterate_too():
    spec = PGD(threat=Threat(epsilon=0.4), step_size=0.25, num_steps=1, start="none", keep_best=True)
    np.testing.assert_allclose(np.ravel(attack(hill(0.7), jnp.full((1, 1, 1, 1), 0.5), spec)), [0.75])


def test_a_nan_loss_never_wins_and_never_blocks():
    """Example 0 has NaN where it is best, example 1 at its start."""
    images = jnp.full((2, 1, 1, 1), 0.5)

    def loss_fn(x):
        where_nan = jnp.array([0.75, 0.5])
        return hill(0.7)(x) + jax.lax.stop_gradient(jnp.where(x[:, 0, 0, 0] == where_nan, jnp.nan, 0.0))

    spec = PGD(threat=Threat(epsilon=0.4), step_size=0.25, num_steps=2, start="none", keep_best=True)
    np.testing.assert_allclose(np.ravel(attack(loss_fn, images, spec)), [0.5, 0.75])


def test_images_outside_the_bounds_are_clipped_first(weights):
    result = attack(linear_loss(weights), jnp.full(SHAPE, 1.5), PGD(num_steps=1, start="none", step_size=0.1))
    np.testing.assert_allclose(result[0], np.where(weights > 0, 1, 1 - EPSILON), atol=1e-6)


def test_no_gradient_flows_through_the_adversary(images, weights):
    def through(w):
        return jnp.sum(jnp.tensordot(pgd(linear_loss(w), fast_key(0), images, spec), w, 3))

    spec = PGD(num_steps=2, keep_best=True, start="none")
    result = attack(linear_loss(weights), images, spec)
    np.testing.assert_allclose(jax.jit(jax.grad(through))(jnp.asarray(weights)), result.sum(0), rtol=1e-5)


@pytest.mark.parametrize(("unroll", "keep_best"), [(True, False), (False, True)])
def test_the_dtype_of_the_images_is_kept(images, weights, unroll, keep_best):
    spec = PGD(unroll=unroll, keep_best=keep_best, num_steps=2, start="none")
    with jax.enable_x64(True):
        for dtype in (jnp.float64, jnp.float32):
            given = jnp.asarray(images, dtype)
            wide = dataclasses.replace(spec, step_size=jnp.asarray(0.01, jnp.float64))
            result = attack(linear_loss(weights.astype(np.float64)), given, wide)
            assert result.dtype == dtype
            expected = np.clip(np.asarray(given, np.float64) + 0.02 * np.sign(weights), 0, 1)
            np.testing.assert_allclose(result, expected, atol=1e-15 if dtype == jnp.float64 else 1e-7)


def test_bfloat16_images_are_widened(images, weights):
    narrow = jnp.asarray(images, jnp.bfloat16)
    spec = PGD(num_steps=2, unroll=False, keep_best=True)
    result = attack(linear_loss(weights), narrow, spec)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, attack(linear_loss(weights), narrow.astype(jnp.float32), spec))


@pytest.mark.parametrize("unroll", [True, False])
def test_a_bfloat16_loss_is_kept_in_float32(images, weights, unroll):
    spec = PGD(num_steps=2, unroll=unroll, keep_best=True, start="none")
    result = attack(lambda x: linear_loss(weights)(x).astype(jnp.bfloat16), images, spec)
    assert result.dtype == np.float32
    assert (np.abs(result - images) > 0).any()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros(SHAPE, np.uint8), "floating point in .0, 1., got dtype uint8; divide 8-bit images by 255"),
        (np.zeros(SHAPE[1:], np.float32), r"images must have 4 axes, got shape \(3, 2, 2\)"),
    ],
)
def test_errors_of_the_images(images, message, key):
    for spec in (PGD(), attacks.FGSM(), attacks.FGSM(threat=Threat(epsilon=jnp.ones(SHAPE)))):
        with pytest.raises(ValueError, match=message):
            attacks.run(lambda x: jnp.sum(x, (1, 2, 3)), key, images, spec)


def test_errors_of_the_spec():
    with pytest.raises(ValueError, match=r"Unknown start 'unifrom'\. Did you mean 'uniform'"):
        PGD(start="unifrom")
    with pytest.raises(ValueError, match="num_steps must be at least 0, got -1"):
        PGD(num_steps=-1)


def test_errors_of_the_loss_and_the_step_size(images, key):
    with pytest.raises(ValueError, match=r"one loss an image, \[4\], got shape \(\)"):
        pgd(jnp.mean, key, images, PGD())
    with pytest.raises(ValueError, match=r"one loss an image, \[4\], got shape \(4, 3\)"):
        pgd(lambda x: jnp.sum(x, (2, 3)), key, images, PGD())
    with pytest.raises(ValueError, match=r"PGD\.step_size has 3 entries for a batch of 4 images"):
        pgd(lambda x: jnp.sum(x, (1, 2, 3)), key, images, PGD(step_size=jnp.ones(3)))
