"""An average of the weights along training, which is often more robust than the last of them."""

from typing import Any

import jax
import jax.numpy as jnp

from robust_saliency.types import Array, Scalar


def updated(average: Any, params: Any, step: Array, decay: Scalar) -> Any:
    """``d average + (1 - d) params`` with ``d = min(decay, (1 + t) / (10 + t))``, t the steps done before.

    The early rise of d keeps the random start out. Source: reference code of Gowal et al. 2020 (2010.03593).
    """
    step = jnp.asarray(step, jnp.float32)
    rate = jnp.minimum(decay, (1 + step) / (10 + step))

    def moved(mean, value):
        # Not the sum as it is written above: rounding would let a parameter that never changes drift.
        return (mean + (1 - rate) * (value - mean)).astype(value.dtype)

    return jax.tree.map(moved, average, params)
