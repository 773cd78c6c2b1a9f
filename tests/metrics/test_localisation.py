import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robust_saliency.metrics.localisation import (
    PointingGame,
    RankAccuracy,
    RelevanceMass,
    RelevanceMassGiven,
    pointing_game,
    rank_accuracy,
    relevance_mass,
    relevance_mass_given,
)

jit_pointing, jit_rank, jit_mass = jax.jit(pointing_game), jax.jit(rank_accuracy), jax.jit(relevance_mass)
localisations = pytest.mark.parametrize("metric", [jit_pointing, jit_rank, jit_mass])
tied_maps = hnp.arrays(np.float32, (1, 2, 4), elements=st.sampled_from([0.0, 1.0, 2.0, 3.0]))
random_masks = hnp.arrays(np.bool_, (1, 2, 4))


def half(place):
    mask = np.zeros((1, 4, 4), bool)
    mask[0, {"top": slice(0, 2), "bottom": slice(2, 4)}[place]] = True
    return mask


def mean_over_orders(values, score):
    """Mean of ``score`` over every descending order of the pixels that the ties allow."""
    groups = [np.flatnonzero(values == v) for v in sorted(set(values), reverse=True)]
    orders = itertools.product(*(itertools.permutations(group) for group in groups))
    return np.mean([score([i for group in order for i in group]) for order in orders])


def fewest_ties(maps):
    return max(np.unique(maps, return_counts=True)[1]) <= 5


@settings(max_examples=60, deadline=None)
@given(tied_maps.filter(np.any).filter(fewest_ties), random_masks.filter(np.any))
def test_ties_count_by_expectation_over_all_orders(maps, masks):
    values, mask = maps.ravel(), masks.ravel()
    size = mask.sum()
    np.testing.assert_allclose(
        jit_rank(maps, masks)[0], mean_over_orders(values, lambda order: mask[order[:size]].sum() / size), rtol=1e-5
    )
    np.testing.assert_allclose(
        jit_pointing(maps, masks)[0], mean_over_orders(values, lambda order: float(mask[order[0]])), rtol=1e-5
    )
    np.testing.assert_allclose(jit_mass(maps, masks)[0], values[mask].sum() / values.sum(), rtol=1e-5)


def test_hand_computed():
    maps = np.array([[[5.0, 4.0, 3.0], [2.0, 1.0, 0.0]]], np.float32)
    mask = np.array([[[1, 0, 1], [0, 0, 1]]], np.float32)
    np.testing.assert_allclose(jit_pointing(maps, mask), [1.0])
    np.testing.assert_allclose(jit_rank(maps, mask), [2 / 3], rtol=1e-6)
    np.testing.assert_allclose(jit_mass(maps, mask), [8 / 15], rtol=1e-6)


@localisations
@pytest.mark.parametrize("place", ["top", "bottom"])
def test_a_constant_map_scores_the_share_of_the_mask_wherever_it_is(metric, place):
    """Elsewhere a constant map always wins the pointing game, and ranks 1 on a top half and 0 on a bottom half."""
    np.testing.assert_allclose(metric(np.full((1, 4, 4), 0.7, np.float32), half(place)), [0.5])


@localisations
def test_an_empty_mask_is_nan_not_a_hit(metric):
    maps = np.ones((2, 4, 4), np.float32)
    masks = np.concatenate([np.zeros((1, 4, 4), bool), half("top")])
    np.testing.assert_array_equal(np.isnan(metric(maps, masks)), [True, False])


