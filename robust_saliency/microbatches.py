"""Gradient accumulation: a large batch in parts, one after the other, for the memory of one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from robust_saliency.types import Array


def accumulated(function: Callable, model_state: Any, batch: dict, parts: int) -> tuple[Any, Any]:
    """``(means, model_state)`` of ``function(model_state, part, number) -> (values, model_state)`` over ``parts`` parts
    of ``batch``.

    The means of losses, gradients and metrics that are means over examples are those of the whole batch. Part p has the
    rows p, p + parts, ...: of each device as many, so that no row changes its device.
    """

    def split(rows: Array) -> Array:
        return rows.reshape(rows.shape[0] // parts, parts, *rows.shape[1:]).swapaxes(0, 1)

    def add(so_far, part):
        total, model_state = so_far
        values, model_state = function(model_state, *part)
        return (jax.tree.map(jnp.add, total, values), model_state), None

    rows = jax.tree.map(split, batch)
    first = jax.tree.map(lambda leaf: leaf[0], rows)
    shapes, _ = jax.eval_shape(function, model_state, first, jnp.int32(0))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (total, model_state), _ = jax.lax.scan(add, (zeros, model_state), (rows, jnp.arange(parts)))
    return jax.tree.map(lambda leaf: leaf / parts, total), model_state
