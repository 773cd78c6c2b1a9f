"""Metrics that change an image's pixels: each against a linear network, where everything is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import scipy.stats

from robust_saliency import metrics, randomness
from robust_saliency.baselines import Baseline
from robust_saliency.metrics import (
    Allegiance,
    Completeness,
    EffectiveComplexity,
    FaithfulnessCorrelation,
    Infidelity,
    Monotonicity,
    Road,
    imputation,
)
from robust_saliency.metrics.infidelity import random_squares
from robust_saliency.metrics.subsets import random_set

BATCH, SIDE, CHANNELS = 3, 6, 2
PIXELS = SIDE * SIDE
FRACTIONS = np.array([0, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])  # of the allegiance's curve
weights = np.random.default_rng(2).normal(size=(SIDE, SIDE, CHANNELS)).astype(np.float32)


def logits_fn(images):
    """Two classes; the second scores ``<w, x>``."""
    score = jnp.sum(images * jnp.asarray(weights, images.dtype)[None], axis=(1, 2, 3))
    return jnp.stack([jnp.zeros_like(score), score], axis=-1)


@pytest.fixture
def images(rng):
    return rng.uniform(0.1, 0.9, (BATCH, SIDE, SIDE, CHANNELS)).astype(np.float32)


labels = np.ones(BATCH, np.int32)
gradient = np.repeat(weights.sum(-1)[None], BATCH, 0)


def score(spec, images, maps, logits_fn=logits_fn, key=None):
    key = randomness.per_example_keys(jax.random.key(0), jnp.arange(len(images))) if key is None else key
    given = {"key": key, "images": jnp.asarray(images), "labels": labels[: len(images)], "maps": jnp.asarray(maps)}
    return np.asarray(jax.jit(lambda given, spec: metrics.run(spec, logits_fn=logits_fn, **given))(given, spec))


def attribution(images, black=0.0):
    return np.sum((images - black) * weights, -1)


# Completeness


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_the_attribution_of_a_linear_network_is_complete(value, images):
    """Elsewhere completeness is asked for with ``==``, and is False of the exact attribution."""
    spec = Completeness(baseline=Baseline(kind="constant", value=value))
    np.testing.assert_allclose(score(spec, images, attribution(images, value)), 0, atol=1e-4)
    np.testing.assert_allclose(score(spec, images, 3 * attribution(images, value)), 2, rtol=1e-3)


def test_completeness_has_no_meaning_where_the_score_does_not_rise(images):
    np.testing.assert_array_equal(
        score(Completeness(baseline=Baseline(kind="blur", blur_sigma=0.0)), images, gradient), [np.nan] * 3
    )


# Infidelity


def test_the_gradient_of_a_linear_network_foretells_every_change(images):
    """Elsewhere tiles are set to black one after another and no perturbation is drawn at all."""
    unit = np.var(gradient[0]) * 0.1**2
    assert (score(Infidelity(), images, gradient) < 1e-6 * unit + 1e-9).all()
    assert (score(Infidelity(perturbation="squares", most_side=3), images, attribution(images)) < 1e-9).all()


def test_infidelity_of_twice_the_gradient_is_the_variance_of_the_change(images):
    """``(2 d - d)^2`` on average is ``sigma^2 |w|^2``, with w summed over the channels."""
    spec = Infidelity(num_samples=4000, sigma=0.05)
    expected = 0.05**2 * np.sum(gradient[0] ** 2)
    np.testing.assert_allclose(score(spec, images, 2 * gradient), expected, rtol=0.1)
    np.testing.assert_allclose(
        score(Infidelity(num_samples=4000, sigma=0.05, scaling="best"), images, 2 * gradient), 0, atol=1e-6 * expected
    )


def test_the_share_that_a_map_cannot_foretell_is_what_is_not_along_the_gradient(images):
    """A map at angle t to the gradient foretells cos(t)^2 of the change's variance, whatever the scale of either."""
    other = np.random.default_rng(5).normal(size=gradient.shape).astype(np.float32)
    cosine = np.sum(other * gradient, (1, 2)) / np.sqrt(np.sum(other**2, (1, 2)) * np.sum(gradient**2, (1, 2)))
    share = Infidelity(num_samples=4000, scaling="share")
    found = score(share, images, other)
    np.testing.assert_allclose(found, 1 - cosine**2, atol=0.05)
    np.testing.assert_allclose(score(share, images, 1e-8 * other, lambda x: 100 * logits_fn(x)), found, rtol=1e-3)


