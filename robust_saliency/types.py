"""Types that every part of the library shares: array aliases, call signatures, and what a spec is.

A *spec* is the frozen, keyword-only description of a method: ``attacks.PGD`` describes what ``attacks.pgd`` does.
Its fields annotated :data:`Scalar`, ``jax.Array`` or another spec are *data*: pytree leaves, so that changing an
epsilon neither recompiles a program nor prevents ``vmap`` over it. All other fields (counts, names, bounds) are
*static*: part of the compiled program.
"""

import dataclasses
import types as _types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, dataclass_transform

import jax

Array = jax.Array
Scalar = float | Array
Images = Array  # float [B, H, W, C] in [0, 1]
Labels = Array  # int32 [B]
Maps = Array  # float [B, H, W], or [B, H, W, C] when the channels are kept
Key = Array  # one key, or a key array [B] with one key an example
Batch = Mapping[str, Array]

LogitsFn = Callable[[Images], Array]  # [B, H, W, C] -> [B, K]
LossFn = Callable[[Images], Array]  # [B, H, W, C] -> [B], which attacks maximise
SaliencyFn = Callable[[Key, Images, Labels], Maps]


class Attack(Protocol):
    """Maximises ``loss_fn`` over the threat model of ``spec``; returns images of the same shape and dtype."""

    def __call__(self, loss_fn: LossFn, key: Key, images: Images, spec: Any) -> Images: ...


class Saliency(Protocol):
    """Explains ``logits_fn`` at ``labels``; returns maps ``[B, H, W]`` (``[B, H, W, C]`` with channels='none')."""

    def __call__(self, logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: Any) -> Maps: ...


Spec = TypeVar("Spec")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def spec(cls: type[Spec]) -> type[Spec]:
    """Makes ``cls`` a frozen keyword-only dataclass and a pytree whose leaves are its data fields."""
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    data = [name for name in names if _is_data(hints[name])]
    static = [name for name in names if name not in data]
    _register(cls, tuple(data), tuple(static))
    cls.__data_fields__ = tuple(data)
    return cls


def _register(cls: type, data: tuple[str, ...], static: tuple[str, ...]) -> None:
    """Makes ``cls`` a pytree, whose structure is equal to that of no other class.

    ``jax.tree_util.register_dataclass`` will not do: to it two classes with the same fields are one structure (jax
    0.10), of different hashes, so that once in a hundred processes jit answers with the program of the other.
    """

    def flatten(spec):
        return tuple(getattr(spec, name) for name in data), tuple(getattr(spec, name) for name in static)

    def flatten_with_keys(spec):
        return tuple((jax.tree_util.GetAttrKey(name), getattr(spec, name)) for name in data), flatten(spec)[1]

    def unflatten(values, leaves):
        # Without __init__: the leaves may be of any kind, and were checked when the spec was made.
        spec = object.__new__(cls)
        for name, value in zip(data + static, (*leaves, *values), strict=True):
            object.__setattr__(spec, name, value)
        return spec

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)


def is_spec(value: Any) -> bool:
    """True for a spec class and for an instance of one."""
    return hasattr(value, "__data_fields__")


def _is_data(hint: Any) -> bool:
    if typing.get_origin(hint) in (typing.Union, _types.UnionType):
        return any(_is_data(part) for part in typing.get_args(hint))
    return hint is float or hint is Array or is_spec(hint)
