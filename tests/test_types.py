import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import types
from robust_saliency.types import Array, Scalar


@types.spec
class Inner:
    weight: Scalar = 0.5
    name: str = "a"


@types.spec
class Outer:
    inner: Inner = Inner()
    either: Inner | Array = Inner(weight=2.0)
    count: int = 3
    size: float = 1.5
    flag: bool = False
    bounds: tuple[float, float] = (0.0, 1.0)
    mask: Array | None = None


def test_floats_arrays_and_specs_are_leaves_and_the_rest_is_not():
    assert Outer.__data_fields__ == ("inner", "either", "size", "mask")
    assert jax.tree.leaves(Outer()) == [0.5, 2.0, 1.5]
    assert len(jax.tree.leaves(Outer(mask=jnp.zeros(3)))) == 4


def test_a_spec_comes_back_whole_from_its_leaves():
    spec = Outer(inner=Inner(weight=7.0, name="b"), count=9, bounds=(-1.0, 2.0))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, spec)
    assert doubled.inner == Inner(weight=14.0, name="b")
    assert (doubled.count, doubled.bounds, doubled.size, doubled.mask) == (9, (-1.0, 2.0), 3.0, None)


def test_changing_data_keeps_the_program_and_changing_a_static_field_makes_a_new_one():
    @jax.jit
    @chex.assert_max_traces(n=2)
    def scaled(spec):
        return spec.count * spec.size * spec.inner.weight

    assert scaled(Outer()) == 2.25
    assert scaled(Outer(size=3.0, inner=Inner(weight=0.25))) == 2.25
    assert scaled(Outer(size=5.0, inner=Inner(weight=1.0))) == 15.0
    assert scaled(Outer(count=4)) == 3.0
    with pytest.raises(AssertionError, match="traced"):
        scaled(Outer(inner=Inner(name="b")))


@types.spec
class Twin:
    weight: Scalar = 0.5
    name: str = "a"


def test_specs_of_two_classes_are_two_structures_though_all_their_fields_agree():
    """Seen: the map of another method, returned by a function of specs that had compiled both."""
    assert jax.tree.structure(Inner()) != jax.tree.structure(Twin())
    assert jax.tree.structure(Outer()) != jax.tree.structure(Outer(inner=Twin()))
    assert jax.tree.structure(Inner()) == jax.tree.structure(Inner(weight=3.0))


def test_the_path_of_a_leaf_is_its_field():
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(Outer())]
    assert paths == [".inner.weight", ".either.weight", ".size"]


def test_vmap_over_a_leaf():
    sizes = jnp.array([1.0, 2.0, 4.0])
    values = jax.vmap(lambda size: Outer(size=size).size * Outer().inner.weight)(sizes)
    np.testing.assert_array_equal(values, [0.5, 1.0, 2.0])
    axes = dataclasses.replace(jax.tree.map(lambda _: None, Outer()), size=0)
    stacked = jax.vmap(lambda spec: spec.size * spec.inner.weight, in_axes=(axes,))(Outer(size=sizes))
    np.testing.assert_array_equal(stacked, [0.5, 1.0, 2.0])


def test_gradient_with_respect_to_a_spec():
    gradient = jax.grad(lambda spec: spec.size**2 * spec.inner.weight)(Outer(size=3.0))
    assert (gradient.size, gradient.inner.weight, gradient.either.weight) == (3.0, 9.0, 0.0)


def test_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Inner().weight = 1.0
    with pytest.raises(TypeError, match="positional"):
        Inner(1.0)


def test_is_spec():
    assert types.is_spec(Inner) and types.is_spec(Inner())
    assert not types.is_spec(0.5) and not types.is_spec(dict) and not types.is_spec(np.zeros(2))