@pytest.mark.parametrize("most_side", [4, 5, 8, 100])
def test_squares_need_not_divide_the_image_nor_fit_it(most_side, images):
    """Elsewhere patches that do not divide the image end with an error."""
    spec = Infidelity(perturbation="squares", most_side=most_side)
    assert (score(spec, images, attribution(images)) < 1e-9).all()
    assert (score(spec, images, 2 * attribution(images)) > 1e-3).all()


def test_squares_are_of_every_size_and_reach_every_pixel():
    """Of side 1 to 3 alike often, and each evenly among the places where it fits."""
    squares = np.asarray(random_squares(jax.random.key(0), (6000, 5, 4), 3))
    sides = np.sqrt(squares.sum((1, 2)))
    counts = [np.sum(sides == side) for side in (1, 2, 3)]
    assert sum(counts) == 6000
    np.testing.assert_allclose(counts, 2000, atol=150)
    threes = squares[sides == 3]
    corners = np.stack([threes.any(2).argmax(1), threes.any(1).argmax(1)], -1)
    _, places = np.unique(corners, axis=0, return_counts=True)
    np.testing.assert_allclose(places, counts[2] / 6, rtol=0.2)


# Faithfulness correlation


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_faithfulness_correlation_of_a_linear_network(fraction, images):
    spec = FaithfulnessCorrelation(fraction=fraction)
    np.testing.assert_allclose(score(spec, images, attribution(images)), 1, atol=1e-4)
    np.testing.assert_allclose(score(spec, images, -5 * attribution(images)), -1, atol=1e-4)


def test_faithfulness_correlation_tends_to_that_of_the_pixels(images):
    """Sets of one size: the correlation of sums over sets is the correlation of the pixels themselves."""
    other = np.random.default_rng(5).normal(size=gradient.shape).astype(np.float32)
    truth = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(other, attribution(images), strict=True)]
    found = score(FaithfulnessCorrelation(num_samples=2000), images, other)
    np.testing.assert_allclose(found, truth, atol=0.08)


@pytest.mark.parametrize(("fraction", "size"), [(0.0, 1), (0.2, 7), (1.0, 36)])
def test_sets_have_their_size_and_every_pixel_its_chance(fraction, size):
    sets = np.asarray(jax.jit(lambda key: random_set(key, (3000, SIDE, SIDE), fraction))(jax.random.key(0)))
    np.testing.assert_array_equal(sets.sum((1, 2)), size)
    np.testing.assert_allclose(sets.mean(0), size / 36, atol=0.04)
    assert len(np.unique(sets.reshape(3000, -1), axis=0)) > 30 * (size < 36)


def test_faithfulness_correlation_of_a_constant_map_has_no_meaning(images):
    assert np.isnan(score(FaithfulnessCorrelation(), images, np.full(gradient.shape, 0.7, np.float32))).all()
    blind = lambda x: 0 * logits_fn(x)  # noqa: E731
    assert np.isnan(score(FaithfulnessCorrelation(), images, gradient, blind)).all()


# Monotonicity


def test_patches_are_ranked_by_the_effect_that_noise_has_on_them(images):
    """The mean square of ``<w_p, x_p - n>`` over patch p is ``|w_p|^2 / 12 + <w_p, x_p - 1/2>^2``."""
    spec = Monotonicity(patch=2, num_samples=400, score="logit")
    patches = lambda v: v.reshape(-1, 3, 2, 3, 2).sum((2, 4))  # noqa: E731
    effect = patches((weights**2).sum(-1)[None]) / 12 + patches(((images - 0.5) * weights).sum(-1)) ** 2
    maps = np.repeat(np.repeat(effect, 2, 1), 2, 2).astype(np.float32)
    assert (score(spec, images, maps) > 0.9).all()
    np.testing.assert_allclose(score(spec, images, 1 / maps), -score(spec, images, maps), atol=1e-6)


