"""Examples of a batch, one by one: trees whose leaves have the batch axis first."""

from typing import Any

import jax
import jax.numpy as jnp

from robust_saliency.types import Array


def choose(which: Array, these: Any, others: Any) -> Any:
    """The rows of ``these`` where ``which [B]`` is true, and of ``others``, a tree of the same shapes, elsewhere."""

    def chosen(this: Array, other: Array) -> Array:
        return jnp.where(which.reshape((-1,) + (1,) * (this.ndim - 1)), this, other)

    return jax.tree.map(chosen, these, others)