@localisations
def test_a_full_mask_is_one(metric, rng):
    maps = rng.normal(size=(3, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(metric(maps, np.ones((3, 4, 4), np.float32)), np.ones(3), rtol=1e-6)


@localisations
def test_the_mask_as_a_map_is_the_ceiling(metric):
    np.testing.assert_allclose(metric(half("top").astype(np.float32), half("top")), [1.0])
    np.testing.assert_allclose(metric(half("top").astype(np.float32), half("bottom")), [0.0])


@localisations
@pytest.mark.parametrize("exponent", [-8, 8])
def test_scale_does_not_matter(metric, exponent, rng):
    maps = rng.integers(-9, 9, (4, 4, 4)).astype(np.float32)
    masks = np.repeat(half("top"), 4, axis=0)
    np.testing.assert_allclose(metric(maps * np.float32(10.0**exponent), masks), metric(maps, masks), rtol=1e-5)


def test_one_pixel_alone_by_hand():
    """Of 16 pixels 8 in the mask. One in it leaves 7 places to 15 ties, of which 7 are in it; one beside, 8 in it."""
    maps = np.eye(16, dtype=np.float32).reshape(16, 4, 4)
    masks, inside = np.repeat(half("top"), 16, axis=0), np.arange(16) < 8
    np.testing.assert_array_equal(jit_pointing(maps, masks), inside)
    np.testing.assert_array_equal(jit_mass(maps, masks), inside)
    expected = np.where(inside, (1 + 7 * 7 / 15) / 8, 7 * 8 / 15 / 8)
    np.testing.assert_allclose(jit_rank(maps, masks), expected, rtol=1e-6)
    quarter = {"lesion": masks, "evidence": masks & (np.arange(4) < 2)}
    expected = np.where(inside, np.arange(16) % 4 < 2, np.nan)
    np.testing.assert_array_equal(jax.jit(relevance_mass_given)(maps, quarter), expected)


def test_random_maps_have_the_share_of_the_mask_on_average(rng):
    """Of 100 pixels 30 in the mask: the pointing game is a toss, rank accuracy hypergeometric, mass a mean of shares.

    Given another mask of 50 pixels, which holds 20 of the 30, it is 20 / 50.
    """
    count, pixels, size = 600, 100, 30
    maps = rng.uniform(size=(count, 10, 10)).astype(np.float32)
    mask, other = np.zeros((2, count, 10, 10), np.float32)
    mask[:, :3], other[:, 1:6] = 1, 1
    deviations = {
        jit_pointing: np.sqrt(0.3 * 0.7),
        jit_rank: np.sqrt(size * 0.3 * 0.7 * (pixels - size) / (pixels - 1)) / size,
        jit_mass: np.sqrt(0.3 * 0.7 / 3 / pixels),
    }
    for metric, deviation in deviations.items():
        values = np.asarray(metric(maps, mask))
        assert abs(values.mean() - 0.3) < 4 * deviation / np.sqrt(count)
        np.testing.assert_allclose(values.std(), deviation, rtol=0.15)
    given = jax.jit(relevance_mass_given)(maps, {"lesion": other, "evidence": mask})
    assert abs(np.mean(given) - 0.4) < 4 * np.sqrt(0.4 * 0.6 / 3 / 50 / count)


def test_signed_maps_never_leave_the_unit_interval():
    """Elsewhere the mass of a signed map is -0.17 or 1.08: negative relevance is subtracted from the total."""
    maps = np.array([[[3.0, -2.5], [1.0, -1.0]]], np.float32)
    mask = np.array([[[1, 0], [0, 0]]], bool)
    np.testing.assert_allclose(jit_mass(maps, mask), [3 / 7.5], rtol=1e-6)
    np.testing.assert_allclose(relevance_mass(maps, mask, RelevanceMass(sign="positive")), [0.75], rtol=1e-6)
    np.testing.assert_allclose(relevance_mass(maps, mask, RelevanceMass(sign="negative")), [0.0])


def test_raw_points_at_the_greatest_signed_value():
    maps = np.array([[[-3.0, -1.0], [-2.0, -1.0]]], np.float32)
    mask = np.array([[[0, 1], [0, 0]]], bool)
    np.testing.assert_allclose(pointing_game(maps, mask), [0.0])
    np.testing.assert_allclose(pointing_game(maps, mask, PointingGame(sign="raw")), [0.5])
    np.testing.assert_allclose(rank_accuracy(maps, mask, RankAccuracy(sign="raw")), [0.5])


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 15])
def test_tolerance_is_a_euclidean_disc_around_the_mask(radius):
    height, width, row, column = 9, 11, 3, 2
    mask = np.zeros((1, height, width), bool)
    mask[0, row, column] = True
    near = np.add.outer((np.arange(height) - row) ** 2, (np.arange(width) - column) ** 2) <= radius**2
    maps = np.eye(height * width, dtype=np.float32).reshape(-1, height, width)
    hits = jax.jit(lambda maps, masks: pointing_game(maps, masks, PointingGame(tolerance=radius)))(
        maps, np.repeat(mask, len(maps), axis=0)
    )
    np.testing.assert_array_equal(hits, near.ravel().astype(np.float32))