def test_not_every_map_is_monotone(images):
    """Elsewhere the baseline is put in the place of the baseline, and every map is."""
    spec = Monotonicity(patch=2, num_samples=20, score="logit")
    maps = np.random.default_rng(7).uniform(size=(BATCH, SIDE, SIDE)).astype(np.float32)
    values = np.concatenate([score(spec, images, np.roll(maps, k, 1)) for k in range(4)])
    assert values.min() < 0 < values.max()


def test_patches_that_do_not_fill_the_image_are_smaller(images):
    spec = Monotonicity(patch=4, num_samples=2)
    assert np.isfinite(score(spec, images, np.abs(gradient))).all()
    assert np.isnan(score(Monotonicity(patch=6), images, np.abs(gradient))).all(), "one patch has no rank"


# Effective complexity


def test_effective_complexity_counts_the_pixels_that_are_needed(images):
    """A network that reads four pixels, and a map that knows them, one that does not, and one that is nearly zero."""
    read = np.zeros((SIDE, SIDE), np.float32)
    read[1:3, 1:3] = 1

    def four(images):
        score = jnp.sum(images[..., 0] * read[None], axis=(1, 2))
        return jnp.stack([0 * score, score], -1)

    rest = np.random.default_rng(0).uniform(0, 0.1, (BATCH, SIDE, SIDE)).astype(np.float32)
    spec = EffectiveComplexity(points=SIDE * SIDE + 1, tolerated=1e-6, score="logit")
    np.testing.assert_allclose(score(spec, images, read + rest, four), 4 / 36, rtol=1e-6)
    np.testing.assert_allclose(score(spec, images, 1 - read + rest, four), 1, rtol=1e-6)
    np.testing.assert_allclose(score(EffectiveComplexity(tolerated=1e3, score="logit"), images, read + rest, four), 0)


# Allegiance


def in_numpy(logits, maps, images, value):
    """The published protocol, written down again as the authors' loop."""
    curve = []
    for fraction in FRACTIONS:
        kept = []
        for image, values in zip(images, maps, strict=True):
            threshold = np.sort(values.ravel())[::-1][round(fraction * values.size)]
            deleted = image.copy()
            deleted[(values > threshold) & (values != 0)] = value
            kept.append(np.argmax(logits(deleted[None])[0]) == np.argmax(logits(image[None])[0]))
        curve.append(kept)
    return np.trapezoid(np.array(curve, float), FRACTIONS, axis=0)


@pytest.mark.parametrize(("colour", "value"), [("black", 0.0), ("white", 1.0)])
def test_allegiance_is_the_published_protocol(colour, value, rng):
    images = rng.uniform(size=(20, SIDE, SIDE, CHANNELS)).astype(np.float32)
    maps = np.abs(rng.normal(size=(20, SIDE, SIDE))).round(1).astype(np.float32)
    maps[:, :2] = 0  # pixels that never go
    expected = in_numpy(lambda x: np.asarray(logits_fn(x)), maps, images, value)
    spec = Allegiance(colour=colour)
    given = jax.jit(lambda x, m: metrics.allegiance_auc(logits_fn, x, m, spec))(images, maps)
    np.testing.assert_allclose(given, expected, atol=1e-6)
    assert 0 < np.mean(expected) < 0.9


def test_a_constant_map_paints_nothing(images):
    np.testing.assert_allclose(score(Allegiance(), images, np.ones_like(gradient)), 0.9, rtol=1e-6)


# ROAD


