import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import metrics, randomness
from robust_saliency.baselines import Baseline
from robust_saliency.metrics import (
    Deletion,
    Insertion,
    auc,
    blind,
    deletion_curve,
    fractions,
    insertion_curve,
    rank_order,
)

SIDE, CHANNELS = 4, 2
PIXELS = SIDE * SIDE
# Dyadic weights: every sum is exact in float32, so curves can be compared bitwise.
weights = np.random.default_rng(3).permutation(np.arange(1, PIXELS + 1)).reshape(SIDE, SIDE) / 32.0


def linear(images):
    """Two classes, the second scoring ``sum_i w_i x_i`` over the first channel."""
    score = jnp.sum(images[..., 0] * jnp.asarray(weights, images.dtype)[None], axis=(1, 2))
    return jnp.stack([jnp.zeros_like(score), score], axis=-1)


def softly(images):
    return linear(images) - 2.0


def batch_of(size):
    return jnp.ones((size, SIDE, SIDE, CHANNELS)), jnp.ones(size, jnp.int32)


# Many small programs: they are compiled without optimisation, which test_metrics.py runs with.
compiled = {
    curve: jax.jit(curve, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})
    for curve in (deletion_curve, insertion_curve)
}


def perturb(curve, spec, maps, images=None, logits_fn=linear, key=None, labels=None):
    images = batch_of(len(maps))[0] if images is None else images
    labels = batch_of(len(maps))[1] if labels is None else labels
    key = jax.random.key(0) if key is None else key
    return np.asarray(compiled[curve](logits_fn, key, images, labels, jnp.asarray(maps, images.dtype), spec))


optimal = weights[None].astype(np.float32)
logit = Deletion(score="logit", points=PIXELS + 1)
insertion_of_logit = Insertion(score="logit", points=PIXELS + 1)


def test_deletion_of_a_linear_model_in_closed_form():
    descending = np.sort(weights.ravel())[::-1]
    left = np.concatenate([[descending.sum()], descending.sum() - np.cumsum(descending)])
    curve = perturb(deletion_curve, logit, optimal)
    np.testing.assert_array_equal(curve[0], left.astype(np.float32))
    assert (np.diff(curve[0]) < 0).all()
    expected = ((left[1:] + left[:-1]) / 2).mean()
    np.testing.assert_allclose(auc(curve, PIXELS), [expected], rtol=1e-6)
    ranked = np.arange(PIXELS)
    by_hand = sum(w * (place + 0.5) for w, place in zip(descending, ranked, strict=True)) / PIXELS
    np.testing.assert_allclose(expected, by_hand)


def test_no_order_deletes_faster_than_the_optimal_one_or_slower_than_its_reverse(rng):
    maps = np.concatenate([optimal, 1 - optimal / 2, rng.uniform(size=(200, SIDE, SIDE)).astype(np.float32)])
    best, worst, *others = np.asarray(auc(perturb(deletion_curve, logit, maps), PIXELS))
    assert best < min(others) <= max(others) < worst


@pytest.mark.parametrize(("curve", "points"), [(deletion_curve, 2), (deletion_curve, 40), (insertion_curve, 11)])
def test_ends_are_the_scores_of_image_and_baseline_exactly(curve, points, rng):
    images = jnp.asarray(rng.integers(0, 5, (3, SIDE, SIDE, CHANNELS)) / 4, jnp.float32)
    maps = rng.normal(size=(3, SIDE, SIDE)).astype(np.float32)
    Spec = Deletion if curve is deletion_curve else Insertion
    spec = Spec(score="logit", points=points, baseline=Baseline(kind="white"))
    ends = [linear(images)[:, 1], linear(jnp.ones_like(images))[:, 1]]
    scores = perturb(curve, spec, maps, images)
    first, last = ends if curve is deletion_curve else ends[::-1]
    np.testing.assert_array_equal(scores[:, [0, -1]], np.stack([first, last], -1))


def test_intermediate_images_by_hand():
    """All channels of a position go at once, and the count is the rounded fraction of the positions."""
    seen = []

    def spy(images):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), images, ordered=True)
        return linear(images)

    images = jnp.arange(1, 7, dtype=jnp.float32).reshape(1, 1, 3, 2) / 8
    logits_fn = lambda x: spy(jnp.pad(x, ((0, 0), (0, 3), (0, 1), (0, 0))))  # noqa: E731
    maps = jnp.array([[[0.2, 0.9, -0.5]]])
    deletion_curve(logits_fn, jax.random.key(0), images, jnp.ones(1, jnp.int32), maps, Deletion(points=4))
    jax.effects_barrier()
    left = [x[0, 0, :3, :].any(-1).tolist() for x in seen]
    assert left == [[True, True, True], [True, False, True], [True, False, False], [False, False, False]]
    np.testing.assert_array_equal(seen[1][0, 0, [0, 2]], images[0, 0, [0, 2]])


def test_insertion_in_lerf_order_is_deletion_backwards():
    mirrored = perturb(insertion_curve, dataclasses.replace(insertion_of_logit, order="lerf"), optimal)[:, ::-1]
    np.testing.assert_array_equal(mirrored, perturb(deletion_curve, logit, optimal))


