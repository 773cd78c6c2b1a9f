"""Which parameters are trained: chosen by patterns on their names."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import optax

TRAINED, FROZEN = "trained", "frozen"


def name(path: tuple) -> str:
    """'params/conv1/kernel' for a path of keys."""
    return "/".join(str(getattr(entry, "key", entry)) for entry in path)


def labels(params: Any, patterns: Sequence[str], where: str = "config.train.trainable") -> Any:
    """'trained' or 'frozen' for every parameter. patterns: regular expressions on 'params/...'; none trains all.

    Raises ValueError for a pattern that matches no parameter, with the names of the blocks that there are; where: the
    field that holds the patterns.
    """
    names = [f"params/{name(path)}" for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern in patterns:
        if not any(re.search(pattern, each) for each in names):
            blocks = ", ".join(dict.fromkeys("/".join(each.split("/")[:2]) for each in names))
            raise ValueError(f"{where}: {pattern!r} matches no parameter. Parameters lie in {blocks}.")
    chosen = [not patterns or any(re.search(pattern, each) for pattern in patterns) for each in names]
    return jax.tree.unflatten(jax.tree.structure(params), [TRAINED if one else FROZEN for one in chosen])


def only(transformation: optax.GradientTransformation, patterns: Sequence[str]) -> optax.GradientTransformation:
    """``transformation`` of the trained parameters alone; the others stay as they are, bit by bit."""
    if not patterns:
        return transformation
    rules = {TRAINED: transformation, FROZEN: optax.set_to_zero()}
    return optax.multi_transform(rules, lambda params: labels(params, patterns))


def trained_leaves(params: Any, patterns: Sequence[str]) -> list:
    """The leaves that are trained."""
    chosen = jax.tree.leaves(labels(params, patterns))
    return [leaf for leaf, label in zip(jax.tree.leaves(params), chosen, strict=True) if label == TRAINED]
