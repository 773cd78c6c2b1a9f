import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import rankdata

from robust_saliency import ranks

tied_maps = hnp.arrays(np.float32, (2, 3, 4), elements=st.sampled_from([-2.0, -0.0, 0.0, 1.0, 1.5]))
jit_places, jit_centred, jit_order = (
    jax.jit(f) for f in (ranks.places, ranks.centred, lambda values: ranks.order(values).rank)
)
jit_concordance = jax.jit(ranks.concordance)
top_share = jax.jit(ranks.top_share, static_argnums=1)


def test_places_by_hand():
    first, last = jit_places(np.float32([[[5, 1], [3, 3]]]))
    np.testing.assert_array_equal(first, [[[3, 0], [1, 1]]])
    np.testing.assert_array_equal(last, [[[3, 0], [2, 2]]])


def test_order_by_hand():
    np.testing.assert_array_equal(jit_order(np.float32([[5, 1, 3, 3, -0.0, 0]])), [[5, 2, 3, 4, 0, 1]])
    np.testing.assert_array_equal(jit_order(np.float32([[np.nan, np.inf, -np.inf]])), [[2, 1, 0]])


@settings(max_examples=60, deadline=None)
@given(tied_maps)
def test_order_is_the_ordinal_rank_of_scipy(maps):
    values = maps.reshape(2, -1)
    np.testing.assert_array_equal(jit_order(values), rankdata(values, method="ordinal", axis=1) - 1)


@settings(max_examples=60, deadline=None)
@given(tied_maps)
def test_centred_ranks_are_the_average_ranks_of_scipy(maps):
    average = np.stack([rankdata(m).reshape(m.shape) for m in maps])
    np.testing.assert_array_equal(jit_centred(maps), 2 * average - 13)


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, (1, 2, 3), elements=st.sampled_from([0.0, 1.0, 2.0])), st.integers(1, 6))
def test_top_share_is_how_often_a_pixel_is_taken_when_ties_are_drawn(maps, k):
    values, taken = maps.ravel(), np.zeros(6)
    orders = [order for order in itertools.permutations(range(6)) if (np.diff(values[list(order)]) <= 0).all()]
    for order in orders:
        taken[list(order[:k])] += 1 / len(orders)
    np.testing.assert_allclose(np.ravel(top_share(maps, k)), taken, rtol=1e-5, atol=1e-6)


def test_top_share_without_ties_is_the_set_and_k_is_checked(rng):
    maps = rng.permutation(48).reshape(2, 4, 6).astype(np.float32)
    largest = np.sort(maps.reshape(2, -1))[:, -5:]
    expected = np.stack([np.isin(m, chosen) for m, chosen in zip(maps, largest, strict=True)])
    np.testing.assert_array_equal(top_share(maps, 5), expected)
    np.testing.assert_array_equal(top_share(maps, 24), np.ones_like(maps))
    for k in (0, 25):
        with pytest.raises(ValueError, match=rf"k must be 1 to 24, the pixels of a map of 4x6, got {k}"):
            ranks.top_share(jnp.asarray(maps), k)


def test_no_gradient_flows(rng):
    maps = jnp.asarray(rng.normal(size=(1, 3, 4)), jnp.float32)
    np.testing.assert_array_equal(jax.grad(lambda m: jnp.sum(ranks.top_share(m, 3) ** 2))(maps), np.zeros((1, 3, 4)))


def test_in_one_program_with_its_map_nothing_is_lost(rng):
    """XLA may compute the map once for the sort and once for a comparison, a last bit apart."""
    images, weights = rng.uniform(size=(64, 4, 4)).astype(np.float32), rng.normal(size=(1, 4, 4)).astype(np.float32)

    def explain(images):
        scale = jnp.sqrt(jnp.sum(images, (1, 2), keepdims=True))
        return jnp.abs(jnp.tanh(jnp.sum(images * weights, (1, 2), keepdims=True)) * weights + 0.5 / scale)

    together = jax.jit(lambda x: ranks.top_share(explain(x), 5), compiler_options={"xla_backend_optimization_level": 0})
    np.testing.assert_array_equal(together(images), top_share(np.asarray(explain(images)), 5))


@settings(max_examples=60, deadline=None)
@given(tied_maps)
def test_stable_ranks_are_those_of_a_stable_sort(maps):
    rank, ascending = jax.jit(ranks.stable)(maps)
    flat = maps.reshape(2, -1)
    order = np.argsort(flat, axis=1, kind="stable")
    expected = np.argsort(order, axis=1)
    np.testing.assert_array_equal(np.reshape(rank, (2, -1)), expected)
    np.testing.assert_array_equal(ascending, np.sort(flat, axis=1))