def exact(image, removed):
    """The system of the source, solved directly."""
    places = np.argwhere(removed)
    number = {tuple(place): k for k, place in enumerate(places)}
    matrix, right = scipy.sparse.lil_matrix((len(places),) * 2), np.zeros((len(places), image.shape[-1]))
    for (row, column), k in number.items():
        for down in (-1, 0, 1):
            for along in (-1, 0, 1):
                place = row + down, column + along
                if (down, along) == (0, 0) or not all(0 <= p < s for p, s in zip(place, removed.shape, strict=True)):
                    continue
                weight = 1 / 12 if down and along else 1 / 6
                matrix[k, k] += weight
                if place in number:
                    matrix[k, number[place]] -= weight
                else:
                    right[k] += weight * image[place]
    filled = image.copy()
    filled[removed] = scipy.sparse.linalg.spsolve(matrix.tocsc(), right).reshape(right.shape)
    return filled


def test_imputed_pixels_solve_the_system_of_their_neighbours(rng):
    """Scattered pixels, and one hole of most of the image; three channels share the matrix."""
    side = 20
    images = rng.uniform(size=(4, side, side, 3)).astype(np.float32)
    centre = np.hypot(*np.mgrid[:side, :side] - side / 2 + 0.5)
    removed = np.stack([rng.random((side, side)) < 0.3, rng.random((side, side)) < 0.9, centre < 9, centre > 4])
    filled = np.asarray(jax.jit(imputation.linear)(images, removed))
    for image, gone, found in zip(images, removed, filled, strict=True):
        np.testing.assert_allclose(found, exact(image, gone), atol=1e-4)
        np.testing.assert_array_equal(found[~gone], image[~gone])


@pytest.mark.parametrize("side", [40, 64])
def test_what_is_solved_stays_solved(side, rng):
    """Scattered pixels are solved in some twenty of the hundreds of steps, and no mean leaves its neighbours."""
    images = rng.uniform(0.3, 0.7, size=(16, side, side, 1)).astype(np.float32)
    removed = rng.random((16, side, side)) < np.linspace(0.05, 0.9, 16)[:, None, None]
    filled = np.asarray(jax.jit(imputation.linear)(images, removed))
    assert filled.min() >= 0.3 - 1e-4 and filled.max() <= 0.7 + 1e-4
    for at in (0, 8, 15):
        np.testing.assert_allclose(filled[at], exact(images[at], removed[at]), atol=1e-4)


def test_an_image_of_which_nothing_is_left_is_nan_and_one_of_one_pixel_is_that_pixel():
    images = np.random.default_rng(0).uniform(size=(2, 5, 5, 3)).astype(np.float32)
    removed = np.ones((2, 5, 5), bool)
    removed[1, 2, 3] = False
    filled = np.asarray(imputation.linear(images, removed))
    assert np.isnan(filled[0]).all()
    np.testing.assert_allclose(filled[1], np.broadcast_to(images[1, 2, 3], (5, 5, 3)), atol=1e-5)


def test_the_noise_is_on_imputed_pixels_only_and_of_its_deviation():
    images, removed = np.full((50, 8, 8, 3), 0.5, np.float32), np.zeros((50, 8, 8), bool)
    removed[:, 2:5] = True
    noisy = np.asarray(imputation.noisy_linear(jax.random.key(0), images, removed, 0.03))
    np.testing.assert_array_equal(noisy[~removed], 0.5)
    np.testing.assert_allclose(noisy[removed].std(), 0.03, rtol=0.05)


def test_road_of_one_planted_pixel(images):
    """The class hangs on one pixel: MoRF loses it at once, LeRF never; between them lies half a point."""

    def one(images):
        return jnp.stack([jnp.full(len(images), 1.0), 10 * images[:, 2, 3, 0] - 4], -1)

    lit = np.full_like(images, 0.2)
    lit[:, 2, 3] = 1.0
    maps = np.random.default_rng(0).uniform(0, 0.1, gradient.shape).astype(np.float32)
    maps[:, 2, 3] = 1.0
    specs = {order: Road(order=order, points=3) for order in ("morf", "lerf", "combined")}
    given = {"key": jax.random.key(0), "images": lit, "labels": labels}
    road = jax.jit(lambda maps: metrics.measure(specs, logits_fn=one, maps=maps, **given)[0])
    for order_of, expected in ((maps, (0, 1, 0.5)), (1 / maps, (1, 0, -0.5))):
        values = road(order_of)
        for order, value in zip(specs, expected, strict=True):
            np.testing.assert_allclose(values[order], value, atol=1e-6)


