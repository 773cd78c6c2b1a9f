"""Similarities of two maps, against scipy, a loop over windows, and numbers worked out by hand."""

import collections
import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage, stats

from robust_saliency import metrics, types
from robust_saliency.metrics import SIMILARITIES
from robust_saliency.metrics.similarity import (
    SSIM,
    CentreShift,
    Kendall,
    Spearman,
    TopK,
    centre_shift,
    kendall,
    spearman,
    ssim,
    top_k_intersection,
)

BATCH, SHAPE = 5, (13, 17)
every_similarity = pytest.mark.parametrize("name", SIMILARITIES)
traces = collections.Counter()
small_maps = hnp.arrays(np.float32, (1, 3, 4), elements=st.sampled_from([0.0, 1.0, 2.0, 5.0]))
jit_spearman, jit_kendall, jit_ssim, jit_shift = (jax.jit(f) for f in (spearman, kendall, ssim, centre_shift))


@functools.cache
def compiled(name, **options):
    def traced(spec, first, second):
        traces[name] += 1
        return SIMILARITIES[name][1](first, second, spec)

    return functools.partial(jax.jit(traced), SIMILARITIES[name][0](**options))


def pair(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(BATCH, *SHAPE))
    return first.astype(dtype), (first + rng.normal(size=first.shape)).astype(dtype)


# The contract


@every_similarity
def test_a_spec_is_a_pytree_that_carries_the_facts_of_a_table(name):
    spec, function = SIMILARITIES[name]
    assert types.is_spec(spec) and jax.tree.leaves(spec()) == []
    assert spec.title and spec.direction in ("higher", "lower") and spec.range[0] < spec.range[1]
    assert inspect.getdoc(spec).splitlines()[0].endswith(".") and spec().sign == "abs"
    assert list(inspect.signature(function).parameters) == ["maps", "other_maps", "spec"]
    assert getattr(metrics, function.__name__) is function and getattr(metrics, spec.__name__) is spec


@every_similarity
def test_one_number_an_example_in_the_stated_range_and_symmetric(name):
    first, second = pair()
    values = np.asarray(compiled(name)(first, second))
    low, high = SIMILARITIES[name][0].range
    assert values.shape == (BATCH,) and values.dtype == np.float32 and len(np.unique(values)) > 1
    assert np.isfinite(values).all() and (values >= low).all() and (values <= high).all()
    np.testing.assert_allclose(compiled(name)(second, first), values, rtol=1e-5)


@every_similarity
def test_a_map_is_like_itself_also_when_tied_and_a_fresh_one_is_not(name):
    best = 0 if name == "centre_shift" else 1
    first, _ = pair()
    sparse = np.maximum(first - 1.5, 0)  # fewer than k pixels are not zero
    for maps in (first, sparse):
        np.testing.assert_allclose(compiled(name)(maps, maps), np.full(BATCH, best), atol=2e-6)
    fresh = np.asarray(compiled(name)(first, pair(7)[0]))
    assert (fresh > 0.1).all() if name == "centre_shift" else (fresh < 0.6).all()


