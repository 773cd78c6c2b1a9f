"""The examples that activate a unit most: against sorting by hand, under ties, NaN, padding and any division."""

import jax
import numpy as np
import pytest

from robust_saliency import neurons

top = jax.jit(neurons.top, static_argnums=2)
IDS = np.array([40, 7, 19, 3, 25, 11], np.int32)


def expected(activations, ids, k):
    """``(value, id, row, column)`` of the top k of one unit, in Python."""
    rows = []
    for example, number in zip(activations, ids, strict=True):
        if not np.isnan(example).all():
            row, column = np.unravel_index(np.nanargmax(example), example.shape)
            rows.append((-example[row, column], number, row, column))
    return [(-value, *others) for value, *others in sorted(rows)][:k]


def check(found, activations, ids, k):
    for unit in range(activations.shape[-1]):
        rows = expected(activations[..., unit], ids, k)
        rows += [(np.nan, -1, -1, -1)] * (k - len(rows))
        got = [
            (v, i, *p) for v, i, p in zip(*(np.asarray(array[unit]) for array in found[:3]), strict=True)
        ]  # fmt: skip
        np.testing.assert_array_equal(np.array(got, np.float64), np.array(rows, np.float64))


@pytest.fixture
def activations(rng):
    """Few different values, so that there are ties in an example and between examples."""
    return rng.integers(-2, 3, (6, 3, 4, 5)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 4, 8])
def test_against_sorting_by_hand(activations, k):
    activations[2, :, :, 1] = np.nan
    activations[4, 1, 2, 1] = np.nan
    check(top(activations, IDS, k), activations, IDS, k)


def test_neither_the_order_nor_the_division_into_batches_counts(activations):
    whole = top(activations, IDS, 3)
    order = [5, 2, 0, 4, 1, 3]
    jax.tree.map(np.testing.assert_array_equal, top(activations[order], IDS[order], 3), whole)
    parts = [top(activations[part], IDS[part], 3) for part in (slice(0, 2), slice(2, 4), slice(4, 6))]
    merge = jax.jit(neurons.merge)
    for first, second, third in (parts, parts[::-1]):
        jax.tree.map(np.testing.assert_array_equal, merge(merge(first, second), third), whole)


def test_padding_is_no_example(activations):
    valid = np.array([True, False, True, True, False, True])
    found = top(activations, IDS, 5, valid)
    jax.tree.map(np.testing.assert_array_equal, found, top(activations[valid], IDS[valid], 5))
    nobody = top(activations, IDS, 2, np.zeros(6, bool))
    assert (nobody.ids == -1).all() and np.isnan(nobody.rest).all() and not nobody.activated.any()
    some = top(activations, IDS, 2)
    for pair in ((nobody, some), (some, nobody)):
        jax.tree.map(np.testing.assert_array_equal, neurons.merge(*pair), some)


def test_examples_that_leave_a_unit_at_rest_do_not_activate_it():
    """Pure: two of four examples; silent but once; dead at any value. All of them have a top three."""
    activations = np.zeros((4, 2, 2, 4), np.float32)
    activations[1, 0, 1, 0], activations[3, 1, 1, 0] = 2.0, 1.0
    activations[2, 1, 0, 1] = 0.5
    activations[..., 3] = 0.7
    found = top(activations, np.arange(4), 3)
    np.testing.assert_array_equal(found.ids, [[1, 3, 0], [2, 0, 1], [0, 1, 2], [0, 1, 2]])
    np.testing.assert_array_equal(found.activated.sum(1), [2, 1, 0, 0])
    np.testing.assert_allclose(found.rest, [0, 0, 0, 0.7])


def test_crops_show_the_pixels_of_the_image_around_the_box(rng):
    images = rng.uniform(size=(3, 9, 8, 2)).astype(np.float32)
    boxes = np.array([[2, 3, 5, 6], [0, 0, 2, 1], [7, 2, 9, 8]])
    found = jax.jit(neurons.crops, static_argnums=2)(images, boxes, (3, 4))
    for image, crop, (row, column) in zip(images, found, ((2, 2), (0, 0), (6, 3)), strict=True):
        np.testing.assert_array_equal(crop, image[row : row + 3, column : column + 4])


def test_what_will_not_do_is_one_sentence(activations, rng):
    with pytest.raises(ValueError, match=r"top\.k must be at least 1, got 0"):
        top(activations, IDS, 0)
    with pytest.raises(ValueError, match=r"Batch sizes differ: activations 6, ids 5"):
        top(activations, IDS[:5], 1)
    with pytest.raises(ValueError, match=r"Tops of one layer and one k are merged, got \(5, 1\) and \(5, 2\)"):
        neurons.merge(top(activations, IDS, 1), top(activations, IDS, 2))
    with pytest.raises(ValueError, match=r"A crop of 9x2 does not fit images of 8x8"):
        neurons.crops(np.zeros((1, 8, 8, 3)), np.zeros((1, 4), int), (9, 2))