def test_road_takes_all_channels_and_any_batch(rng):
    """Elsewhere three channels raise an error and only the first batch counts."""
    images = rng.uniform(size=(BATCH, SIDE, SIDE, CHANNELS)).astype(np.float32)
    curve = jax.jit(lambda x, m, k: metrics.road_curve(logits_fn, k, x, labels[: len(x)], m, Road(score="logit")))
    keys = randomness.per_example_keys(jax.random.key(0), jnp.arange(BATCH))
    whole = np.asarray(curve(images, gradient, keys))
    assert whole.shape == (BATCH, 9) and len(np.unique(whole)) == whole.size
    np.testing.assert_allclose(curve(images[2:], gradient[2:], keys[2:]), whole[2:], rtol=1e-5)


# One planted pixel, of which every metric knows what it must be


def planted_pixel(images):
    """The class 1 hangs on one pixel: its logit is 1 where it is lit, 0.2 like its neighbours, or 0."""
    value = images[:, 2, 3, 0]
    return jnp.stack([jnp.full_like(value, 0.5), value], -1)


ONE_PIXEL = {
    "deletion": metrics.Deletion(score="accuracy", points=PIXELS + 1),
    "insertion": metrics.Insertion(score="accuracy", points=PIXELS + 1),
    "road": Road(),
    "combined": Road(order="combined"),
    "allegiance": Allegiance(),
    "complexity": EffectiveComplexity(score="logit", tolerated=1e-3, points=PIXELS + 1),
    "infidelity": Infidelity(scaling="share"),
    "correlation": FaithfulnessCorrelation(),
    "monotonicity": Monotonicity(patch=2, num_samples=1, score="logit"),
    "completeness": Completeness(),
}
# The pixel has a rank R: any of 0 .. P - 1 alike often where the map is random, or tells no pixel from another.
OF_RANK = {
    "deletion": 1 / 2,  # area (R + 1/2) / P
    "insertion": 1 / 2,
    "road": np.mean(1 - np.round(np.arange(1, 10) / 10 * PIXELS) / PIXELS),  # R >= the number removed
    "combined": 0,
    "complexity": (PIXELS + 1) / 2 / PIXELS,  # the first R + 1
    # The squares of a map's cosines with the pixels sum to one; by chance a factor fits one of 32 draws.
    "infidelity": (1 - 1 / PIXELS) * (1 - 1 / 32),
}
EXPECTED = {
    "planted": {
        "deletion": 1 / 2 / PIXELS,
        "insertion": 1 - 1 / 2 / PIXELS,
        "road": 0,
        "combined": 1 / 2,
        "allegiance": 0.03 / 2,  # gone at the first of its fractions above 0
        "complexity": 1 / PIXELS,
        "infidelity": 0,
        "correlation": 1,
        "monotonicity": 1,
        "completeness": 0,
    },
    "constant": {
        **OF_RANK,
        "allegiance": 0.9,  # paints nothing
        "correlation": np.nan,
        "monotonicity": np.nan,
        "completeness": PIXELS - 1,
    },
    "random": {
        **OF_RANK,
        "allegiance": np.trapezoid(1 - np.round(PIXELS * FRACTIONS) / PIXELS, FRACTIONS),
        "correlation": 0,
        "monotonicity": 0,
        "completeness": PIXELS / 2 - 1,
    },
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_planted_pixel_is_found_by_a_map_of_it_and_by_others_as_often_as_chance_has_it(kind, rng):
    count = 800
    shape = (count, SIDE, SIDE)
    lit = np.full((*shape, 1), 0.2, np.float32)
    lit[:, 2, 3] = 1
    maps = {"planted": np.zeros(shape), "constant": np.ones(shape), "random": rng.uniform(size=shape)}[kind]
    maps[:, 2, 3] += kind == "planted"
    given = {
        "key": randomness.per_example_keys(jax.random.key(0), jnp.arange(count)),
        "images": lit,
        "labels": np.ones(count, np.int32),
        "maps": maps.astype(np.float32),
    }
    found, _ = jax.jit(lambda given: metrics.measure(ONE_PIXEL, logits_fn=planted_pixel, **given))(given)
    for label, expected in EXPECTED[kind].items():
        values = np.asarray(found[label], np.float64)
        np.testing.assert_array_equal(np.isnan(values), np.isnan(expected), err_msg=label)
        chance = values.std() / np.sqrt(count)
        rounding = 0.002 if label == "infidelity" else 1e-5  # its expected value is that of many draws
        assert np.isnan(expected) or abs(values.mean() - expected) <= 4 * chance + rounding, label


# Runs that metrics share


def test_scores_of_one_curve_share_its_run_and_each_is_what_it_is_alone(images):
    specs = {
        "probability": metrics.Deletion(points=4),
        "logit": metrics.Deletion(points=4, score="logit"),
        "normalised": metrics.Deletion(points=4, normalised=True),
        "other order": metrics.Deletion(points=4, order="lerf"),
        "other colour": metrics.Deletion(points=4, baseline=Baseline(kind="white")),
        "insertion": metrics.Insertion(points=4),
        "complexity": EffectiveComplexity(points=4),
        "road": Road(points=2),
        "combined": Road(points=2, order="combined", score="probability"),
        "gini": metrics.Gini(),
    }
    assert metrics.count_runs(specs.values()) == (10, 6)
    passes = []

    def counted(images):
        passes.append(1)
        return logits_fn(images)

    keys = randomness.per_example_keys(jax.random.key(0), jnp.arange(BATCH))
    given = {"key": keys, "images": images, "labels": labels, "maps": gradient}
    values, curves = jax.jit(lambda given: metrics.measure(specs, logits_fn=counted, **given))(given)
    assert len(passes) == 6, "one traced pass a run"
    assert set(curves) == set(specs) - {"gini", "complexity"}
    alone = jax.jit(lambda given: {k: metrics.run(spec, logits_fn=logits_fn, **given) for k, spec in specs.items()})
    for label, expected in alone(given).items():
        np.testing.assert_allclose(values[label], expected, atol=1e-6, err_msg=label)
    shares = metrics.curve_fractions(specs["road"], SIDE * SIDE)
    np.testing.assert_allclose(shares, [1 / 3, 2 / 3])
    assert metrics.curve_fractions(specs["gini"], 9) is None


# Mistakes


@pytest.mark.parametrize(
    ("spec", "fields", "message"),
    [
        (Road, {"order": "more"}, r"Unknown order 'more'. Did you mean 'morf'"),
        (Road, {"points": 0}, "Road.points must be at least 1, got 0"),
        (Allegiance, {"colour": "grey"}, r"Unknown colour 'grey'. Choices: black, white"),
        (Infidelity, {"score": "accuracy"}, r"Unknown score 'accuracy'. Choices: logit, probability"),
        (Infidelity, {"perturbation": "square"}, r"Unknown perturbation 'square'. Did you mean 'squares'"),
        (FaithfulnessCorrelation, {"num_samples": 1}, "num_samples must be at least 2, got 1"),
        (Monotonicity, {"patch": 0}, "Monotonicity.patch must be at least 1, got 0"),
        (Completeness, {"score": "accuracy"}, r"Unknown score 'accuracy'"),
        (EffectiveComplexity, {"order": "lerf"}, "counts the most relevant pixels: order='morf', got 'lerf'"),
    ],
)
def test_bad_fields(spec, fields, message):
    with pytest.raises(ValueError, match=message):
        spec(**fields)


@pytest.mark.parametrize(
    "spec", [Road(), Allegiance(), Infidelity(), FaithfulnessCorrelation(), Monotonicity(), Completeness()]
)
def test_maps_of_another_size_are_refused(spec, images):
    with pytest.raises(ValueError, match=r"Maps must be \(3, 6, 6\) for images \(3, 6, 6, 2\), got \(3, 5, 6\)"):
        score(spec, images, gradient[:, :5])
