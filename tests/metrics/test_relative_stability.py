"""Relative input and output stability: the formula by hand, and the defects of others that it must not have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import metrics, randomness
from robust_saliency.metrics import (
    Noise,
    NoisyMaps,
    RelativeInputStability,
    RelativeOutputStability,
    relative_input_stability_of,
    relative_output_stability_of,
)

BATCH, DRAWS, SIDE, CLASSES = 3, 4, 5, 3
jit_input, jit_output = jax.jit(relative_input_stability_of), jax.jit(relative_output_stability_of)
SPECS = (RelativeInputStability, RelativeOutputStability)
both = pytest.mark.parametrize("Spec", SPECS)


@pytest.fixture
def given(rng):
    """maps, images, noisy, logits, logits of noisy: three examples, four draws, every prediction kept."""
    images = rng.uniform(0.2, 0.8, (BATCH, SIDE, SIDE, 2))
    maps = rng.normal(size=(BATCH, SIDE, SIDE))
    noisy_images = images[:, None] + rng.uniform(-0.02, 0.02, (BATCH, DRAWS, SIDE, SIDE, 2))
    others = maps[:, None] + 0.1 * rng.normal(size=(BATCH, DRAWS, SIDE, SIDE))
    logits = np.array([[9.0, 0, 0], [0, 9, 0], [0, 0, 9]])
    moved = logits[:, None] + rng.normal(size=(BATCH, DRAWS, CLASSES))
    narrow = [np.float32(each) for each in (maps, images, noisy_images, others, logits, moved)]
    return narrow[0], narrow[1], NoisyMaps(narrow[2], narrow[3]), narrow[4], narrow[5]


def score(given, spec):
    maps, images, noisy, logits, moved = given
    if isinstance(spec, RelativeInputStability):
        return np.asarray(jit_input(maps, images, noisy, logits, moved, spec))
    return np.asarray(jit_output(maps, noisy, logits, moved, spec))


def relative(values, other, share, order):
    sizes = np.abs(values)
    return np.linalg.norm(((other - values) / np.maximum(sizes, share * sizes.mean())).ravel(), order)


@pytest.mark.parametrize(("norm", "order"), [("l1", 1), ("l2", 2), ("linf", np.inf)])
@pytest.mark.parametrize("sign", ["abs", "raw"])
def test_the_formula_one_draw_at_a_time(given, norm, order, sign):
    policy = np.abs if sign == "abs" else lambda m: m
    maps, images, noisy, logits, moved = (jax.tree.map(np.float64, each) for each in given)
    share, expected = 0.3, np.zeros((2, BATCH, DRAWS))
    for b, j in np.ndindex(BATCH, DRAWS):
        change = relative(policy(maps[b]), policy(noisy.maps[b, j]), share, order)
        expected[0, b, j] = change / relative(images[b], noisy.images[b, j], share, order)
        expected[1, b, j] = change / np.linalg.norm(moved[b, j] - logits[b], order)
    for Spec, values in zip(SPECS, expected.max(-1), strict=True):
        np.testing.assert_allclose(score(given, Spec(norm=norm, sign=sign, least_share=share)), values, rtol=2e-4)


@both
def test_a_draw_of_another_prediction_does_not_count_and_without_any_left_there_is_no_value(given, Spec):
    """Quantus gives NaN for the whole sample as soon as one of its 200 draws changes the prediction."""
    whole = score(given, Spec())
    maps, images, noisy, logits, moved = given
    moved = moved.copy()
    moved[0, 1], moved[1] = [0, 20, 0], [20, 0, 0]
    noisy.maps[0, 1] = 1e6  # the map of the draw that does not count is far off
    kept = np.array([0, 2, 3])
    few = (maps, images, NoisyMaps(noisy.images[:, kept], noisy.maps[:, kept]), logits, moved[:, kept])
    found = score((maps, images, noisy, logits, moved), Spec())
    np.testing.assert_allclose(found[0], score(few, Spec())[0], rtol=1e-6)
    assert np.isnan(found[1]) and found[2] == whole[2]


@both
def test_a_pixel_near_zero_does_not_make_up_the_score(given, Spec):
    """Elsewhere the change is divided by 1e-6 where the map is zero: one pixel out of 25, and 1e5 times the score."""
    maps, images, noisy, logits, moved = given
    plain = score(given, Spec())

    def with_pixel(value, share):
        quiet, others = maps.copy(), noisy.maps.copy()
        quiet[:, 0, 0], others[:, :, 0, 0] = value, value + others[:, :, 0, 0] - maps[:, :1, 0]
        return score((quiet, images, NoisyMaps(noisy.images, others), logits, moved), Spec(least_share=share))

    for value in np.float32([0, 1e-12, 1e-3]):
        assert (np.abs(np.log(with_pixel(value, 1.0) / plain)) < 0.3).all()
        assert (with_pixel(value, 1e-6) > 50 * plain).all()


def test_a_black_pixel_does_not_hide_an_unstable_map(given):
    """Elsewhere it is divided by 1e-6 too, in the denominator: one black pixel, and every map is stable."""
    maps, images, noisy, logits, moved = given
    black = images.copy()
    black[:, 0, 0] = 0
    noisy = NoisyMaps(noisy.images - (images - black)[:, None], noisy.maps)

    def ratio(share):
        spec = RelativeInputStability(least_share=share)
        return score((maps, black, noisy, logits, moved), spec) / score((maps, images, *given[2:]), spec)

    assert (ratio(1e-6) < 1e-3).all() and (np.abs(np.log(ratio(1.0))) < 0.3).all()


@both
def test_scale_free_in_the_map_a_batch_of_one_and_one_program(given, Spec):
    values = score(given, Spec())
    maps, images, noisy, logits, moved = given
    for factor in np.float32([1e-8, 1e8]):
        scaled = (factor * maps, images, NoisyMaps(noisy.images, factor * noisy.maps), logits, moved)
        np.testing.assert_allclose(score(scaled, Spec()), values, rtol=1e-5)
    np.testing.assert_allclose(score(jax.tree.map(lambda each: each[1:2], given), Spec()), values[1:2], rtol=1e-6)
    program = jit_input if Spec is RelativeInputStability else jit_output
    before = program._cache_size()
    score(given, Spec(least_share=0.5, least_change=0.1))
    assert program._cache_size() == before


@both
def test_meaningless_maps_are_nan_a_noisy_zero_is_none_and_a_blind_map_is_zero(given, Spec):
    maps, images, noisy, logits, moved = given
    for bad in (0, np.nan, np.inf):
        broken = maps.copy()
        broken[1] = bad
        np.testing.assert_array_equal(np.isnan(score((broken, *given[1:]), Spec())), [False, True, False])
    lost = noisy.maps.copy()
    lost[0, 2, 0, 0], lost[1, 1, 0, 0], lost[2, 0] = np.nan, np.inf, 0
    found = score((maps, images, NoisyMaps(noisy.images, lost), logits, moved), Spec())
    np.testing.assert_array_equal(np.isnan(found), [True, True, False])
    blind = NoisyMaps(noisy.images, np.repeat(maps[:, None], DRAWS, axis=1))
    np.testing.assert_array_equal(score((maps, images, blind, logits, moved), Spec()), np.zeros(BATCH))
    constant = np.ones_like(maps)
    assert np.isfinite(score((constant, *given[1:]), Spec())).all()


def test_a_black_image_has_no_relative_change(given):
    maps, images, noisy, logits, moved = given
    images = images.copy()
    images[1] = 0
    found = score((maps, images, noisy, logits, moved), RelativeInputStability())
    np.testing.assert_array_equal(np.isnan(found), [False, True, False])


def test_logits_that_do_not_move_are_divided_by_the_least_change(given):
    maps, images, noisy, logits, _ = given
    still = np.repeat(logits[:, None], DRAWS, axis=1)
    values = [score((maps, images, noisy, logits, still), RelativeOutputStability(least_change=c)) for c in (0.1, 0.2)]
    np.testing.assert_allclose(values[0], 2 * values[1], rtol=1e-6)


def test_random_maps_have_the_change_of_two_draws(rng):
    """Of two maps of U(0, 1), the first a pixel divided by at least its mean 1/2:

    ``E (a - b)^2 / max(a, 1/2)^2 = int_0^(1/2) 4 q + int_(1/2)^1 q / a^2`` with ``q = a^2 - a + 1/3`` is
    ``1/3 + 5/6 - ln 2``. The image of 1/2 changes by a tenth of that everywhere, one logit by 2.
    """
    side, square = 64, 1 / 3 + 5 / 6 - np.log(2)
    maps, others = rng.uniform(size=(2, 4, side, side)).astype(np.float32)
    images = np.full((4, side, side, 1), 0.5, np.float32)
    noisy = NoisyMaps(1.1 * images[:, None], others[:, None])
    logits = np.tile(np.float32([5, 0]), (4, 1))
    moved = logits[:, None] + np.float32([2, 0])
    found = score((maps, images, noisy, logits, moved), RelativeInputStability())
    np.testing.assert_allclose(found, np.sqrt(square) / 0.1, rtol=0.05)
    found = score((maps, images, noisy, logits, moved), RelativeOutputStability())
    np.testing.assert_allclose(found, np.sqrt(square) * side / 2, rtol=0.05)


def test_the_map_that_is_the_image_changes_as_the_image_does(rng):
    """One channel, every pixel at its mean: the map m = 3 x has the relative change of x, so the ratio is one."""
    images = np.full((2, SIDE, SIDE, 1), 0.5, np.float32)
    keys = randomness.per_example_keys(jax.random.key(0), jnp.arange(2))

    def saliency_fn(key, images, labels):
        return 3 * images[..., 0]

    def logits_fn(images):
        return jnp.stack([10 + jnp.mean(images, (1, 2, 3)), jnp.mean(images, (1, 2, 3))], -1)

    own = {"logits_fn": logits_fn, "saliency_fn": saliency_fn, "key": keys, "labels": np.zeros(2, np.int32)}
    spec = RelativeInputStability(noise=Noise(scale=0.1, num_samples=3))
    run = jax.jit(lambda images: metrics.run(spec, images=images, maps=3 * images[..., 0], **own))
    np.testing.assert_allclose(run(images), [1, 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm": "l3"}, r"Unknown norm 'l3'.*Choices: l1, l2, linf"),
        ({"least_share": 0.0}, r"least_share must be above 0, got 0.0"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        RelativeInputStability(**fields)
