"""Consistency of pure, mixed and dead units, and the tree behind the affinity, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import neurons
from robust_saliency.neurons import Affinity

PARENTS = {"dog": "animal", "cat": "animal", "animal": "thing", "car": "thing", "wheel": "car"}
NAMES = ("dog", "cat", "car")
DISTANCES = np.array([[0, 2, 3], [2, 0, 3], [3, 3, 0]])
# Of four units: pure, half dog and half cat, half dog and half car, dead (what its labels are does not count).
LABELS = np.array([[0, 0, 0, 0], [0, 1, 0, 1], [2, 0, 2, 0], [1, 1, 1, 1]], np.int32)
ACTIVATED = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]], bool)


def test_distances_in_a_tree():
    np.testing.assert_array_equal(neurons.tree_distances(NAMES, PARENTS), DISTANCES)
    ancestors = ("wheel", "car", "thing", "dog")
    expected = [[0, 1, 2, 4], [1, 0, 1, 3], [2, 1, 0, 2], [4, 3, 2, 0]]
    np.testing.assert_array_equal(neurons.tree_distances(ancestors, PARENTS), expected)


def test_consistency_of_planted_units():
    shares = jax.jit(neurons.class_distribution, static_argnums=2)(LABELS, ACTIVATED, 3)
    np.testing.assert_allclose(shares, [[1, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [np.nan] * 3])
    np.testing.assert_allclose(neurons.consistency(shares, jnp.eye(3)), [1, 0.5, 0.5, np.nan])
    near = jax.jit(neurons.affinity)(DISTANCES, Affinity(sigma=2.0))
    close, far = np.exp(-4 / 8), np.exp(-9 / 8)
    np.testing.assert_allclose(near, [[1, close, far], [close, 1, far], [far, far, 1]], rtol=1e-6)
    found = neurons.consistency(shares, near)
    np.testing.assert_allclose(found, [1, (1 + close) / 2, (1 + far) / 2, np.nan], rtol=1e-6)


def test_consistency_is_the_mean_affinity_of_two_examples(rng):
    labels = rng.integers(0, 5, (2, 7))
    given = rng.uniform(size=(5, 5)).astype(np.float32)
    shares = neurons.class_distribution(labels, np.ones((2, 7), bool), 5)
    expected = [np.mean([[given[i, j] for j in row] for i in row]) for row in labels]
    np.testing.assert_allclose(neurons.consistency(shares, given), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("names", "parents", "message"),
    [
        (("dog", "cta"), PARENTS, r"Unknown class in the hierarchy 'cta'\. Did you mean 'cat'\?"),
        (
            ("dog", "moon"),
            PARENTS | {"moon": "sky"},
            r"'dog' \(root 'thing'\) and 'moon' \(root 'sky'\) have no common",
        ),
        (("dog",), PARENTS | {"thing": "dog"}, r"goes in a circle above 'dog': dog -> animal -> thing -> dog\."),
    ],
)
def test_a_hierarchy_that_will_not_do_is_one_sentence(names, parents, message):
    with pytest.raises(ValueError, match=message):
        neurons.tree_distances(names, parents)


def test_shapes_that_will_not_do_are_one_sentence():
    with pytest.raises(ValueError, match=r"affinity must be \[3, 3\], one row a class, got \(2, 2\)"):
        neurons.consistency(np.ones((4, 3)) / 3, np.eye(2))
    with pytest.raises(ValueError, match=r"of the same examples \[U, k\], got \(4, 4\), \(4, 3\)"):
        neurons.class_distribution(LABELS, ACTIVATED[:, :3], 3)
    with pytest.raises(ValueError, match=r"^labels must lie in 0\.\.1, found 0\.\.2\.$"):
        neurons.class_distribution(LABELS, ACTIVATED, 2)
    with pytest.raises(ValueError, match=r"Affinity\.sigma must be above 0, got 0"):
        Affinity(sigma=0)