def test_an_empty_mask_stays_nan_under_tolerance():
    assert np.isnan(pointing_game(np.ones((1, 4, 4)), np.zeros((1, 4, 4)), PointingGame(tolerance=2))).all()


def test_evidence_given_lesion_by_hand():
    maps = np.array([[[8.0, 2.0, 1.0, 1.0]]], np.float32)
    masks = {"lesion": np.array([[[0, 1, 1, 1]]]), "evidence": np.array([[[1, 1, 0, 0]]])}
    np.testing.assert_allclose(jax.jit(relevance_mass_given)(maps, masks), [0.5], rtol=1e-6)
    swapped = RelevanceMassGiven(mask="lesion", within="evidence")
    np.testing.assert_allclose(relevance_mass_given(maps, masks, swapped), [0.2], rtol=1e-6)


def test_finding_the_lesion_alone_earns_no_evidence_given_lesion():
    """A map of the lesion beats a constant map on lesion mass and on evidence mass, but not given the lesion."""
    lesion, evidence = np.zeros((1, 6, 6), np.float32), np.zeros((1, 6, 6), np.float32)
    lesion[0, 1:5, 1:5], evidence[0, 1:3, 1:5] = 1.0, 1.0
    masks, blind = {"lesion": lesion, "evidence": evidence}, np.ones((1, 6, 6), np.float32)
    in_evidence = RelevanceMass(mask="evidence")
    assert relevance_mass(lesion, masks, in_evidence)[0] > 2 * relevance_mass(blind, masks, in_evidence)[0]
    np.testing.assert_allclose(relevance_mass_given(lesion, masks), [0.5])
    np.testing.assert_allclose(relevance_mass_given(blind, masks), [0.5], rtol=1e-6)


def test_evidence_given_lesion_is_nan_without_overlap_lesion_or_relevance_there():
    maps = np.ones((3, 1, 2), np.float32)
    maps[2, 0, 0] = 0.0
    lesion = np.array([[[1, 0]], [[0, 0]], [[1, 0]]])
    evidence = np.array([[[0, 1]], [[1, 1]], [[1, 0]]])
    assert np.isnan(relevance_mass_given(maps, {"lesion": lesion, "evidence": evidence})).all()


def test_masks_are_chosen_by_name():
    maps = np.array([[[3.0, 1.0]]], np.float32)
    masks = {"lesion": np.array([[[1, 1]]]), "evidence": np.array([[[0, 1]]])}
    np.testing.assert_allclose(jit_mass(maps, masks), [1.0])
    np.testing.assert_allclose(relevance_mass(maps, masks, RelevanceMass(mask="evidence")), [0.25])


def test_bad_masks_are_named():
    maps = jnp.ones((2, 4, 4))
    with pytest.raises(ValueError, match=r"Unknown mask 'lesions'. Did you mean 'lesion'"):
        pointing_game(maps, {"lesion": jnp.ones((2, 4, 4))}, PointingGame(mask="lesions"))
    with pytest.raises(ValueError, match=r"got \(2, 4, 4, 1\), expected \(2, 4, 4\)"):
        relevance_mass(maps, jnp.ones((2, 4, 4, 1)))
    with pytest.raises(ValueError, match="Two masks by name are needed, 'evidence' and 'lesion'"):
        relevance_mass_given(maps, jnp.ones((2, 4, 4)))


@localisations
def test_in_one_program_with_its_map_a_metric_is_the_same(metric, rng):
    """XLA computes the map anew where it is compared, and rounds it otherwise than where its maximum is taken."""
    images, weights = rng.uniform(size=(64, 4, 4)).astype(np.float32), rng.normal(size=(1, 4, 4)).astype(np.float32)

    def explain(images):
        scale = jnp.sqrt(jnp.sum(images, (1, 2), keepdims=True))
        return jnp.abs(jnp.tanh(jnp.sum(images * weights, (1, 2), keepdims=True)) * weights + 0.5 / scale)

    masks = np.repeat(half("top"), len(images), 0)
    together = jax.jit(lambda x: metric(explain(x), masks), compiler_options={"xla_backend_optimization_level": 0})
    np.testing.assert_allclose(together(images), metric(np.asarray(explain(images)), masks), rtol=1e-5)