@every_similarity
def test_neither_scale_nor_neighbours_nor_order_count(name):
    run, (first, second) = compiled(name), pair()
    values, order = np.asarray(run(first, second)), np.array([4, 0, 3, 1, 2])
    np.testing.assert_allclose(run(first * np.float32(1e8), -second * np.float32(1e-8)), values, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(run(first[order], second[order]), values[order], rtol=1e-6)
    np.testing.assert_allclose(run(first[2:3], second[2:3]), values[2:3], rtol=1e-6)


@every_similarity
@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_meaningless_map_is_nan_on_either_side_and_counted(name, bad):
    first, second = pair()
    if bad == 0:
        first[1], second[3] = 0, 0
    else:
        first[1, 2, 2], second[3, 0, 0] = bad, bad
    values = compiled(name)(first, second)
    np.testing.assert_array_equal(np.isnan(values), [False, True, False, True, False])
    assert metrics.count_nan(values) == 2


@every_similarity
def test_float64_in_float64_out_and_half_is_widened(name):
    first, second = pair()
    half = compiled(name)(jnp.asarray(first, jnp.bfloat16), jnp.asarray(second, jnp.bfloat16))
    assert half.dtype == jnp.float32
    with jax.enable_x64(True):
        wide = compiled(name)(first.astype(np.float64), second.astype(np.float64))
        assert wide.dtype == jnp.float64
    np.testing.assert_allclose(wide, compiled(name)(first, second), rtol=1e-4, atol=1e-5)


@every_similarity
def test_one_trace_when_only_the_data_change(name):
    run = compiled(name)
    run(*pair())
    before = traces[name]
    run(*pair(1))
    assert traces[name] == before > 0


@every_similarity
def test_two_shapes_are_refused(name):
    with pytest.raises(ValueError, match=r"Two maps of one shape are compared, got \(1, 13, 17\) and \(1, 17, 13\)"):
        SIMILARITIES[name][1](jnp.ones((1, 13, 17)), jnp.ones((1, 17, 13)))


# Top-k


def test_top_k_by_hand():
    first, second = np.float32([[[9, 8, 7], [1, 2, -6]]]), np.float32([[[9, 0, 7], [8, 1, 2]]])
    run = lambda k, **options: top_k_intersection(first, second, TopK(k=k, **options))[0]  # noqa: E731
    assert [float(run(k)) for k in (1, 2, 4, 6)] == [1.0, 0.5, 0.75, 1.0]
    assert float(run(4, sign="raw")) == 0.5
    with pytest.raises(ValueError, match="k must be 1 to 6"):
        run(7)


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float32, (1, 2, 3), elements=st.sampled_from([1.0, 2.0, 3.0])), st.permutations(range(1, 7)))
def test_with_one_map_tied_top_k_is_the_mean_over_the_orders_of_its_ties(tied, distinct):
    other, values = np.float32(distinct).reshape(1, 2, 3), tied.ravel()
    largest = set(np.argsort(-other.ravel())[:3])
    orders = [order for order in itertools.permutations(range(6)) if (np.diff(values[list(order)]) <= 0).all()]
    expected = np.mean([len(largest & set(order[:3])) / 3 for order in orders])
    found = jax.jit(lambda a, b: top_k_intersection(a, b, TopK(k=3)))(tied, other)
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_by_chance_top_k_is_k_over_n(rng):
    first, second = rng.uniform(size=(2, 400, *SHAPE)).astype(np.float32)
    np.testing.assert_allclose(np.mean(compiled("top_k_intersection", k=50)(first, second)), 50 / 221, atol=0.01)


# Spearman


@settings(max_examples=60, deadline=None)
@given(small_maps, small_maps)
def test_spearman_is_that_of_scipy_with_ties(first, second):
    assume(first.any() and second.any())
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert np.isnan(jit_spearman(first, second)[0])
    else:
        np.testing.assert_allclose(jit_spearman(first, second)[0], stats.spearmanr(first.ravel(), second.ravel())[0],
                                   rtol=1e-5, atol=1e-6)  # fmt: skip


def test_spearman_of_an_image_sized_map_keeps_its_digits(rng):
    first = rng.normal(size=(1, 224, 224)).astype(np.float32).round(3)
    second = (first + rng.normal(size=first.shape)).astype(np.float32)
    expected = stats.spearmanr(first.ravel(), second.ravel())[0]
    raw = jax.jit(lambda a, b: spearman(a, b, Spearman(sign="raw")))
    np.testing.assert_allclose(raw(first, second), [expected], rtol=1e-6)


