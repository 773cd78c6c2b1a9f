"""Rows of two trees, chosen one by one."""

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import rows


def test_each_row_of_each_leaf_comes_from_one_of_the_trees():
    these = {"flat": jnp.arange(3.0), "deep": (jnp.ones((3, 2, 2)), jnp.array([True, True, True]))}
    others = {"flat": -jnp.ones(3), "deep": (jnp.zeros((3, 2, 2)), jnp.array([False, False, False]))}
    found = jax.jit(rows.choose)(jnp.array([True, False, True]), these, others)
    np.testing.assert_array_equal(found["flat"], [0.0, -1.0, 2.0])
    np.testing.assert_array_equal(found["deep"][0].sum((1, 2)), [4.0, 0.0, 4.0])
    np.testing.assert_array_equal(found["deep"][1], [True, False, True])