def test_stable_ranks_by_hand():
    rank, ascending = jax.jit(ranks.stable)(np.float32([[[5, 0, np.nan], [0, 3, 0]]]))
    np.testing.assert_array_equal(rank, [[[4, 0, 5], [1, 3, 2]]])
    np.testing.assert_array_equal(ascending, [[0, 0, 0, 3, 5, np.nan]])


@settings(max_examples=60, deadline=None)
@given(tied_maps, tied_maps)
def test_concordance_counts_every_pair(first, second):
    x, y = (np.sign(m.reshape(2, 12, 1) - m.reshape(2, 1, 12)) for m in (first, second))
    expected = [np.sum(values, (1, 2)) / 2 for values in (x * y, x != 0, y != 0)]
    for found, count in zip(jit_concordance(first, second), expected, strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, count)


def test_concordance_of_one_pixel_and_of_a_whole_example_alone(rng):
    one = np.ones((2, 1, 1), np.float32)
    np.testing.assert_array_equal(jit_concordance(one, one), np.zeros((3, 2)))
    first, second = rng.integers(0, 9, (2, 5, 3, 4)).astype(np.float32)
    whole = np.stack(jit_concordance(first, second))
    np.testing.assert_array_equal(np.stack(jit_concordance(first[3:4], second[3:4])), whole[:, 3:4])


@settings(max_examples=60, deadline=None)
@given(tied_maps, hnp.arrays(np.uint16, (2, 12), elements=st.sampled_from([0, 1, 2**16 - 1])))
def test_ties_go_by_lots_and_then_by_place(maps, lots):
    values = maps.reshape(2, -1)
    found = jax.jit(ranks.order)(values, lots)
    expected = np.stack([np.lexsort((lot, value)) for value, lot in zip(values, lots, strict=True)])
    np.testing.assert_array_equal(found.at, expected)
    np.testing.assert_array_equal(found.rank, np.argsort(expected, axis=1))
    np.testing.assert_array_equal(found.ascending, np.sort(values, axis=1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_any_numbers_in_rows_of_any_length(dtype, rng):
    """Rows above 2^16 entries, and numbers of 64 bits, are sorted in another way."""
    with jax.enable_x64(True):
        for count in (1, 2, 300, 2**16 + 2):
            values = (100 * rng.normal(size=(2, count))).astype(dtype)
            found = jax.jit(ranks.order)(values)
            expected = np.argsort(values, axis=1, kind="stable")
            np.testing.assert_array_equal(found.at, expected)
            np.testing.assert_array_equal(np.take_along_axis(np.asarray(found.rank), expected, 1)[1], np.arange(count))
            assert found.ascending.dtype == dtype
            np.testing.assert_array_equal(found.ascending, np.sort(values, axis=1))
            first, last = jax.jit(ranks.places)(values[:, :, None])
            for row, low, high in zip(values, first[..., 0], last[..., 0], strict=True):
                np.testing.assert_array_equal(low, rankdata(row.astype(float), "min") - 1)
                np.testing.assert_array_equal(high, rankdata(row.astype(float), "max") - 1)


def test_infinities_and_nan_and_the_least_numbers():
    tiny = np.float32(1e-45)
    values = np.float32([[np.nan, np.inf, tiny, 0, -np.inf, -tiny, -np.nan]])
    found = jax.jit(ranks.order)(values)
    np.testing.assert_array_equal(found.at, [[4, 5, 3, 2, 1, 0, 6]])
    first, last = jax.jit(ranks.places)(values[:, :, None])
    np.testing.assert_array_equal(first[0, :, 0], [5, 4, 3, 2, 0, 1, 5])
    np.testing.assert_array_equal(last[0, :, 0], [6, 4, 3, 2, 0, 1, 6])


def test_inside_shard_map_each_device_orders_its_rows(rng):
    rows = rng.normal(size=(8, 12)).astype(np.float32)
    mesh, split = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,)), jax.P("data")
    found = jax.jit(jax.shard_map(ranks.order, mesh=mesh, in_specs=split, out_specs=split))(rows)
    np.testing.assert_array_equal(found.at, np.argsort(rows, axis=1))


def test_of_explicit_axes_each_device_has_the_places_of_its_rows(rng):
    """Those of ``jax.make_mesh``, inside of ``jax.set_mesh`` or not."""
    mesh = jax.make_mesh((2,), ("d",))
    maps = rng.integers(0, 9, (4, 3, 5)).astype(np.float32)
    placed = jax.device_put(maps, jax.NamedSharding(mesh, jax.P("d")))
    for found, expected in zip(jit_places(placed), jit_places(maps), strict=True):
        np.testing.assert_array_equal(found, expected)
    with jax.set_mesh(mesh):
        np.testing.assert_array_equal(jit_centred(placed), jit_centred(maps))