def test_halving_the_step_of_a_straight_curve_leaves_its_area():
    """Elsewhere the area is taken with steps of 1, so that halving the step doubles it."""
    areas = [float(auc(jnp.linspace(1.0, 0.0, points)[None], 100)[0]) for points in (6, 11, 21, 101)]
    np.testing.assert_allclose(areas, 0.5, rtol=1e-6)


def test_area_uses_the_fractions_that_were_deleted_not_the_ones_asked_for():
    asked = fractions(4, 5)
    np.testing.assert_allclose(asked, [0, 0.4, 0.6, 1.0])
    curve = jnp.asarray([[1.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(auc(curve, 5), [0.2], rtol=1e-6)
    np.testing.assert_allclose(auc(jnp.asarray(1 - asked[None], jnp.float32), 5), [0.5], rtol=1e-6)


def test_more_points_than_pixels_add_nothing():
    fine, exact = Deletion(score="logit", points=4 * PIXELS + 1), logit
    areas = [auc(perturb(deletion_curve, spec, optimal), PIXELS)[0] for spec in (fine, exact)]
    np.testing.assert_allclose(*areas, rtol=0.01)


def test_a_constant_map_deletes_in_random_order():
    """Expected score at fraction p is ``(1 - p) f(x)``; raster order would give one fixed curve, and 0 variance."""
    maps = np.full((2000, SIDE, SIDE), 0.3, np.float32)
    curve = np.asarray(perturb(deletion_curve, dataclasses.replace(logit, points=5), maps))
    expected = weights.sum() * (1 - fractions(5, PIXELS))
    np.testing.assert_allclose(curve.mean(0), expected, atol=4 * weights.std() * 2 / np.sqrt(2000))
    assert curve[:, 2].std() > 0.1


def test_ties_are_broken_by_the_example_not_by_the_batch(key):
    keys = randomness.per_example_keys(key, jnp.arange(6))
    maps = np.ones((6, SIDE, SIDE), np.float32)
    whole = np.asarray(perturb(deletion_curve, logit, maps, key=keys))
    pick = np.array([4, 1])
    np.testing.assert_array_equal(perturb(deletion_curve, logit, maps[pick], key=keys[pick]), whole[pick])
    assert len({row.tobytes() for row in whole}) == 6


def test_rank_order_is_a_permutation_that_respects_the_values(rng, key):
    maps = rng.integers(0, 4, (5, 6, 7)).astype(np.float32)
    rank = np.asarray(jax.jit(rank_order)(maps, key)).reshape(5, -1)
    for places, values in zip(rank, maps.reshape(5, -1), strict=True):
        np.testing.assert_array_equal(np.sort(places), np.arange(42))
        assert (np.diff(values[np.argsort(places)]) <= 0).all()


def test_every_order_of_ties_is_equally_likely():
    maps = np.zeros((6000, 1, 3), np.float32)
    ranks = np.asarray(rank_order(maps, jax.random.key(1))).reshape(-1, 3)
    _, counts = np.unique(ranks, axis=0, return_counts=True)
    assert len(counts) == 6
    np.testing.assert_allclose(counts, 1000, atol=150)


@pytest.mark.parametrize("exponent", [-8, 8])
def test_scale_does_not_matter(exponent, rng):
    maps = rng.integers(-9, 9, (4, SIDE, SIDE)).astype(np.float32)
    scaled = maps * np.float32(10.0**exponent)
    np.testing.assert_array_equal(perturb(deletion_curve, logit, scaled), perturb(deletion_curve, logit, maps))


def test_scores_by_hand():
    """With all pixels gone both logits are -2: the tie is class 0's, as for argmax, so allegiance is lost."""
    total = weights.sum()
    for score, whole, empty in [
        ("logit", total - 2, -2.0),
        ("probability", 1 / (1 + np.exp(-total)), 0.5),
        ("allegiance", 1.0, 0.0),
    ]:
        curve = perturb(deletion_curve, Deletion(score=score, points=2), optimal, logits_fn=softly)
        np.testing.assert_allclose(curve[0], [whole, empty], rtol=1e-5)


def test_allegiance_is_to_the_prediction_not_to_the_label_and_falls_where_the_argmax_changes():
    def threshold(images):
        return linear(images) - jnp.array([[0.0, weights.sum() / 2]])

    spec, wrong = Deletion(score="allegiance", points=PIXELS + 1), jnp.zeros(1, jnp.int32)
    curve = np.asarray(perturb(deletion_curve, spec, optimal, logits_fn=threshold, labels=wrong))
    left = perturb(deletion_curve, logit, optimal)[0]
    np.testing.assert_array_equal(curve[0], np.asarray(left > weights.sum() / 2, np.float32))
    assert curve[0, 0] == 1.0 and curve[0, -1] == 0.0


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_normalised_curves_go_from_one_to_zero_whatever_the_confidence(scale):
    spec = dataclasses.replace(logit, normalised=True)
    curve = perturb(deletion_curve, spec, optimal, logits_fn=lambda x: scale * (linear(x) + 0.25))
    plain = np.asarray(perturb(deletion_curve, logit, optimal))[0] / weights.sum()
    np.testing.assert_allclose(curve[0], plain, rtol=1e-5, atol=1e-6)
    inserted = perturb(insertion_curve, dataclasses.replace(insertion_of_logit, normalised=True), optimal)
    np.testing.assert_array_equal(inserted[0, [0, -1]], [0.0, 1.0])


def test_normalised_is_nan_where_the_baseline_scores_as_the_image():
    images = jnp.zeros((2, SIDE, SIDE, CHANNELS)).at[1].set(1.0)
    maps = np.repeat(optimal, 2, axis=0)
    curve = perturb(deletion_curve, dataclasses.replace(logit, normalised=True), maps, images)
    np.testing.assert_array_equal(np.isnan(curve).all(-1), [True, False])


def test_an_image_that_has_little_to_lose_would_outweigh_all_others():
    """Of SCAAT's study: one of 256 images fell by 3e-4, and its quotient of 82 was the mean's."""
    signs = np.ones((1, SIDE, SIDE, CHANNELS), np.float32)
    signs[:, SIDE // 2 :] = -1
    images = jnp.concatenate([jnp.maximum(signs, 0), jnp.ones_like(signs)]).at[1, 0, 0].add(1e-3)

    def cancelling(x):
        return jnp.stack([jnp.sum(x * signs, (1, 2, 3)), jnp.zeros(len(x))], 1)

    spec = dataclasses.replace(logit, normalised=True)
    plain, kept = (
        perturb(deletion_curve, each, np.repeat(optimal, 2, axis=0), images, cancelling, labels=jnp.zeros(2, jnp.int32))
        for each in (spec, dataclasses.replace(spec, least_change=0.1))
    )
    assert np.abs(plain[0]).max() <= 1 and np.abs(plain[1]).max() > 100
    np.testing.assert_array_equal(kept[0], plain[0])
    assert np.isnan(kept[1]).all()
    with pytest.raises(ValueError, match=r"0 unless the curve is normalised, got 0\.1"):
        Deletion(least_change=0.1)


def test_oracle_beats_random_and_the_mask_beats_its_complement(key):
    planted = np.zeros((SIDE, SIDE), np.float32)
    planted[1:3, 1:3] = 1.0

    def evidence(images):
        score = jnp.sum(images[..., 0] * planted[None], axis=(1, 2))
        return jnp.stack([-score, score], axis=-1)

    oracle = np.repeat(planted[None], 100, axis=0)
    noise = blind.random_map(key, (100, SIDE, SIDE))
    maps = jnp.concatenate([oracle, noise, 1 - oracle])
    for curve, spec, better in [(deletion_curve, Deletion(), np.less), (insertion_curve, Insertion(), np.greater)]:
        oracle_areas, noise_areas, worst_areas = auc(perturb(curve, spec, maps, logits_fn=evidence), PIXELS).reshape(
            3, -1
        )
        assert better(oracle_areas.mean(), noise_areas.mean()) and better(noise_areas.mean(), worst_areas.mean())
        assert better(oracle_areas, noise_areas).mean() > 0.95


def test_meaningless_maps_are_nan_and_counted():
    maps = np.repeat(optimal, 3, axis=0)
    maps[0], maps[1, 0, 0] = 0.0, np.nan
    curve = perturb(deletion_curve, logit, maps)
    np.testing.assert_array_equal(np.isnan(curve).all(-1), [True, True, False])
    assert metrics.count_nan(curve) == 2


def test_facts_follow_the_options():
    assert Deletion.direction == Deletion().direction == "lower"
    assert (Deletion(order="lerf").direction, Insertion(order="lerf").direction) == ("higher", "lower")
    assert Deletion.range == Deletion(score="allegiance").range == (0.0, 1.0)
    assert Deletion(score="logit").range == Insertion(normalised=True).range == (-np.inf, np.inf)


def test_mistakes_are_named():
    images, labels = batch_of(1)

    def call(maps=optimal, **fields):
        return deletion_curve(linear, jax.random.key(0), images, labels, jnp.asarray(maps), Deletion(**fields))

    with pytest.raises(ValueError, match=r"Unknown order 'more'. Did you mean 'morf'"):
        call(order="more")
    with pytest.raises(ValueError, match=r"Unknown score 'logits'. Did you mean 'logit'"):
        call(score="logits")
    with pytest.raises(ValueError, match="points must be at least 2, got 1"):
        call(points=1)
    with pytest.raises(ValueError, match=r"Maps must be \(1, 4, 4\) for images \(1, 4, 4, 2\), got \(1, 2, 2\)"):
        call(maps=np.ones((1, 2, 2), np.float32))
    with pytest.raises(ValueError, match="A curve of Deletion needs a spec of that kind, got Insertion"):
        deletion_curve(linear, jax.random.key(0), images, labels, jnp.asarray(optimal), Insertion())