def test_spearman_follows_order_alone_and_reaches_its_ends():
    ramp = np.arange(1, 13, dtype=np.float32).reshape(1, 3, 4)
    np.testing.assert_array_equal(jit_spearman(ramp, np.exp(ramp)), [1])
    np.testing.assert_array_equal(jit_spearman(ramp, 1 / ramp), [-1])
    assert np.isnan(jit_spearman(ramp, np.full_like(ramp, 0.3)))[0]


# Kendall


@settings(max_examples=60, deadline=None)
@given(small_maps, small_maps)
def test_kendall_is_that_of_scipy_with_ties(first, second):
    assume(first.any() and second.any())
    expected = stats.kendalltau(first.ravel(), second.ravel()).statistic
    assert np.isnan(expected) == (np.ptp(first) == 0 or np.ptp(second) == 0)
    np.testing.assert_allclose(jit_kendall(first, second)[0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("tied", [False, True])
def test_kendall_of_an_image_sized_map_keeps_its_digits_and_its_memory(tied, rng):
    """40 000 pixels have 8e8 pairs, 48 times what a float32 counts exactly; a table of them would take gigabytes."""
    first = rng.normal(size=(1, 200, 200)).astype(np.float32)
    second = (first + 3 * rng.normal(size=first.shape)).astype(np.float32)
    first, second = (first.round(1), second.round(0)) if tied else (first, second)
    program = jax.jit(lambda a, b: kendall(a, b, Kendall(sign="raw"))).lower(first, second).compile()
    expected = stats.kendalltau(first.ravel(), second.ravel()).statistic
    np.testing.assert_allclose(program(first, second), [expected], rtol=3e-6)
    assert program.memory_analysis().temp_size_in_bytes < 100 * first.nbytes


def test_kendall_follows_order_alone_reaches_its_ends_and_is_less_than_spearman_by_hand():
    ramp = np.arange(1, 13, dtype=np.float32).reshape(1, 3, 4)
    np.testing.assert_allclose(jit_kendall(ramp, np.exp(ramp)), [1], rtol=2e-7)
    np.testing.assert_allclose(jit_kendall(ramp, 1 / ramp), [-1], rtol=2e-7)
    assert np.isnan(jit_kendall(ramp, np.full_like(ramp, 0.3)))[0]
    # 1 2 3 4 against 1 3 4 2: two of six pairs turned; tied 1 2 2 3 against 1 2 3 4: five of five, over sqrt(5 * 6)
    four, turned, tied = np.float32([[[1, 2, 3, 4]]]), np.float32([[[1, 3, 4, 2]]]), np.float32([[[1, 2, 2, 3]]])
    np.testing.assert_allclose(jit_kendall(four, turned), [2 / 6], rtol=1e-6)
    np.testing.assert_allclose(jit_kendall(tied, four), [5 / np.sqrt(30)], rtol=1e-6)


def test_single_pixels_by_hand():
    """Two other pixels of n: of two maps of one 1 each, both coefficients are that of a fourfold table, -1/(n - 1)."""
    first, second = np.zeros((2, 1, 3, 4), np.float32)
    first[0, 0, 1], second[0, 2, 3] = 5, 0.1
    for similarity in (jit_spearman, jit_kendall):
        np.testing.assert_allclose(similarity(first, second), [-1 / 11], rtol=1e-5)
        np.testing.assert_allclose(similarity(first, 7 * first), [1], rtol=1e-6)
    top = jax.jit(lambda a, b: top_k_intersection(a, b, TopK(k=1)))
    np.testing.assert_array_equal([top(first, second), top(first, first)], [[0], [1]])


def test_of_random_maps_the_coefficients_have_the_deviation_of_independence(rng):
    first, second = rng.uniform(size=(2, 1500, 4, 5)).astype(np.float32)
    for similarity, variance in ((jit_spearman, 1 / 19), (jit_kendall, 2 * (2 * 20 + 5) / (9 * 20 * 19))):
        values = np.asarray(similarity(first, second))
        assert abs(values.mean()) < 4 * np.sqrt(variance / len(values))
        np.testing.assert_allclose(values.std(), np.sqrt(variance), rtol=0.1)


# SSIM


def ssim_by_windows(a, b, data_range):
    """Every window on its own, centred moments, in float64."""
    a, b = (np.abs(m).astype(np.float64) if data_range == 1 else m.astype(np.float64) for m in (a, b))
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2, values = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2, []
    for row, column in itertools.product(range(a.shape[0] - 10), range(a.shape[1] - 10)):
        x, y = (m[row : row + 11, column : column + 11] for m in (a, b))
        mx, my = (weights * x).sum(), (weights * y).sum()
        vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
        cov = (weights * (x - mx) * (y - my)).sum()
        values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return np.mean(values)


@pytest.mark.parametrize(("sign", "data_range"), [("abs", 1), ("raw", 2)])
def test_ssim_is_that_of_a_loop_over_windows(sign, data_range):
    first, second = pair()
    first[1], second[1] = ndimage.gaussian_filter(first[1], 3), ndimage.gaussian_filter(second[1], 3)
    second[2] = -first[2]
    expected = [ssim_by_windows(a, b, data_range) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(compiled("ssim", sign=sign)(first, second), expected, atol=5e-6)
    assert (expected[2] == pytest.approx(1)) == (sign == "abs")


def test_ssim_of_constant_maps_by_hand():
    """Of windows without variance only the means count: a corner pixel, out of all windows but one, sets the scale."""
    first, second = np.full((1, 30, 30), 0.5, np.float32), np.full((1, 30, 30), 0.25, np.float32)
    np.testing.assert_allclose(jit_ssim(first, second), [1], rtol=1e-6)
    first[0, 0, 0] = second[0, 0, 0] = 1
    bulk = (2 * 0.5 * 0.25 + 1e-4) / (0.5**2 + 0.25**2 + 1e-4)
    np.testing.assert_allclose(jit_ssim(first, second), [bulk], atol=1e-3)


def test_ssim_needs_room_for_a_window():
    assert np.isfinite(jit_ssim(np.eye(11, dtype=np.float32)[None], np.eye(11, dtype=np.float32)[None, ::-1]))
    with pytest.raises(ValueError, match="SSIM needs maps of at least 11x11 pixels, got 10x12"):
        ssim(jnp.ones((1, 10, 12)), jnp.ones((1, 10, 12)))


# Centre shift


def test_centre_shift_by_hand():
    first, second = np.zeros((2, 4, 5), np.float32), np.zeros((2, 4, 5), np.float32)
    first[:, 0, 0] = 2
    second[0, 3, 4], second[1, 0, 1], second[1, 2, 1] = 1, 3, 1
    expected = [5, np.hypot(0.5, 1)]
    np.testing.assert_allclose(jit_shift(first, second), expected, rtol=1e-6)
    share = jax.jit(lambda a, b: centre_shift(a, b, CentreShift(unit="diagonal")))
    np.testing.assert_allclose(share(first, second), np.divide(expected, 5), rtol=1e-6)
    assert CentreShift.range == (0, np.inf) and CentreShift(unit="diagonal").range == (0, 1)
    assert CentreShift(unit="diagonal").title != CentreShift.title


def test_centre_shift_is_that_of_scipy():
    first, second = pair()
    centres = [[ndimage.center_of_mass(np.abs(m)) for m in maps] for maps in (first, second)]
    np.testing.assert_allclose(jit_shift(first, second), np.linalg.norm(np.subtract(*centres), axis=-1), rtol=1e-4)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match=r"Unknown unit 'pixel'. Did you mean 'pixels'"):
        CentreShift(unit="pixel")
    with pytest.raises(ValueError, match="got sign='raw', expected abs, positive or negative"):
        CentreShift(sign="raw")
    with pytest.raises(ValueError, match="Unknown sign 'absolute'"):
        SSIM(sign="absolute")
